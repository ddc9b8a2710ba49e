//! What was typed: the command line as clap sees it. No I/O happens here.

mod apply;
mod bundle;
mod create;
mod export;
pub mod failure;
mod fetch;
mod oci_delta;
mod publish;
mod serve;
mod trust;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use apply::{ApplyArgs, ImportArgs, SourceArgs};
pub use bundle::{BundleArgs, InventoryArgs, UnbundleArgs};
pub use create::{CreateArgs, Format};
pub use export::ExportArgs;
pub use fetch::{BaseArgs, DeltaArgs, FetchArgs, LimitArgs, PlaceArgs};
pub use publish::{DeltasArgs, PruneArgs, PushArgs};
pub use serve::ServeArgs;
pub use trust::TrustArgs;

use crate::digest::{Digest, parse_digest};
use crate::engine::request::OstreeChoice;
use crate::reference::Reference;
use crate::store::{Algorithm, StoreRef};
use crate::terminal::Mode;

const REPO_HELP: &str = "\
Repository: an OCI image layout, composefs:DIR or podman's containers-storage:[STORE] [default: in the user's data directory]";

const EXAMPLES: &str = "\
Examples:
  # Bring an image here: by the cheapest delta from what is here, else whole
  oci-delta-fetch registry.example.com/os:1.1

  # Apply a certain delta; the result is tagged os:1.1
  oci-delta-fetch registry.example.com/deltas:1.0-to-1.1 --tag registry.example.com/os:1.1

  # The same from a USB stick, with the running system as the base
  oci-delta-fetch oci-archive:/media/usb/update.oci --rootfs /

  # What would it cost?
  oci-delta-fetch inspect registry.example.com/os:1.1

  # Hand the image on to podman, with its publisher's digest
  oci-delta-fetch export registry.example.com/os:1.1 --to containers-storage:registry.example.com/os:1.1

  # Or update the image in podman's storage itself
  oci-delta-fetch --repo containers-storage: registry.example.com/os:1.1

  # Apply a delta for a machine that has the layers which did not change
  oci-delta-fetch apply --directory / update.oci oci:/var/tmp/new

  # Make a delta and publish it where it is found
  oci-delta-fetch create registry.example.com/os:1.0 registry.example.com/os:1.1 docker://registry.example.com/os

Exit codes:
  0 done, 1 local failure, 2 usage, 3 the delta does not fit, 4 verification failed,
  5 transient fault, 130 interrupted, 141 closed pipe";

/// Brings a container or OS image into a local repository by applying a delta to the image already here
#[derive(Debug, Parser)]
#[command(
    name = "oci-delta-fetch",
    version,
    after_help = EXAMPLES,
    override_usage = "oci-delta-fetch [OPTIONS] REF\n       oci-delta-fetch COMMAND [OPTIONS] …",
    subcommand_negates_reqs = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,

    /// Without a command: fetch.
    #[command(flatten)]
    pub fetch: FetchArgs,

    /// Another command.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What was typed, whatever the program is called.
#[derive(Debug)]
pub struct Typed {
    /// Options of every command.
    pub global: GlobalArgs,
    /// The command.
    pub command: Command,
    /// Is the program called as the reference tool? Then it prints and ends as that does.
    pub as_oci_delta: bool,
}

impl Typed {
    /// Parses the process's arguments, or ends it with help or a usage error (exit code 2; 1 as the reference tool).
    pub fn of(args: Vec<OsString>) -> Self {
        if oci_delta::is_meant(args.first()) {
            return oci_delta::parse(args).unwrap_or_else(|e| {
                // Nobody reads what cannot be printed.
                let _ = e.print();
                std::process::exit(i32::from(e.use_stderr()))
            });
        }
        Cli::try_from_args(args).unwrap_or_else(|e| e.exit()).into()
    }

    /// The longest that the command may take.
    pub fn time_limit(&self) -> Option<Duration> {
        match &self.command {
            Command::Fetch(args) => args.timeout.map(Duration::from_secs),
            _ => None,
        }
    }

    /// Does it run until a signal ends it? Then that is no failure.
    pub fn is_server(&self) -> bool {
        matches!(&self.command, Command::Serve(_))
    }
}

