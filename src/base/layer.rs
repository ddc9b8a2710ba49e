//! One layer of the base image, as its store keeps it.

use std::fmt::Debug;
use std::io;

use super::tar_index::LayerIndex;
use super::tar_walk::FileNode;
use super::{SourceFile, SourcePath};
use crate::cancel::Cancel;
use crate::digest::{DiffId, LayerHasher};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;
use crate::spool::Spool;

/// A layer whose table of contents can be read.
pub trait BaseLayer: Send + Sync + Debug {
    /// Digest of its plain tar.
    fn diff_id(&self) -> &DiffId;

    /// Reads the table of contents.
    ///
    /// # Errors
    /// When the layer is damaged.
    fn load(&self) -> Result<Box<dyn LoadedLayer>>;
}

/// A layer whose table of contents was read.
pub trait LoadedLayer: Send + Sync + Debug {
    /// All its paths.
    fn index(&self) -> &LayerIndex;

    /// Opens the content of a file that was found at `path`.
    ///
    /// # Errors
    /// When it is not there any more.
    fn open(&self, path: &SourcePath, file: &FileNode) -> Result<SourceFile>;

    /// Its plain tar, readable at any place.
    ///
    /// # Errors
    /// When it is damaged, or cannot be had.
    fn tar(&self) -> Result<Region>;

    /// Looks whether a file's content is still what the layer says, where that can be told.
    ///
    /// # Errors
    /// Verification when it is not.
    fn check(&self, _path: &SourcePath, _file: &FileNode) -> Result<()> {
        Ok(())
    }
}

/// Bytes written at once to a spool file.
const SPOOL_CHUNK: usize = 1 << 20;

/// A layer of the base image.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// Digest of its plain tar.
    pub diff_id: DiffId,
    /// Its blob: a plain tar is read in place, a compressed one is spooled when needed.
    pub blob: Region,
}

impl LayerBlob {
    /// The plain tar: the blob itself, or its content of at most `max` bytes in `spool`, whose diff_id was
    /// checked on the way.
    ///
    /// # Errors
    /// Verification when the blob is damaged or too large; local I/O errors; Interrupted.
    pub fn unpack(&self, spool: &Spool, max: u64, cancel: &Cancel) -> Result<Region> {
        let mut head = [0; encoding::HEAD];
        let n = self.blob.read_at(&mut head, 0).at("layer")?;
        if !encoding::is_compressed(&head[..n]) {
            return Ok(self.blob.clone());
        }
        let dir = spool.dir().display();
        let spooled = spool.begin().at(&dir)?;
        let mut writer = LayerHasher::new(io::BufWriter::with_capacity(SPOOL_CHUNK, spooled), max);
        let mut plain =
            encoding::decompress(cancel.watch(self.blob.reader()), encoding::MAX_WINDOW_LOG).at("layer")?;
        io::copy(&mut plain, &mut cancel.watch(&mut writer)).at(&dir)?;
        let (writer, _) = writer.finish(&self.diff_id)?;
        let spooled = writer.into_inner().map_err(|e| Error::from_io(e.into_error(), &dir))?;
        Ok(spooled.into_region())
    }
}

/// How compressed layers are unpacked.
#[derive(Debug, Clone)]
pub struct Unpacking {
    /// Where to.
    pub spool: Spool,
    /// Most bytes of a layer's tar.
    pub max_layer: u64,
    /// Ends it.
    pub cancel: Cancel,
}

/// A layer that is a tar, plain or compressed.
#[derive(Debug)]
pub struct TarLayer {
    source: LayerBlob,
    unpacking: Unpacking,
}

#[derive(Debug)]
struct LoadedTar {
    tar: Region,
    index: LayerIndex,
}

impl TarLayer {
    /// Of this blob, which is unpacked when its files are wanted.
    pub fn new(source: LayerBlob, unpacking: &Unpacking) -> Self {
        TarLayer { source, unpacking: unpacking.clone() }
    }
}

impl BaseLayer for TarLayer {
    fn diff_id(&self) -> &DiffId {
        &self.source.diff_id
    }

    fn load(&self) -> Result<Box<dyn LoadedLayer>> {
        let Unpacking { spool, max_layer, cancel } = &self.unpacking;
        let tar = self.source.unpack(spool, *max_layer, cancel)?;
        let index = LayerIndex::read(&tar)?;
        Ok(Box::new(LoadedTar { tar, index }))
    }
}

impl LoadedLayer for LoadedTar {
    fn index(&self) -> &LayerIndex {
        &self.index
    }

    fn open(&self, path: &SourcePath, file: &FileNode) -> Result<SourceFile> {
        let content = self.tar.slice(file.offset, file.size);
        Ok(SourceFile::new(path.clone(), content))
    }

    fn tar(&self) -> Result<Region> {
        Ok(self.tar.clone())
    }
}
