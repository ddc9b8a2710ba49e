//! Writes extended patches: the streams first, then each is compressed, one after the other, so that there is never more
//! than one compressor in memory; then the blocks in the order in which whoever reads them wants them. That order is
//! found by reading them.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use super::compression::{Compression, Effort};
use super::decode::OpReader;
use super::streams::Blocks;
use super::table::{Table, leb128, zigzag};
use super::{KINDS, Kind, MAGIC, MAX_BLOCK, command};
use crate::base::Holder;
use crate::error::{IoContext, Result};
use crate::member::{Coding, Packing};
use crate::region::Region;
use crate::tardiff::Limits;

/// Literals are collected up to this size before they are written.
const DATA_BUFFER: usize = 4 << 20;

/// Bytes of a stream that are written at once.
const BUFFER: usize = 64 << 10;

/// For the streams of numbers, which are small.
const NUMBERS: Compression = Compression::Lzma { dictionary: 4 << 20, effort: Effort::Thorough };

/// Content is read in LZMA some thirty times as fast as xz makes members. So with this many times as much content as there is in
/// members, whoever applies the patch spends an eighth more time on it at most.
const CONTENT_BESIDE_XZ: u64 = 4;

/// Writes operations; neighbours are joined. Holders of old bytes are known by numbers of the caller's.
pub struct OpWriter<'a, W: Write> {
    streams: Vec<BufWriter<W>>,
    /// Whose stretch a holder is.
    outer: &'a dyn Fn(usize) -> Option<usize>,
    /// The holders that were used, and the cursor in each.
    holders: Vec<(usize, u64)>,
    /// Where each is among them.
    listed: HashMap<usize, usize>,
    /// The members that were begun.
    members: Vec<Packing>,
    /// Position of the current one.
    current: Option<usize>,
    data: Vec<u8>,
    /// Holder, place and bytes of a COPY not yet written.
    copy: Option<(usize, u64, u64)>,
}

impl<W: Write> std::fmt::Debug for OpWriter<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpWriter").field("holders", &self.holders).finish()
    }
}

impl<'a, W: Write> OpWriter<'a, W> {
    /// Begins the streams; `open` gives what each is written into, `outer` the holder that another one is a stretch of.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn new(
        outer: &'a dyn Fn(usize) -> Option<usize>,
        mut open: impl FnMut() -> io::Result<W>,
    ) -> io::Result<Self> {
        let streams = KINDS.iter().map(|_| open().map(|out| BufWriter::with_capacity(BUFFER, out)));
        let streams = streams.collect::<io::Result<_>>()?;
        let (holders, listed, members) = (Vec::new(), HashMap::new(), Vec::new());
        Ok(OpWriter { streams, outer, holders, listed, members, current: None, data: Vec::new(), copy: None })
    }

    /// Appends literal bytes.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.flush_copy()?;
        self.data.extend_from_slice(bytes);
        if self.data.len() >= DATA_BUFFER { self.flush_data() } else { Ok(()) }
    }

    /// Copies `len` bytes of a holder from `at` on.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn copy(&mut self, holder: usize, at: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        if let Some((of, from, so_far)) = &mut self.copy
            && (*of, *from + *so_far) == (holder, at)
        {
            *so_far += len;
            return Ok(());
        }
        self.flush()?;
        self.copy = Some((holder, at, len));
        Ok(())
    }

    /// Adds `sums` to the bytes of a holder from `at` on.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn add(&mut self, holder: usize, at: u64, sums: &[u8]) -> io::Result<()> {
        if sums.is_empty() {
            return Ok(());
        }
        self.flush()?;
        self.take(command::ADD, holder, at, sums.len() as u64)?;
        self.streams[Kind::Sums as usize].write_all(sums)
    }

    /// Begins a member: the following operations make what is in it, until [`end_member`](Self::end_member).
    ///
    /// # Errors
    /// The inner writers'.
    pub fn member(&mut self, packing: &Packing) -> io::Result<()> {
        self.flush()?;
        self.members.push(packing.clone());
        self.command(command::MEMBER, self.members.len() as u64 - 1)
    }

    /// Ends it.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn end_member(&mut self) -> io::Result<()> {
        self.flush()
    }

    /// Ends the streams; `make` turns what each was written into into a region.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn finish(mut self, mut make: impl FnMut(W) -> Region) -> io::Result<Raw> {
        self.flush()?;
        let region = |stream: BufWriter<W>| stream.into_inner().map(&mut make).map_err(|e| e.into_error());
        let streams = self.streams.into_iter().map(region).collect::<io::Result<_>>()?;
        let holders = self.holders.into_iter().map(|(holder, _)| holder).collect();
        Ok(Raw { streams, holders, members: self.members })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_copy()?;
        self.flush_data()
    }

    fn flush_copy(&mut self) -> io::Result<()> {
        match self.copy.take() {
            Some((holder, at, len)) => self.take(command::COPY, holder, at, len),
            None => Ok(()),
        }
    }

    fn flush_data(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let len = self.data.len() as u64;
        self.command(command::DATA, len)?;
        self.streams[Kind::Literals as usize].write_all(&self.data)?;
        self.data.clear();
        if let Some(current) = self.current {
            self.holders[current].1 += len;
        }
        Ok(())
    }

    /// A command that takes `len` bytes of a holder.
    fn take(&mut self, code: u8, holder: usize, at: u64, len: u64) -> io::Result<()> {
        let current = self.list(holder);
        if self.current.replace(current) != Some(current) {
            self.command(command::HOLDER, current as u64)?;
        }
        let cursor = std::mem::replace(&mut self.holders[current].1, at + len);
        if cursor == at {
            return self.command(code, len);
        }
        self.command(code | command::MOVE, len)?;
        number(&mut self.streams[Kind::Moves as usize], zigzag(at.wrapping_sub(cursor) as i64))
    }

    /// Its number in the table, where what it is a stretch of stands before it.
    fn list(&mut self, holder: usize) -> usize {
        if let Some(at) = self.listed.get(&holder) {
            return *at;
        }
        if let Some(outer) = (self.outer)(holder) {
            self.list(outer);
        }
        self.listed.insert(holder, self.holders.len());
        self.holders.push((holder, 0));
        self.holders.len() - 1
    }

    fn command(&mut self, code: u8, len: u64) -> io::Result<()> {
        self.streams[Kind::Commands as usize].write_all(&[code])?;
        number(&mut self.streams[Kind::Lengths as usize], len)
    }
}

