//! Hash chains over a window of 64 KiB, and the search for the best match at a position: levels 7 to 9.
//!
//! Positions are those in the stream since the chains were made, plus [`FIRST`]; 0 in a table is no position.

use super::search::{common, empty, hash4, rebase};
use crate::deflate::huffman::PrefixCode;
use crate::deflate::tables::*;
use crate::deflate::token::Token;
use crate::deflate::words::le32;

/// The most bytes the window holds.
pub(super) const WINDOW: usize = 65_536;
/// How far the window slides, and how far a match may reach back.
pub(super) const SLIDE: usize = 32_768;
/// The first position.
pub(super) const FIRST: u32 = SLIDE as u32;

/// How hard a level tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// A match of this length or more is not improved upon.
    pub(super) lazy: usize,
    /// A match of this length or more ends a search.
    pub(super) nice: usize,
    /// How many candidates are looked at.
    pub(super) depth: u32,
    /// How literals are weighed against matches.
    pub(super) costs: Costs,
}

/// Whether a match must be cheaper than the literals, and from which bytes their cost is reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Costs {
    /// The longest match wins.
    Ignored,
    /// The cost of literals is that in the first so many bytes ahead.
    Ahead(usize),
}

/// A match of `length` bytes, `distance` back. A length of 3 is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Best {
    pub(super) length: usize,
    pub(super) distance: usize,
}

/// No match.
pub(super) const NONE: Best = Best { length: 3, distance: 0 };

/// The bytes in the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub(super) bytes: &'a [u8],
    /// The position of the first of them.
    pub(super) base: u32,
}

impl Window<'_> {
    /// The position behind the last byte.
    pub(super) fn end(&self) -> u32 {
        self.base + self.bytes.len() as u32
    }

    #[inline(always)]
    pub(super) fn index(&self, at: u32) -> usize {
        at.wrapping_sub(self.base) as usize
    }

    pub(super) fn byte(&self, at: u32) -> u8 {
        self.bytes.get(self.index(at)).copied().unwrap_or(0)
    }

    /// The bytes from one position to another, if all are in the window.
    pub(super) fn range(&self, from: u32, to: u32) -> Option<&[u8]> {
        self.bytes.get(self.index(from)..self.index(to))
    }

    /// How many bytes are equal from `a` and from `b` on, at most `most`.
    #[inline(always)]
    pub(super) fn common(&self, a: u32, b: u32, most: usize) -> usize {
        common(self.bytes, self.index(a), self.index(b), most)
    }

    /// The earliest position that a match at `at` may reach.
    #[inline(always)]
    pub(super) fn earliest(&self, at: u32) -> u32 {
        self.base.max(at - SLIDE as u32)
    }

    /// Whether 4 bytes are there to be hashed.
    #[inline(always)]
    pub(super) fn hashable(&self, at: u32) -> bool {
        at + 3 < self.end()
    }
}

/// The chains: for each hash the newest position plus 1, and for each position the one before it.
#[derive(Debug)]
pub(super) struct Chains {
    head: Box<[u32; 1 << 17]>,
    prev: Box<[u32; SLIDE]>,
    /// What each byte costs as a literal, in bits.
    cost: [u8; 256],
}

impl Chains {
    pub(super) fn new() -> Self {
        Self { head: empty(), prev: empty(), cost: [0; 256] }
    }

    pub(super) fn rebase(&mut self, by: u32) {
        rebase(self.head.as_mut_slice(), by);
        rebase(self.prev.as_mut_slice(), by);
    }

    #[inline(always)]
    fn hash(window: &Window<'_>, at: u32) -> usize {
        hash4::<17>(le32(window.bytes, window.index(at)).into())
    }

    /// Enters `at`, and returns the position plus 1 that was the newest of its hash before.
    #[inline(always)]
    pub(super) fn insert(&mut self, window: &Window<'_>, at: u32) -> u32 {
        let before = std::mem::replace(&mut self.head[Self::hash(window, at)], at + 1);
        self.prev[at as usize % SLIDE] = before;
        before
    }

    /// The newest position, plus 1, of the hash of the bytes at `at`.
    pub(super) fn newest(&self, window: &Window<'_>, at: u32) -> u32 {
        self.head[Self::hash(window, at)]
    }

    /// Reckons what literals cost from `ahead`, the bytes not yet searched.
    pub(super) fn weigh(&mut self, ahead: &[u8], costs: Costs) {
        let Costs::Ahead(most) = costs else { return };
        if ahead.is_empty() {
            return;
        }
        let mut counts = [0u16; 256];
        for &byte in &ahead[..ahead.len().min(most)] {
            // The original's counters wrap, too.
            counts[usize::from(byte)] = counts[usize::from(byte)].wrapping_add(1);
        }
        self.cost = PrefixCode::best(&counts.map(u32::from), MAX_CODE_BITS).lengths;
    }

    /// The best match at `at` among the chain that begins at `chain` (a position plus 1).
    pub(super) fn search(&self, window: &Window<'_>, at: u32, chain: u32, effort: &Effort) -> Best {
        let most = Token::MAX_MATCH.min((window.end() - at) as usize);
        let stop = effort.nice.min(most);
        let earliest = window.earliest(at);
        let mut best = NONE;
        let mut gain = 4;
        let mut chain = chain;
        for _ in 0..effort.depth {
            let k = chain.wrapping_sub(1);
            let length = self.compare(window, at, k, most, best.length);
            if length > best.length && self.accepts(window, at, k, length, effort.costs, &mut gain) {
                best = Best { length, distance: (at - k) as usize };
                if length >= stop {
                    break;
                }
            }
            if k <= earliest {
                break;
            }
            chain = self.prev[k as usize % SLIDE];
            if chain <= earliest {
                break;
            }
        }
        best
    }

    /// The common length, or anything shorter than it if it is at most `best`.
    #[inline(always)]
    fn compare(&self, window: &Window<'_>, at: u32, k: u32, most: usize, best: usize) -> usize {
        let (a, b) = (window.index(at) + best, window.index(k) + best);
        // Longer only if the next byte is equal.
        if window.bytes.get(a) != window.bytes.get(b) {
            return 0;
        }
        window.common(k, at, most)
    }

    #[inline(always)]
    fn accepts(
        &self,
        window: &Window<'_>,
        at: u32,
        k: u32,
        length: usize,
        costs: Costs,
        gain: &mut i32,
    ) -> bool {
        if costs == Costs::Ignored {
            return true;
        }
        let literals = window.range(at, at + length as u32).unwrap_or(&[]);
        let literals: i32 = literals.iter().map(|&b| i32::from(self.cost[usize::from(b)])).sum();
        let new = literals - match_cost(length, (at - k) as usize);
        if new > *gain {
            *gain = new;
            return true;
        }
        false
    }
}

/// What level 9 takes a match to cost, in bits. It looks the distance up one too large, as the original.
fn match_cost(length: usize, distance: usize) -> i32 {
    let symbol = if distance < SLIDE { distance_symbol(distance) } else { 14 };
    let length_extra = LENGTH_EXTRA[usize::from(LENGTH_SYMBOL[(length - Token::MIN_MATCH).min(255)])];
    i32::from(DISTANCE_EXTRA[symbol.min(29)]) + 3 + i32::from(length_extra)
}