impl From<Cli> for Typed {
    fn from(cli: Cli) -> Self {
        let command = cli.command.unwrap_or_else(|| Command::Fetch(Box::new(cli.fetch)));
        Typed { global: cli.global, command, as_oci_delta: false }
    }
}

impl Cli {
    /// Parses a command line. Options of fetch before another command are refused.
    ///
    /// # Errors
    /// clap's, also for `--help` and `--version`.
    pub fn try_from_args<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(args)?;
        if let Some(name) = matches.subcommand_name() {
            let fetch = FetchArgs::augment_args(clap::Command::new("fetch"));
            for arg in fetch.get_arguments().filter(|a| a.get_id() != "help") {
                if matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
                    let message = format!(
                        "--{} does not go before the command {name}",
                        arg.get_long().unwrap_or_default()
                    );
                    return Err(command.error(ErrorKind::ArgumentConflict, message));
                }
            }
        }
        Cli::from_arg_matches(&matches)
    }
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Where images are kept
    #[arg(
        long,
        help = REPO_HELP,
        global = true,
        value_name = "DIR",
        env = "OCI_DELTA_FETCH_REPO",
        hide_env_values = true,
        help_heading = "Repository",
        value_parser = parse_store
    )]
    pub repo: Option<StoreRef>,

    /// Print one JSON object on standard output
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,

    /// Progress on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "HOW",
        help_heading = "Output"
    )]
    pub progress: Mode,

    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,

    /// Print the causes of errors, too
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
}

/// A command other than the default.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring an image here (the default command)
    Fetch(Box<FetchArgs>),
    /// Make a delta between two images
    Create(Box<CreateArgs>),
    /// Apply a delta for a place that has the layers which did not change
    Apply(Box<ApplyArgs>),
    /// Apply a delta to an image in podman's storage
    Import(Box<ImportArgs>),
    /// Show what a delta or image holds and what it would cost here
    Inspect(Box<InspectArgs>),
    /// Copy an image from the repository to another place, as it was published
    Export(Box<ExportArgs>),
    /// Store a delta in a registry so that fetch finds it
    Push(PushArgs),
    /// List the deltas that a registry has for an image
    Deltas(DeltasArgs),
    /// Take superseded deltas off the list for an image
    Prune(PruneArgs),
    /// Be skopeo's image proxy for the client at standard input, with layers from deltas
    ///
    /// Bases are found in the repository and in ostree's. With a composefs repository, images are brought there before
    /// the client asks for their layers. The real skopeo is the next one on PATH, or OCI_DELTA_FETCH_SKOPEO.
    #[command(name = "experimental-image-proxy")]
    ImageProxy(ProxyArgs),
    /// Put what another place lacks of some images onto a medium
    Bundle(Box<BundleArgs>),
    /// Bring the images of a bundle into a registry or repository
    Unbundle(Box<UnbundleArgs>),
    /// List what a registry or repository has, for the side that makes bundles
    Inventory(Box<InventoryArgs>),
    /// Be a mirror of registries for the container engines of this machine
    Serve(Box<ServeArgs>),
    /// Tell what is here, and whether a delta could be used
    Doctor(Box<DoctorArgs>),
    /// Make a repository
    Init(InitArgs),
    /// List what is in the repository
    List,
    /// Hash everything in the repository again
    Verify(VerifyArgs),
    /// Remove an image from the repository
    Remove(RemoveArgs),
    /// Delete blobs that no image needs
    Gc(GcArgs),
}

/// What to inspect.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Delta artifact or image
    #[arg(value_name = "REF", value_parser = parse_reference)]
    pub reference: Reference,

    /// Read the patches that would be taken and show, file by file, where their bytes go
    ///
    /// An extended patch is taken where the layers of its base are, and its files can be told only with them.
    #[arg(long, help_heading = "Output")]
    pub files: bool,

    /// How deltas would be used.
    #[command(flatten)]
    pub delta: DeltaArgs,

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

/// How skopeo is run, and where bases are.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// ostree repository with base images [default: /ostree/repo where it is]
    #[arg(long, value_name = "DIR", env = fetch::OSTREE_VARIABLE, hide_env_values = true)]
    pub ostree_repo: Option<PathBuf>,

    /// Options for skopeo
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

