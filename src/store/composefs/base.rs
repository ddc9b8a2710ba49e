//! Base files out of a layer's split stream: headers and small files are in the
//! stream, every other file is an object, which is opened by its name.
//!
//! The EROFS image is not used: it is made by a transformation that empties
//! `/run` and fails without `/usr`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use composefs::fsverity::{FsVerityHashValue, FsVerityHasher};
use composefs::repository::Repository;
use composefs::tree::{LeafContent, RegularFile};
use composefs_oci::tar::{TarEntry, TarItem, get_entry};
use composefs_oci::{LAYER_CONTENT_TYPE, layer_content_id};
use rustix::fs::{Mode, OFlags, openat};

use super::foreign;
use crate::base::{BaseLayer, FileNode, LayerIndex, LoadedLayer, Node, SourceFile, SourcePath};
use crate::digest::DiffId;
use crate::error::{Error, IoContext, Kind, Result};

/// Bytes read at once when an object is hashed again.
const CHUNK: usize = 256 << 10;

/// A layer in the repository.
#[derive(Debug)]
pub(super) struct SplitLayer<H: FsVerityHashValue> {
    repo: Arc<Repository<H>>,
    diff_id: DiffId,
}

impl<H: FsVerityHashValue> SplitLayer<H> {
    pub(super) fn new(repo: Arc<Repository<H>>, diff_id: DiffId) -> Self {
        SplitLayer { repo, diff_id }
    }
}

impl<H: FsVerityHashValue> BaseLayer for SplitLayer<H> {
    fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    fn load(&self) -> Result<Box<dyn LoadedLayer>> {
        let broken = |e| foreign(Kind::Verification, "split stream", e);
        let name = layer_content_id(self.diff_id.as_digest());
        let mut stream = self.repo.open_stream(&name, None, Some(LAYER_CONTENT_TYPE)).map_err(broken)?;
        let mut loaded =
            LoadedSplit { repo: self.repo.clone(), index: LayerIndex::default(), contents: Vec::new() };
        while let Some(entry) = get_entry(&mut stream).map_err(broken)? {
            loaded.insert(entry);
        }
        Ok(Box::new(loaded))
    }
}

/// Where a file's content is.
#[derive(Debug)]
enum Content<H> {
    Inline(Arc<[u8]>),
    Object(H),
}

#[derive(Debug)]
struct LoadedSplit<H: FsVerityHashValue> {
    repo: Arc<Repository<H>>,
    index: LayerIndex,
    contents: Vec<Content<H>>,
}

impl<H: FsVerityHashValue> LoadedSplit<H> {
    fn insert(&mut self, entry: TarEntry<H>) {
        let Ok(path) = SourcePath::clean(entry.path.as_os_str().as_bytes()) else { return };
        let world_readable = entry.stat.st_mode & 0o004 != 0;
        let node = match entry.item {
            TarItem::Directory => Node::Directory,
            TarItem::Hardlink(target) => SourcePath::clean(target.as_bytes()).map_or(Node::Other, Node::Link),
            TarItem::Leaf(LeafContent::Symlink(target)) => Node::Symlink(target.as_bytes().to_vec()),
            TarItem::Leaf(LeafContent::Regular(RegularFile::Inline(bytes))) => {
                let size = bytes.len() as u64;
                Node::File(FileNode {
                    content: self.keep(Content::Inline(bytes.into())),
                    size,
                    world_readable,
                })
            }
            TarItem::Leaf(LeafContent::Regular(RegularFile::External(id, size))) => {
                Node::File(FileNode { content: self.keep(Content::Object(id)), size, world_readable })
            }
            TarItem::Leaf(_) => Node::Other,
        };
        self.index.insert(path, node);
    }

    fn keep(&mut self, content: Content<H>) -> u64 {
        self.contents.push(content);
        self.contents.len() as u64 - 1
    }

    fn object(&self, path: &SourcePath, id: &H, size: u64) -> Result<ObjectFile> {
        let name = id.to_object_pathname();
        // With fs-verity the kernel checks what is read; without, the layer's diff_id does.
        let fd = if self.repo.is_insecure() {
            let dir = self.repo.objects_dir().map_err(io::Error::from).at("objects")?;
            openat(dir, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| damaged(path, &name, &io::Error::from(e).to_string()))?
        } else {
            self.repo
                .open_object(id)
                .map_err(|e| foreign(Kind::Verification, format!("base file {path}"), e).with_hint(HINT))?
        };
        Ok(ObjectFile { path: path.clone(), name, size, file: fd.into() })
    }
}

impl<H: FsVerityHashValue> LoadedLayer for LoadedSplit<H> {
    fn index(&self) -> &LayerIndex {
        &self.index
    }

    fn open(&self, path: &SourcePath, file: &FileNode) -> Result<Arc<dyn SourceFile>> {
        match &self.contents[file.content as usize] {
            Content::Inline(bytes) => Ok(Arc::new(InlineFile { path: path.clone(), bytes: bytes.clone() })),
            Content::Object(id) => Ok(Arc::new(self.object(path, id, file.size)?)),
        }
    }

    fn check(&self, path: &SourcePath, file: &FileNode) -> Result<()> {
        let Content::Object(id) = &self.contents[file.content as usize] else { return Ok(()) };
        let object = self.object(path, id, file.size)?;
        let mut hasher = FsVerityHasher::<H>::new();
        let mut buf = vec![0; CHUNK];
        let mut offset = 0;
        loop {
            let n = object.file.read_at(&mut buf, offset).at(format!("base file {path}"))?;
            if n == 0 {
                break;
            }
            hasher.write_all(&buf[..n]).at("hash")?;
            offset += n as u64;
        }
        if hasher.digest() == *id {
            return Ok(());
        }
        Err(damaged(path, &object.name, "its content has another digest"))
    }
}

const HINT: &str = "see what verify says; fetch the full image, or repair the repository";

fn damaged(path: &SourcePath, object: &str, how: &str) -> Error {
    Error::verification(format!("base file {path} is damaged: object {object}: {how}")).with_hint(HINT)
}

/// A file that is an object of its own.
#[derive(Debug)]
struct ObjectFile {
    path: SourcePath,
    name: String,
    size: u64,
    file: File,
}

impl SourceFile for ObjectFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&self.path, &self.name, "it is too short"),
            _ => damaged(&self.path, &self.name, &e.to_string()),
        })
    }

    fn object(&self) -> Option<&[u8]> {
        Some(self.name.as_bytes())
    }
}

/// A file of a few bytes, kept in the stream itself.
#[derive(Debug)]
struct InlineFile {
    path: SourcePath,
    bytes: Arc<[u8]>,
}

impl SourceFile for InlineFile {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let range = end.and_then(|end| self.bytes.get(offset as usize..end as usize));
        let part = range.ok_or_else(|| Error::misfit(format!("base file {} ends early", self.path)))?;
        buf.copy_from_slice(part);
        Ok(())
    }
}
