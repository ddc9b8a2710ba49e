//! The streams of a patch, out of its blocks.

use std::io::{self, Read};

use super::compression::{Decoder, Step};
use super::{CONTROL_WINDOW_LOG, KINDS, Kind, MAX_BLOCK, MAX_WAITING, STREAMS};
use crate::encoding::read_full;
use crate::error::{Error, IoContext, Result};
use crate::tardiff::{Flow, Limits};

/// Bytes decompressed at once.
const CHUNK: usize = 16 << 10;

/// Where blocks come from.
pub trait Blocks {
    /// Puts the next block into `block`, of whatever stream is next, and says which; none at the end. `wanted` is
    /// the stream that needs one.
    ///
    /// # Errors
    /// Verification for a broken block; those of the source.
    fn next(&mut self, wanted: usize, block: &mut Vec<u8>) -> Result<Option<usize>>;
}

/// The blocks of a patch, in its order.
#[derive(Debug)]
pub struct FromPatch<R>(pub R);

impl<R: Read> Blocks for FromPatch<R> {
    fn next(&mut self, _wanted: usize, block: &mut Vec<u8>) -> Result<Option<usize>> {
        let mut head = [0];
        if read_full(&mut self.0, &mut head).at("patch")? == 0 {
            return Ok(None);
        }
        let stream = usize::from(head[0]);
        if stream >= KINDS.len() {
            let known = KINDS.len() - 1;
            return Err(broken(&format!("a block of stream {stream}, known are 0 to {known}")));
        }
        let len = number(&mut self.0)?.filter(|len| (1..=MAX_BLOCK as u64).contains(len));
        let len = len.ok_or_else(|| broken(&format!("a block without 1 to {MAX_BLOCK} bytes")))?;
        block.resize(len as usize, 0);
        if read_full(&mut self.0, block).at("patch")? < block.len() {
            return Err(broken("truncated inside a block"));
        }
        Ok(Some(stream))
    }
}

/// A number of the patch itself, as unsigned LEB128; none from 2^63 on.
pub(super) fn number(reader: &mut impl Read) -> Result<Option<u64>> {
    crate::tardiff::varint(|| {
        let mut byte = [0];
        match read_full(reader, &mut byte).at("patch")? {
            0 => Err(broken("truncated inside a number")),
            _ => Ok(byte[0]),
        }
    })
}

pub(super) fn broken(what: &str) -> Error {
    Error::verification(format!("broken extended patch: {what}"))
}

/// One stream.
struct Stream {
    /// As its first byte says.
    decoder: Option<Decoder>,
    window_log: u32,
    /// Compressed bytes; the first `taken` were decompressed.
    waiting: Vec<u8>,
    taken: usize,
    /// Decompressed bytes; those from `start` to `end` are to be read.
    out: Vec<u8>,
    start: usize,
    end: usize,
    /// The last bytes filled the room, so there may be more of them.
    more: bool,
    /// Between two frames, where it may end.
    may_end: bool,
}

impl Stream {
    /// Decompresses some of what waits, if anything does.
    fn step(&mut self, out: &mut [u8]) -> io::Result<Step> {
        let input = &self.waiting[self.taken..];
        if let (None, Some(first)) = (&self.decoder, input.first()) {
            self.decoder = Some(Decoder::new(*first, self.window_log)?);
        }
        match &mut self.decoder {
            Some(decoder) => decoder.step(input, out),
            None => Ok(Step { read: 0, made: 0, ended: true }),
        }
    }
}

/// All streams.
pub(super) struct Streams<B> {
    blocks: B,
    streams: Vec<Stream>,
    block: Vec<u8>,
    /// How far each was read.
    pub flows: [Flow; STREAMS],
}

impl<B: Blocks> Streams<B> {
    pub fn new(blocks: B, limits: &Limits) -> Self {
        let streams = KINDS.iter().map(|kind| {
            let most = if kind.is_control() { CONTROL_WINDOW_LOG } else { u32::MAX };
            let (decoder, window_log) = (None, most.min(limits.window_log));
            let (waiting, out) = (Vec::new(), vec![0; CHUNK]);
            let (taken, start, end) = (0, 0, 0);
            Stream { decoder, window_log, waiting, taken, out, start, end, more: false, may_end: true }
        });
        Streams { blocks, streams: streams.collect(), block: Vec::new(), flows: Default::default() }
    }

