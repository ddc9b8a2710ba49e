//! What was typed: the command line as clap sees it. No I/O happens here.

mod create;
mod publish;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use create::{CreateArgs, Format};
pub use publish::{DeltasArgs, PruneArgs, PushArgs};

use crate::digest::{Digest, parse_digest};
use crate::encoding::Encoding;
use crate::platform::Platform;
use crate::progress::Mode;
use crate::reference::Reference;
use crate::store::{Algorithm, StoreRef};

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

  # Make a delta and publish it where it is found
  oci-delta-fetch create registry.example.com/os:1.0 registry.example.com/os:1.1 docker://registry.example.com/os

Exit codes:
  0 done, 1 local failure, 2 usage, 3 the delta does not fit, 4 verification failed,
  5 transient fault, 130 interrupted, 141 closed pipe";

const REF_HELP: &str = "\
Delta artifact or image: [docker://]HOST/REPO[:TAG|@DIGEST], oci:DIR[:NAME], oci-archive:FILE[:NAME] or dir:DIR";

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

impl Cli {
    /// Parses the process's arguments, or ends it with help or a usage error (exit code 2).
    pub fn from_args() -> Self {
        Self::try_from_args(std::env::args_os()).unwrap_or_else(|e| e.exit())
    }

    /// Parses a command line. Options of fetch before another command are refused.
    ///
    /// # Errors
    /// clap's, also for `--help` and `--version`.
    pub fn try_from_args<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
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
    /// Repository: an OCI image layout, or composefs:DIR [default: in the user's data directory]
    #[arg(
        long,
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
    /// Show what a delta or image holds and what it would cost here
    Inspect(Box<InspectArgs>),
    /// Store a delta in a registry so that fetch finds it
    Push(PushArgs),
    /// List the deltas that a registry has for an image
    Deltas(DeltasArgs),
    /// Take superseded deltas off the list for an image
    Prune(PruneArgs),
    /// Make a repository
    Init(InitArgs),
    /// List the images in the repository
    List,
    /// Hash everything in the repository again
    Verify(VerifyArgs),
    /// Remove an image from the repository
    Remove(RemoveArgs),
    /// Delete blobs that no image needs
    Gc(GcArgs),
}

/// What to fetch and how.
#[derive(Debug, Clone, Args)]
pub struct FetchArgs {
    /// Delta artifact or image to bring here.
    #[arg(value_name = "REF", required = true, help = REF_HELP, value_parser = parse_reference)]
    pub reference: Option<Reference>,

    /// Name of the image in the repository [default: the reference it came from]
    #[arg(long, value_name = "NAME", help_heading = "Repository")]
    pub tag: Option<String>,

    /// How rebuilt layers are kept.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "none",
        help = "Keep rebuilt layers compressed: none, gzip[:LEVEL] or zstd[:LEVEL]",
        help_heading = "Repository"
    )]
    pub compress: Encoding,

    /// How deltas are used.
    #[command(flatten)]
    pub delta: DeltaArgs,

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
    pub source: SourceArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl FetchArgs {
    /// Nothing but the source and the bounds given.
    pub fn with(source: SourceArgs, limits: LimitArgs) -> Self {
        FetchArgs {
            reference: None,
            tag: None,
            compress: Encoding::Plain,
            delta: DeltaArgs::default(),
            expect_digest: None,
            timeout: None,
            dry_run: false,
            base: BaseArgs::default(),
            source,
            limits,
        }
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

/// When deltas are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum DeltaPolicy {
    /// Where they save bytes; what they fail to make is fetched whole.
    #[default]
    Auto,
    /// Always; whatever they do not make is an error.
    Only,
    /// Not at all.
    Never,
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
}

/// How the source is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
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

/// Bounds that protect against hostile input.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Largest size of a layer, unpacked; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "BYTES", default_value = "64G", value_parser = parse_size)]
    pub max_layer_size: u64,

    /// Largest zstd window of a delta or layer, as a power of two
    #[arg(long, value_name = "LOG", default_value_t = 27, value_parser = clap::value_parser!(u32).range(10..=31))]
    pub max_window_log: u32,
}

/// What to inspect.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Delta artifact or image
    #[arg(value_name = "REF", value_parser = parse_reference)]
    pub reference: Reference,

    /// Read the whole delta and show, file by file, where its bytes go
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
    pub source: SourceArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
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
    /// Only this image, by name or manifest digest
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
    /// Remove images that have no name, too
    #[arg(long)]
    pub untagged: bool,
}

/// Parses a reference; clap shows one text, so the hint goes into it.
fn parse_reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|e: crate::error::Error| match e.hint() {
        Some(hint) => format!("{e}\nhint: {hint}"),
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
            assert_eq!(fetch.source.jobs, Some(3));
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