/// Writes a number as unsigned LEB128.
fn number(out: &mut impl Write, number: u64) -> io::Result<()> {
    let (bytes, len) = leb128(number);
    out.write_all(&bytes[..len])
}

/// The streams of a patch as they were written.
#[derive(Debug)]
pub struct Raw {
    streams: Vec<Region>,
    holders: Vec<usize>,
    members: Vec<Packing>,
}

impl Raw {
    /// Does whoever applies the patch wait for encoders that are so slow that the time to read content does not matter?
    pub fn waits_for_encoders(&self) -> bool {
        let is_slow = |made: &&Packing| matches!(made.recipe.coding(), Coding::Xz | Coding::Lzma);
        let slow: u64 = self.members.iter().filter(is_slow).map(|made| made.sizes.plain).sum();
        let content = [Kind::Sums, Kind::Literals].map(|kind| self.streams[kind as usize].len());
        slow > 0 && content.iter().sum::<u64>() <= CONTENT_BESIDE_XZ.saturating_mul(slow)
    }

    /// Compresses them, content as it is said here; `open` gives what each is written into, and `make` makes a region of that.
    ///
    /// # Errors
    /// Those of `open` and of the writers; bad options.
    pub fn compress<W: Write>(
        self,
        content: Compression,
        mut open: impl FnMut() -> io::Result<W>,
        mut make: impl FnMut(W) -> Region,
    ) -> io::Result<Parts> {
        let streams = self.streams.iter().zip(KINDS).map(|(stream, kind)| {
            let compression = if kind.is_control() { NUMBERS } else { content };
            compression.compress(stream, open()?).map(&mut make)
        });
        let streams = streams.collect::<io::Result<_>>()?;
        Ok(Parts { streams, holders: self.holders, members: self.members })
    }
}

/// The streams of a patch, compressed.
#[derive(Debug)]
pub struct Parts {
    streams: Vec<Region>,
    holders: Vec<usize>,
    members: Vec<Packing>,
}

impl Parts {
    /// A reader of the operations that writes the patch into `out` while it is read. `name` gives the holders by the
    /// numbers that they were written with.
    ///
    /// # Errors
    /// Those of `out`; Misfit for more members than a patch can have.
    pub fn weave<W: Write>(
        self,
        mut out: W,
        name: impl Fn(usize) -> Holder,
        limits: &Limits,
    ) -> Result<OpReader<impl Blocks>> {
        let holders = self.holders.iter().map(|holder| name(*holder)).collect();
        let table = Table { holders, members: self.members };
        out.write_all(&MAGIC).at("patch")?;
        out.write_all(&table.write(limits)?).at("patch")?;
        let blocks = Woven { taken: vec![0; self.streams.len()], streams: self.streams, out };
        Ok(OpReader::of(blocks, table, limits))
    }
}

/// Gives blocks as they are wanted, and writes them in that order.
struct Woven<W> {
    streams: Vec<Region>,
    /// Bytes of each that were given.
    taken: Vec<u64>,
    out: W,
}

impl<W: Write> Blocks for Woven<W> {
    fn next(&mut self, wanted: usize, block: &mut Vec<u8>) -> Result<Option<usize>> {
        let (stream, taken) = (&self.streams[wanted], &mut self.taken[wanted]);
        let len = (stream.len() - *taken).min(MAX_BLOCK as u64);
        if len == 0 {
            return Ok(None);
        }
        block.resize(len as usize, 0);
        stream.read_exact_at(block, *taken).at("patch")?;
        *taken += len;
        self.out.write_all(&[wanted as u8]).at("patch")?;
        number(&mut self.out, len).at("patch")?;
        self.out.write_all(block).at("patch")?;
        Ok(Some(wanted))
    }
}
