//! Where the bytes of a patch go: per file of the layer that it makes.
//!
//! No base is needed. Literal bytes go into a sparse file at the places where
//! they belong, everything else is a hole; since tar headers are always literal,
//! the walk over that file finds the members.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use serde::Serialize;

use crate::base::members;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;
use crate::tardiff::{Limits, Op, OpReader};

/// Most stretches of one kind in a patch. Real ones have some millions of operations, and a stretch has several.
const MAX_STRETCHES: usize = 32 << 20;

/// What part of a layer is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Bytes in the layer.
    pub bytes: u64,
    /// Copied from the base.
    pub copied: u64,
    /// Sums of base and patch bytes.
    pub added: u64,
    /// Literal bytes of the patch.
    pub literal: u64,
    /// Share of the compressed patch in bytes. Exact in sum, for a single file
    /// an estimate: a block of the stream is shared out by what went into it.
    pub patch_bytes: u64,
}

impl Account {
    fn add(&mut self, other: &Account) {
        self.bytes += other.bytes;
        self.copied += other.copied;
        self.added += other.added;
        self.literal += other.literal;
        self.patch_bytes += other.patch_bytes;
    }
}

/// The account of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileAccount {
    /// Its path; bytes that are not UTF-8 are escaped.
    pub path: String,
    /// What it is made of.
    #[serde(flatten)]
    pub account: Account,
}

/// The account of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerAccount {
    /// All of it.
    pub total: Account,
    /// Headers, padding, and what is not in a regular file.
    pub headers: Account,
    /// Regular files with content, in the order of the layer.
    pub files: Vec<FileAccount>,
}

/// Reads a patch and accounts for its bytes. The layer may have up to
/// `max_layer` bytes; `spool` holds an unlinked file of its literal ones.
///
/// # Errors
/// As [`apply_patch`](crate::apply::apply_patch), but for the base; Misfit for
/// dictionary frames, whose output cannot be known without the base.
pub fn account(patch: impl Read, limits: &Limits, max_layer: u64, spool: &Path) -> Result<LayerAccount> {
    let (stretches, layer) = read(patch, limits, max_layer, spool)?;
    let mut account = LayerAccount::default();
    let mut rest = Rest { stretches: stretches.into_iter(), current: None, position: 0 };
    for member in members(&layer)? {
        account.headers.add(&rest.take_to(member.offset));
        let taken = rest.take_to(member.offset + member.size);
        account.files.push(FileAccount { path: member.path.to_string(), account: taken });
    }
    account.headers.add(&rest.take_to(u64::MAX));
    account.total = account.headers;
    for file in &account.files {
        account.total.add(&file.account);
    }
    Ok(account)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Copied,
    Added,
    Literal,
}

/// Bytes of the layer that are made in one way.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    made: Made,
    len: u64,
    /// Bytes of the decompressed patch for it.
    raw: u64,
    /// Share of the compressed patch.
    packed: u64,
}

fn read(patch: impl Read, limits: &Limits, max_layer: u64, spool: &Path) -> Result<(Vec<Stretch>, Region)> {
    let consumed = Rc::new(Cell::new(0));
    let mut ops = OpReader::new(Counted { inner: patch, bytes: consumed.clone() }, limits)?;
    let mut layer = tempfile::tempfile_in(spool).at(spool.display())?;
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut shared = Shared::default();
    let (mut position, mut before) = (0u64, ops.offset());
    while let Some(op) = ops.next_op()? {
        let (made, len) = match op {
            Op::Data(len) => (Some(Made::Literal), len),
            Op::Add(len) => (Some(Made::Added), len),
            Op::Copy(len) => (Some(Made::Copied), len),
            Op::Open(_) | Op::Seek(_) => (None, 0),
            Op::Dictionary(_) => {
                return Err(Error::misfit("a patch with dictionary frames cannot be accounted for by file"));
            }
        };
        if position.checked_add(len).is_none_or(|end| end > max_layer) {
            return Err(Error::verification(format!("layer grows beyond {max_layer} bytes"))
                .with_hint("if this image is to be trusted, raise --max-layer-size"));
        }
        match op {
            Op::Data(len) => {
                layer.seek(SeekFrom::Start(position)).at(spool.display())?;
                io::copy(&mut ops.payload().take(len), &mut layer).at("patch")?;
            }
            Op::Add(len) => drop(io::copy(&mut ops.payload().take(len), &mut io::sink()).at("patch")?),
            _ => {}
        }
        position += len;
        let raw = ops.offset() - before;
        before = ops.offset();
        match (made, stretches.last_mut()) {
            // What opens a file is charged to the bytes that come from it: the next ones.
            (None, _) => shared.owed += raw,
            (Some(made), Some(last)) if last.made == made && shared.owed == 0 => {
                last.len += len;
                last.raw += raw;
            }
            (Some(made), _) => {
                if stretches.len() >= MAX_STRETCHES {
                    return Err(Error::verification("patch has too many operations to be accounted for"));
                }
                stretches.push(Stretch { made, len, raw: raw + std::mem::take(&mut shared.owed), packed: 0 });
            }
        }
        shared.share_out(&mut stretches, consumed.get(), false);
    }
    shared.share_out(&mut stretches, consumed.get(), true);
    layer.set_len(position).at(spool.display())?;
    Ok((stretches, Region::whole(layer).at(spool.display())?))
}

/// Shares compressed bytes out among the stretches that were read since the last were.
#[derive(Default)]
struct Shared {
    /// Raw bytes of operations without output.
    owed: u64,
    /// Compressed bytes and stretches that are settled.
    packed: u64,
    settled: usize,
}

impl Shared {
    fn share_out(&mut self, stretches: &mut [Stretch], consumed: u64, is_end: bool) {
        // The last stretch may still grow.
        let until = if is_end { stretches.len() } else { stretches.len().saturating_sub(1) };
        let open = &mut stretches[self.settled..until];
        let (packed, raw) = (consumed - self.packed, open.iter().map(|s| s.raw).sum::<u64>());
        if packed == 0 || raw == 0 {
            return;
        }
        let mut left = packed;
        for stretch in open.iter_mut() {
            stretch.packed = (u128::from(packed) * u128::from(stretch.raw) / u128::from(raw)) as u64;
            left -= stretch.packed;
        }
        if let Some(last) = open.last_mut() {
            last.packed += left;
        }
        (self.packed, self.settled) = (consumed, until);
    }
}

/// Hands stretches out up to positions in the layer.
struct Rest {
    stretches: std::vec::IntoIter<Stretch>,
    current: Option<Stretch>,
    position: u64,
}

impl Rest {
    fn take_to(&mut self, end: u64) -> Account {
        let mut account = Account::default();
        while self.position < end {
            let Some(stretch) = self.current.take().or_else(|| self.stretches.next()) else { break };
            let len = stretch.len.min(end - self.position);
            let part = |whole: u64| match stretch.len {
                0 => whole,
                all => (u128::from(whole) * u128::from(len) / u128::from(all)) as u64,
            };
            let (raw, packed) = (part(stretch.raw), part(stretch.packed));
            if len < stretch.len {
                self.current = Some(Stretch {
                    len: stretch.len - len,
                    raw: stretch.raw - raw,
                    packed: stretch.packed - packed,
                    ..stretch
                });
            }
            self.position += len;
            account.bytes += len;
            account.patch_bytes += packed;
            match stretch.made {
                Made::Copied => account.copied += len,
                Made::Added => account.added += len,
                Made::Literal => account.literal += len,
            }
        }
        account
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes.set(self.bytes.get() + n as u64);
        Ok(n)
    }
}
