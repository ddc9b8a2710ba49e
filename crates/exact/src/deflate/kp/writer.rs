//! The block writer: tokens or plain bytes in, blocks out.
//!
//! Blocks stay open after they were written, so that the next may go on with their codes. Only the end of
//! the stream, a flush or a block of another kind ends them.

use super::estimate::{Rounding, estimate};
use crate::deflate::bits::BitWriter;
use crate::deflate::block::*;
use crate::deflate::tables::*;
use crate::deflate::token::Token;

/// How the writer of a family announces codes, and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headers {
    /// Blocks left open announce all 286 and 30 code lengths.
    All,
    /// Only the lengths in use are announced; the end of a block left open is not counted.
    Trimmed,
    /// As `Trimmed`, with the end of every block counted.
    TrimmedAndCounted,
}

/// Whether a block may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// More follows, maybe with the same codes.
    Open,
    /// The block is the last before a flush or the end of the stream, and ends with its end-of-block symbol.
    Closed,
}

/// What made the codes of an open block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Tokens,
    Bytes,
}

/// A block that was not ended yet.
#[derive(Clone, Debug)]
struct OpenBlock {
    litlen: LitLenCode,
    distance: DistanceCode,
    header_bits: u64,
    source: Source,
}

impl OpenBlock {
    /// Whether all symbols that occur have codes.
    fn covers(&self, counts: &Counts) -> bool {
        let covered = |(&count, &length): (&u32, &u8)| count == 0 || length > 0;
        counts.litlen.iter().zip(&self.litlen.lengths).all(covered)
            && counts.distance.iter().zip(&self.distance.lengths).all(covered)
    }

    fn size(&self, counts: &Counts) -> u64 {
        self.litlen.size(&counts.litlen) + self.distance.size(&counts.distance)
    }
}

/// The penalty of levels 1 to 6.
pub(super) const TABLE_PENALTY: u32 = 7;

/// Writes the blocks of one stream.
#[derive(Debug)]
pub(super) struct BlockWriter {
    headers: Headers,
    rounding: Rounding,
    /// New codes must win by this fraction of their size, as a shift.
    penalty: u32,
    bits: BitWriter,
    open: Option<OpenBlock>,
}

impl BlockWriter {
    pub(super) fn new(headers: Headers, rounding: Rounding, penalty: u32) -> Self {
        Self { headers, rounding, penalty, bits: BitWriter::new(), open: None }
    }

    pub(super) fn penalty(&self) -> u32 {
        self.penalty
    }