impl ProxyArgs {
    /// The ostree repository that is meant.
    pub fn ostree(&self) -> OstreeChoice {
        fetch::ostree(self.ostree_repo.as_deref())
    }
}

/// What to look at.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Image for which there may be a delta
    #[arg(value_name = "REF", value_parser = parse_reference)]
    pub reference: Option<Reference>,

    /// ostree repository with base images [default: /ostree/repo where it is]
    #[arg(long, value_name = "DIR", env = fetch::OSTREE_VARIABLE, hide_env_values = true)]
    pub ostree_repo: Option<PathBuf>,

    /// How the source is reached.
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl DoctorArgs {
    /// The ostree repository that is meant.
    pub fn ostree(&self) -> OstreeChoice {
        fetch::ostree(self.ostree_repo.as_deref())
    }
}

/// What to make.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// DIR for an OCI image layout, or composefs:DIR [default: the one of --repo]
    #[arg(value_name = "REPO", value_parser = parse_store)]
    pub repository: Option<StoreRef>,

    /// Do not demand fs-verity of a composefs repository's file system
    #[arg(long)]
    pub insecure: bool,

    /// Hash that names the objects of a composefs repository [default: sha512]
    #[arg(long, value_enum, value_name = "HASH")]
    pub algorithm: Option<Algorithm>,
}

/// What to verify.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Only this image, by name or manifest digest; or a bundle, by its path
    #[arg(value_name = "NAME")]
    pub image: Option<String>,
}

/// What to remove.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// Image, by name or manifest digest
    #[arg(value_name = "NAME")]
    pub image: String,
}

/// What to delete.
#[derive(Debug, Clone, Args)]
pub struct GcArgs {
    /// Remove images that have no name, too, but not what belongs to one that stays
    #[arg(long)]
    pub untagged: bool,
}

/// Parses a reference; clap shows one text, so the hint goes into it.
fn parse_reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|e: crate::error::Error| match e.hint() {
        Some(hint) => format!("{e}\nhint: {}", failure::hint(hint)),
        None => e.to_string(),
    })
}

fn parse_repository(text: &str) -> Result<Reference, String> {
    match parse_reference(text)? {
        Reference::Docker { name } if name.digest().is_none() => Ok(Reference::Docker { name }),
        _ => Err("not a repository in a registry, as HOST/REPO".into()),
    }
}

fn parse_expected(text: &str) -> Result<Digest, String> {
    parse_digest(text, "expected digest").map_err(|e| e.to_string())
}

fn parse_store(text: &str) -> Result<StoreRef, String> {
    text.parse().map_err(|e: crate::error::Error| e.to_string())
}

/// Parses a byte count with an optional binary suffix.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no byte count such as 500M or 64G"))?;
    number.checked_shl(shift).filter(|n| n >> shift == number).ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_after_the_reference() {
        for line in [
            vec!["x", "h/r:t", "--jobs", "3", "--repo", "/r"],
            vec!["x", "--repo", "/r", "--jobs", "3", "h/r:t"],
            vec!["x", "--repo", "/r", "fetch", "h/r:t", "--jobs", "3"],
        ] {
            let cli = Cli::try_from_args(&line).unwrap();
            let fetch = match cli.command {
                Some(Command::Fetch(f)) => *f,
                None => cli.fetch,
                _ => panic!("{line:?}"),
            };
            assert!(fetch.reference.is_some());
            assert_eq!(fetch.place.jobs, Some(3));
            assert_eq!(cli.global.repo, Some(StoreRef::Layout("/r".into())));
        }
        assert!(matches!(
            Cli::try_from_args(["x", "--repo", "/r", "list"]).unwrap().command,
            Some(Command::List)
        ));
        assert!(Cli::try_from_args(["x", "--dry-run", "list"]).is_err());
        assert!(Cli::try_from_args(["x"]).is_err());
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(parse_size("5"), Ok(5));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert!(parse_size("99999999T").is_err());
        assert!(parse_size("x").is_err());
        assert!(parse_size("").is_err());
    }
}
