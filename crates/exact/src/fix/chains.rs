//! Where the bytes at a position have occurred before: hash chains over the window of deflate.

use crate::deflate::Token;
use crate::deflate::words::common_prefix;

/// How far back candidates are looked for.
const WINDOW: usize = Token::MAX_DISTANCE;
const HASH_BITS: u32 = 15;
/// What one search may take: each candidate costs one, and one more for every 32 bytes that are the same.
const EFFORT: usize = 256;

/// An earlier occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) distance: usize,
    /// The bytes that are the same, 3 to 258.
    pub(crate) length: usize,
    pub(crate) kind: Kind,
}

/// What a position was to the encoder: many do not note all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Literal,
    MatchStart,
    MatchSecond,
    MatchThird,
    MatchInner,
    BeforeLast,
    MatchLast,
}

impl Kind {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = 7;
}

/// The occurrences before a position, the nearest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) candidates: Vec<Candidate>,
    /// The longest of them, and of those the nearest.
    pub(crate) best: usize,
}

impl Found {
    pub(crate) fn best(&self) -> Option<Candidate> {
        self.candidates.get(self.best).copied()
    }
}

/// The plain bytes around a position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// Up to the end of the plain bytes, or [`LOOKAHEAD`](super::LOOKAHEAD) and more beyond the position; and the window before it.
    pub(crate) bytes: &'a [u8],
    /// Where the position is in them.
    pub(crate) index: usize,
    /// The position itself.
    pub(crate) at: u64,
}

impl View<'_> {
    /// The view from so many bytes further on.
    pub(crate) fn later(self, count: usize) -> Self {
        Self { bytes: self.bytes, index: self.index + count, at: self.at + count as u64 }
    }

    /// How many bytes at the position also stand `distance` before it, at most 258.
    pub(crate) fn length_at(self, distance: usize) -> usize {
        let Some(start) = self.index.checked_sub(distance) else { return 0 };
        let end = self.bytes.len().min(self.index + Token::MAX_MATCH);
        common_prefix(&self.bytes[start..], &self.bytes[self.index..end])
    }

    fn hash(self) -> Option<usize> {
        let bytes = self.bytes.get(self.index..self.index + 3)?;
        let word = u32::from(bytes[0]) | u32::from(bytes[1]) << 8 | u32::from(bytes[2]) << 16;
        Some((word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
    }
}

/// The positions so far, by what stands there.
#[derive(Debug)]
pub(crate) struct Chains {
    /// By hash: the last position, modulo 2^32.
    heads: Box<[u32]>,
    /// By position: the one before with the same hash.
    previous: Box<[u32]>,
    kinds: Box<[Kind]>,
}

impl Chains {
    pub(crate) fn new() -> Self {
        Self {
            heads: vec![u32::MAX; 1 << HASH_BITS].into(),
            previous: vec![u32::MAX; WINDOW].into(),
            kinds: vec![Kind::default(); WINDOW].into(),
        }
    }

    /// Forgets all positions.
    pub(crate) fn clear(&mut self) {
        self.heads.fill(u32::MAX);
    }

    /// Looks for what stands at the position of the view.
    pub(crate) fn search(&self, view: View<'_>, found: &mut Found) {
        found.candidates.clear();
        found.best = 0;
        let Some(hash) = view.hash() else { return };
        let longest = (view.bytes.len() - view.index).min(Token::MAX_MATCH);
        let farthest = view.at.min(WINDOW as u64) as u32;
        let (mut effort, mut best, mut before) = (EFFORT, 0, 0);
        let mut position = self.heads[hash];
        loop {
            let distance = (view.at as u32).wrapping_sub(position);
            // A slot that was taken by a later position leads nowhere.
            if distance <= before || distance > farthest {
                return;
            }
            before = distance;
            let slot = position as usize % WINDOW;
            let length = view.length_at(distance as usize);
            if length >= Token::MIN_MATCH {
                if length > best {
                    best = length;
                    found.best = found.candidates.len();
                }
                let kind = self.kinds[slot];
                found.candidates.push(Candidate { distance: distance as usize, length, kind });
            }
            effort = effort.saturating_sub(1 + length / 32);
            if length == longest || effort == 0 {
                return;
            }
            position = self.previous[slot];
        }
    }

    /// Changes the kind of a position that was noted.
    pub(crate) fn mark(&mut self, view: View<'_>, kind: Kind) {
        self.kinds[view.at as usize % WINDOW] = kind;
    }

    /// Notes the position of the view.
    pub(crate) fn insert(&mut self, view: View<'_>, kind: Kind) {
        let slot = view.at as usize % WINDOW;
        self.kinds[slot] = kind;
        if let Some(hash) = view.hash() {
            self.previous[slot] = self.heads[hash];
            self.heads[hash] = view.at as u32;
        }
    }
}
