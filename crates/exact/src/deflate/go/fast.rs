//! The match finder of level 1: one table of positions, and blocks of 65,535 bytes.

use crate::deflate::source::{TokenSource, Window};
use crate::deflate::tables::MAX_STORED;
use crate::deflate::token::Token;
use crate::deflate::words::{common_prefix, le32, le64};

/// The bytes of a block.
pub(crate) const BLOCK: usize = MAX_STORED;
/// Blocks of fewer bytes are not searched.
pub(crate) const SEARCHED: usize = 128;
const TABLE_BITS: u32 = 14;
/// Bytes at the end of a block where no match begins.
const MARGIN: usize = 15;
/// Positions in the table count from here, so that an entry never set is out of reach.
const BIAS: usize = 1 << 16;

/// A source without tokens, for what is written from the plain bytes alone.
#[derive(Clone, Debug)]
pub(crate) struct NoTokens {
    position: u64,
}

impl TokenSource for NoTokens {
    type Config = ();
    const GRID: u64 = BLOCK as u64;
    const LOOKAHEAD: u64 = 0;
    const HISTORY: u64 = 0;

    fn new((): (), start: u64) -> Self {
        Self { position: start }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn advance(&mut self, _: Window<'_>, until: u64, _: &mut Vec<Token>) {
        self.position = until;
    }

    fn same_future(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

/// The state of the search.
#[derive(Clone, Debug)]
pub(crate) struct Fast {
    position: u64,
    /// The position in the stream that the table's positions count from.
    origin: u64,
    table: Box<[Entry; 1 << TABLE_BITS]>,
}

/// Four bytes and where they were.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    value: u32,
    /// The index plus [`BIAS`].
    biased: u32,
}

impl Entry {
    #[inline]
    fn new(value: u32, index: usize) -> Self {
        Self { value, biased: (index + BIAS) as u32 }
    }

    /// How far the entry lies before `index`.
    #[inline]
    fn distance(self, index: usize) -> usize {
        index + BIAS - self.biased as usize
    }

    #[inline]
    fn fits(self, index: usize, value: u32) -> bool {
        self.value == value && self.distance(index) <= Token::MAX_DISTANCE
    }
}

#[inline]
fn hash(value: u32) -> usize {
    (value.wrapping_mul(0x1e35_a7bd) >> (32 - TABLE_BITS)) as usize
}

impl Fast {
    fn rebase(&mut self, origin: u64) {
        if origin != self.origin {
            for entry in self.table.iter_mut() {
                let biased = (self.origin + u64::from(entry.biased)).saturating_sub(origin);
                *entry = match u32::try_from(biased) {
                    Ok(biased) => Entry { biased, ..*entry },
                    Err(_) => Entry::default(),
                };
            }
            self.origin = origin;
        }
    }

    /// The tokens of the block from index `start` to the end of `bytes`.
    fn block(&mut self, bytes: &[u8], start: usize, tokens: &mut Vec<Token>) {
        let end = bytes.len();
        let mut emit = start;
        if end - start >= SEARCHED {
            let limit = end - MARGIN;
            let mut from = start;
            while let Some((s, entry)) = self.find(bytes, from, limit) {
                literals(&bytes[emit..s], tokens);
                emit = self.copies(bytes, s, entry, limit, tokens);
                if emit >= limit {
                    break;
                }
                from = emit + 1;
            }
        }
        literals(&bytes[emit..], tokens);
    }

    /// The first match of four bytes from index `from` on. Steps grow as none is found.
    #[inline]
    fn find(&mut self, bytes: &[u8], from: usize, limit: usize) -> Option<(usize, Entry)> {
        let mut value = le32(bytes, from);
        let mut skip = 32;
        let mut next = from;
        loop {
            let s = next;
            let step = skip >> 5;
            next = s + step;
            skip += step;
            if next > limit {
                return None;
            }
            let slot = &mut self.table[hash(value)];
            let entry = std::mem::replace(slot, Entry::new(value, s));
            if entry.fits(s, value) {
                return Some((s, entry));
            }
            value = le32(bytes, next);
        }
    }

    /// The match at index `s`, and all that follow it at once. Returns where they end.
    #[inline]
    fn copies(
        &mut self,
        bytes: &[u8],
        mut s: usize,
        mut entry: Entry,
        limit: usize,
        tokens: &mut Vec<Token>,
    ) -> usize {
        loop {
            let distance = entry.distance(s);
            let most = bytes.len().min(s + Token::MAX_MATCH);
            let length = 4 + common_prefix(&bytes[s + 4 - distance..], &bytes[s + 4..most]);
            tokens.push(Token::copy(length, distance));
            s += length;
            if s >= limit {
                return s;
            }
            let word = le64(bytes, s - 1);
            let before = word as u32;
            self.table[hash(before)] = Entry::new(before, s - 1);
            let value = (word >> 8) as u32;
            entry = std::mem::replace(&mut self.table[hash(value)], Entry::new(value, s));
            if !entry.fits(s, value) {
                return s;
            }
        }
    }
}

fn literals(bytes: &[u8], tokens: &mut Vec<Token>) {
    tokens.extend(bytes.iter().map(|&byte| Token::literal(byte)));
}

impl TokenSource for Fast {
    type Config = ();
    const GRID: u64 = BLOCK as u64;
    const LOOKAHEAD: u64 = 0;
    const HISTORY: u64 = Token::MAX_DISTANCE as u64;

    fn new((): (), start: u64) -> Self {
        let table = crate::deflate::links::zeroed();
        Self { position: start, origin: start, table }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn advance(&mut self, window: Window<'_>, until: u64, tokens: &mut Vec<Token>) {
        self.rebase(window.origin);
        let until = until.min(window.end());
        while self.position < until {
            let start = (self.position - self.origin) as usize;
            let end = window.bytes.len().min(start + BLOCK);
            self.block(&window.bytes[..end], start, tokens);
            self.position = self.origin + end as u64;
        }
    }

    fn same_future(&self, other: &Self) -> bool {
        // Where an entry lies, if it can still be used.
        let used = |source: &Self, entry: &Entry| {
            let at = source.position - source.origin;
            let distance = entry.distance(at as usize);
            if distance <= Token::MAX_DISTANCE { (entry.value, distance) } else { (0, 0) }
        };
        self.position == other.position
            && self.table.iter().zip(other.table.iter()).all(|(a, b)| used(self, a) == used(other, b))
    }
}
