//! The pieces that a patch makes a layer of: a table that is read like the layer.

use std::io::{self, Read, Write as _};
use std::sync::Arc;

use crate::base::path::Paths;
use crate::base::{SourceFile, SourcePath};
use crate::error::{Error, IoContext as _, Result};
use crate::patch::{Unpack, in_pieces};
use crate::region::{ReadAt, Region};
use crate::spool::{Spool, Spooled};

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// Pieces of one layer. At 40 bytes each 320 MiB; a real patch has some ten thousand.
const MAX_PIECES: usize = 8 << 20;

/// Files that the pieces of one layer are from; large images have some hundred thousand.
const MAX_FILES: usize = 1 << 20;

/// Where the bytes of a piece come from.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// Carried by the patch, in the unlinked file.
    Carried { at: u64 },
    /// From a file of the base.
    Copied { file: u32, at: u64 },
    /// The sum of the two.
    Summed { file: u32, at: u64, sums: u64 },
    /// Nobody wants to know: it reads as zeros.
    Hole,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// First byte in the layer.
    start: u64,
    content: Content,
}

/// The pieces, in the order of the layer.
#[derive(Debug)]
struct Table {
    pieces: Vec<Piece>,
    len: u64,
    files: Vec<Arc<SourceFile>>,
    carried: Spooled,
}

/// Takes the pieces one after the other.
pub(crate) struct Pieces {
    table: Table,
    /// The files by path, as positions in [`Table::files`].
    used: Paths<u32>,
    buf: Vec<u8>,
}

/// A file that pieces may be from.
pub(crate) struct Source {
    path: SourcePath,
    pub file: Arc<SourceFile>,
    /// Its position in [`Table::files`], once there is a piece of it.
    number: Option<u32>,
}

impl Source {
    /// A file of the base, known by this path and no other.
    pub fn new(path: SourcePath, file: Arc<SourceFile>) -> Self {
        Source { path, file, number: None }
    }
}

impl Pieces {
    /// None yet. What the patch carries is kept in `spool`.
    ///
    /// # Errors
    /// When there is no room for that.
    pub fn in_spool(spool: &Spool) -> Result<Self> {
        let carried = spool.begin().at(spool.dir().display())?;
        let table = Table { pieces: Vec::new(), len: 0, files: Vec::new(), carried };
        Ok(Pieces { table, used: Paths::default(), buf: vec![0; CHUNK] })
    }

    /// The layer, as far as there are pieces.
    pub fn into_region(self) -> Region {
        let len = self.table.len;
        Region::of(Arc::new(self.table), len)
    }

    /// `len` bytes more, all of `payload`.
    pub fn carry(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        in_pieces(len, |most| {
            let n = self.fill(payload, most)?;
            let at = self.keep(n)?;
            self.push(Content::Carried { at }, n as u64)?;
            Ok(n)
        })
    }

    /// `len` bytes more of a file, from `at` on.
    pub fn copy(&mut self, source: &mut Source, at: u64, len: u64) -> Result<()> {
        let file = self.number(source)?;
        self.push(Content::Copied { file, at }, len)
    }

    /// The same, each plus a byte of `payload`. Where nothing is added, it is a copy: most of what is said to be summed.
    pub fn sum(&mut self, source: &mut Source, mut at: u64, payload: &mut impl Read, len: u64) -> Result<()> {
        let file = self.number(source)?;
        in_pieces(len, |most| {
            let n = self.fill(payload, most)?;
            let content = if self.buf[..n].iter().all(|sum| *sum == 0) {
                Content::Copied { file, at }
            } else {
                Content::Summed { file, at, sums: self.keep(n)? }
            };
            self.push(content, n as u64)?;
            at += n as u64;
            Ok(n)
        })
    }

    /// `len` bytes more that nobody will look at.
    pub fn hole(&mut self, len: u64) -> Result<()> {
        self.push(Content::Hole, len)
    }

    /// What `unpack` writes; gives its bytes.
    pub fn unpack(&mut self, unpack: &mut Unpack<'_>) -> Result<u64> {
        let at = self.table.carried.len();
        let made = unpack(&mut self.table.carried)?;
        self.push(Content::Carried { at }, made)?;
        Ok(made)
    }

    /// Where to write what is carried, before [`written`](Self::written) says how much of it is a piece.
    pub fn carried(&mut self) -> &mut Spooled {
        &mut self.table.carried
    }

