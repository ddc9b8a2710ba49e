//! One stream from its start to its end: what is buffered, and when it is worked on.

use super::chains::{Costs, Effort, SLIDE, WINDOW};
use super::lazy::Lazy;
use super::search::{Block, FIRST_OFFSET};
use super::table::TableFinder;
use super::writer::{BlockWriter, Ending, TABLE_PENALTY};
use super::{Family, Settings};
use crate::deflate::token::Token;

/// The plain bytes of a block of levels 0 to 6.
pub(super) const BLOCK: usize = 65_535;
/// The plain bytes of a block of level -2.
const LITERALS_BLOCK: usize = 32_768;
/// The most bytes of history and block together, for levels 1 to 6.
pub(super) const MOST_HISTORY: usize = 5 * BLOCK;
/// What stays of the history when there would be more.
pub(super) const KEPT_HISTORY: usize = 32_768;
/// The most bytes of a dictionary that are used.
const MOST_DICTIONARY: usize = 32_768;
/// Blocks with fewer bytes are not searched. They can only be the last.
pub(super) const SEARCHED: usize = 128;
/// Positions in tables are lowered when they get here.
pub(super) const LATE: u32 = 1 << 30;

/// A deflate stream in the making, which can be used for another when it is finished.
#[derive(Debug)]
pub(crate) struct Stream {
    settings: Settings,
    writer: BlockWriter,
    stage: Stage,
    /// Plain bytes: history, then those not worked on.
    plain: Vec<u8>,
    /// Where those not worked on begin.
    start: usize,
}

/// What makes blocks of the plain bytes.
#[derive(Debug)]
enum Stage {
    Stored,
    Literals,
    Table { finder: TableFinder, tokens: Vec<Token>, offset: u32 },
    Lazy(Box<Lazy>),
}

impl Stream {
    /// A stream without a dictionary.
    pub(crate) fn new(settings: Settings) -> Self {
        let Settings { family, level, rounding } = settings;
        let (stage, penalty) = match level.get() {
            i8::MIN..=-1 => (Stage::Literals, 10),
            0 => (Stage::Stored, 0),
            level @ 1..=6 => {
                let finder = TableFinder::new(family, level);
                (Stage::Table { finder, tokens: Vec::new(), offset: FIRST_OFFSET }, TABLE_PENALTY)
            }
            level => (Stage::Lazy(Box::new(Lazy::new(effort(family, level)))), 8),
        };
        let writer = BlockWriter::new(family.headers(), rounding, penalty);
        Self { settings, writer, stage, plain: Vec::new(), start: 0 }
    }

    /// Makes it as new, with the last 32 KiB of `dictionary` as history.
    pub(crate) fn reset(&mut self, dictionary: &[u8]) {
        let seen = self.plain.len();
        self.plain.clear();
        self.start = 0;
        let dictionary = &dictionary[dictionary.len().saturating_sub(MOST_DICTIONARY)..];
        match &mut self.stage {
            Stage::Stored | Stage::Literals => {}
            Stage::Table { finder, tokens, offset } => {
                forget(finder, offset, seen);
                self.plain.extend_from_slice(dictionary);
                self.start = dictionary.len();
                // For the tables alone.
                finder.find(&Block { bytes: dictionary, start: 0, offset: *offset }, tokens);
                tokens.clear();
            }
            Stage::Lazy(lazy) => {
                lazy.reset(seen);
                self.plain.extend_from_slice(dictionary);
                lazy.dictionary(dictionary);
            }
        }
        let Settings { family, rounding, .. } = self.settings;
        self.writer = BlockWriter::new(family.headers(), rounding, self.writer.penalty());
    }

    /// Takes the next plain bytes.
    pub(crate) fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            let room = self.room();
            if room == 0 {
                // Only now is it known that more follows.
                self.work(Ending::Open, out);
                continue;
            }
            let (now, later) = plain.split_at(room.min(plain.len()));
            self.plain.extend_from_slice(now);
            plain = later;
        }
    }

    /// How many more bytes are buffered before they are worked on.
    fn room(&self) -> usize {
        match self.stage {
            Stage::Literals => LITERALS_BLOCK - self.plain.len(),
            Stage::Stored => BLOCK - self.plain.len(),
            Stage::Table { .. } => BLOCK - (self.plain.len() - self.start),
            Stage::Lazy(_) => WINDOW - self.plain.len(),
        }
    }

    /// Works on all that is buffered, and writes the marker of a flush. Nothing may be pushed after that.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        self.work(Ending::Closed, out);
        self.writer.flush(out);
    }

    /// Works on all that is buffered, and ends the stream.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.work(Ending::Closed, out);
        self.writer.finish(out);
    }

    /// Works on what is buffered; [`Ending::Closed`] if nothing follows.
    fn work(&mut self, ending: Ending, out: &mut Vec<u8>) {
        let Self { writer, plain, start, .. } = self;
        match &mut self.stage {
            Stage::Stored => {
                if !plain.is_empty() {
                    writer.stored(out, plain);
                }
                plain.clear();
            }
            Stage::Literals => {
                if !plain.is_empty() {
                    writer.bytes(out, plain, ending);
                }
                plain.clear();
            }
            Stage::Table { finder, tokens, offset } => {
                let drop = history_to_drop(*start, plain.len());
                plain.drain(..drop);
                *start -= drop;
                *offset += drop as u32;
                if *offset > LATE {
                    finder.rebase(*offset - FIRST_OFFSET);
                    *offset = FIRST_OFFSET;
                }
                tokens.clear();
                let block = Block { bytes: plain, start: *start, offset: *offset };
                write_block(finder, &block, tokens, ending, writer, out);
                *start = plain.len();
            }
            Stage::Lazy(lazy) => {
                lazy.step(plain, ending, &mut |tokens, raw| writer.tokens(out, tokens, raw, ending));
                if ending == Ending::Open {
                    plain.drain(..SLIDE);
                    lazy.slide();
                }
            }
        }
    }
}

