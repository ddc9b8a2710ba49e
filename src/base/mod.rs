//! Base files: where a patch's old bytes come from.
//!
//! A tar-diff names files by their path in the merged root file system of the
//! base image. [`SourceFiles`] answers such a path with one or more candidates;
//! all reads are positional, so workers share files without cursor state.

pub mod path;

mod layered;
mod rootfs;
mod tar_index;

use std::fmt::Debug;
use std::sync::Arc;

use crate::error::Result;
pub use layered::{LayerSource, LayeredFiles};
pub use path::SourcePath;
pub use rootfs::RootfsFiles;

/// Old files by path, shared by all layer workers.
pub trait SourceFiles: Send + Sync + Debug {
    /// Opens the regular file at `path`.
    ///
    /// `attempt` 0 asks for the likeliest version of the file. A higher attempt
    /// asks for another one where the base has several (a producer may have
    /// meant a shadowed file); where it has only one, the same file comes back.
    ///
    /// # Errors
    /// [`Kind::Misfit`](crate::error::Kind::Misfit) when the base has no such regular file.
    fn open(&self, path: &SourcePath, attempt: u32) -> Result<OpenedFile>;
}

/// What [`SourceFiles::open`] found.
#[derive(Debug, Clone)]
pub struct OpenedFile {
    /// The file.
    pub file: Arc<dyn SourceFile>,
    /// Another attempt would give other bytes for this path.
    pub ambiguous: bool,
}

/// One old file, readable at any position.
pub trait SourceFile: Send + Sync + Debug {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Misfit when the file ends before `buf` is full; local I/O errors.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
}
