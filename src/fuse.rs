//! A layer that a patch would make, readable at any place without being made.
//!
//! In a chain of deltas the layers between the first base and the target are only
//! looked into: a patch needs some files of them, seldom all. So a patch in the
//! middle is turned into a table of its pieces. What it carries goes, unpacked, into an
//! unlinked file; what it copies stays where it is, in the image before. Nothing here
//! is checked by a digest; the layer of the target that comes out in the end is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::base::{SourceFile, SourcePath, View};
use crate::error::{Error, IoContext, Result};
use crate::region::{ReadAt, Region};
use crate::tardiff::{Limits, Op, OpReader, decode_frame};

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// Pieces of one layer. At 40 bytes each 320 MiB; a real patch has some ten thousand.
const MAX_PIECES: usize = 8 << 20;

/// Where the bytes of a piece come from.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// Carried by the patch, in the unlinked file.
    Carried { at: u64 },
    /// From a file of the image before.
    Copied { file: u32, at: u64 },
    /// The sum of the two.
    Summed { file: u32, at: u64, sums: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// First byte in the layer.
    start: u64,
    content: Content,
}

/// The layer.
#[derive(Debug)]
struct Fused {
    pieces: Vec<Piece>,
    len: u64,
    files: Vec<Arc<SourceFile>>,
    carried: File,
}

/// Reads a patch to its end and gives the plain tar that it would make of `files`, of at most `max` bytes.
/// What it carries is kept in an unlinked file in `spool`.
///
/// # Errors
/// As for [`apply_patch`](crate::apply::apply_patch); Misfit for a patch with too many pieces.
pub fn fuse(patch: impl Read, files: &View<'_>, limits: &Limits, max: u64, spool: &Path) -> Result<Region> {
    let carried = tempfile::tempfile_in(spool).at(spool.display())?;
    let mut table = Table {
        ops: OpReader::new(patch, limits)?,
        fused: Fused { pieces: Vec::new(), len: 0, files: Vec::new(), carried },
        opened: HashMap::new(),
        current: None,
        cursor: 0,
        written: 0,
        max,
        buf: vec![0; CHUNK],
    };
    table.run(files, limits)?;
    let fused = table.fused;
    let len = fused.len;
    Ok(Region::of(Arc::new(fused), len))
}

struct Table<R: Read> {
    ops: OpReader<R>,
    fused: Fused,
    /// Open files by path, as positions in [`Fused::files`].
    opened: HashMap<SourcePath, u32>,
    current: Option<u32>,
    cursor: u64,
    /// Bytes in the file of what is carried.
    written: u64,
    max: u64,
    buf: Vec<u8>,
}

impl<R: Read> Table<R> {
    fn run(&mut self, files: &View<'_>, limits: &Limits) -> Result<()> {
        let mut idle = 0;
        while let Some(op) = self.ops.next_op()? {
            let before = self.fused.len;
            match op {
                Op::Data(len) => self.carry(len)?,
                Op::Open(path) => self.open(path, files)?,
                Op::Seek(position) => self.cursor = position,
                Op::Copy(len) => self.copy(len)?,
                Op::Add(len) => self.add(len)?,
                Op::Dictionary(len) => self.dictionary(len, limits)?,
            }
            idle = if self.fused.len > before { 0 } else { idle + 1 };
            if idle > limits.idle_ops {
                return Err(self.ops.broken("too many operations in a row without effect"));
            }
        }
        Ok(())
    }

    fn open(&mut self, path: SourcePath, files: &View<'_>) -> Result<()> {
        let known = self.opened.get(&path).copied();
        let at = match known {
            Some(at) => at,
            None => {
                let file = files.open(&path)?;
                let at = u32::try_from(self.fused.files.len()).map_err(|_| too_many())?;
                self.fused.files.push(file);
                self.opened.insert(path, at);
                at
            }
        };
        (self.current, self.cursor) = (Some(at), 0);
        Ok(())
    }

    /// The current file, of which `len` bytes at the cursor are wanted.
    fn span(&self, len: u64) -> Result<u32> {
        let at = self.current.ok_or_else(|| self.ops.broken("no base file is open"))?;
        let file = &self.fused.files[at as usize];
        if self.cursor.checked_add(len).is_none_or(|end| end > file.size()) {
            return Err(Error::misfit(format!(
                "base file {} has {} bytes, the patch wants {len} at {}",
                file.path,
                file.size(),
                self.cursor
            )));
        }
        Ok(at)
    }