/// Makes all that the tables know unreachable.
fn forget(finder: &mut TableFinder, offset: &mut u32, seen: usize) {
    *offset += seen as u32 + FIRST_OFFSET;
    if *offset > LATE {
        // Then all entries become 0.
        finder.rebase(*offset);
        *offset = FIRST_OFFSET;
    }
}

/// How much history goes before a block is searched that lies from `start` to `end` in the buffer.
pub(super) const fn history_to_drop(start: usize, end: usize) -> usize {
    if end > MOST_HISTORY { start.saturating_sub(KEPT_HISTORY) } else { 0 }
}

/// Finds matches in a block of levels 1 to 6, and writes it.
pub(super) fn write_block(
    finder: &mut TableFinder,
    block: &Block<'_>,
    tokens: &mut Vec<Token>,
    ending: Ending,
    writer: &mut BlockWriter,
    out: &mut Vec<u8>,
) {
    let raw = block.bytes.get(block.start..).unwrap_or(&[]);
    if raw.len() >= SEARCHED {
        finder.find(block, tokens);
    }
    write_found(tokens, raw, ending, writer, out);
}

/// Writes a block of levels 1 to 6: `tokens` stand for `raw`, or are empty if there is no match in it.
pub(super) fn write_found(
    tokens: &[Token],
    raw: &[u8],
    ending: Ending,
    writer: &mut BlockWriter,
    out: &mut Vec<u8>,
) {
    match raw.len() {
        0 => {}
        1..=32 => writer.stored(out, raw),
        33..=127 => writer.bytes(out, raw, ending),
        _ if tokens.is_empty() => writer.stored(out, raw),
        len if tokens.len() > len - (len >> 4) => writer.bytes(out, raw, ending),
        _ => writer.tokens(out, tokens, Some(raw), ending),
    }
}

/// How hard levels 7 to 9 try.
fn effort(family: Family, level: i8) -> Effort {
    match level {
        7 => Effort { lazy: 12, nice: 16, depth: 24, costs: Costs::Ignored },
        8 => Effort { lazy: 30, nice: 40, depth: 64, costs: Costs::Ignored },
        _ => {
            let ahead = if family == Family::C { 32_768 } else { WINDOW };
            Effort { lazy: 258, nice: 258, depth: 1024, costs: Costs::Ahead(ahead) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::kp::Level;

    /// Some bytes with matches of all kinds.
    fn plain() -> Vec<u8> {
        let mut plain = Vec::new();
        let mut state = 1u32;
        while plain.len() < 900_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let from = plain.len().saturating_sub(1 + (state >> 16) as usize % 40_000);
            let copied = plain.len().min(from + (state >> 8) as usize % 50);
            plain.extend_from_within(from..copied);
            plain.extend_from_slice(&state.to_le_bytes()[1..]);
        }
        plain
    }

    fn encode(stream: &mut Stream, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        stream.push(plain, &mut out);
        stream.finish(&mut out);
        out
    }

    #[test]
    fn positions_are_lowered_without_a_trace() {
        let plain = plain();
        for level in 1..=9 {
            let settings = Settings::new(Family::C, Level::new(level).unwrap());
            let expected = encode(&mut Stream::new(settings), &plain);
            let mut late = Stream::new(settings);
            match &mut late.stage {
                Stage::Table { offset, .. } => *offset = LATE - 400_000,
                Stage::Lazy(lazy) => lazy.start_late(),
                Stage::Stored | Stage::Literals => {}
            }
            assert!(encode(&mut late, &plain) == expected, "level {level}");
            if let Stage::Table { offset, .. } = late.stage {
                assert!(offset < LATE / 2, "level {level}");
            }
            // And used again, also when it is late for that.
            for _ in 0..2 {
                late.reset(&[]);
                assert!(encode(&mut late, &plain) == expected, "level {level}, again");
                if let Stage::Table { offset, .. } = &mut late.stage {
                    *offset = LATE - 1000;
                }
            }
        }
    }
}
