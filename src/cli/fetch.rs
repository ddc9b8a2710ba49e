//! Options of `fetch`, most of which other commands have as well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::export::parse_place;
use super::trust::TrustArgs;
use super::{parse_expected, parse_reference, parse_repository, parse_size};
use crate::digest::Digest;
use crate::encoding::Encoding;
use crate::engine::export::{ExportRequest, Otherwise};
use crate::engine::outcome::Outcome;
use crate::engine::request::{
    BaseChoice, DeltaPolicy, Deltas, FetchRequest, Limits, OstreeChoice, PlaceOptions, Signatures,
};
use crate::error::{Error, Result};
use crate::exact::Exact;
use crate::plan::Reused;
use crate::platform::Platform;
use crate::proxy::{Credentials, ProxyOptions};
use crate::reference::Reference;
use crate::store::StoreRef;

const REF_HELP: &str = "\
Delta artifact or image: [docker://]HOST/REPO[:TAG|@DIGEST], oci:DIR[:NAME], oci-archive:FILE[:NAME] (FILE - is standard input), dir:DIR or containers-storage:[STORE]NAME";

/// How a place begins that takes signatures.
const REGISTRY: &str = "docker://";

/// What to fetch and how.
#[derive(Debug, Clone, Args)]
pub struct FetchArgs {
    /// Delta artifact or image to bring here.
    #[arg(value_name = "REF", required = true, help = REF_HELP, value_parser = parse_reference)]
    pub reference: Option<Reference>,

    /// Name of the image in the repository [default: the reference it came from]
    #[arg(long, value_name = "NAME", help_heading = "Repository")]
    pub tag: Option<String>,

    /// Make layers exactly as they were published, so that the image keeps its digest: where the delta says how
    /// (auto), or fail (require), or never (off)
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = "Repository")]
    pub exact: Exact,

    /// How other rebuilt layers are kept.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "none",
        help = "Keep rebuilt layers that are not exact compressed: none, gzip[:LEVEL] or zstd[:LEVEL]",
        help_heading = "Repository"
    )]
    pub compress: Encoding,

    /// Copy the image on from the repository, as it was published: to docker://, oci:, oci-archive:, dir: or
    /// containers-storage:
    #[arg(long, value_name = "PLACE", value_parser = parse_place, help_heading = "Repository")]
    pub to: Option<String>,

    /// Layers that another image in the repository has, too: in a copy to oci: or oci-archive: they may be left out,
    /// where whoever reads it has them
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value = "keep",
        requires = "to",
        help_heading = "Repository"
    )]
    pub reused: Reused,

    /// How deltas are used.
    #[command(flatten)]
    pub delta: DeltaArgs,

    /// Whose images are taken.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Fail unless REF leads to this manifest
    #[arg(long, value_name = "DIGEST", value_parser = parse_expected, help_heading = "Source")]
    pub expect_digest: Option<Digest>,

    /// Give up when the whole run takes longer
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Source")]
    pub timeout: Option<u64>,

    /// Show the plan and the exact bytes to download, change nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,

    /// Where the old files are.
    #[command(flatten)]
    pub base: BaseArgs,

    /// How the source is reached.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl FetchArgs {
    /// What these arguments ask for `reference`.
    ///
    /// # Errors
    /// Usage.
    pub fn request(&self, reference: &Reference, repository: &StoreRef) -> Result<FetchRequest> {
        let takes_apart = matches!(repository, StoreRef::Composefs(_));
        if takes_apart && self.compress != Encoding::Plain && !self.dry_run {
            let what = "--compress is for OCI layouts; a composefs repository has its own form";
            return Err(Error::usage(what));
        }
        let BaseArgs { base, rootfs, ostree_repo } = &self.base;
        let elsewhere = base.is_some() || rootfs.is_some() || ostree_repo.is_some();
        if self.reused == Reused::Omit && elsewhere {
            return Err(Error::usage(
                "--reused omit goes by the images in the repository, and the base is elsewhere",
            )
            .with_hint("oci-delta-fetch apply does that"));
        }
        Ok(FetchRequest {
            name: self.tag.clone(),
            expected: self.expect_digest.clone(),
            deltas: self.delta.deltas(),
            base: self.base.choice(),
            trust: self.trust.trust()?,
            signatures: match &self.to {
                Some(to) if to.starts_with(REGISTRY) => Signatures::All,
                _ => Signatures::AsDemanded,
            },
            exact: self.exact,
            encoding: self.compress,
            goes_on: self.to.is_some(),
            place: self.place.options()?,
            limits: self.limits.limits(),
            ..FetchRequest::new(reference.clone(), repository.clone())
        })
    }

    /// What is to be copied on, once that is done. Credentials that were typed are for the source alone.
    ///
    /// # Errors
    /// Usage.
    pub fn export(&self, outcome: &Outcome, repository: &StoreRef) -> Result<Option<ExportRequest>> {
        let (Some(to), Some(manifest)) = (&self.to, &outcome.manifest) else { return Ok(None) };
        let destination = self.place.options()?.skopeo(Platform::host());
        Ok(Some(ExportRequest {
            repository: repository.clone(),
            image: manifest.to_string(),
            to: to.clone(),
            otherwise: Otherwise::Fail,
            reused: self.reused,
            destination: ProxyOptions { creds: None, ..destination },
            max_layer_size: self.limits.max_layer_size,
            recipes: outcome.recipes.clone(),
        }))
    }
}

