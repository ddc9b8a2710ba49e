//! The frame: its header, where its blocks are cut, and its checksum.

use std::collections::VecDeque;
use std::fmt;

use xxhash_rust::xxh64::Xxh64;

use super::block::{self, BlockWriter, Found, Position};
use super::dfast::DoubleFast;
use super::fast::Fast;
use super::history::{History, View};
use super::{Calls, Family, Level};
use crate::Encoder;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// In the descriptor: a checksum follows the blocks.
const CHECKSUM: u8 = 1 << 2;
/// In the descriptor: there is no window but the frame itself.
const SINGLE_SEGMENT: u8 = 1 << 5;
/// Frames of fewer bytes, and of as many, are no single segment.
const SMALL: u64 = 1024;
/// What `EncodeAll` makes of nothing, where it makes a frame.
const NOTHING: [u8; 5] = [SINGLE_SEGMENT, 0, 1, 0, 0];

/// One frame in the making.
pub(super) struct Frame {
    family: Family,
    level: Level,
    history: History,
    finder: Finder,
    found: Found,
    blocks: BlockWriter,
    hash: Xxh64,
    /// The plain bytes so far.
    size: u64,
    /// The size that the whole frame was said to have.
    whole: Option<u64>,
    /// The flushes to come.
    flushes: VecDeque<u64>,
    begun: bool,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("family", &self.family)
            .field("level", &self.level)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

enum Finder {
    Fast(Fast),
    Double(DoubleFast),
}

impl Finder {
    fn find<const ALONE: bool>(&mut self, view: View<'_>, found: &mut Found) {
        match self {
            Self::Fast(finder) => finder.find::<ALONE>(view, found),
            Self::Double(finder) => finder.find::<ALONE>(view, found),
        }
    }

    fn rebase(&mut self, less: u32) {
        match self {
            Self::Fast(finder) => finder.rebase(less),
            Self::Double(finder) => finder.rebase(less),
        }
    }
}

impl Frame {
    pub(super) fn new(family: Family, level: Level, calls: Calls) -> Self {
        let (whole, flushes) = match calls {
            Calls::Stream { flushes } => (None, flushes.into()),
            Calls::Whole { size } => (Some(size), VecDeque::new()),
        };
        Self {
            family,
            level,
            history: History::new(level.window()),
            finder: match level {
                Level::Fastest => Finder::Fast(Fast::new()),
                Level::Default => Finder::Double(DoubleFast::new()),
            },
            found: Found::default(),
            blocks: BlockWriter::new(family, level),
            hash: Xxh64::new(0),
            size: 0,
            whole,
            flushes,
            begun: false,
        }
    }

    /// Appends the header if this is the first block, and the block in the making.
    fn cut(&mut self, position: Position, out: &mut Vec<u8>) {
        // Frames of one block have a search of their own, but not where more could have followed.
        let alone = !self.begun && position == Position::Last;
        if !self.begun {
            match self.whole {
                Some(size) => self.write_known_header(size, out),
                None => self.write_header(out),
            }
        }
        let view = self.history.view();
        self.found.clear();
        if alone {
            self.finder.find::<true>(view, &mut self.found);
        } else {
            self.finder.find::<false>(view, &mut self.found);
        }
        self.blocks.write(self.history.pending(), &self.found, position, out);
        let less = self.history.next_block(self.level.block_size());
        if less > 0 {
            self.finder.rebase(less);
        }
    }

    /// Appends the header of a frame of unknown size.
    fn write_header(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[CHECKSUM, window_byte(self.level.window() as u64)]);
        self.begun = true;
    }