    /// Ends the open block, if there is one.
    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(open) = self.open.take() {
            write_end_of_block(&mut self.bits, out, &open.litlen);
        }
    }

    /// Writes a stored block; only the first 65,535 bytes of `raw` fit.
    pub(super) fn stored(&mut self, out: &mut Vec<u8>, raw: &[u8]) {
        self.close(out);
        self.bits.stored(out, raw, false);
    }

    /// Writes the marker of a flush: an empty stored block.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.stored(out, &[]);
    }

    /// Ends the stream by an empty fixed block.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.bits.put(out, 3, 10);
        self.bits.align(out);
    }

    fn fixed(&mut self, out: &mut Vec<u8>, tokens: &[Token]) {
        self.close(out);
        let (litlen, distance) = fixed_codes();
        self.bits.put(out, 2, 3);
        write_tokens(&mut self.bits, out, tokens, &litlen, &distance);
        write_end_of_block(&mut self.bits, out, &litlen);
    }

    /// Writes a block of `tokens`, which stand for `raw` if that is known.
    pub(super) fn tokens(&mut self, out: &mut Vec<u8>, tokens: &[Token], raw: Option<&[u8]>, ending: Ending) {
        let mut counts = Counts::of_tokens(tokens);
        let ends = ending == Ending::Closed;
        let sent = tokens.len() + usize::from(ends);
        counts.litlen[END_OF_BLOCK] = u32::from(ends || self.headers == Headers::TrimmedAndCounted);
        if self.open.as_ref().is_some_and(|open| open.source == Source::Bytes || !open.covers(&counts)) {
            self.close(out);
        }
        let trimmed = ends || self.headers != Headers::All;
        if trimmed && counts.used_distance() == 0 {
            // Never sent, but announced and counted.
            counts.distance[0] = 1;
        }
        let raw = raw.filter(|raw| raw.len() <= MAX_STORED);
        let extra = if raw.is_some() || self.open.is_some() { counts.extra_bits() } else { 0 };
        let block = Candidate { tokens, raw, sent, extra };

        if self.open.is_some() && self.go_on(out, &block, &counts) {
            return;
        }
        if self.open.is_none() {
            counts.litlen[END_OF_BLOCK] = 1;
            let (litlen, distance) = if trimmed {
                (counts.used_litlen(), counts.used_distance())
            } else {
                (LITLEN_SYMBOLS, DISTANCE_SYMBOLS)
            };
            if self.start(out, &block, &counts, [litlen, distance]) {
                return;
            }
        }
        if let Some(open) = &self.open {
            write_tokens(&mut self.bits, out, tokens, &open.litlen, &open.distance);
        }
        if ends {
            self.close(out);
        }
    }

    /// Weighs the codes of the open block against new ones, and ends it if those win.
    ///
    /// Returns whether the block was written in another way.
    fn go_on(&mut self, out: &mut Vec<u8>, block: &Candidate<'_>, counts: &Counts) -> bool {
        let Some(open) = &self.open else { return false };
        let own = open.header_bits + estimate(counts, block.sent, self.rounding);
        let own = own + u64::from(open.litlen.lengths[END_OF_BLOCK]) + (own >> self.penalty);
        let reuse = open.size(counts) + block.extra;
        if own < reuse {
            self.close(out);
        }
        let size = own.min(reuse);
        if block.sent < FEW_TOKENS && block.fixed_size(counts) + 7 < size {
            self.fixed_or_stored(out, block, size);
            return true;
        }
        self.stored_if(out, block, size)
    }

    /// Makes new codes, and writes their header.
    ///
    /// Returns whether the block was written in another way.
    fn start(&mut self, out: &mut Vec<u8>, block: &Candidate<'_>, counts: &Counts, sent: [usize; 2]) -> bool {
        let litlen = LitLenCode::best(&counts.litlen, MAX_CODE_BITS);
        let distance = DistanceCode::best(&counts.distance, MAX_CODE_BITS);
        let header = DynamicHeader::new(&litlen.lengths[..sent[0]], &distance.lengths[..sent[1]]);
        let size = header.bits + litlen.size(&counts.litlen) + distance.size(&counts.distance) + block.extra;
        let fixed = block.fixed_size(counts);
        if block.sent < FEW_TOKENS && fixed <= size {
            self.fixed_or_stored(out, block, fixed);
            return true;
        }
        if self.stored_if(out, block, size) {
            return true;
        }
        header.write(&mut self.bits, out, false);
        self.open = Some(OpenBlock { litlen, distance, header_bits: header.bits, source: Source::Tokens });
        false
    }

    /// Stores the block if that takes no more than `size` bits.
    fn stored_if(&mut self, out: &mut Vec<u8>, block: &Candidate<'_>, size: u64) -> bool {
        match block.raw {
            Some(raw) if stored_size(raw) <= size => {
                self.stored(out, raw);
                true
            }
            _ => false,
        }
    }

    fn fixed_or_stored(&mut self, out: &mut Vec<u8>, block: &Candidate<'_>, size: u64) {
        if !self.stored_if(out, block, size) {
            self.fixed(out, block.tokens);
        }
    }

    /// Writes a block of literals; at most 65,535 bytes.
    pub(super) fn bytes(&mut self, out: &mut Vec<u8>, raw: &[u8], ending: Ending) {
        let mut counts = Counts::of_bytes(raw);
        if raw.len() > 1024 && is_even(&counts, raw.len()) {
            return self.stored(out, raw);
        }
        let plain = counts.clone();
        counts.litlen[END_OF_BLOCK] = 1;
        let litlen = LitLenCode::best(&counts.litlen, MAX_CODE_BITS);
        let size = litlen.size(&counts.litlen) + self.open.as_ref().map_or(560, |open| open.header_bits);
        let size = size + (size >> self.penalty);
        if stored_size(raw) <= size {
            return self.stored(out, raw);
        }
        if self.open.as_ref().is_some_and(|open| !open.covers(&plain) || size < open.size(&plain)) {
            self.close(out);
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.start_literals(out, litlen),
        };
        write_literals(&mut self.bits, out, raw, &open.litlen);
        self.open = Some(open);
        if ending == Ending::Closed {
            self.close(out);
        }
    }

    fn start_literals(&mut self, out: &mut Vec<u8>, litlen: LitLenCode) -> OpenBlock {
        let mut lengths = [0; DISTANCE_SYMBOLS];
        lengths[0] = 1;
        let header = DynamicHeader::new(&litlen.lengths[..FIRST_LENGTH], &lengths[..1]);
        header.write(&mut self.bits, out, false);
        let distance = DistanceCode::canonical(lengths);
        OpenBlock { litlen, distance, header_bits: header.bits, source: Source::Bytes }
    }
}

/// Below this many tokens the fixed codes are considered.
const FEW_TOKENS: usize = 250;

/// A block of tokens on the way to be written.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    tokens: &'a [Token],
    /// The plain bytes, if they can be stored.
    raw: Option<&'a [u8]>,
    /// The tokens to send, with the end of the block if it is to be sent.
    sent: usize,
    /// The extra bits of all tokens, or 0 where the writer leaves them out.
    extra: u64,
}

impl Candidate<'_> {
    fn fixed_size(&self, counts: &Counts) -> u64 {
        3 + counts.fixed_size() + self.extra
    }
}

/// The size of a stored block in bits, as the writers reckon it.
fn stored_size(raw: &[u8]) -> u64 {
    (raw.len() as u64 + 5) * 8
}

/// Whether the bytes occur so evenly that no prefix code will help.
fn is_even(counts: &Counts, len: usize) -> bool {
    let sum: u64 =
        counts.litlen[..END_OF_BLOCK].iter().map(|&c| (256 * u64::from(c)).abs_diff(len as u64).pow(2)).sum();
    sum < 131_072 * len as u64
}
