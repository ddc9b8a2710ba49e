//! Levels 1 to 6 as the two stages that several threads can share a stream with.
//!
//! Their blocks begin at multiples of 65,535 bytes, and nothing but the tables goes from block to block.
//! So a search can begin at any block.

use super::search::{Block, FIRST_OFFSET, REACH};
use super::stream::{BLOCK, KEPT_HISTORY, LATE, MOST_HISTORY, SEARCHED, write_found};
use super::table::TableFinder;
use super::writer::{self, Ending};
use super::{Family, Settings};
use crate::deflate::source::{BlockWriter, TokenSource, Window};
use crate::deflate::token::Token;

/// Bytes of a block.
const BLOCK_BYTES: u64 = BLOCK as u64;

/// The match finders of levels 1 to 6.
#[derive(Clone, Debug)]
pub(super) struct TableSource {
    finder: TableFinder,
    position: u64,
    /// The position in the stream that is [`FIRST_OFFSET`] in the tables.
    origin: u64,
}

impl TableSource {
    fn block(&mut self, window: Window<'_>, end: u64, tokens: &mut Vec<Token>) {
        let start = self.position;
        self.position = end;
        let history = history_start(start, end).max(window.origin);
        let Some(bytes) = window.get(history..end) else { return };
        let before = tokens.len();
        if end - start >= SEARCHED as u64 {
            let offset = self.offset(history);
            self.finder.find(&Block { bytes, start: (start - history) as usize, offset }, tokens);
        }
        if tokens.len() == before {
            // No match: to the writer, the block is its literals.
            tokens.extend(window.get(start..end).unwrap_or(&[]).iter().map(|&b| Token::literal(b)));
        }
    }

    /// What makes an index in bytes that begin at position `history` a position in the tables.
    fn offset(&mut self, history: u64) -> u32 {
        let mut offset = history - self.origin + u64::from(FIRST_OFFSET);
        if offset > u64::from(LATE) {
            let by = history - self.origin;
            self.finder.rebase(u32::try_from(by).unwrap_or(u32::MAX));
            self.origin = history;
            offset = u64::from(FIRST_OFFSET);
        }
        offset as u32
    }

    /// The position in the stream of an entry, or 0 if it is out of reach from here on.
    fn reachable(&self, entry: u32) -> u64 {
        let position = self.origin + u64::from(entry);
        let reached = position + u64::from(REACH) >= self.position + u64::from(FIRST_OFFSET);
        if reached && entry > 0 { position } else { 0 }
    }
}

impl TokenSource for TableSource {
    type Config = (Family, i8);

    const GRID: u64 = BLOCK_BYTES;
    // Whether anything follows decides how a block is written.
    const LOOKAHEAD: u64 = 1;
    const HISTORY: u64 = MOST_HISTORY as u64;

    fn new((family, level): Self::Config, start: u64) -> Self {
        let origin = start.saturating_sub(Self::HISTORY);
        Self { finder: TableFinder::new(family, level), position: start, origin }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn advance(&mut self, window: Window<'_>, until: u64, tokens: &mut Vec<Token>) {
        while self.position < until {
            // Only the end of the stream is not at a multiple.
            let end = (self.position + BLOCK_BYTES).min(window.stream_end.unwrap_or(u64::MAX));
            if end <= self.position {
                return;
            }
            self.block(window, end, tokens);
        }
    }

    fn same_future(&self, other: &Self) -> bool {
        self.position == other.position
            && self.finder.tables().iter().zip(other.finder.tables()).all(|(ours, theirs)| {
                ours.iter().zip(theirs).all(|(&a, &b)| self.reachable(a) == other.reachable(b))
            })
    }
}

/// Where the history begins that is kept when the block from `start` to `end` is searched.
fn history_start(start: u64, end: u64) -> u64 {
    // It is dropped at the sixth block, and at every fourth from there, down to 32 KiB.
    let dropped_at = |block: u64| block * BLOCK_BYTES - KEPT_HISTORY as u64;
    let block = start / BLOCK_BYTES;
    if block < 5 {
        return 0;
    }
    let last = block - (block - 5) % 4;
    if last < block {
        return dropped_at(last);
    }
    let before = if last > 5 { dropped_at(last - 4) } else { 0 };
    // A last block may be so short that there is no need to.
    if end - before > MOST_HISTORY as u64 { dropped_at(last) } else { before }
}

/// The block writer of levels 1 to 6.
#[derive(Debug)]
pub(super) struct TableWriter {
    writer: writer::BlockWriter,
    position: u64,
}

impl TableWriter {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { family, rounding, .. } = settings;
        let writer = writer::BlockWriter::new(family.headers(), rounding, writer::TABLE_PENALTY);
        Self { writer, position: 0 }
    }
}

impl BlockWriter for TableWriter {
    const HISTORY: u64 = 0;

    fn write(&mut self, mut tokens: &[Token], window: Window<'_>, until: u64, out: &mut Vec<u8>) {
        for raw in window.get(self.position..until).unwrap_or_default().chunks(BLOCK) {
            let mut reached = 0;
            let ends = tokens.iter().position(|token| {
                reached += token.plain_len();
                reached >= raw.len()
            });
            let (now, later) = tokens.split_at(ends.map_or(tokens.len(), |i| i + 1));
            // As many tokens as bytes: none is a match.
            let found = if now.len() == raw.len() { &[] } else { now };
            self.position += raw.len() as u64;
            let is_last = window.stream_end == Some(self.position);
            let ending = if is_last { Ending::Closed } else { Ending::Open };
            write_found(found, raw, ending, &mut self.writer, out);
            tokens = later;
        }
    }

    fn finish(&mut self, _: Window<'_>, out: &mut Vec<u8>) {
        self.writer.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::history_to_drop;
    use super::*;

    #[test]
    fn history_begins_where_the_buffer_of_a_stream_has_it() {
        for last in [1, 127, 32_767, 32_768, 65_534, BLOCK_BYTES] {
            let (mut start, mut history) = (0, 0);
            for block in 0..40 {
                let end = start + BLOCK_BYTES;
                let short = start + last;
                let dropped =
                    |end| history_to_drop((start - history) as usize, (end - history) as usize) as u64;
                assert_eq!(history_start(start, short), history + dropped(short), "block {block} of {last}");
                history += dropped(end);
                start = end;
            }
        }
    }

    #[test]
    fn positions_are_lowered_without_a_trace() {
        let start = 2 * u64::from(LATE) / BLOCK_BYTES * BLOCK_BYTES;
        let plain: Vec<u8> = (0..900_000u32).map(|i| ((i.wrapping_mul(i) >> 13) ^ (i % 99)) as u8).collect();
        let window = Window { bytes: &plain, origin: start, stream_end: Some(start + plain.len() as u64) };
        for level in 1..=6 {
            let [mut early, mut late] = [0; 2].map(|_| TableSource::new((Family::C, level), start));
            late.origin = start - u64::from(LATE) + 150_000;
            let (mut expected, mut tokens) = (Vec::new(), Vec::new());
            early.advance(window, start + 8 * BLOCK_BYTES, &mut expected);
            late.advance(window, start + 8 * BLOCK_BYTES, &mut tokens);
            assert!(late.origin > start, "level {level}");
            assert!(early.same_future(&late), "level {level}");
            early.advance(window, window.end(), &mut expected);
            late.advance(window, window.end(), &mut tokens);
            assert!(tokens == expected, "level {level}");
            assert_ne!(tokens.len(), plain.len(), "level {level}");
        }
    }
}
