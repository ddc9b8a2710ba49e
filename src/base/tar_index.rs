//! The table of contents of one layer tar, from a walk over its headers.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Seek};

use super::path::{MAX_PATH, SourcePath};
use crate::error::{Error, Result};
use crate::region::{Region, RegionReader};

/// Most entries of a layer: ten times the largest distribution images.
const MAX_ENTRIES: usize = 10_000_000;

/// Longest extension record (a long name, PAX headers) in bytes; real ones have a few KiB.
/// The tar reader holds one in memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// What stands at a path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file with content in the tar.
    File(FileNode),
    /// Another name of a file of this or a lower layer.
    Link(SourcePath),
    /// A symbolic link, its target as written.
    Symlink(Vec<u8>),
    Directory,
    /// Devices, FIFOs, and files whose content is not in one piece (sparse).
    Other,
}

/// Where a file's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileNode {
    /// Where its layer finds the content: in a tar, the offset.
    pub content: u64,
    pub size: u64,
    /// The Go generator takes only world-readable files as sources.
    pub world_readable: bool,
}

/// All paths of a layer.
#[derive(Debug, Default)]
pub(crate) struct LayerIndex {
    /// What a path finally is in this layer.
    pub nodes: HashMap<SourcePath, Node>,
    /// Files that a later entry of the same layer replaced by something that is
    /// no usable file; the Go generator takes these for sources.
    pub shadowed: HashMap<SourcePath, Node>,
    /// Paths that this layer removes from those below.
    pub whiteouts: HashSet<SourcePath>,
    /// Directories whose lower content this layer hides.
    pub opaque: HashSet<Vec<u8>>,
}

impl LayerIndex {
    /// Walks the headers of a plain layer tar.
    ///
    /// # Errors
    /// Verification when it is no sound tar.
    pub fn read(tar: &Region) -> Result<Self> {
        let mut archive = tar::Archive::new(BoundedRecords { inner: tar.reader(), run: 0 });
        let mut index = LayerIndex::default();
        for (count, entry) in archive.entries_with_seek().map_err(broken)?.enumerate() {
            if count >= MAX_ENTRIES {
                return Err(Error::verification(format!("tar has more than {MAX_ENTRIES} entries")));
            }
            let mut entry = entry.map_err(broken)?;
            let raw = entry.path_bytes().into_owned();
            let Some(path) = clean(&raw) else { continue };
            let node = node(&mut entry, tar).map_err(|e| e.context(&path))?;
            index.insert(path, node);
        }
        Ok(index)
    }

    /// Adds an entry, which replaces an earlier one of its path; whiteouts become what they mean.
    pub(crate) fn insert(&mut self, path: SourcePath, node: Node) {
        let bytes = path.as_bytes();
        let (dir, name) = match bytes.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
            None => (&b""[..], bytes),
        };
        if name == b".wh..wh..opq" {
            self.opaque.insert(dir.to_vec());
            return;
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            let full = if dir.is_empty() { hidden.to_vec() } else { [dir, hidden].join(&b'/') };
            self.whiteouts.extend(clean(&full));
            return;
        }
        if let Some(old) = self.nodes.insert(path.clone(), node)
            && matches!(&old, Node::File(f) if f.size > 0)
        {
            self.shadowed.insert(path, old);
        }
    }
}

fn broken(e: io::Error) -> Error {
    if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return Error::from_io(e, "tar");
    }
    Error::verification(format!("broken tar: {e}")).with_source(e)
}

fn clean(raw: &[u8]) -> Option<SourcePath> {
    SourcePath::clean(raw).ok()
}

fn node(entry: &mut tar::Entry<'_, BoundedRecords>, tar: &Region) -> Result<Node> {
    use tar::EntryType;
    let kind = entry.header().entry_type();
    let link = || entry.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default();
    Ok(match kind {
        EntryType::Regular | EntryType::Continuous => {
            let world_readable = entry.header().mode().unwrap_or(0) & 0o004 != 0;
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if is_pax_sparse(entry)? {
                return Ok(Node::Other);
            }
            if offset.checked_add(size).is_none_or(|end| end > tar.len()) {
                return Err(Error::verification("tar ends inside a file"));
            }
            Node::File(FileNode { content: offset, size, world_readable })
        }
        EntryType::Link => clean(&link()).map_or(Node::Other, Node::Link),
        EntryType::Symlink => {
            let target = link();
            if target.len() > MAX_PATH { Node::Other } else { Node::Symlink(target) }
        }
        EntryType::Directory => Node::Directory,
        _ => Node::Other,
    })
}

fn is_pax_sparse(entry: &mut tar::Entry<'_, BoundedRecords>) -> Result<bool> {
    let Some(records) = entry.pax_extensions().map_err(broken)? else {
        return Ok(false);
    };
    Ok(records.flatten().any(|record| record.key_bytes().starts_with(b"GNU.sparse.")))
}

/// Bounds what the tar reader takes into memory. It reads headers in pieces of
/// one block, skips content by seeking, and reads an extension record at once,
/// in larger pieces; so a long run of those is an extension beyond the bound.
struct BoundedRecords {
    inner: RegionReader,
    run: u64,
}

impl Read for BoundedRecords {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        const BLOCK: usize = 512;
        let n = self.inner.read(buf)?;
        self.run = if buf.len() > BLOCK { self.run + n as u64 } else { 0 };
        if self.run > MAX_EXTENSION {
            return Err(Error::verification(format!(
                "tar has an extension record of more than {MAX_EXTENSION} bytes"
            ))
            .into());
        }
        Ok(n)
    }
}

impl Seek for BoundedRecords {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.run = 0;
        self.inner.seek(position)
    }
}
