//! Where the bytes of a patch go: per file of the layer that it makes.
//!
//! No base is needed. Literal bytes go into a sparse file at the places where
//! they belong, everything else is a hole; since tar headers are always literal,
//! the walk over that file finds the members.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use serde::Serialize;

use crate::base::{Held, Holder, SourcePath, members};
use crate::error::{Error, IoContext, Result};
use crate::member::Packing;
use crate::patch::{self, Unpack, Visitor};
use crate::region::Region;
use crate::tardiff::Limits;

/// Bytes of the notes on stretches, some five each. Real patches have some millions of operations, and a stretch has several.
const MAX_NOTES: usize = 64 << 20;

/// Stretches that wait for their share of the compressed patch; more are made of one small piece of it by attackers only.
const MAX_OPEN: usize = 64 << 10;

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
    let consumed = Rc::new(Cell::new(0));
    let patch = Counted { inner: patch, bytes: consumed.clone() };
    let file = tempfile::tempfile_in(spool).at(spool.display())?;
    let mut reader = Reader { file, spool, position: 0, stretches: Stretches::new(consumed) };
    let len = patch::run(patch, limits, max_layer, &mut reader)?;
    reader.file.set_len(len).at(spool.display())?;
    let layer = Region::whole(reader.file).at(spool.display())?;
    let mut account = LayerAccount::default();
    let mut rest = Rest { notes: reader.stretches.finish()?, read: 0, current: None, position: 0 };
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

/// Takes notes of the stretches; writes what is literal where it belongs.
struct Reader<'a> {
    file: File,
    spool: &'a Path,
    /// In the layer.
    position: u64,
    stretches: Stretches,
}

impl Visitor for Reader<'_> {
    /// There is no base: whatever is wanted of a file is there.
    type File = ();

    fn open(&mut self, _path: &SourcePath) -> Result<((), Option<u64>)> {
        Ok(((), None))
    }

    /// Where headers are copied, the members cannot be told without the base.
    fn open_holder(&mut self, _holder: &Holder) -> Result<((), Option<u64>)> {
        Err(not_by_file())
    }

    fn begin_member(&mut self, _packing: &Packing) -> Result<()> {
        Err(not_by_file())
    }

    fn end_member(&mut self) -> Result<()> {
        Ok(())
    }

    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.position)).at(self.spool.display())?;
        io::copy(payload, &mut self.file).at("patch")?;
        self.made(Made::Literal, len)
    }

    fn copied(&mut self, _file: &mut (), _at: u64, len: u64) -> Result<()> {
        self.made(Made::Copied, len)
    }

    fn summed(&mut self, _file: &mut (), _at: u64, payload: &mut impl Read, len: u64) -> Result<()> {
        io::copy(payload, &mut io::sink()).at("patch")?;
        self.made(Made::Added, len)
    }

    fn held(&mut self, _file: &()) -> Result<Held> {
        Err(Error::misfit("a patch with dictionary frames cannot be accounted for by file"))
    }

    fn unpacked(&mut self, unpack: &mut Unpack<'_>) -> Result<u64> {
        unpack(&mut io::sink())
    }

    fn done(&mut self, offset: u64, _made: u64) -> Result<()> {
        self.stretches.read_to(offset)
    }
}

fn not_by_file() -> Error {
    Error::misfit("an extended patch cannot be accounted for by file")
}

impl Reader<'_> {
    fn made(&mut self, made: Made, len: u64) -> Result<()> {
        self.position += len;
        self.stretches.made = Some((made, len));
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Copied = 0,
    Added = 1,
    Literal = 2,
}

/// Bytes of the layer that are made in one way.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    made: Made,
    len: u64,
    /// Share of the compressed patch.
    packed: u64,
}

/// Stretches as they are read, and compressed bytes shared out among those that were read since the last were.
struct Stretches {
    consumed: Rc<Cell<u64>>,
    /// Made by the present operation.
    made: Option<(Made, u64)>,
    /// Position in the decompressed patch.
    offset: u64,
    /// Bytes of it for operations without output.
    owed: u64,
    /// Stretches without their share, and the bytes of the decompressed patch for each. The last may still grow.
    open: Vec<(Stretch, u64)>,
    /// Compressed bytes that are shared out.
    packed: u64,
    notes: Vec<u8>,
}

impl Stretches {
    fn new(consumed: Rc<Cell<u64>>) -> Self {
        Stretches { consumed, made: None, offset: 0, owed: 0, open: Vec::new(), packed: 0, notes: Vec::new() }
    }

