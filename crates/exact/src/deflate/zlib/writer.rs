//! Where blocks end, and how each is written.

use super::chain::window_base;
use super::codes::BlockCodes;
use super::{Level, Memory, Settings};
use crate::deflate::bits::BitWriter;
use crate::deflate::block::{Counts, fixed_codes, write_end_of_block, write_tokens};
use crate::deflate::source::{BlockWriter, Window};
use crate::deflate::tables::{DISTANCE_EXTRA, END_OF_BLOCK, MAX_STORED, distance_symbol};
use crate::deflate::token::Token;

/// GNU gzip asks now and then whether it pays to end a block.
const GNU_PERIOD: usize = 4096;
/// The most tokens of GNU gzip's blocks.
const GNU_MOST: usize = 32_767;

/// When a block ends.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// With so many tokens.
    Full(usize),
    /// With [`GNU_MOST`] tokens, or before if few of them are matches and they save half of the bytes.
    Gnu,
}

/// Which position the original has reached when it hands out a token.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The first byte of the token.
    Greedy,
    /// The byte behind it.
    Lazy,
}

impl Step {
    const fn of(level: Level) -> Self {
        if level.get() < 4 { Self::Greedy } else { Self::Lazy }
    }
}

/// The writer of blocks.
#[derive(Debug)]
pub(crate) struct Writer {
    rule: Rule,
    step: Step,
    bits: BitWriter,
    /// The tokens of the block that is gathered, the plain bytes before it and behind them.
    tokens: Vec<Token>,
    start: u64,
    end: u64,
}

impl Writer {
    pub(crate) fn zlib(settings: Settings) -> Self {
        let most = match settings.memory {
            Memory::Usual => 16_383,
            Memory::Most => 32_767,
        };
        Self::new(Rule::Full(most), settings.level)
    }

    pub(crate) fn gnu(level: Level) -> Self {
        // The fastest levels do not ask.
        let rule = if level.get() < 3 { Rule::Full(GNU_MOST) } else { Rule::Gnu };
        Self::new(rule, level)
    }

    fn new(rule: Rule, level: Level) -> Self {
        let step = Step::of(level);
        Self { rule, step, bits: BitWriter::new(), tokens: Vec::new(), start: 0, end: 0 }
    }

    /// Ends the block that is gathered, if there is one, as zlib does when it is flushed.
    pub(crate) fn flush(&mut self, window: Window<'_>, out: &mut Vec<u8>) {
        if !self.tokens.is_empty() {
            let base = window_base(self.end, window.stream_end);
            self.end_block(window, base, false, out);
        }
    }

    /// Goes on with windows in which the next token begins at position `at`. Of use after a flush.
    pub(crate) fn go_on_at(&mut self, at: u64) {
        (self.start, self.end) = (at, at);
    }

    /// The bits of the stream, for what is written between blocks.
    pub(crate) fn bits(&mut self) -> &mut BitWriter {
        &mut self.bits
    }

    /// The number of tokens at which a block may end.
    fn border(&self) -> usize {
        match self.rule {
            Rule::Full(most) => most,
            Rule::Gnu => (self.tokens.len() + 1).next_multiple_of(GNU_PERIOD).min(GNU_MOST),
        }
    }

    /// Whether the block ends at such a border.
    fn ends(&self) -> bool {
        match self.rule {
            Rule::Full(_) => true,
            Rule::Gnu if self.tokens.len() >= GNU_MOST => true,
            Rule::Gnu => {
                let matches = self.tokens.iter().filter(|token| token.is_match());
                let (count, bits) = matches.fold((0, 0), |(count, bits), token| {
                    let extra = DISTANCE_EXTRA[distance_symbol(token.distance_index())];
                    (count + 1, bits + 5 + u64::from(extra))
                });
                let written = (8 * self.tokens.len() as u64 + bits) >> 3;
                count < self.tokens.len() / 2 && written < (self.stand() - self.start) / 2
            }
        }
    }

    /// The position of the original when it handed out the last token.
    fn stand(&self) -> u64 {
        let Some(last) = self.tokens.last() else { return self.end };
        let first = self.end - last.plain_len() as u64;
        match self.step {
            Step::Greedy => first,
            Step::Lazy => first + 1,
        }
    }

    /// Writes the block. `base` is where the window of the original begins: it stores no bytes before.
    fn end_block(&mut self, window: Window<'_>, base: u64, is_final: bool, out: &mut Vec<u8>) {
        let mut counts = Counts::of_tokens(&self.tokens);
        counts.litlen[END_OF_BLOCK] = 1;
        let codes = BlockCodes::new(&counts);
        let extra = counts.extra_bits();
        let sizes = codes.litlen.size(&counts.litlen) + codes.distance.size(&counts.distance);
        let dynamic = (codes.header.bits + sizes + extra).div_ceil(8);
        let fixed = (3 + counts.fixed_size() + extra).div_ceil(8);
        let raw = window.get(self.start..self.end).filter(|raw| {
            self.start >= base && raw.len() <= MAX_STORED && raw.len() as u64 + 4 <= dynamic.min(fixed)
        });
        if let Some(raw) = raw {
            self.bits.stored(out, raw, is_final);
        } else {
            let (litlen, distance) = if fixed <= dynamic {
                self.bits.put(out, 2 + u32::from(is_final), 3);
                fixed_codes()
            } else {
                codes.header.write(&mut self.bits, out, is_final);
                (codes.litlen, codes.distance)
            };
            write_tokens(&mut self.bits, out, &self.tokens, &litlen, &distance);
            write_end_of_block(&mut self.bits, out, &litlen);
        }
        self.tokens.clear();
        self.start = self.end;
    }
}

impl BlockWriter for Writer {
    // No block that is stored is longer than the window, and none begins before it.
    const HISTORY: u64 = 1 << 16;

    fn write(&mut self, mut tokens: &[Token], window: Window<'_>, _until: u64, out: &mut Vec<u8>) {
        while !tokens.is_empty() {
            let border = self.border();
            let (now, later) = tokens.split_at((border - self.tokens.len()).min(tokens.len()));
            self.tokens.extend_from_slice(now);
            self.end += now.iter().map(|token| token.plain_len() as u64).sum::<u64>();
            tokens = later;
            if self.tokens.len() == border && self.ends() {
                let base = window_base(self.stand(), window.stream_end);
                self.end_block(window, base, false, out);
            }
        }
    }

    fn finish(&mut self, window: Window<'_>, out: &mut Vec<u8>) {
        let base = window_base(self.end, window.stream_end);
        self.end_block(window, base, true, out);
        self.bits.align(out);
    }
}
