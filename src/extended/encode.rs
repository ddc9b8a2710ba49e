//! Writes extended patches: the streams first, each for itself, then the blocks in the order in which whoever
//! reads them wants them. That order is found by reading them.

use std::io::{self, Write};

use zstd::stream::write::Encoder;

use super::decode::OpReader;
use super::streams::Blocks;
use super::{KINDS, Kind, MAGIC, MAX_BLOCK, command};
use crate::digest::DiffId;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;
use crate::tardiff::{Limits, WriterOptions};

/// Literals are collected up to this size before they are written.
const DATA_BUFFER: usize = 4 << 20;

/// Level and window of the streams of numbers, which are small.
const CONTROL_LEVEL: i32 = 19;
const CONTROL_WINDOW_LOG: u32 = 22;

/// Writes operations; neighbours are joined. Layers are known by numbers of the caller's.
pub struct OpWriter<W: Write> {
    streams: Vec<Encoder<'static, W>>,
    /// The layers that were used, and the cursor in each.
    layers: Vec<(usize, u64)>,
    /// Position of the current one.
    current: Option<usize>,
    data: Vec<u8>,
    /// Layer, place and bytes of a COPY not yet written.
    copy: Option<(usize, u64, u64)>,
}

impl<W: Write> std::fmt::Debug for OpWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpWriter").field("layers", &self.layers).finish()
    }
}

impl<W: Write> OpWriter<W> {
    /// Begins the streams; `open` gives what each is written into.
    ///
    /// # Errors
    /// Those of `open`; bad options.
    pub fn new(options: &WriterOptions, mut open: impl FnMut() -> io::Result<W>) -> io::Result<Self> {
        let numbers = WriterOptions {
            level: options.level.max(CONTROL_LEVEL),
            window_log: CONTROL_WINDOW_LOG,
            ..WriterOptions::default()
        };
        let streams = KINDS.iter().map(|kind| {
            let options = if kind.is_control() { &numbers } else { options };
            options.encoder(open()?)
        });
        let streams = streams.collect::<io::Result<_>>()?;
        Ok(OpWriter { streams, layers: Vec::new(), current: None, data: Vec::new(), copy: None })
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

    /// Copies `len` bytes of a layer from `at` on.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn copy(&mut self, layer: usize, at: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        if let Some((of, from, so_far)) = &mut self.copy
            && (*of, *from + *so_far) == (layer, at)
        {
            *so_far += len;
            return Ok(());
        }
        self.flush()?;
        self.copy = Some((layer, at, len));
        Ok(())
    }

    /// Adds `sums` to the bytes of a layer from `at` on.
    ///
    /// # Errors
    /// The inner writers'.
    pub fn add(&mut self, layer: usize, at: u64, sums: &[u8]) -> io::Result<()> {
        if sums.is_empty() {
            return Ok(());
        }
        self.flush()?;
        self.take(command::ADD, layer, at, sums.len() as u64)?;
        self.streams[Kind::Sums as usize].write_all(sums)
    }

    /// Ends the streams; `make` turns what each was written into into a region.
    ///
    /// # Errors
    /// The inner writers'; those of `make`.
    pub fn finish(mut self, mut make: impl FnMut(W) -> Result<Region>) -> Result<Parts> {
        self.flush().at("patch")?;
        let streams = self.streams.into_iter().map(|stream| make(stream.finish().at("patch")?));
        let layers = self.layers.into_iter().map(|(layer, _)| layer).collect();
        Ok(Parts { streams: streams.collect::<Result<_>>()?, layers })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_copy()?;
        self.flush_data()
    }

    fn flush_copy(&mut self) -> io::Result<()> {
        match self.copy.take() {
            Some((layer, at, len)) => self.take(command::COPY, layer, at, len),
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
            self.layers[current].1 += len;
        }
        Ok(())
    }

    /// A command that takes `len` bytes of a layer.
    fn take(&mut self, code: u8, layer: usize, at: u64, len: u64) -> io::Result<()> {
        let known = self.layers.iter().position(|(known, _)| *known == layer);
        let current = known.unwrap_or_else(|| {
            self.layers.push((layer, 0));
            self.layers.len() - 1
        });
        if self.current.replace(current) != Some(current) {
            self.command(command::LAYER, current as u64)?;
        }
        let cursor = std::mem::replace(&mut self.layers[current].1, at + len);
        if cursor == at {
            return self.command(code, len);
        }
        self.command(code | command::MOVE, len)?;
        number(&mut self.streams[Kind::Moves as usize], zigzag(at.wrapping_sub(cursor) as i64))
    }

    fn command(&mut self, code: u8, len: u64) -> io::Result<()> {
        self.streams[Kind::Commands as usize].write_all(&[code])?;
        number(&mut self.streams[Kind::Lengths as usize], len)
    }
}

/// The reverse of what the reader does.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Writes a number as unsigned LEB128.
fn number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    let (mut bytes, mut len) = ([0; 10], 0);
    while number >= 0x80 {
        bytes[len] = number as u8 | 0x80;
        number >>= 7;
        len += 1;
    }
    bytes[len] = number as u8;
    out.write_all(&bytes[..=len])
}

/// The streams of a patch, compressed.
#[derive(Debug)]
pub struct Parts {
    streams: Vec<Region>,
    layers: Vec<usize>,
}

impl Parts {
    /// A reader of the operations that writes the patch into `out` while it is read. `name` gives the digests of
    /// layers by the numbers that they were written with.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn weave<W: Write>(
        self,
        mut out: W,
        name: impl Fn(usize) -> DiffId,
        limits: &Limits,
    ) -> Result<OpReader<impl Blocks>> {
        let layers: Vec<DiffId> = self.layers.iter().map(|layer| name(*layer)).collect();
        out.write_all(&MAGIC).at("patch")?;
        number(&mut out, layers.len() as u64).at("patch")?;
        for layer in &layers {
            out.write_all(&bytes(layer)?).at("patch")?;
        }
        let blocks = Woven { taken: vec![0; self.streams.len()], streams: self.streams, out };
        OpReader::of(blocks, layers, limits)
    }
}

/// The 32 bytes of a SHA-256.
fn bytes(diff_id: &DiffId) -> Result<Vec<u8>> {
    let hex = diff_id.as_digest().digest();
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    let bytes = pairs.map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    bytes.collect::<Option<_>>().ok_or_else(|| Error::misfit(format!("{diff_id} is no SHA-256")))
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
