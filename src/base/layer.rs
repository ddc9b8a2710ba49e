//! One layer of the base image, as its store keeps it.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tar_index::{FileNode, LayerIndex};
use super::{SourceFile, SourcePath};
use crate::digest::{DiffId, LayerHasher};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// A layer whose table of contents can be read.
pub(crate) trait BaseLayer: Send + Sync + Debug {
    /// Digest of its plain tar.
    fn diff_id(&self) -> &DiffId;

    /// Reads the table of contents.
    fn load(&self) -> Result<Box<dyn LoadedLayer>>;
}

/// A layer whose table of contents was read.
pub(crate) trait LoadedLayer: Send + Sync + Debug {
    /// All its paths.
    fn index(&self) -> &LayerIndex;

    /// Opens the content of a file; `path` is for messages.
    fn open(&self, path: &SourcePath, file: &FileNode) -> Result<Arc<dyn SourceFile>>;

    /// Looks whether a file's content is still what the layer says, where that can be told.
    fn check(&self, _path: &SourcePath, _file: &FileNode) -> Result<()> {
        Ok(())
    }
}

/// A layer of the base image.
#[derive(Debug, Clone)]
pub struct LayerSource {
    /// Digest of its plain tar.
    pub diff_id: DiffId,
    /// Its blob: a plain tar is read in place, a compressed one is spooled when needed.
    pub blob: Region,
}

/// A layer that is a tar, plain or compressed.
#[derive(Debug)]
pub(super) struct TarLayer {
    source: LayerSource,
    spool: PathBuf,
    max_size: u64,
}

#[derive(Debug)]
struct LoadedTar {
    tar: Region,
    index: LayerIndex,
}

impl TarLayer {
    pub(super) fn new(source: LayerSource, spool: &Path, max_size: u64) -> Self {
        TarLayer { source, spool: spool.to_owned(), max_size }
    }

    /// Unpacks the layer, checking its diff_id on the way.
    fn spool(&self) -> Result<Region> {
        let file: File = tempfile::tempfile_in(&self.spool).at(self.spool.display())?;
        let mut writer = LayerHasher::new(io::BufWriter::with_capacity(1 << 20, file), self.max_size);
        let mut plain =
            encoding::decompress(self.source.blob.reader(), encoding::MAX_WINDOW_LOG).at("base layer")?;
        io::copy(&mut plain, &mut writer).at(self.spool.display())?;
        let (writer, _) = writer.finish(&self.source.diff_id)?;
        let file = writer.into_inner().map_err(|e| Error::from_io(e.into_error(), self.spool.display()))?;
        Region::whole(file).at(self.spool.display())
    }
}

impl BaseLayer for TarLayer {
    fn diff_id(&self) -> &DiffId {
        &self.source.diff_id
    }

    fn load(&self) -> Result<Box<dyn LoadedLayer>> {
        let mut head = [0; 4];
        let n = self.source.blob.read_at(&mut head, 0).at("base layer")?;
        let tar = if encoding::is_compressed(&head[..n]) { self.spool()? } else { self.source.blob.clone() };
        let index = LayerIndex::read(&tar)?;
        Ok(Box::new(LoadedTar { tar, index }))
    }
}

impl LoadedLayer for LoadedTar {
    fn index(&self) -> &LayerIndex {
        &self.index
    }

    fn open(&self, path: &SourcePath, file: &FileNode) -> Result<Arc<dyn SourceFile>> {
        let content = self.tar.slice(file.content, file.size);
        Ok(Arc::new(LayerFile { path: path.clone(), content }))
    }
}

#[derive(Debug)]
struct LayerFile {
    path: SourcePath,
    content: Region,
}

impl SourceFile for LayerFile {
    fn size(&self) -> u64 {
        self.content.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_exact(|buf, offset| self.content.read_at(buf, offset), buf, offset, &self.path)
    }
}

/// Fills `buf` by positional reads; a file that ends early is not the one the delta was made for.
pub(super) fn read_exact(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    buf: &mut [u8],
    offset: u64,
    path: &SourcePath,
) -> Result<()> {
    let mut filled = 0;
    while filled < buf.len() {
        match read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => {
                return Err(Error::misfit(format!(
                    "base file {path} ends at byte {}, {} were wanted from {offset}",
                    offset + filled as u64,
                    buf.len()
                )));
            }
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::from_io(e, format!("base file {path}"))),
        }
    }
    Ok(())
}