    /// The operation is read, which ends at byte `offset` of the decompressed patch.
    fn read_to(&mut self, offset: u64) -> Result<()> {
        let raw = offset - self.offset;
        self.offset = offset;
        match (self.made.take(), self.open.last_mut()) {
            // What opens a file is charged to the bytes that come from it: the next ones.
            (None, _) => self.owed += raw,
            (Some((made, len)), Some((last, of_last))) if last.made == made && self.owed == 0 => {
                last.len += len;
                *of_last += raw;
            }
            (Some((made, len)), _) => {
                self.open.push((Stretch { made, len, packed: 0 }, raw + std::mem::take(&mut self.owed)));
            }
        }
        if self.consumed.get() > self.packed || self.open.len() > MAX_OPEN {
            self.share_out(self.open.len().saturating_sub(1))?;
        }
        Ok(())
    }

    /// Shares out among the first of those that are open.
    fn share_out(&mut self, count: usize) -> Result<()> {
        let consumed = self.consumed.get();
        let (packed, raw) =
            (consumed - self.packed, self.open[..count].iter().map(|(_, raw)| raw).sum::<u64>());
        if raw == 0 {
            return Ok(());
        }
        self.packed = consumed;
        let mut left = packed;
        for (at, (mut stretch, of_it)) in self.open.drain(..count).enumerate() {
            stretch.packed = if at + 1 == count { left } else { share(packed, of_it, raw) };
            left -= stretch.packed;
            stretch.note(&mut self.notes);
        }
        if self.notes.len() > MAX_NOTES {
            return Err(Error::verification("patch has too many operations to be accounted for"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.share_out(self.open.len())?;
        Ok(self.notes)
    }
}

/// The part of `all` that `part` has of `whole`, which is not 0.
fn share(all: u64, part: u64, whole: u64) -> u64 {
    (u128::from(all) * u128::from(part) / u128::from(whole)) as u64
}

impl Stretch {
    /// Writes a note of it: what it is, then two numbers as unsigned LEB128.
    fn note(self, notes: &mut Vec<u8>) {
        notes.push(self.made as u8);
        for mut number in [self.len, self.packed] {
            while number >= 0x80 {
                notes.push(number as u8 | 0x80);
                number >>= 7;
            }
            notes.push(number as u8);
        }
    }

    /// Reads the note that begins at `at`, and moves on to the next.
    fn read(notes: &[u8], at: &mut usize) -> Option<Self> {
        let mut byte = || {
            let byte = notes.get(*at).copied();
            *at += 1;
            byte
        };
        let made = match byte()? {
            0 => Made::Copied,
            1 => Made::Added,
            _ => Made::Literal,
        };
        let mut number = || {
            let mut value = 0;
            for shift in (0..u64::BITS).step_by(7) {
                let group = byte()?;
                value |= u64::from(group & 0x7f) << shift;
                if group < 0x80 {
                    break;
                }
            }
            Some(value)
        };
        Some(Stretch { made, len: number()?, packed: number()? })
    }
}

/// Hands the stretches of the notes out up to positions in the layer.
struct Rest {
    notes: Vec<u8>,
    /// Bytes of them that were read.
    read: usize,
    current: Option<Stretch>,
    position: u64,
}

impl Rest {
    fn take_to(&mut self, end: u64) -> Account {
        let mut account = Account::default();
        while self.position < end {
            let next = self.current.take().or_else(|| Stretch::read(&self.notes, &mut self.read));
            let Some(stretch) = next else { break };
            let len = stretch.len.min(end - self.position);
            let packed =
                if len < stretch.len { share(stretch.packed, len, stretch.len) } else { stretch.packed };
            if len < stretch.len {
                let (len, packed) = (stretch.len - len, stretch.packed - packed);
                self.current = Some(Stretch { len, packed, ..stretch });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_on_operations_without_end_do_not_fill_the_memory() {
        let mut stretches = Stretches::new(Rc::default());
        let mut ended = Ok(());
        for n in 0..=MAX_NOTES as u64 {
            let made = if n % 2 == 0 { Made::Copied } else { Made::Added };
            stretches.made = Some((made, u64::MAX));
            stretches.consumed.set(n / 1_000_000);
            ended = stretches.read_to(2 * n + 2);
            assert!(stretches.open.len() <= MAX_OPEN && stretches.notes.len() < 2 * MAX_NOTES);
            if ended.is_err() {
                break;
            }
        }
        assert!(ended.unwrap_err().to_string().contains("too many operations"));
    }

    #[test]
    fn a_note_reads_as_it_was_written() {
        let mut notes = Vec::new();
        let stretches = [(Made::Copied, 0, 0), (Made::Added, 127, 128), (Made::Literal, u64::MAX, 1 << 63)];
        for (made, len, packed) in stretches {
            Stretch { made, len, packed }.note(&mut notes);
        }
        let mut at = 0;
        for (made, len, packed) in stretches {
            let read = Stretch::read(&notes, &mut at).unwrap();
            assert_eq!((read.made, read.len, read.packed), (made, len, packed));
        }
        assert!(Stretch::read(&notes, &mut at).is_none());
    }
}
