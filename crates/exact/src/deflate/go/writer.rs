//! How the blocks are written: which kind, with which codes.

use super::chain::window_base;
use super::fast::{BLOCK, SEARCHED};
use crate::deflate::bits::BitWriter;
use crate::deflate::block::{
    Counts, DistanceCode, DynamicHeader, LitLenCode, fixed_codes, write_end_of_block, write_literals,
    write_tokens,
};
use crate::deflate::huffman::PrefixCode;
use crate::deflate::source::{BlockWriter, Window};
use crate::deflate::tables::{END_OF_BLOCK, FIRST_LENGTH, MAX_CODE_BITS, MAX_STORED};
use crate::deflate::token::Token;

/// Tokens of a block at levels 2 to 9.
const BLOCK_TOKENS: usize = 16_384;
/// The last blocks of level 1 that are stored without a look have at most so many bytes.
const STORED_UNSEEN: usize = 16;

/// A block with codes of its own, not yet written.
struct Dynamic {
    header: DynamicHeader,
    litlen: LitLenCode,
    distance: DistanceCode,
    /// Its bits, without the extra bits of lengths and distances.
    bits: u64,
}

impl Dynamic {
    /// Codes for these counts, which get an end of block. Without a distance, one is made up.
    fn new(counts: &mut Counts) -> Self {
        counts.litlen[END_OF_BLOCK] = 1;
        if counts.used_distance() == 0 {
            counts.distance[0] = 1;
        }
        let litlen = PrefixCode::best(&counts.litlen, MAX_CODE_BITS);
        let distance = PrefixCode::best(&counts.distance, MAX_CODE_BITS);
        let header = DynamicHeader::new(
            &litlen.lengths[..counts.used_litlen()],
            &distance.lengths[..counts.used_distance()],
        );
        let bits = header.bits + litlen.size(&counts.litlen) + distance.size(&counts.distance);
        Self { header, litlen, distance, bits }
    }

    fn write_tokens(&self, bits: &mut BitWriter, out: &mut Vec<u8>, tokens: &[Token]) {
        self.header.write(bits, out, false);
        write_tokens(bits, out, tokens, &self.litlen, &self.distance);
        write_end_of_block(bits, out, &self.litlen);
    }
}

/// The bits a stored block counts with: its padding is not looked at.
fn stored_size(raw: &[u8]) -> u64 {
    (raw.len() as u64 + 5) * 8
}

/// Ends the stream: data blocks never do.
fn end_of_stream(bits: &mut BitWriter, out: &mut Vec<u8>) {
    bits.stored(out, &[], true);
}

/// Levels 2 to 9: the smallest of the three kinds.
#[derive(Debug)]
pub(crate) struct BestWriter {
    bits: BitWriter,
    open: Vec<Token>,
    /// Where the open block begins, and where its tokens reach.
    start: u64,
    reached: u64,
    lazy: bool,
    fixed: (LitLenCode, DistanceCode),
}

impl BestWriter {
    /// A writer at the start of a stream, for tokens of a lazy or of a greedy search.
    pub(crate) fn new(lazy: bool) -> Self {
        let (start, reached) = (0, 0);
        Self { bits: BitWriter::new(), open: Vec::new(), start, reached, lazy, fixed: fixed_codes() }
    }

    /// The plain bytes of the open block, if the original could still store them.
    fn raw<'a>(&self, window: Window<'a>, decided_at: u64) -> Option<&'a [u8]> {
        if self.reached - self.start > MAX_STORED as u64 {
            return None;
        }
        // What its window has lost when the last token is known.
        if self.start < window_base(decided_at, window.stream_end) {
            return None;
        }
        window.get(self.start..self.reached)
    }

    /// The position of the search when it hands out `last`, which ends at `self.reached`.
    fn decided_at(&self, last: Token) -> u64 {
        let length = last.plain_len() as u64;
        match (self.lazy, last.is_match()) {
            (false, _) => self.reached - length,
            (true, true) => self.reached - length + 1,
            (true, false) => self.reached,
        }
    }

    fn block(&mut self, window: Window<'_>, decided_at: u64, out: &mut Vec<u8>) {
        let tokens = std::mem::take(&mut self.open);
        let raw = self.raw(window, decided_at);
        let mut counts = Counts::of_tokens(&tokens);
        let dynamic = Dynamic::new(&mut counts);
        // Without a stored block to compare with, the extra bits are the same on both sides.
        let extra = counts.extra_bits();
        let fixed = 3 + counts.fixed_size() + extra;
        let best = fixed.min(dynamic.bits + extra);
        match raw {
            Some(raw) if stored_size(raw) < best => self.bits.stored(out, raw, false),
            _ if best == fixed => {
                let (litlen, distance) = &self.fixed;
                self.bits.put(out, 2, 3);
                write_tokens(&mut self.bits, out, &tokens, litlen, distance);
                write_end_of_block(&mut self.bits, out, litlen);
            }
            _ => dynamic.write_tokens(&mut self.bits, out, &tokens),
        }
        self.start = self.reached;
        self.open = tokens;
        self.open.clear();
    }
}

