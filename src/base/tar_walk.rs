//! A walk over the headers of a layer tar.
//!
//! As lenient as the tools that make and unpack layers: a member that nobody
//! can use as a source (sparse, device) is passed over, however odd it is; only
//! what would make us lose our place in the tar is an error.

use std::borrow::Cow;
use std::ops::Range;

use tar::{EntryType, Header};

use super::path::{MAX_PATH, SourcePath};
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

const BLOCK: u64 = 512;

/// Bytes read at a header, in the hope that the next ones are among them.
const READ_AHEAD: usize = 4 << 10;

/// Most entries of a layer: ten times the largest distribution images.
const MAX_ENTRIES: usize = 10_000_000;

/// Longest extension record (a long name, PAX headers) in bytes; real ones have a few KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// Position of the flag "another map of holes follows" in a block of such maps (GNU tar manual, "Basic Tar Format").
const SPARSE_MORE: usize = 504;

/// What stands at a path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file with content in the tar.
    File(FileNode),
    /// Another name of a file of this or a lower layer.
    Link(SourcePath),
    /// A symbolic link, its target as written.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// Devices, FIFOs, and files whose content is not in one piece (sparse).
    Other,
}

/// Where a file's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNode {
    /// Where its layer finds the content: the offset in a tar, or a number of its own.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// Producers take only world-readable files as sources.
    pub world_readable: bool,
}

/// Calls `each` for every entry that has a path, in the order of the tar; the range is that of its header and of
/// the extension records before it.
///
/// # Errors
/// Verification when it is no sound tar.
pub(super) fn walk(tar: &Region, mut each: impl FnMut(SourcePath, Node, Range<u64>)) -> Result<()> {
    let mut headers = Headers { tar, blocks: vec![0; READ_AHEAD], start: 0, filled: 0 };
    let mut position = 0;
    let mut extensions = Extensions::default();
    let mut count = 0;
    // The first record of the present entry.
    let mut first = None;
    while let Some(header) = headers.at(position)? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Error::verification(format!("tar has more than {MAX_ENTRIES} entries")));
        }
        let content = position + BLOCK;
        let begin = *first.get_or_insert(position);
        let size = header.entry_size().map_err(|_| broken(position, "its size is no number"))?;
        position = match header.entry_type() {
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                extensions.take(header.entry_type(), tar, content, size)?;
                after(content, size)?
            }
            EntryType::XGlobalHeader => after(content, size)?,
            _ => {
                let entry = Entry { header, extensions: std::mem::take(&mut extensions), content, size };
                let path = entry.path();
                let (node, next) = entry.node(tar, &path)?;
                first = None;
                if let Ok(path) = SourcePath::clean(&path) {
                    each(path, node, begin..content);
                }
                next
            }
        };
    }
    Ok(())
}

fn broken(position: u64, why: &str) -> Error {
    Error::verification(format!("broken tar: header at byte {position}: {why}"))
}

/// Where the next header stands.
fn after(content: u64, size: u64) -> Result<u64> {
    size.checked_next_multiple_of(BLOCK)
        .and_then(|padded| content.checked_add(padded))
        .ok_or_else(|| Error::verification(format!("broken tar: a member of {size} bytes")))
}

/// Reads headers; those of small files stand close together.
struct Headers<'a> {
    tar: &'a Region,
    blocks: Vec<u8>,
    /// Position of the first of the `filled` bytes.
    start: u64,
    filled: usize,
}

impl Headers<'_> {
    /// The header at `position`; `None` at the end, which is a block of zeros or the end of the file.
    fn at(&mut self, position: u64) -> Result<Option<&Header>> {
        if position >= self.tar.len() {
            return Ok(None);
        }
        let held = self.start..self.start + self.filled as u64;
        if !held.contains(&position) || !held.contains(&(position + BLOCK - 1)) {
            self.filled = self.tar.read_at(&mut self.blocks, position).at("tar")?;
            self.start = position;
        }
        let at = (position - self.start) as usize;
        let block = self.blocks[..self.filled].get(at..at + BLOCK as usize);
        parse(block.ok_or_else(|| broken(position, "the tar ends inside it"))?, position)
    }
}

