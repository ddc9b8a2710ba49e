//! Options of `create`, and those of the reference tool that it takes as well.

use std::path::PathBuf;

use clap::Args;

use super::apply::LogArgs;
use super::{LimitArgs, PlaceArgs, parse_size};
use crate::create::{Options, PatchKinds, Preset, User};
use crate::exact::Exact;
use crate::tardiff::Version;

const IMAGE_HELP: &str = "\
Image that machines have: oci:DIR[:NAME], oci-archive:FILE[:NAME], dir:DIR, docker://HOST/REPO[:TAG|@DIGEST], \
a bare path, or the name of an image in the repository";

const OUTPUT_HELP: &str = "\
Where the delta goes: oci:DIR[:NAME], oci-archive:FILE[:NAME], a bare path (an archive), or docker://HOST/REPO:TAG";

/// What to make a delta of, and how.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Image that machines have
    #[arg(value_name = "OLD", help = IMAGE_HELP)]
    pub old: String,

    /// Image that they shall get
    #[arg(value_name = "NEW")]
    pub new: String,

    /// Where the delta goes
    #[arg(value_name = "OUT", help = OUTPUT_HELP)]
    pub output: String,

    /// How much effort to spend
    #[arg(long, value_enum, default_value = "default", value_name = "EFFORT", help_heading = "Delta")]
    pub preset: Preset,

    /// zstd level of the patches, 1 to 22 [default: 6, 10 or 19, by preset]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(i32).range(0..=22), help_heading = "Delta")]
    pub compression_level: i32,

    /// Format of the patches; every applier reads v1, extended ones are smaller and for our own fetch [default: both]
    #[arg(long, value_enum, value_name = "VERSION", help_heading = "Delta")]
    pub format: Option<Format>,

    /// Note how layers are made exactly as they were published: where that can be found (auto), or fail (require),
    /// or never (off)
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = "Delta")]
    pub exact: Exact,

    /// Who applies the delta, which says what of the old image it can read
    #[arg(long = "for", value_enum, default_value = "auto", value_name = "WHOM", help_heading = "Delta")]
    pub user: User,

    /// Take along a cosign signature of the new image (an artifact in a layout); may be repeated
    #[arg(long, value_name = "REF", help_heading = "Delta")]
    pub signature: Vec<String>,

    /// Memory to use beside mapped files; a suffix K, M, G or T is allowed
    #[arg(long, value_name = "BYTES", default_value = "512M", value_parser = parse_size, help_heading = "Limits")]
    pub memory: u64,

    /// Print the account of layers and bytes, as oci-delta does
    #[arg(short, long, help_heading = "Output")]
    pub statistics: bool,

    /// For callers of oci-delta: zstd and auto mean --format v2
    #[arg(long, hide = true, value_name = "METHOD", value_parser = ["bsdiff", "zstd", "auto"])]
    pub binary_diff: Option<String>,

    /// For callers of oci-delta; without effect, as there is no such limit
    #[arg(long, hide = true, value_name = "MIB")]
    pub max_bsdiff_size: Option<u64>,

    /// For callers of oci-delta; without effect
    #[arg(long, hide = true, value_name = "MIB")]
    pub max_zstd_diff_size: Option<u64>,

    /// For callers of oci-delta; without effect
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    pub zstd_diff_level: Option<i32>,

    /// For callers of oci-delta; without effect
    #[arg(long, hide = true, value_name = "MIB")]
    pub zstd_diff_window: Option<u64>,

    /// What callers of oci-delta say.
    #[command(flatten)]
    pub log: LogArgs,

    /// How images in registries are reached.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Bounds.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl CreateArgs {
    /// How the delta is made, with files without a name in `spool`.
    pub fn options(&self, spool: PathBuf) -> Options {
        Options {
            preset: self.preset,
            level: Some(self.compression_level).filter(|level| *level > 0),
            patches: match (self.format, self.binary_diff.as_deref()) {
                (Some(Format::V2), _) | (None, Some("zstd" | "auto")) => PatchKinds::Standard(Version::V2),
                (Some(Format::V1), _) | (None, Some(_)) => PatchKinds::Standard(Version::V1),
                (Some(Format::Extended), _) => PatchKinds::Extended,
                (Some(Format::Both) | None, _) => PatchKinds::Both,
            },
            jobs: self.place.threads(),
            memory: self.memory,
            max_layer: self.limits.max_layer_size,
            spool,
            exact: self.exact,
            user: self.user,
            notes: None,
            signatures: Vec::new(),
        }
    }
}

/// Format of the patches in a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// tardf1, which every applier reads
    V1,
    /// tardf2, with dictionary frames where they are smaller
    V2,
    /// Extended patches, which read the layers of the old image and what is compressed in them
    Extended,
    /// tardf1, and extended patches beside it where they are smaller
    Both,
}
