//! Options of the commands about deltas in a registry.

use clap::Args;

use super::{PlaceArgs, parse_reference, parse_repository};
use crate::reference::Reference;

const DELTA_HELP: &str =
    "Delta on this machine: oci:DIR[:NAME], oci-archive:FILE[:NAME], dir:DIR or a bare path";

/// What to push, and where.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// Delta on this machine
    #[arg(value_name = "DELTA", help = DELTA_HELP)]
    pub delta: String,

    /// Repository of the image, docker://HOST/REPO; with a tag the delta gets it as well
    #[arg(value_name = "DESTINATION")]
    pub destination: String,

    /// How the registry is reached.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Of which image.
#[derive(Debug, Clone, Args)]
pub struct DeltasArgs {
    /// Image in a registry
    #[arg(value_name = "REF", value_parser = parse_reference)]
    pub reference: Reference,

    /// Repository that holds the deltas [default: the image's]
    #[arg(long, value_name = "HOST/REPO", value_parser = parse_repository)]
    pub delta_repo: Option<Reference>,

    /// How the registry is reached.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Which deltas go.
#[derive(Debug, Clone, Args)]
pub struct PruneArgs {
    /// Image in a registry
    #[arg(value_name = "REF", value_parser = parse_reference)]
    pub reference: Reference,

    /// Keep only the N last ones of the list; of those from one base only the smallest stays in any case
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,

    /// Show what would go, change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Repository that holds the deltas [default: the image's]
    #[arg(long, value_name = "HOST/REPO", value_parser = parse_repository)]
    pub delta_repo: Option<Reference>,

    /// How the registry is reached.
    #[command(flatten)]
    pub place: PlaceArgs,
}
