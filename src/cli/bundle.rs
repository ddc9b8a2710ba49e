//! Options of `bundle`, `unbundle` and `inventory`.

use std::path::PathBuf;

use clap::Args;

use super::{LimitArgs, PlaceArgs, parse_reference, parse_size};
use crate::create::Preset;
use crate::engine::inventory::Inventoried;
use crate::engine::request::PlaceOptions;
use crate::engine::unbundle::Destination;
use crate::error::Result;
use crate::exact::Exact;
use crate::layout::bundle::Form;
use crate::rate::Rate;
use crate::reference::Reference;
use crate::store::StoreRef;

const TO_HELP: &str = "\
Where the bundle goes: a folder, or an archive whose name ends in .tar. Several parts become folders in it, \
or archives beside it";

const UNBUNDLE_HELP: &str = "\
Where the images go: docker://HOST[/PREFIX], or a repository as for --repo";

/// What to put onto a medium.
#[derive(Debug, Clone, Args)]
pub struct BundleArgs {
    /// Images in registries
    #[arg(value_name = "REF", value_parser = parse_reference, required_unless_present = "from_file")]
    pub images: Vec<Reference>,

    /// Images by a file: one a line, an image set of oc-mirror, or the YAML of skopeo sync; may be repeated
    #[arg(long, value_name = "FILE")]
    pub from_file: Vec<PathBuf>,

    /// Where the bundle goes.
    #[arg(long, value_name = "PATH", help = TO_HELP)]
    pub to: PathBuf,

    /// What the other side has: a file that inventory wrote there
    #[arg(long, value_name = "FILE", help_heading = "What the other side has")]
    pub have: Option<PathBuf>,

    /// The other side has this image; may be repeated
    #[arg(long, value_name = "REF", value_parser = parse_reference, help_heading = "What the other side has")]
    pub since: Vec<Reference>,

    /// Make deltas where none is published
    #[arg(long, help_heading = "Delta")]
    pub create: bool,

    /// How much effort to spend on those
    #[arg(long, value_enum, default_value = "default", value_name = "EFFORT", help_heading = "Delta")]
    pub preset: Preset,

    /// Memory to use for them beside mapped files; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "BYTES", default_value = "512M", value_parser = parse_size, help_heading = "Limits")]
    pub memory: u64,

    /// Cut the bundle into parts of at most so many bytes; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub max_size: Option<u64>,

    /// Leave out signatures, SBOMs and what else points to the images
    #[arg(long)]
    pub without_referrers: bool,

    /// Tell what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// How the images are reached. Without --platform all platforms of an index come along.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// How fast bytes cross the network.
    #[command(flatten)]
    pub rate: RateArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl BundleArgs {
    /// What the parts are.
    pub fn form(&self) -> Form {
        if self.to.extension().is_some_and(|end| end == "tar") { Form::Archive } else { Form::Folder }
    }

    /// How deltas are made, with files without a name in `spool`.
    pub fn options(&self, spool: PathBuf) -> crate::create::Options {
        crate::create::Options {
            preset: self.preset,
            level: None,
            // Whoever unpacks a bundle has the layers of its bases.
            patches: crate::create::PatchKinds::Extended,
            jobs: self.place.threads(),
            memory: self.memory,
            max_layer: self.limits.max_layer_size,
            spool,
            exact: Exact::Auto,
            notes: None,
            signatures: Vec::new(),
            user: crate::create::User::Any,
        }
    }
}

/// What to bring where.
#[derive(Debug, Clone, Args)]
pub struct UnbundleArgs {
    /// A bundle: its folder, the folder of its parts, or an archive
    #[arg(value_name = "BUNDLE")]
    pub bundle: String,

    /// Where the images go.
    #[arg(value_name = "TARGET", help = UNBUNDLE_HELP, value_parser = parse_target)]
    pub target: Target,

    /// Images whose names begin with FROM get names that begin with TO; may be repeated, the first that fits counts
    #[arg(long, value_name = "FROM=TO", value_parser = parse_map)]
    pub map: Vec<(String, String)>,

    /// In a repository on this machine, let images have other digests where they cannot be made as they were published
    #[arg(long)]
    pub rewrite: bool,

    /// Tell what would be brought, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// How the target is reached.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// How fast bytes cross the network.
    #[command(flatten)]
    pub rate: RateArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What to list.
#[derive(Debug, Clone, Args)]
pub struct InventoryArgs {
    /// docker://HOST[/PREFIX], or a repository as for --repo [default: that one]
    #[arg(value_name = "TARGET", value_parser = parse_target)]
    pub target: Option<Target>,

    /// How a registry is reached.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// How fast bytes cross the network.
    #[command(flatten)]
    pub rate: RateArgs,
}

/// How fast bytes cross the network.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct RateArgs {
    /// Bytes a second over the network, both ways together; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit_rate: Option<u64>,
}

impl RateArgs {
    /// How places are reached, no faster than that.
    ///
    /// # Errors
    /// As [`PlaceArgs::options`].
    pub fn options(&self, place: &PlaceArgs) -> Result<PlaceOptions> {
        let mut options = place.options()?;
        options.proxy.rate = self.limit_rate.map(Rate::new);
        Ok(options)
    }
}

fn parse_rate(text: &str) -> std::result::Result<u64, String> {
    match parse_size(text)? {
        0 => Err("nothing would ever come".into()),
        rate => Ok(rate),
    }
}

/// A registry or a part of it, or a repository on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `docker://HOST[/PATH]`.
    Registry {
        /// Host and port.
        host: String,
        /// What stands behind it.
        path: String,
    },
    /// As for `--repo`.
    Repository(StoreRef),
}

impl Target {
    /// As a place that images go to.
    pub fn destination(&self) -> Destination {
        match self.clone() {
            Target::Registry { host, path } => Destination::Registry { host, prefix: path },
            Target::Repository(repository) => Destination::Repository(repository),
        }
    }

    /// As a place that has images.
    pub fn inventoried(&self) -> Inventoried {
        match self.clone() {
            Target::Registry { host, path } => Inventoried::Registry { host, path },
            Target::Repository(repository) => Inventoried::Repository(repository),
        }
    }
}

fn parse_target(text: &str) -> std::result::Result<Target, String> {
    let Some(rest) = text.strip_prefix("docker://") else {
        return super::parse_store(text).map(Target::Repository);
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    if host.is_empty() || path.contains(['@', ':']) {
        return Err("not docker://HOST[/PREFIX]: tags and digests come from the bundle".into());
    }
    Ok(Target::Registry { host: host.to_owned(), path: path.to_owned() })
}

fn parse_map(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("not FROM=TO".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_registries_or_repositories() {
        let registry = |host: &str, path: &str| Target::Registry { host: host.into(), path: path.into() };
        assert_eq!(parse_target("docker://inner.example/"), Ok(registry("inner.example", "")));
        assert_eq!(parse_target("docker://inner:5000/a/b/"), Ok(registry("inner:5000", "a/b")));
        assert_eq!(parse_target("/some/dir"), Ok(Target::Repository(StoreRef::Layout("/some/dir".into()))));
        for text in ["docker://", "docker://h/a:1", "docker://h/a@sha256:0", ""] {
            assert!(parse_target(text).is_err(), "{text}");
        }
        assert_eq!(parse_map("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_map("a").is_err());
    }
}
