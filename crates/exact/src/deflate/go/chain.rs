//! The match finder of levels 2 to 9: chains of positions whose four bytes have the same hash.

use crate::deflate::links::{self, Hash, REACH};
use crate::deflate::source::{TokenSource, Window};
use crate::deflate::token::Token;
use crate::deflate::words::{be32, common_prefix, le32};

/// The window of the original holds so many bytes, and moves by half of them.
const WINDOW: u64 = 2 * REACH as u64;
/// With fewer bytes than this left in its window, the original moves it.
const LOOKAHEAD: u64 = 262;
const HASH_BITS: u32 = 17;
/// A match of four bytes is refused if it lies farther back.
const FAR_FOR_FOUR: usize = 4096;
/// What is no match yet: one byte less than the shortest.
const NO_MATCH: usize = 3;

/// How a level searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainLevel {
    mode: Mode,
    /// A match of this length ends the search.
    nice: usize,
    /// Candidates looked at.
    depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Takes a match at once. The positions inside are inserted if it is not longer than `insert_limit`.
    Greedy { insert_limit: usize },
    /// Looks for a longer match at the next position, unless the match has `limit` bytes.
    Lazy { limit: usize },
}

impl ChainLevel {
    /// The parameters of levels 2 to 9; those of 9 for all others.
    pub(crate) const fn of(level: i8) -> Self {
        let (mode, nice, depth) = match level {
            2 => (Mode::Greedy { insert_limit: 5 }, 16, 8),
            3 => (Mode::Greedy { insert_limit: 6 }, 32, 32),
            4 => (Mode::Lazy { limit: 4 }, 16, 16),
            5 => (Mode::Lazy { limit: 16 }, 32, 32),
            6 => (Mode::Lazy { limit: 16 }, 128, 128),
            7 => (Mode::Lazy { limit: 32 }, 128, 256),
            8 => (Mode::Lazy { limit: 128 }, 258, 1024),
            _ => (Mode::Lazy { limit: 258 }, 258, 4096),
        };
        Self { mode, nice, depth }
    }

    pub(crate) const fn is_lazy(self) -> bool {
        matches!(self.mode, Mode::Lazy { .. })
    }
}

/// The first position that can be referenced from position `at`.
///
/// The original keeps 64 KiB, and moves them by 32 KiB when few bytes are left and more are to come. As
/// that depends on the position alone, so does what is lost.
pub(crate) fn window_base(at: u64, stream_end: Option<u64>) -> u64 {
    let step = REACH as u64;
    let moves = (at + LOOKAHEAD).saturating_sub(WINDOW).div_ceil(step);
    let most = stream_end.map_or(u64::MAX, |end| end.saturating_sub(WINDOW).div_ceil(step));
    moves.min(most) * step
}

/// The state of the search.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    level: ChainLevel,
    position: u64,
    /// The match found at the byte before `position` (lazy levels).
    held: Found,
    /// Whether the byte before `position` is not yet handed out (lazy levels).
    pending: bool,
    links: Links,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    length: usize,
    distance: usize,
}

impl Found {
    const NONE: Self = Self { length: NO_MATCH, distance: 0 };
}

/// The four bytes that chains go by.
#[derive(Clone, Copy, Debug)]
struct FourBytes;

impl Hash for FourBytes {
    const BYTES: usize = 4;

    #[inline]
    fn of(self, bytes: &[u8], index: usize) -> usize {
        (be32(bytes, index).wrapping_mul(0x1e35_a7bd) >> (32 - HASH_BITS)) as usize
    }
}

type Links = links::Links<FourBytes, { 1 << HASH_BITS }>;

impl Links {
    /// The best match at index `i`, which is inserted, among at most `depth` candidates from `first` on.
    #[inline]
    fn search(&self, bytes: &[u8], i: usize, first: usize, lowest: usize, level: ChainLevel) -> Found {
        let target = &bytes[i..bytes.len().min(i + Token::MAX_MATCH)];
        let stop = level.nice.min(target.len());
        let mut best = Found::NONE;
        let mut tail = le32(target, 0);
        let mut candidate = first;
        for _ in 0..level.depth {
            // Only what has the last four bytes of a longer match can be one.
            if le32(bytes, candidate + best.length - 3) == tail {
                let length = common_prefix(&bytes[candidate..], target);
                if length > best.length && (length > 4 || i - candidate <= FAR_FOR_FOUR) {
                    best = Found { length, distance: i - candidate };
                    if length >= stop {
                        break;
                    }
                    tail = le32(target, length - 3);
                }
            }
            // The slot of the farthest candidate is that of index i by now.
            let back = self.back(candidate);
            if back == 0 || candidate < lowest + back || i - candidate == REACH {
                break;
            }
            candidate -= back;
        }
        best
    }
}

/// Where the search goes on, in indices of a window.
struct Walk<'a> {
    bytes: &'a [u8],
    origin: u64,
    stream_end: Option<u64>,
    stop: usize,
    i: usize,
    /// The window base, and where it moves next.
    base: usize,
    base_until: usize,
}