    /// Appends the header of a frame of `size` bytes.
    fn write_known_header(&mut self, size: u64, out: &mut Vec<u8>) {
        let window = self.level.window() as u64;
        let single = size > SMALL && size <= window.min(self.family.longest_segment());
        let (code, bytes, value) = match size {
            0..256 => (0, 0, 0),
            256..65_792 => (1, 2, size - 256),
            65_792..0xffff_ffff => (2, 4, size),
            _ => (3, 8, size),
        };
        out.extend_from_slice(&MAGIC);
        out.push(CHECKSUM | if single { SINGLE_SEGMENT } else { 0 } | code << 6);
        if !single {
            let fitting = if size >= window { window } else { (2 << size.max(1).ilog2()).max(SMALL) };
            out.push(window_byte(fitting));
        }
        out.extend_from_slice(&value.to_le_bytes()[..bytes]);
        self.begun = true;
    }

    /// Appends the frame of no bytes at all.
    fn write_nothing(&mut self, out: &mut Vec<u8>) {
        if !self.family.frames_nothing() {
            return;
        }
        if self.whole.is_some() {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&NOTHING);
            return;
        }
        self.write_header(out);
        block::raw(&[], Position::Last, out);
        self.write_checksum(out);
    }

    fn write_checksum(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.digest().to_le_bytes()[..4]);
    }
}

impl Encoder for Frame {
    fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        self.hash.update(plain);
        let block_size = self.level.block_size();
        while !plain.is_empty() {
            // Of a whole frame, a block is only cut if it is not the last.
            if self.history.pending().len() == block_size {
                self.cut(Position::Inner, out);
            }
            let room = block_size - self.history.pending().len();
            let until_flush = self.flushes.front().map_or(u64::MAX, |flush| flush.saturating_sub(self.size));
            let take = plain.len().min(room).min(usize::try_from(until_flush).unwrap_or(usize::MAX));
            let (now, later) = plain.split_at(take);
            self.history.push(now);
            self.size += take as u64;
            plain = later;
            let mut due = self.whole.is_none() && take == room;
            while self.flushes.front().is_some_and(|flush| *flush <= self.size) {
                self.flushes.pop_front();
                due = true;
            }
            if due && !self.history.pending().is_empty() {
                self.cut(Position::Inner, out);
            }
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        if self.size == 0 {
            return self.write_nothing(out);
        }
        let flushed = self.flushes.iter().any(|flush| *flush > self.size);
        if flushed && !self.history.pending().is_empty() {
            self.cut(Position::Inner, out);
        }
        if self.whole.is_none() && !self.begun {
            // The original makes short streams as if their size had been known.
            self.whole = Some(self.size);
        }
        if self.begun && self.history.pending().is_empty() {
            block::raw(&[], Position::Last, out);
        } else {
            self.cut(Position::Last, out);
        }
        self.write_checksum(out);
    }
}

/// The byte for a window that is a power of two.
fn window_byte(window: u64) -> u8 {
    let log = (window - 1).max(1).ilog2() + 1;
    ((log - 10) << 3) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(mut frame: Frame, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame.push(plain, &mut out);
        Box::new(frame).finish(&mut out);
        out
    }

    /// Records whose parts come again, near and far, for longer than two windows.
    fn records(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut out = Vec::with_capacity(length + 16);
        while out.len() < length {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(12_345);
            let back = (state >> 33) as usize % 5_000_000 + 1000;
            let size = (state >> 20) as usize % 900 + 4;
            if out.len() > back + size {
                out.extend_from_within(out.len() - back..out.len() - back + size);
            }
            out.extend_from_slice(&state.to_le_bytes()[3..]);
        }
        out
    }

    #[test]
    fn positions_counted_anew_change_nothing() {
        let plain = records(18_000_000);
        for level in [Level::Fastest, Level::Default] {
            let frame = || Frame::new(Family::V1_18_5, level, Calls::stream());
            let mut anew = frame();
            anew.history.count_anew_above(0);
            let out = encode(anew, &plain);
            assert!(out == encode(frame(), &plain), "{level:?}");
            assert!(out.len() < plain.len() / 4, "{level:?}: matches are found, {}", out.len());
        }
    }

    #[test]
    fn windows_have_the_byte_of_the_format() {
        assert_eq!([1 << 10, 1 << 11, 4 << 20, 8 << 20].map(window_byte), [0, 8, 0x60, 0x68]);
    }
}
