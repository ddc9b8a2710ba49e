//! How the levels of zlib and of GNU gzip search.

use super::{Level, Memory, Settings};
use crate::deflate::links::Hash;

/// How a level searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) mode: Mode,
    /// A match of this length ends the search.
    pub(super) nice: usize,
    /// Candidates looked at.
    pub(super) depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Takes a match at once. The positions inside are inserted if it is not longer than `insert_limit`.
    Greedy { insert_limit: usize },
    /// Looks for a longer match at the next position, unless the match has `limit` bytes. It looks at a
    /// quarter of the candidates if the match has `good` bytes.
    Lazy { limit: usize, good: usize },
}

impl Search {
    const fn of(level: Level) -> Self {
        let (mode, nice, depth) = match level.get() {
            1 => (Mode::Greedy { insert_limit: 4 }, 8, 4),
            2 => (Mode::Greedy { insert_limit: 5 }, 16, 8),
            3 => (Mode::Greedy { insert_limit: 6 }, 32, 32),
            4 => (Mode::Lazy { limit: 4, good: 4 }, 16, 16),
            5 => (Mode::Lazy { limit: 16, good: 8 }, 32, 32),
            6 => (Mode::Lazy { limit: 16, good: 8 }, 128, 128),
            7 => (Mode::Lazy { limit: 32, good: 8 }, 128, 256),
            8 => (Mode::Lazy { limit: 128, good: 32 }, 258, 1024),
            _ => (Mode::Lazy { limit: 258, good: 32 }, 258, 4096),
        };
        Self { mode, nice, depth }
    }
}

/// What the original does when all has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It still moves its window.
    Moves,
    /// It moves its window once more at most, and finds no more matches where that ends.
    Stands,
}

/// What the source is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(super) search: Search,
    pub(super) hash: ThreeBytes,
    pub(super) end: End,
}

impl Config {
    pub(crate) const fn zlib(settings: Settings) -> Self {
        let hash = ThreeBytes::new(match settings.memory {
            Memory::Usual => 15,
            Memory::Most => 16,
        });
        Self { search: Search::of(settings.level), hash, end: End::Moves }
    }

    pub(crate) const fn gnu(level: Level) -> Self {
        Self { search: Search::of(level), hash: ThreeBytes::new(15), end: End::Stands }
    }
}

/// The hash, of 15 or 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreeBytes {
    shift: u32,
    mask: usize,
}

impl ThreeBytes {
    const fn new(bits: u32) -> Self {
        Self { shift: bits.div_ceil(3), mask: (1 << bits) - 1 }
    }
}

impl Hash for ThreeBytes {
    const BYTES: usize = 3;

    #[inline]
    fn of(self, bytes: &[u8], index: usize) -> usize {
        let Some([a, b, c]) = bytes.get(index..).and_then(|bytes| bytes.first_chunk()) else { return 0 };
        let hash = usize::from(*a) << (2 * self.shift) ^ usize::from(*b) << self.shift ^ usize::from(*c);
        hash & self.mask
    }
}