impl BlockWriter for BestWriter {
    const HISTORY: u64 = MAX_STORED as u64;

    fn write(&mut self, mut tokens: &[Token], window: Window<'_>, until: u64, out: &mut Vec<u8>) {
        while !tokens.is_empty() {
            let room = (BLOCK_TOKENS - self.open.len()).min(tokens.len());
            let (now, later) = tokens.split_at(room);
            self.open.extend_from_slice(now);
            self.reached += now.iter().map(|t| t.plain_len() as u64).sum::<u64>();
            tokens = later;
            if let (Some(&last), true) = (now.last(), self.open.len() >= BLOCK_TOKENS) {
                self.block(window, self.decided_at(last), out);
            }
        }
        debug_assert_eq!(self.reached, until);
    }

    fn finish(&mut self, window: Window<'_>, out: &mut Vec<u8>) {
        if !self.open.is_empty() {
            self.block(window, self.reached, out);
        }
        end_of_stream(&mut self.bits, out);
    }
}

/// Blocks written from their plain bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawBlocks {
    /// Always stored (level 0).
    Stored,
    /// As literals, where that is smaller (level -2).
    Huffman,
}

/// Writes `raw` as literals, or stored if that is not much larger: extra bits do not count here.
fn huffman_block(bits: &mut BitWriter, raw: &[u8], out: &mut Vec<u8>) {
    // Only END_OF_BLOCK is above the literals, so 257 lengths are sent.
    let dynamic = Dynamic::new(&mut Counts::of_bytes(raw));
    if prefers_stored(raw, dynamic.bits) {
        return bits.stored(out, raw, false);
    }
    dynamic.header.write(bits, out, false);
    write_literals(bits, out, raw, &dynamic.litlen);
    write_end_of_block(bits, out, &dynamic.litlen);
}

fn prefers_stored(raw: &[u8], size: u64) -> bool {
    raw.len() <= MAX_STORED && stored_size(raw) < size + (size >> 4)
}

/// Levels -2 and 0.
#[derive(Debug)]
pub(crate) struct RawWriter {
    bits: BitWriter,
    kind: RawBlocks,
    position: u64,
}

impl RawWriter {
    pub(crate) fn new(kind: RawBlocks) -> Self {
        Self { bits: BitWriter::new(), kind, position: 0 }
    }
}

impl BlockWriter for RawWriter {
    const HISTORY: u64 = 0;

    fn write(&mut self, _: &[Token], window: Window<'_>, until: u64, out: &mut Vec<u8>) {
        for raw in window.get(self.position..until).unwrap_or_default().chunks(BLOCK) {
            match self.kind {
                RawBlocks::Stored => self.bits.stored(out, raw, false),
                RawBlocks::Huffman => huffman_block(&mut self.bits, raw, out),
            }
        }
        self.position = until;
    }

    fn finish(&mut self, _: Window<'_>, out: &mut Vec<u8>) {
        end_of_stream(&mut self.bits, out);
    }
}

/// Level 1: blocks of 65,535 bytes.
#[derive(Debug, Default)]
pub(crate) struct FastWriter {
    bits: BitWriter,
    position: u64,
}

impl FastWriter {
    fn block(&mut self, tokens: &[Token], raw: &[u8], out: &mut Vec<u8>) {
        let few_matches = tokens.len() > raw.len() - (raw.len() >> 4);
        if raw.len() <= STORED_UNSEEN {
            self.bits.stored(out, raw, false);
        } else if raw.len() < SEARCHED || few_matches {
            huffman_block(&mut self.bits, raw, out);
        } else {
            let dynamic = Dynamic::new(&mut Counts::of_tokens(tokens));
            if prefers_stored(raw, dynamic.bits) {
                self.bits.stored(out, raw, false);
            } else {
                dynamic.write_tokens(&mut self.bits, out, tokens);
            }
        }
    }
}

impl BlockWriter for FastWriter {
    const HISTORY: u64 = 0;

    fn write(&mut self, mut tokens: &[Token], window: Window<'_>, until: u64, out: &mut Vec<u8>) {
        for raw in window.get(self.position..until).unwrap_or_default().chunks(BLOCK) {
            let count = count_tokens(tokens, raw.len());
            let (now, later) = tokens.split_at(count);
            self.block(now, raw, out);
            tokens = later;
        }
        self.position = until;
    }

    fn finish(&mut self, _: Window<'_>, out: &mut Vec<u8>) {
        end_of_stream(&mut self.bits, out);
    }
}

/// How many of the first tokens stand for `plain` bytes.
fn count_tokens(tokens: &[Token], plain: usize) -> usize {
    let mut reached = 0;
    tokens
        .iter()
        .take_while(|token| {
            let room = reached < plain;
            reached += token.plain_len();
            room
        })
        .count()
}

const _: () = assert!(FIRST_LENGTH == 257);
