//! Base files: where a patch's old bytes come from.
//!
//! A tar-diff names files by their path in the merged root file system of the
//! base image. [`SourceFiles`] answers such a path with one or more candidates;
//! all reads are positional, so workers share files without cursor state.

pub mod path;

mod layer;
mod layered;
mod rootfs;
mod tar_index;

use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::Arc;

use crate::digest::LayerHasher;
use crate::error::Result;
pub use layer::LayerSource;
#[cfg(feature = "composefs")]
pub(crate) use layer::{BaseLayer, LoadedLayer};
pub use layered::LayeredFiles;
pub use path::SourcePath;
pub use rootfs::RootfsFiles;
#[cfg(feature = "composefs")]
pub(crate) use tar_index::{FileNode, LayerIndex, Node};

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

    /// Looks again at what was opened, after a layer came out wrong, where damage can be told.
    ///
    /// # Errors
    /// [`Kind::Verification`](crate::error::Kind::Verification), naming the file that is damaged.
    fn check_opened(&self) -> Result<()> {
        Ok(())
    }
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

    /// The name under which the store of this base keeps the content, if it has one.
    fn object(&self) -> Option<&[u8]> {
        None
    }
}

/// Takes a layer tar, and is told where it repeats base files.
pub trait LayerWrite: Write {
    /// Announces that the next [`SourceFile::size`] bytes written are the whole
    /// of `file`; a store that has it need not keep it again.
    fn begin_file(&mut self, _file: &dyn SourceFile) {}
}

impl LayerWrite for Vec<u8> {}

impl LayerWrite for io::Sink {}

impl<W: LayerWrite + ?Sized> LayerWrite for Box<W> {
    fn begin_file(&mut self, file: &dyn SourceFile) {
        (**self).begin_file(file);
    }
}

impl<W: LayerWrite> LayerWrite for LayerHasher<W> {
    fn begin_file(&mut self, file: &dyn SourceFile) {
        self.inner_mut().begin_file(file);
    }
}