    fn copy(&mut self, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (file, at) = (self.span(len)?, self.cursor);
        self.cursor += len;
        self.push(Content::Copied { file, at }, len)
    }

    fn carry(&mut self, len: u64) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let n = self.ops.payload().read(&mut self.buf).at("patch")?;
            left -= n as u64;
            self.keep(n)?;
        }
        Ok(())
    }

    /// The first `n` bytes of the buffer are a piece.
    fn keep(&mut self, n: usize) -> Result<()> {
        let at = self.written;
        self.fused.carried.write_all_at(&self.buf[..n], at).at("spool file")?;
        self.written += n as u64;
        self.push(Content::Carried { at }, n as u64)
    }

    /// Where nothing is added, it is a copy: most of what is said to be summed.
    fn add(&mut self, len: u64) -> Result<()> {
        let file = if len > 0 { self.span(len)? } else { return Ok(()) };
        let mut left = len;
        while left > 0 {
            let n = self.ops.payload().read(&mut self.buf).at("patch")?;
            let at = self.cursor;
            if self.buf[..n].iter().all(|sum| *sum == 0) {
                self.push(Content::Copied { file, at }, n as u64)?;
            } else {
                let sums = self.written;
                self.fused.carried.write_all_at(&self.buf[..n], sums).at("spool file")?;
                self.written += n as u64;
                self.push(Content::Summed { file, at, sums }, n as u64)?;
            }
            self.cursor += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    fn dictionary(&mut self, len: u64, limits: &Limits) -> Result<()> {
        let at = self.current.ok_or_else(|| self.ops.broken("no base file is open"))?;
        let file = self.fused.files[at as usize].clone();
        if file.size() > limits.dictionary {
            return Err(Error::verification(format!(
                "dictionary {} has {} bytes, at most {} are allowed",
                file.path,
                file.size(),
                limits.dictionary
            )));
        }
        let (content, start) = (file.held()?, self.written);
        self.fused.carried.seek(SeekFrom::Start(start)).at("spool file")?;
        let left = self.max - self.fused.len;
        let mut out = Bounded { inner: &self.fused.carried, left };
        let mut frame = self.ops.payload();
        let made = decode_frame(&mut frame, len, &content, limits, &mut out)?;
        self.written += made;
        self.cursor = file.size();
        if made > 0 { self.push(Content::Carried { at: start }, made) } else { Ok(()) }
    }

    /// Adds a piece, to the last one where it goes on from that.
    fn push(&mut self, content: Content, len: u64) -> Result<()> {
        let fused = &mut self.fused;
        let start = fused.len;
        fused.len = start.checked_add(len).filter(|len| *len <= self.max).ok_or_else(|| grown(self.max))?;
        if let Some(last) = fused.pieces.last()
            && follows(last, start, content)
        {
            return Ok(());
        }
        if fused.pieces.len() == MAX_PIECES {
            return Err(too_many());
        }
        fused.pieces.push(Piece { start, content });
        Ok(())
    }
}

fn too_many() -> Error {
    Error::misfit(format!("a patch has more than {MAX_PIECES} pieces, which is too many for a chain"))
}

fn grown(max: u64) -> Error {
    Error::verification(format!("layer grows beyond the {max} bytes that its descriptor allows"))
}

fn follows(last: &Piece, start: u64, content: Content) -> bool {
    let gap = start - last.start;
    match (last.content, content) {
        (Content::Carried { at: a }, Content::Carried { at: b }) => a + gap == b,
        (Content::Copied { file: f, at: a }, Content::Copied { file: g, at: b }) => f == g && a + gap == b,
        (Content::Summed { file: f, at: a, sums: s }, Content::Summed { file: g, at: b, sums: t }) => {
            f == g && a + gap == b && s + gap == t
        }
        _ => false,
    }
}

/// Refuses more bytes than are left.
struct Bounded<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(buf.len() as u64).ok_or_else(|| grown(self.left))?;
        self.inner.write_all(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl ReadAt for Fused {
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
            }
            position += out.len() as u64;
            at += 1;
        }
        Ok((end.max(offset) - offset) as usize)
    }
}

impl Fused {
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