    /// The `len` bytes from `at` on of what is carried are the next piece.
    pub fn written(&mut self, at: u64, len: u64) -> Result<()> {
        self.push(Content::Carried { at }, len)
    }

    /// Fills the buffer, with at most so many bytes; says with how many.
    fn fill(&mut self, payload: &mut impl Read, most: usize) -> Result<usize> {
        let n = most.min(CHUNK);
        payload.read_exact(&mut self.buf[..n]).at("patch")?;
        Ok(n)
    }

    /// Keeps the first `n` bytes of the buffer; says where.
    fn keep(&mut self, n: usize) -> Result<u64> {
        let at = self.table.carried.len();
        self.table.carried.write_all(&self.buf[..n]).at("spool file")?;
        Ok(at)
    }

    /// Where a file stands in the table.
    fn number(&mut self, source: &mut Source) -> Result<u32> {
        if let Some(number) = source.number.or_else(|| self.used.get(&source.path).copied()) {
            source.number = Some(number);
            return Ok(number);
        }
        let files = &mut self.table.files;
        if files.len() == MAX_FILES {
            return Err(Error::misfit(format!(
                "a patch takes from more than {MAX_FILES} files, which is too many to look into it"
            )));
        }
        let new = files.len() as u32;
        files.push(source.file.clone());
        self.used.insert(source.path.clone(), new);
        source.number = Some(new);
        Ok(new)
    }

    /// Adds a piece, to the last one where it goes on from that.
    fn push(&mut self, content: Content, len: u64) -> Result<()> {
        let Table { pieces, len: end, .. } = &mut self.table;
        let start = *end;
        *end += len;
        if len == 0 || pieces.last().is_some_and(|last| follows(last, start, content)) {
            return Ok(());
        }
        if pieces.len() == MAX_PIECES {
            return Err(too_many());
        }
        pieces.push(Piece { start, content });
        Ok(())
    }
}

fn too_many() -> Error {
    Error::misfit(format!("a patch has more than {MAX_PIECES} pieces, which is too many to look into it"))
}

fn follows(last: &Piece, start: u64, content: Content) -> bool {
    let gap = start - last.start;
    match (last.content, content) {
        (Content::Carried { at: a }, Content::Carried { at: b }) => a + gap == b,
        (Content::Copied { file: f, at: a }, Content::Copied { file: g, at: b }) => f == g && a + gap == b,
        (Content::Summed { file: f, at: a, sums: s }, Content::Summed { file: g, at: b, sums: t }) => {
            f == g && a + gap == b && s + gap == t
        }
        (Content::Hole, Content::Hole) => true,
        _ => false,
    }
}

impl ReadAt for Table {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        let mut position = offset;
        // The last piece that begins at or before the offset.
        let mut at = self.pieces.partition_point(|piece| piece.start <= offset).saturating_sub(1);
        while position < end {
            let piece = &self.pieces[at];
            let next = self.pieces.get(at + 1).map_or(self.len, |next| next.start);
            let skip = position - piece.start;
            let out = &mut buf[(position - offset) as usize..(next.min(end) - offset) as usize];
            match piece.content {
                Content::Carried { at } => self.carried.read_exact_at(out, at + skip)?,
                Content::Copied { file, at } => self.copied(file, out, at + skip)?,
                Content::Summed { file, at, sums } => {
                    self.copied(file, out, at + skip)?;
                    self.add_sums(out, sums + skip)?;
                }
                Content::Hole => out.fill(0),
            }
            position += out.len() as u64;
            at += 1;
        }
        Ok((end.max(offset) - offset) as usize)
    }
}

impl Table {
    fn copied(&self, file: u32, out: &mut [u8], at: u64) -> io::Result<()> {
        self.files[file as usize].read_exact_at(out, at).map_err(io::Error::from)
    }

    fn add_sums(&self, out: &mut [u8], mut at: u64) -> io::Result<()> {
        let mut sums = [0; 4096];
        for out in out.chunks_mut(sums.len()) {
            let sums = &mut sums[..out.len()];
            self.carried.read_exact_at(sums, at)?;
            for (out, sum) in out.iter_mut().zip(sums.iter()) {
                *out = out.wrapping_add(*sum);
            }
            at += out.len() as u64;
        }
        Ok(())
    }
}
