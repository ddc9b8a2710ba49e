//! A layer that a patch would make, readable at any place without being made.
//!
//! In a chain of deltas the layers between the first base and the target are only
//! looked into: a patch needs some files of them, seldom all. So a patch in the
//! middle is turned into a table of its pieces. What it carries goes, unpacked, into an
//! unlinked file; what it copies stays where it is, in the image before. Nothing here
//! is checked by a digest; the layer of the target that comes out in the end is.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::base::path::Paths;
use crate::base::{Held, Holder, SourceFile, SourcePath, View};
use crate::error::{Error, IoContext, Result};
use crate::member::Packing;
use crate::patch::members::Members;
use crate::patch::{self, Unpack, Visitor, in_pieces};
use crate::region::{ReadAt, Region};
use crate::spool::{Spool, Spooled};
use crate::tardiff::Limits;

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
    carried: Spooled,
}

/// Reads a patch to its end and gives the plain tar that it would make of `files`, of at most `max` bytes.
/// What it carries is kept in `spool`.
///
/// # Errors
/// As for [`apply_patch`](crate::apply::apply_patch); Misfit for a patch with too many pieces.
pub fn fuse(patch: impl Read, files: &View<'_>, limits: &Limits, max: u64, spool: &Spool) -> Result<Region> {
    let carried = spool.begin().at(spool.dir().display())?;
    let mut table = Table {
        files,
        fused: Fused { pieces: Vec::new(), len: 0, files: Vec::new(), carried },
        used: Paths::default(),
        members: Members::new(limits),
        member: (0, 0),
        buf: vec![0; CHUNK],
    };
    let len = patch::run(patch, limits, max, &mut table)?;
    Ok(Region::of(Arc::new(table.fused), len))
}

struct Table<'a> {
    files: &'a View<'a>,
    fused: Fused,
    /// The files of pieces by path, as positions in [`Fused::files`].
    used: Paths<u32>,
    members: Members,
    /// Where that which was begun last in the layer is among what is carried, and how many bytes it has.
    member: (u64, u64),
    buf: Vec<u8>,
}

/// The file that pieces are taken from at present.
struct Opened {
    path: SourcePath,
    file: Arc<SourceFile>,
    /// Its position in [`Fused::files`], once there is a piece of it.
    number: Option<u32>,
}

impl Visitor for Table<'_> {
    type File = Opened;

    fn open(&mut self, path: &SourcePath) -> Result<(Opened, Option<u64>)> {
        let file = self.files.open(path)?;
        let size = file.size();
        Ok((Opened { path: path.clone(), file, number: self.used.get(path).copied() }, Some(size)))
    }

    fn open_holder(&mut self, holder: &Holder) -> Result<(Opened, Option<u64>)> {
        let file = self.files.holder(holder)?;
        let (size, path) = (file.size(), holder.path()?);
        // A patch that reads holders reads no files, so no file has this path.
        let number = self.used.get(&path).copied();
        Ok((Opened { path, file, number }, Some(size)))
    }

    /// Members are made at once, and kept among what is carried.
    fn begin_member(&mut self, packing: &Packing) -> Result<()> {
        if !self.members.is_open() {
            self.member = (self.fused.carried.len(), packing.sizes.packed);
        }
        self.members.begin(packing, &mut self.fused.carried)
    }

    fn end_member(&mut self) -> Result<()> {
        self.members.end(&mut self.fused.carried)?;
        if self.members.is_open() {
            return Ok(());
        }
        self.members.finish(&mut self.fused.carried)?;
        let (at, len) = self.member;
        if len > 0 { self.push(Content::Carried { at }, len) } else { Ok(()) }
    }

    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let n = payload.read(&mut self.buf).at("patch")?;
            left -= n as u64;
            if self.feed_member(n)? {
                continue;
            }
            let at = self.keep(n)?;
            self.push(Content::Carried { at }, n as u64)?;
        }
        Ok(())
    }

    fn copied(&mut self, file: &mut Opened, mut at: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        if self.members.is_open() {
            return in_pieces(len, |most| {
                let n = most.min(self.buf.len());
                file.file.read_exact_at(&mut self.buf[..n], at)?;
                at += n as u64;
                self.feed_member(n).map(|_| n)
            });
        }
        let file = self.number(file)?;
        self.push(Content::Copied { file, at }, len)
    }

    /// Where nothing is added, it is a copy: most of what is said to be summed.
    fn summed(&mut self, file: &mut Opened, mut at: u64, payload: &mut impl Read, len: u64) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let n = payload.read(&mut self.buf).at("patch")?;
            if self.members.is_open() {
                let mut old = vec![0; n];
                file.file.read_exact_at(&mut old, at)?;
                self.buf.iter_mut().zip(old).for_each(|(sum, old)| *sum = sum.wrapping_add(old));
                self.feed_member(n)?;
                at += n as u64;
                left -= n as u64;
                continue;
            }
            let file = self.number(file)?;
            if self.buf[..n].iter().all(|sum| *sum == 0) {
                self.push(Content::Copied { file, at }, n as u64)?;
            } else {
                let sums = self.keep(n)?;
                self.push(Content::Summed { file, at, sums }, n as u64)?;
            }
            at += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    fn held(&mut self, file: &Opened) -> Result<Held> {
        file.file.held()
    }

    fn unpacked(&mut self, unpack: &mut Unpack<'_>) -> Result<u64> {
        let at = self.fused.carried.len();
        let made = unpack(&mut self.fused.carried)?;
        if made > 0 {
            self.push(Content::Carried { at }, made)?;
        }
        Ok(made)
    }

    fn done(&mut self, _offset: u64, _made: u64) -> Result<()> {
        Ok(())
    }
}

impl Table<'_> {
    /// Where a file stands in the table.
    fn number(&mut self, opened: &mut Opened) -> Result<u32> {
        if let Some(number) = opened.number {
            return Ok(number);
        }
        let files = &mut self.fused.files;
        if files.len() == MAX_FILES {
            return Err(Error::misfit(format!(
                "a patch takes from more than {MAX_FILES} files, which is too many for a chain"
            )));
        }
        let new = files.len() as u32;
        files.push(opened.file.clone());
        self.used.insert(opened.path.clone(), new);
        opened.number = Some(new);
        Ok(new)
    }

    /// Gives the first `n` bytes of the buffer to the open member; false if there is none.
    fn feed_member(&mut self, n: usize) -> Result<bool> {
        if self.members.is_open() {
            self.members.write(&self.buf[..n], &mut self.fused.carried)?;
        }
        Ok(self.members.is_open())
    }

    /// Keeps the first `n` bytes of the buffer; says where.
    fn keep(&mut self, n: usize) -> Result<u64> {
        let at = self.fused.carried.len();
        self.fused.carried.write_all(&self.buf[..n]).at("spool file")?;
        Ok(at)
    }

    /// Adds a piece, to the last one where it goes on from that.
    fn push(&mut self, content: Content, len: u64) -> Result<()> {
        let fused = &mut self.fused;
        let start = fused.len;
        fused.len = start + len;
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