impl<'a> Walk<'a> {
    fn new(window: Window<'a>, position: u64, until: u64) -> Self {
        let index = |position: u64| position.saturating_sub(window.origin) as usize;
        Self {
            bytes: window.bytes,
            origin: window.origin,
            stream_end: window.stream_end,
            stop: index(until).min(window.bytes.len()),
            i: index(position),
            base: 0,
            base_until: 0,
        }
    }

    /// The lowest index that can be referenced from the present one.
    #[inline]
    fn lowest(&mut self) -> usize {
        if self.i >= self.base_until {
            let at = self.origin + self.i as u64;
            let base = window_base(at, self.stream_end);
            self.base = base.saturating_sub(self.origin) as usize;
            self.base_until = (base + WINDOW + 1 - LOOKAHEAD).saturating_sub(self.origin) as usize;
        }
        self.base.max(self.i.saturating_sub(REACH))
    }

    fn has_four(&self) -> bool {
        self.i + 3 < self.bytes.len()
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.i
    }
}

impl Chain {
    fn greedy(&mut self, walk: &mut Walk<'_>, insert_limit: usize, tokens: &mut Vec<Token>) {
        let bytes = walk.bytes;
        while walk.i < walk.stop {
            let i = walk.i;
            let lowest = walk.lowest();
            let first = if walk.has_four() { self.links.insert(bytes, i) } else { 0 };
            let mut found = Found::NONE;
            if first > lowest {
                found = self.links.search(bytes, i, first - 1, lowest, self.level);
            }
            if found.length > NO_MATCH {
                tokens.push(Token::copy(found.length, found.distance));
                if found.length <= insert_limit {
                    self.links.insert_all(bytes, i + 1, i + found.length);
                }
                walk.i += found.length;
            } else {
                tokens.push(Token::literal(bytes[i]));
                walk.i += 1;
            }
        }
    }

    fn lazy(&mut self, walk: &mut Walk<'_>, limit: usize, tokens: &mut Vec<Token>) {
        let bytes = walk.bytes;
        while walk.i < walk.stop {
            let i = walk.i;
            let lowest = walk.lowest();
            let first = if walk.has_four() { self.links.insert(bytes, i) } else { 0 };
            let before = std::mem::replace(&mut self.held, Found::NONE);
            if first > lowest && walk.left() > before.length && before.length < limit {
                self.held = self.links.search(bytes, i, first - 1, lowest, self.level);
            }
            if before.length > NO_MATCH && self.held.length <= before.length {
                // It begins at the byte before.
                tokens.push(Token::copy(before.length, before.distance));
                walk.i += before.length - 1;
                self.links.insert_all(bytes, i + 1, walk.i);
                self.pending = false;
                self.held = Found::NONE;
            } else {
                if self.pending {
                    tokens.push(Token::literal(bytes[i - 1]));
                }
                self.pending = true;
                walk.i += 1;
            }
        }
        if self.pending && walk.stream_end == Some(walk.origin + walk.i as u64) {
            tokens.push(Token::literal(bytes[walk.i - 1]));
            self.pending = false;
        }
    }
}

impl TokenSource for Chain {
    type Config = ChainLevel;
    const GRID: u64 = 1;
    const LOOKAHEAD: u64 = LOOKAHEAD;
    const HISTORY: u64 = REACH as u64;

    fn new(level: ChainLevel, start: u64) -> Self {
        Self {
            level,
            position: start,
            held: Found::NONE,
            pending: false,
            links: Links::new(FourBytes, start),
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn emitted(&self) -> u64 {
        self.position - u64::from(self.pending)
    }

    fn advance(&mut self, window: Window<'_>, until: u64, tokens: &mut Vec<Token>) {
        self.links.rebase(window.origin);
        let mut walk = Walk::new(window, self.position, until);
        match self.level.mode {
            Mode::Greedy { insert_limit } => self.greedy(&mut walk, insert_limit, tokens),
            Mode::Lazy { limit } => self.lazy(&mut walk, limit, tokens),
        }
        self.position = window.origin + walk.i as u64;
    }

    fn same_future(&self, other: &Self) -> bool {
        self.level == other.level
            && self.position == other.position
            && self.held == other.held
            && self.pending == other.pending
            && self.links.agree(&other.links, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_moves_when_few_bytes_are_left() {
        let at = |at| window_base(at, None);
        assert_eq!([at(0), at(65_274), at(65_275), at(65_275 + 32_767)], [0, 0, 32_768, 32_768]);
        assert_eq!(at(65_275 + 32_768), 65_536);
        // Nothing moves that holds all of the rest.
        assert_eq!(window_base(65_500, Some(65_536)), 0);
        assert_eq!(window_base(65_500, Some(65_537)), 32_768);
        assert_eq!(window_base(140_000, Some(140_000)), 98_304);
        assert_eq!(window_base(98_300, Some(98_304)), 32_768);
    }
}
