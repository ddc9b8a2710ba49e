//! Options of `apply` and `import`.

use std::path::PathBuf;

use clap::Args;

use super::fetch::ostree;
use super::trust::TrustArgs;
use super::{LimitArgs, PlaceArgs, parse_reference};
use crate::engine::apply::{ApplyRequest, Storage};
use crate::engine::request::BaseChoice;
use crate::error::Result;
use crate::exact::Exact;
use crate::reference::Reference;

const DELTA_HELP: &str =
    "Delta: oci:DIR[:NAME], oci-archive:FILE[:NAME], a bare path, or docker://HOST/REPO[:TAG|@DIGEST]";

const OUTPUT_HELP: &str =
    "Where the image goes: oci:DIR[:NAME], oci-archive:FILE[:NAME], or a bare path (an archive)";

/// What to apply, and where to.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Delta
    #[arg(value_name = "DELTA", help = DELTA_HELP)]
    pub delta: String,

    /// Where the image goes
    #[arg(value_name = "OUT", help = OUTPUT_HELP)]
    pub output: String,

    /// Where the old files are.
    #[command(flatten)]
    pub source: SourceArgs,

    /// How it is applied.
    #[command(flatten)]
    pub how: ApplyingArgs,
}

/// What to import.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Delta
    #[arg(value_name = "DELTA", help = DELTA_HELP)]
    pub delta: String,

    /// Root of the storage [default: this user's, by storage.conf]
    #[arg(long, value_name = "ROOT", help_heading = "Storage")]
    pub container_storage: Option<PathBuf>,

    /// Name of the image in the storage
    #[arg(short, long, value_name = "NAME", help_heading = "Storage")]
    pub tag: Option<String>,

    /// How it is applied.
    #[command(flatten)]
    pub how: ApplyingArgs,
}

/// Where the base of a delta is: one of these.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Base image")]
#[group(multiple = false)]
pub struct SourceArgs {
    /// Unpacked or running root file system of the base image
    #[arg(long, value_name = "DIR", visible_alias = "rootfs")]
    pub directory: Option<PathBuf>,

    /// Root of podman's storage that has the base image
    #[arg(long, value_name = "ROOT")]
    pub container_storage: Option<PathBuf>,

    /// ostree repository that has the base image
    #[arg(long, value_name = "DIR")]
    pub ostree_repo: Option<PathBuf>,

    /// Base image (any REF)
    #[arg(long, value_name = "REF", value_parser = parse_reference)]
    pub base: Option<Reference>,
}

/// How a delta is applied.
#[derive(Debug, Clone, Args)]
pub struct ApplyingArgs {
    /// Make layers exactly as they were published, so that the image keeps its digest: where the delta says how
    /// (auto), or fail (require), or never (off)
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub exact: Exact,

    /// Whose images are taken.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// What callers of oci-delta say.
    #[command(flatten)]
    pub log: LogArgs,

    /// How the delta is reached.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Options that callers of oci-delta give; there is nothing for them to change.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// For callers of oci-delta; without effect
    #[arg(long, hide = true)]
    pub debug: bool,

    /// For callers of oci-delta; without effect
    #[arg(long, hide = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ApplyArgs {
    /// What these arguments ask for `delta`.
    ///
    /// # Errors
    /// Usage.
    pub fn request(&self, delta: Reference) -> Result<ApplyRequest> {
        let SourceArgs { directory, container_storage, ostree_repo, base } = self.source.clone();
        let storage = container_storage.map(|root| Storage { root: Some(root) });
        let base = BaseChoice {
            image: base,
            rootfs: directory,
            ostree: ostree(ostree_repo.as_deref()),
            ..BaseChoice::default()
        };
        self.how.request(delta, base, storage)
    }
}

impl ImportArgs {
    /// What these arguments ask for `delta`.
    ///
    /// # Errors
    /// Usage.
    pub fn request(&self, delta: Reference) -> Result<ApplyRequest> {
        let storage = Storage { root: self.container_storage.clone() };
        self.how.request(delta, BaseChoice::default(), Some(storage))
    }
}

impl ApplyingArgs {
    fn request(&self, delta: Reference, base: BaseChoice, storage: Option<Storage>) -> Result<ApplyRequest> {
        Ok(ApplyRequest {
            delta,
            base,
            storage,
            trust: self.trust.trust()?,
            exact: self.exact,
            place: self.place.options()?,
            limits: self.limits.limits(),
        })
    }
}
