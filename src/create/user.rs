//! Which files of the old image those have who apply the delta.

use crate::artifact::Image;
use crate::base::{Source, SourcePath};

/// Who applies a delta: that says which files of the old image it can read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum User {
    /// As the labels of the old image say
    #[default]
    Auto,
    /// Whoever has the image
    Any,
    /// bootc or rpm-ostree, which keep usr and etc of an image
    Bootc,
}

impl User {
    /// Labels of images that are for bootc, or were made by it.
    const OF_BOOTC: [&str; 3] = ["containers.bootc", "ostree.bootable", "ostree.final-diffid"];

    /// The files of the `old` image that such a user has, under those of their names that it knows.
    pub(super) fn reach(self, old: &Image, mut sources: Vec<Source>) -> Vec<Source> {
        let of_bootc = match self {
            User::Auto => Self::OF_BOOTC.iter().any(|label| old.labels.contains_key(*label)),
            User::Any => false,
            User::Bootc => true,
        };
        if of_bootc {
            let is_kept =
                |name: &SourcePath| [&b"usr/"[..], b"etc/"].iter().any(|d| name.as_bytes().starts_with(d));
            sources.iter_mut().for_each(|source| source.names.retain(is_kept));
            sources.retain(|source| !source.names.is_empty());
            // Their order is that of their first names.
            sources.sort_by(|a, b| a.names.cmp(&b.names));
        }
        sources
    }
}