/// How deltas are found and used.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Delta")]
pub struct DeltaArgs {
    /// Use a delta where it saves bytes (auto), or nothing else (only), or none (never)
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub delta_policy: DeltaPolicy,

    /// Delta to use for REF, instead of searching for one (any REF)
    #[arg(long, value_name = "REF", value_parser = parse_reference)]
    pub delta: Option<Reference>,

    /// Repository in a registry that holds the deltas [default: the image's]
    #[arg(long, value_name = "HOST/REPO", value_parser = parse_repository, conflicts_with = "delta")]
    pub delta_repo: Option<Reference>,
}

impl DeltaArgs {
    /// The same for the engine.
    pub fn deltas(&self) -> Deltas {
        Deltas { policy: self.delta_policy, named: self.delta.clone(), listed_in: self.delta_repo.clone() }
    }
}

/// Where the old files are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Base image")]
pub struct BaseArgs {
    /// Base image that is not in the repository (any REF)
    #[arg(long, value_name = "REF", conflicts_with = "rootfs", value_parser = parse_reference)]
    pub base: Option<Reference>,

    /// Unpacked or running root file system of the base image
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,

    /// ostree repository with base images, as bootc and rpm-ostree keep them [default: /ostree/repo where it is]
    #[arg(long, value_name = "DIR", env = OSTREE_VARIABLE, hide_env_values = true)]
    pub ostree_repo: Option<PathBuf>,
}

/// Names the ostree repository, for whoever cannot be given an option.
pub(super) const OSTREE_VARIABLE: &str = "OCI_DELTA_FETCH_OSTREE_REPO";

/// Where an operating system that is an ostree commit has its repository.
const OSTREE: &str = "/ostree/repo";

impl BaseArgs {
    /// The same for the engine.
    pub fn choice(&self) -> BaseChoice {
        let ostree = ostree(self.ostree_repo.as_deref());
        BaseChoice { image: self.base.clone(), rootfs: self.rootfs.clone(), ostree, ..BaseChoice::default() }
    }
}

/// The ostree repository that is meant: the one of a running system where none is named.
pub(super) fn ostree(named: Option<&Path>) -> OstreeChoice {
    match named {
        Some(path) => OstreeChoice::At(path.to_owned()),
        None => OstreeChoice::IfThere(OSTREE.into()),
    }
}

/// How the source is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Source")]
pub struct PlaceArgs {
    /// Platform to choose from a multi-arch image.
    #[arg(
        long,
        value_name = "PLATFORM",
        help = "Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine's]"
    )]
    pub platform: Option<Platform>,

    /// Registry credentials file [default: skopeo's]
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    pub authfile: Option<PathBuf>,

    /// Registry credentials; they beat --authfile
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,

    /// Directory of certificates for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Require HTTPS and a valid certificate
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub tls_verify: Option<bool>,

    /// registries.conf to use
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,

    /// Accept images that the signature policy does not allow
    #[arg(long)]
    pub insecure_policy: bool,

    /// skopeo to run
    #[arg(long, value_name = "PATH", default_value = "skopeo")]
    pub skopeo: PathBuf,

    /// Times a transient fault is tried again
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retries: u32,

    /// Give up on a transfer that stands still for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub stall_timeout: u64,

    /// Blobs at once [default: 2 from a registry, the number of cores from a local source]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub jobs: Option<u16>,
}

impl PlaceArgs {
    /// The same for the engine.
    ///
    /// # Errors
    /// Usage, for credentials without a colon.
    pub fn options(&self) -> Result<PlaceOptions> {
        let proxy = ProxyOptions {
            skopeo: self.skopeo.clone(),
            authfile: self.authfile.clone(),
            creds: self.creds.as_deref().map(Credentials::parse).transpose()?,
            cert_dir: self.cert_dir.clone(),
            tls_verify: self.tls_verify.unwrap_or(true),
            registries_conf: self.registries_conf.clone(),
            insecure_policy: self.insecure_policy,
            platform: None,
            inactivity_timeout: Duration::from_secs(self.stall_timeout),
            retries: self.retries,
            tmpdir: None,
            ..ProxyOptions::default()
        };
        Ok(PlaceOptions { platform: self.platform.clone(), proxy, jobs: self.jobs() })
    }

    /// Threads that make deltas: as many as were asked for, else one a core.
    pub fn threads(&self) -> usize {
        self.jobs().unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// `0` leaves the number to us.
    fn jobs(&self) -> Option<usize> {
        self.jobs.filter(|n| *n > 0).map(usize::from)
    }
}

/// Bounds that protect against hostile input.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Largest size of a layer, unpacked; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "BYTES", default_value = "64G", value_parser = parse_size)]
    pub max_layer_size: u64,

    /// Largest window of a delta or layer (zstd, LZMA), as a power of two
    #[arg(long, value_name = "LOG", default_value_t = 27, value_parser = clap::value_parser!(u32).range(10..=31))]
    pub max_window_log: u32,
}

impl LimitArgs {
    /// The same for the engine.
    pub fn limits(&self) -> Limits {
        Limits { max_layer_size: self.max_layer_size, max_window_log: self.max_window_log }
    }
}
