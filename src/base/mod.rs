//! Base files: where a patch's old bytes come from.
//!
//! A tar-diff names files by their path in the merged root file system of the
//! base image. [`SourceFiles`] answers such a path with one or more candidates;
//! all reads are positional, so workers share files without cursor state.

pub mod path;

mod blocks;
mod inside;
mod layer;
mod layered;
mod rootfs;
mod tar_index;
mod tar_walk;
mod tree;
mod view;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::digest::DiffId;
use crate::error::{Error, IoContext, Result};
use crate::region::{Frozen, Region};
pub use blocks::Blocks;
pub use inside::{Holder, Inside};
pub use layer::LayerBlob;
#[doc(hidden)]
pub use layer::{BaseLayer, LoadedLayer, TarLayer, Unpacking};
pub(crate) use layered::etc_twin;
pub use layered::{LayeredFiles, Source};
pub use path::SourcePath;
pub use rootfs::RootfsFiles;
#[doc(hidden)]
pub use tar_index::LayerIndex;
#[doc(hidden)]
pub use tar_walk::{FileNode, Node};
pub use view::{ROUNDS, View};

/// Old files by path, shared by all layer workers.
pub trait SourceFiles: Send + Sync + Debug {
    /// Opens the regular file at `path`.
    ///
    /// `round` 0 asks for the likeliest version of the file. A higher round asks for another
    /// one where the base has two (a producer may have meant a shadowed file): 1 for the other of
    /// each, 2 for those of the producer's view, 3 for those of the merged view. Where there is
    /// only one, the same file comes back.
    ///
    /// # Errors
    /// [`Kind::Misfit`](crate::error::Kind::Misfit) when the base has no such regular file.
    fn open(&self, path: &SourcePath, round: u32) -> Result<OpenedFile>;

    /// The plain tar of one of the base's layers, readable at any place.
    ///
    /// # Errors
    /// [`Kind::Misfit`](crate::error::Kind::Misfit) where there are only files, or no such layer.
    fn layer(&self, diff_id: &DiffId) -> Result<Arc<SourceFile>> {
        Err(Error::misfit(format!("the base has only files, and layer {diff_id} is wanted")))
    }

    /// What is in a compressed stretch of one of the base's layers, readable at any place.
    ///
    /// # Errors
    /// As [`layer`](Self::layer); Misfit, too, where the layer has no such stretch, and Verification where it is broken.
    fn inside(&self, inside: &Arc<Inside>) -> Result<Arc<SourceFile>> {
        let holder = Holder::Inside(inside.clone());
        Err(Error::misfit(format!("the base has only files, and {holder} is wanted")))
    }

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
    pub file: Arc<SourceFile>,
    /// Whether another round would give another file for this path.
    pub doubt: Doubt,
}

/// Which of a path's candidates in the base is the likelier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// There is only one.
    None,
    /// That of the true root file system, not the one that the reference generator sees.
    MergedIsLikelier,
    /// That of the reference generator, as it cannot have meant the true one.
    ProducerIsLikelier,
}

impl Doubt {
    /// Which candidate a round takes: the likelier one, or the other?
    fn takes_other(self, round: u32) -> bool {
        match self {
            Doubt::None => false,
            Doubt::MergedIsLikelier => matches!(round, 1 | 2),
            Doubt::ProducerIsLikelier => matches!(round, 1 | 3),
        }
    }
}

/// One old file, readable at any position.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// For messages.
    path: SourcePath,
    content: Region,
    /// Under which name the store of this base keeps the content as a whole, if it does. Then it never changes.
    object: Option<Arc<str>>,
}

/// The whole content of an old file.
#[derive(Debug)]
pub enum Held {
    /// In memory.
    Read(Vec<u8>),
    /// In the page cache only.
    Mapped(memmap2::Mmap),
}

impl std::ops::Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Held::Read(bytes) => bytes,
            Held::Mapped(map) => map,
        }
    }
}

impl SourceFile {
    /// A file with this content; the path is for messages.
    pub fn new(path: SourcePath, content: Region) -> Self {
        SourceFile { path, content, object: None }
    }

    /// One that its store keeps as the object of this name, and never changes.
    #[cfg(feature = "composefs")]
    pub(crate) fn of_object(path: SourcePath, content: Region, name: Arc<str>) -> Self {
        SourceFile { path, content, object: Some(name) }
    }

    /// The name of the store's object that has the same content, if there is one.
    pub fn object(&self) -> Option<&Arc<str>> {
        self.object.as_ref()
    }

    /// Its bytes.
    pub fn content(&self) -> &Region {
        &self.content
    }

    /// Size in bytes, when it was opened.
    pub fn size(&self) -> u64 {
        self.content.len()
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Misfit when the file ends before `buf` is full: it is not the one the
    /// delta was made for. Local I/O errors.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.content.read_exact_at(buf, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::misfit(format!(
                "base file {} ends early: {} bytes were wanted from {offset}",
                self.path,
                buf.len()
            )),
            _ => Error::from_io(e, format!("base file {}", self.path)),
        })
    }

    /// All of it: mapped where the store never changes it, else read. The caller
    /// has checked the size.
    ///
    /// # Errors
    /// As [`read_exact_at`](Self::read_exact_at).
    pub fn held(&self) -> Result<Held> {
        if self.object.is_some() && self.size() > 0 {
            return Frozen::promised(self.content.clone())
                .map()
                .map(Held::Mapped)
                .at(format_args!("base file {}", self.path));
        }
        let mut content = vec![0; self.size() as usize];
        self.read_exact_at(&mut content, 0)?;
        Ok(Held::Read(content))
    }
}

/// A regular file in a layer tar.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its path.
    pub path: SourcePath,
    /// Where its content begins in the tar.
    pub offset: u64,
    /// Size of the content in bytes.
    pub size: u64,
}

/// What an entry of a layer tar is said to be: the blocks before its content, extension records included.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Its path.
    pub path: SourcePath,
    /// Where these blocks are in the tar.
    pub range: Range<u64>,
}

/// The headings of a plain layer tar, in its order.
///
/// # Errors
/// Verification when it is no sound tar.
pub fn headings(tar: &Region) -> Result<Vec<Heading>> {
    let mut found = Vec::new();
    tar_walk::walk(tar, |path, _, range| found.push(Heading { path, range }))?;
    Ok(found)
}

/// The regular files with content in a plain layer tar, in its order.
///
/// # Errors
/// Verification when it is no sound tar.
pub fn members(tar: &Region) -> Result<Vec<Member>> {
    let mut found = Vec::new();
    tar_walk::walk(tar, |path, node, _| {
        if let tar_walk::Node::File(file) = node
            && file.size > 0
        {
            found.push(Member { path, offset: file.offset, size: file.size });
        }
    })?;
    Ok(found)
}