fn parse(block: &[u8], position: u64) -> Result<Option<&Header>> {
    if block.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let header = Header::from_byte_slice(block);
    let bytes = header.as_bytes();
    // The checksum is the sum of all bytes with its own field as blanks; some old tools sum them as signed.
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    let negative = |bytes: &[u8]| bytes.iter().filter(|b| **b > 127).count() as u32;
    let (field, blanks) = (&bytes[148..156], 8 * u32::from(b' '));
    let unsigned = sum(bytes) - sum(field) + blanks;
    let stated = header.cksum().map_err(|_| broken(position, "its checksum is no number"))?;
    if stated != unsigned && stated != unsigned.wrapping_sub(256 * (negative(bytes) - negative(field))) {
        return Err(broken(position, "wrong checksum"));
    }
    Ok(Some(header))
}

/// What extension records say about the next member.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Extensions {
    fn take(&mut self, kind: EntryType, tar: &Region, content: u64, size: u64) -> Result<()> {
        if size > MAX_EXTENSION {
            return Err(Error::verification(format!(
                "tar has an extension record of {size} bytes, at most {MAX_EXTENSION} are allowed"
            )));
        }
        let mut record = vec![0; size as usize];
        tar.read_exact_at(&mut record, content).at("tar")?;
        match kind {
            EntryType::XHeader => self.pax(&record)?,
            kind => {
                let end = record.iter().position(|b| *b == 0).unwrap_or(record.len());
                record.truncate(end);
                let slot = if kind == EntryType::GNULongLink { &mut self.link } else { &mut self.path };
                *slot = Some(record);
            }
        }
        Ok(())
    }

    /// PAX records are `LENGTH KEY=VALUE\n` (POSIX.1-2001, pax); a value may hold any byte.
    fn pax(&mut self, mut records: &[u8]) -> Result<()> {
        let broken = || Error::verification("broken tar: malformed PAX record");
        while !records.is_empty() {
            let blank = records.iter().position(|b| *b == b' ').ok_or_else(broken)?;
            let length = std::str::from_utf8(&records[..blank]).ok().and_then(|n| n.parse::<usize>().ok());
            let length = length.filter(|n| *n > blank + 1 && *n <= records.len()).ok_or_else(broken)?;
            let (record, rest) = records.split_at(length);
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok());
                    self.size = Some(size.ok_or_else(broken)?);
                }
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}

struct Entry<'a> {
    header: &'a Header,
    extensions: Extensions,
    content: u64,
    size: u64,
}

impl Entry<'_> {
    fn path(&self) -> Cow<'_, [u8]> {
        self.extensions.path.as_deref().map_or_else(|| self.header.path_bytes(), Cow::Borrowed)
    }

    fn link(&self) -> Cow<'_, [u8]> {
        let own = || self.header.link_name_bytes().unwrap_or_default();
        self.extensions.link.as_deref().map_or_else(own, Cow::Borrowed)
    }

    /// What it is, and where the next header stands.
    fn node(&self, tar: &Region, path: &[u8]) -> Result<(Node, u64)> {
        let size = self.extensions.size.unwrap_or(self.size);
        let content = match self.header.entry_type() {
            EntryType::GNUSparse => self.after_sparse_maps(tar)?,
            _ => self.content,
        };
        // Without content whatever their size says, like in every reader of layers.
        let bare = |node| Ok((node, self.content));
        match self.header.entry_type() {
            EntryType::Regular if path.ends_with(b"/") => bare(Node::Directory),
            EntryType::Regular | EntryType::Continuous => {
                let next = after(content, size)?;
                if content + size > tar.len() {
                    return Err(Error::verification(format!("tar ends inside {}", path.escape_ascii())));
                }
                let world_readable = self.header.mode().unwrap_or(0) & 0o004 != 0;
                let file = Node::File(FileNode { offset: content, size, world_readable });
                Ok((if self.extensions.sparse { Node::Other } else { file }, next))
            }
            EntryType::Link => bare(SourcePath::clean(&self.link()).map_or(Node::Other, Node::Link)),
            EntryType::Symlink => {
                let target = self.link();
                bare(if target.len() > MAX_PATH { Node::Other } else { Node::Symlink(target.into_owned()) })
            }
            EntryType::Directory => bare(Node::Directory),
            EntryType::Char | EntryType::Block | EntryType::Fifo => bare(Node::Other),
            _ => Ok((Node::Other, after(content, size)?)),
        }
    }

    /// Maps of holes that did not fit into the header stand before the content and are not in its size.
    fn after_sparse_maps(&self, tar: &Region) -> Result<u64> {
        let mut more = self.header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        let mut content = self.content;
        while more {
            let mut map = [0; BLOCK as usize];
            tar.read_exact_at(&mut map, content)
                .map_err(|_| broken(content, "the tar ends in a map of holes"))?;
            more = map[SPARSE_MORE] == 1;
            content += BLOCK;
        }
        Ok(content)
    }
}
