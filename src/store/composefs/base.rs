//! Base files out of a layer's split stream: headers and small files are in the
//! stream, every other file is an object, which is opened by its name.
//!
//! The EROFS image is not used: it is made by a transformation that empties
//! `/run` and fails without `/usr`.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use composefs::fsverity::{FsVerityHashValue, FsVerityHasher};
use composefs::repository::Repository;
use composefs::splitstream::SplitStreamReader;
use composefs::tree::{LeafContent, RegularFile};
use composefs_oci::tar::{TarItem, get_entry};
use composefs_oci::{LAYER_CONTENT_TYPE, layer_content_id};

use super::tar::{self, broken, open_object};
use crate::base::{BaseLayer, FileNode, LayerIndex, LoadedLayer, Node, SourceFile, SourcePath};
use crate::descriptors;
use crate::digest::DiffId;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;
use crate::spool::Spool;

/// Bytes read at once when an object is hashed again.
const CHUNK: usize = 256 << 10;

/// A layer in the repository.
#[derive(Debug)]
pub(super) struct SplitLayer<H: FsVerityHashValue> {
    repo: Arc<Repository<H>>,
    diff_id: DiffId,
    spool: Spool,
}

impl<H: FsVerityHashValue> SplitLayer<H> {
    pub(super) fn new(repo: Arc<Repository<H>>, diff_id: DiffId, spool: Spool) -> Self {
        SplitLayer { repo, diff_id, spool }
    }
}

impl<H: FsVerityHashValue> BaseLayer for SplitLayer<H> {
    fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    fn load(&self) -> Result<Box<dyn LoadedLayer>> {
        LoadedSplit::read(self).map(|layer| Box::new(layer) as _)
    }
}

/// Writes the tar of a layer; its diff_id is for the caller to check.
pub(super) fn write_tar<H: FsVerityHashValue, W: Write>(
    repo: &Repository<H>,
    diff_id: &DiffId,
    mut out: W,
) -> Result<W> {
    let mut stream = open_layer(repo, diff_id)?;
    stream.cat(repo, &mut out).map_err(broken)?;
    Ok(out)
}

fn open_layer<H: FsVerityHashValue>(repo: &Repository<H>, diff_id: &DiffId) -> Result<SplitStreamReader<H>> {
    let name = layer_content_id(diff_id.as_digest());
    repo.open_stream(&name, None, Some(LAYER_CONTENT_TYPE)).map_err(broken)
}

/// Where a file's content is.
#[derive(Debug)]
enum Content<H> {
    /// In the stream itself; all such content of a layer stands in one file in memory.
    Inline {
        offset: u64,
    },
    Object(H),
}

#[derive(Debug)]
struct LoadedSplit<H: FsVerityHashValue> {
    repo: Arc<Repository<H>>,
    index: LayerIndex,
    contents: Vec<Content<H>>,
    inline: Region,
    diff_id: DiffId,
    /// Bytes of the objects, in the order of the stream.
    sizes: Vec<u64>,
    spool: Spool,
}

impl<H: FsVerityHashValue> LoadedSplit<H> {
    fn read(layer: &SplitLayer<H>) -> Result<Self> {
        let SplitLayer { repo, diff_id, spool } = layer;
        let mut stream = open_layer(repo, diff_id)?;
        let mut index = LayerIndex::default();
        let mut contents = Vec::new();
        let (mut inline, mut sizes) = (Vec::new(), Vec::new());
        while let Some(entry) = get_entry(&mut stream).map_err(broken)? {
            if let TarItem::Leaf(LeafContent::Regular(RegularFile::External(_, size))) = &entry.item {
                sizes.push(*size);
            }
            let Ok(path) = SourcePath::clean(entry.path.as_os_str().as_bytes()) else { continue };
            let world_readable = entry.stat.st_mode & 0o004 != 0;
            let mut file = |content, size| {
                contents.push(content);
                Node::File(FileNode { offset: contents.len() as u64 - 1, size, world_readable })
            };
            let node = match entry.item {
                TarItem::Directory => Node::Directory,
                TarItem::Hardlink(target) => {
                    SourcePath::clean(target.as_bytes()).map_or(Node::Other, Node::Link)
                }
                TarItem::Leaf(LeafContent::Symlink(target)) => Node::Symlink(target.as_bytes().to_vec()),
                TarItem::Leaf(LeafContent::Regular(RegularFile::Inline(bytes))) => {
                    let offset = inline.len() as u64;
                    inline.extend_from_slice(&bytes);
                    file(Content::Inline { offset }, bytes.len() as u64)
                }
                TarItem::Leaf(LeafContent::Regular(RegularFile::External(id, size))) => {
                    file(Content::Object(id), size)
                }
                TarItem::Leaf(_) => Node::Other,
            };
            index.insert(path, node);
        }
        let (repo, diff_id, spool) = (repo.clone(), diff_id.clone(), spool.clone());
        Ok(LoadedSplit { repo, index, contents, inline: in_memory(inline), diff_id, sizes, spool })
    }

    fn object(&self, path: &SourcePath, id: &H, size: u64) -> Result<SourceFile> {
        let name = id.to_object_pathname();
        let (repo, id) = (self.repo.clone(), id.clone());
        let content = descriptors::reopened(move || open_object(&repo, &id)).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                return damaged(path, &name, &e.to_string());
            }
            Error::from_io(e, format!("object {name}")).context(format!("base file {path}")).with_hint(HINT)
        })?;
        if content.len() != size {
            let how = format!("it has {} bytes, not {size}", content.len());
            return Err(damaged(path, &name, &how));
        }
        Ok(SourceFile::of_object(path.clone(), content, name.into()))
    }
}

/// What is nowhere but in memory.
fn in_memory(bytes: Vec<u8>) -> Region {
    let len = bytes.len() as u64;
    Region::of(Arc::new(bytes.into_boxed_slice()), len)
}

impl<H: FsVerityHashValue> LoadedLayer for LoadedSplit<H> {
    fn index(&self) -> &LayerIndex {
        &self.index
    }

    fn open(&self, path: &SourcePath, file: &FileNode) -> Result<SourceFile> {
        match &self.contents[file.offset as usize] {
            Content::Inline { offset } => {
                let content = self.inline.slice(*offset, file.size);
                Ok(SourceFile::new(path.clone(), content))
            }
            Content::Object(id) => self.object(path, id, file.size),
        }
    }

    fn tar(&self) -> Result<Region> {
        let stream = open_layer(&self.repo, &self.diff_id)?;
        tar::open(&self.repo, stream, &self.sizes, &self.spool)
    }

    fn check(&self, path: &SourcePath, file: &FileNode) -> Result<()> {
        let Content::Object(id) = &self.contents[file.offset as usize] else { return Ok(()) };
        let object = self.object(path, id, file.size)?;
        let mut hasher = FsVerityHasher::<H>::new();
        let mut content = object.content().reader();
        let mut buf = vec![0; CHUNK];
        loop {
            let n = content.read(&mut buf).at(format_args!("base file {path}"))?;
            if n == 0 {
                break;
            }
            hasher.write_all(&buf[..n]).at("hash")?;
        }
        if hasher.digest() == *id {
            return Ok(());
        }
        Err(damaged(path, &id.to_object_pathname(), "its content has another digest"))
    }
}

const HINT: &str = "see what verify says; fetch the full image, or repair the repository";

fn damaged(path: &SourcePath, object: &str, how: &str) -> Error {
    Error::verification(format!("base file {path} is damaged: object {object}: {how}")).with_hint(HINT)
}