    /// Decompressed bytes that were read, of all.
    pub fn offset(&self) -> u64 {
        self.flows.iter().map(|flow| flow.plain).sum()
    }

    /// The next byte of a stream; none at its end.
    pub fn byte(&mut self, kind: Kind) -> Result<Option<u8>> {
        let stream = &mut self.streams[kind as usize];
        if stream.start == stream.end && !self.fill(kind)? {
            return Ok(None);
        }
        let stream = &mut self.streams[kind as usize];
        stream.start += 1;
        self.flows[kind as usize].plain += 1;
        Ok(Some(stream.out[stream.start - 1]))
    }

    /// A number of a stream, as unsigned LEB128.
    pub fn number(&mut self, kind: Kind) -> Result<u64> {
        let found = crate::tardiff::varint(|| {
            self.byte(kind)?.ok_or_else(|| broken(&format!("the stream of {kind:?} ends early")))
        })?;
        found.ok_or_else(|| broken(&format!("a number of 2^63 or more among the {kind:?}")))
    }

    /// Some bytes of a stream; none at its end.
    pub fn read(&mut self, kind: Kind, buf: &mut [u8]) -> Result<usize> {
        let stream = &mut self.streams[kind as usize];
        let n = if stream.start == stream.end && buf.len() >= CHUNK {
            self.decompress(kind, buf)?
        } else if stream.start == stream.end && !self.fill(kind)? {
            0
        } else {
            let stream = &mut self.streams[kind as usize];
            let n = buf.len().min(stream.end - stream.start);
            buf[..n].copy_from_slice(&stream.out[stream.start..stream.start + n]);
            stream.start += n;
            n
        };
        self.flows[kind as usize].plain += n as u64;
        Ok(n)
    }

    /// Reads to the end of the patch; nothing may be left in any stream.
    pub fn finish(&mut self) -> Result<()> {
        for kind in KINDS {
            if self.byte(kind)?.is_some() {
                return Err(broken(&format!("the stream of {kind:?} has bytes that no operation takes")));
            }
        }
        Ok(())
    }

    fn fill(&mut self, kind: Kind) -> Result<bool> {
        let mut out = std::mem::take(&mut self.streams[kind as usize].out);
        let filled = self.decompress(kind, &mut out);
        let stream = &mut self.streams[kind as usize];
        stream.out = out;
        (stream.start, stream.end) = (0, 0);
        stream.end = filled?;
        Ok(stream.end > 0)
    }

    /// Decompresses into `out`, at least a byte but at the end of the stream.
    fn decompress(&mut self, kind: Kind, out: &mut [u8]) -> Result<usize> {
        loop {
            let stream = &mut self.streams[kind as usize];
            if stream.taken == stream.waiting.len() && !stream.more {
                let may_end = stream.may_end;
                if self.next_block(kind)? {
                    continue;
                }
                return if may_end {
                    Ok(0)
                } else {
                    Err(broken(&format!("truncated in the stream of {kind:?}")))
                };
            }
            let step = stream.step(out);
            let step = step.map_err(|e| broken(&format!("the stream of {kind:?}: {e}")).with_source(e))?;
            stream.taken += step.read;
            stream.more = step.made == out.len();
            if step.read > 0 || step.made > 0 {
                stream.may_end = step.ended;
            }
            if step.made > 0 {
                return Ok(step.made);
            }
        }
    }

    /// Takes a block in, of whatever stream; false at the end of the patch.
    fn next_block(&mut self, wanted: Kind) -> Result<bool> {
        let Some(of) = self.blocks.next(wanted as usize, &mut self.block)? else { return Ok(false) };
        let waiting: usize = self.streams.iter().map(|stream| stream.waiting.len() - stream.taken).sum();
        if waiting > MAX_WAITING {
            return Err(broken(&format!("more than {MAX_WAITING} bytes come before they are wanted")));
        }
        let stream = &mut self.streams[of];
        stream.waiting.drain(..stream.taken);
        stream.taken = 0;
        stream.waiting.extend_from_slice(&self.block);
        self.flows[of].packed += self.block.len() as u64;
        Ok(true)
    }
}
