//! Options of `export`, and of `fetch --to`.

use clap::Args;

use super::{LimitArgs, PlaceArgs};
use crate::plan::Reused;

const TO_HELP: &str = "\
Where the image goes: docker://HOST/REPO[:TAG], oci:DIR[:NAME], oci-archive:FILE[:NAME], dir:DIR or containers-storage:[STORE]NAME";

/// The places that an image can be copied to.
const PLACES: [&str; 5] = ["docker://", "oci:", "oci-archive:", "dir:", "containers-storage:"];

/// What to bring out of the repository, and where to.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Image, by name or manifest digest
    #[arg(value_name = "NAME")]
    pub image: String,

    /// Where the image goes.
    #[arg(long, value_name = "PLACE", help = TO_HELP, value_parser = parse_place)]
    pub to: String,

    /// Let the image have another digest where it cannot be made as it was published
    #[arg(long)]
    pub rewrite: bool,

    /// Layers that another image in the repository has, too: for oci: and oci-archive: they may be left out,
    /// where whoever reads the copy has them
    #[arg(long, value_enum, value_name = "HOW", default_value = "keep")]
    pub reused: Reused,

    /// How the destination is reached.
    #[command(flatten)]
    pub destination: PlaceArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Takes the name of a place.
pub(super) fn parse_place(text: &str) -> Result<String, String> {
    match PLACES.iter().find_map(|place| text.strip_prefix(place)) {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("not a place for images, which begins with one of: {}", PLACES.join(", "))),
    }
}
