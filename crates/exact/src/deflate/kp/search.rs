//! What the match finders of levels 1 to 6 share: loads, hashes, the measuring of matches, and tokens.
//!
//! Positions in a table are the index in the block's bytes plus the block's `offset`. An entry that was
//! never set is 0, which is farther away than any match may be.

use crate::deflate::token::Token;
use crate::deflate::words::{common_prefix, le32};

/// Matches must begin nearer than this, in all but a few of the tests.
pub(super) const REACH: u32 = 32_768;

/// Blocks shorter than this are not searched.
pub(super) const SHORTEST: usize = 13;

/// A block to find matches in, with the history before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    /// The history in reach, then the block.
    pub(crate) bytes: &'a [u8],
    /// Where the block begins in `bytes`.
    pub(crate) start: usize,
    /// What makes an index in `bytes` a position in the tables. At least [`FIRST_OFFSET`].
    pub(crate) offset: u32,
}

/// The offset at the start of a stream: entries never set are out of reach from here on.
pub(crate) const FIRST_OFFSET: u32 = 1 << 16;

/// Hash of the lowest 4 bytes.
#[inline(always)]
pub(super) const fn hash4<const BITS: u32>(v: u64) -> usize {
    ((v as u32).wrapping_mul(2_654_435_761) >> (32 - BITS)) as usize
}

/// Hash of the lowest 5 bytes.
#[inline(always)]
pub(super) const fn hash5<const BITS: u32>(v: u64) -> usize {
    ((v << 24).wrapping_mul(889_523_592_379) >> (64 - BITS)) as usize
}

/// Hash of the lowest 7 bytes.
#[inline(always)]
pub(super) const fn hash7<const BITS: u32>(v: u64) -> usize {
    ((v << 8).wrapping_mul(58_295_818_150_454_627) >> (64 - BITS)) as usize
}

/// A table of the newest position for each hash.
pub(super) type Table<const N: usize> = Box<[u32; N]>;

/// A table of the two newest positions for each hash, the newest first.
pub(super) type PairTable<const N: usize> = Box<[[u32; 2]; N]>;

/// A table with no entry set, made on the heap.
pub(super) fn empty<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    let all = vec![T::default(); N].into_boxed_slice();
    // The length is N: the other arm is never taken.
    all.try_into().unwrap_or_else(|_| Box::new([T::default(); N]))
}

/// Lowers all positions by `by`. Those below become 0: they are out of reach.
pub(super) fn rebase(table: &mut [u32], by: u32) {
    for at in table {
        *at = at.saturating_sub(by);
    }
}

/// Makes `at` the newest of the two.
#[inline(always)]
pub(super) fn push(pair: &mut [u32; 2], at: u32) {
    *pair = [at, pair[0]];
}

impl Block<'_> {
    /// The position in the tables of an index.
    #[inline(always)]
    pub(super) fn at(&self, index: usize) -> u32 {
        (index as u32).wrapping_add(self.offset)
    }

    /// The index of the entry `entry` if it is less than 32,768 bytes before `from` and begins with the
    /// lowest 4 bytes of `value`.
    #[inline(always)]
    pub(super) fn near(&self, entry: u32, from: usize, value: u64) -> Option<usize> {
        self.within(entry, from, REACH - 1, value)
    }

    /// As [`near`](Self::near), for entries up to `most` bytes before `from`.
    #[inline(always)]
    pub(super) fn within(&self, entry: u32, from: usize, most: u32, value: u64) -> Option<usize> {
        let distance = self.at(from).wrapping_sub(entry);
        if distance > most {
            return None;
        }
        let index = from.wrapping_sub(distance as usize);
        (le32(self.bytes, index) == value as u32).then_some(index)
    }

    /// How many bytes are equal from `t` and from `s` on, up to the end of the block.
    #[inline(always)]
    pub(super) fn common(&self, t: usize, s: usize) -> usize {
        common(self.bytes, t, s, usize::MAX)
    }

    /// The length of the match at `s` with `t`, whose first 4 bytes are known to be equal, up to 258.
    #[inline(always)]
    pub(super) fn capped(&self, t: usize, s: usize) -> usize {
        4 + common(self.bytes, t + 4, s + 4, 254)
    }

    /// The length of the match at `s` with `t`, whose first 4 bytes are known to be equal.
    #[inline(always)]
    pub(super) fn whole(&self, t: usize, s: usize) -> usize {
        4 + self.common(t + 4, s + 4)
    }
}

/// How many bytes are equal from `t` and from `s` on, at most `most`.
#[inline(always)]
pub(super) fn common(bytes: &[u8], t: usize, s: usize, most: usize) -> usize {
    let here = bytes.get(s..).unwrap_or(&[]);
    let here = here.get(..most).unwrap_or(here);
    common_prefix(here, bytes.get(t..).unwrap_or(&[]))
}

/// A match to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    /// Where it begins.
    pub(super) s: usize,
    /// Where the earlier bytes begin.
    pub(super) t: usize,
    /// How many bytes.
    pub(super) length: usize,
}

impl Match {
    /// Extends the match backwards, and sends the literals from `anchor` on and the match.
    ///
    /// Returns the match as sent.
    #[inline(always)]
    pub(super) fn send(mut self, block: &Block<'_>, anchor: usize, tokens: &mut Vec<Token>) -> Self {
        let bytes = block.bytes;
        while self.t > 0 && self.s > anchor && bytes.get(self.t - 1) == bytes.get(self.s - 1) {
            self.t -= 1;
            self.s -= 1;
            self.length += 1;
        }
        send_literals(bytes.get(anchor..self.s), tokens);
        let distance = self.s.wrapping_sub(self.t);
        if self.length <= Token::MAX_MATCH {
            tokens.push(Token::copy(self.length, distance));
        } else {
            send_long(self.length, distance, tokens);
        }
        self
    }

    /// Where the match ends.
    #[inline(always)]
    pub(super) fn end(&self) -> usize {
        self.s + self.length
    }
}

#[inline(always)]
fn send_literals(literals: Option<&[u8]>, tokens: &mut Vec<Token>) {
    tokens.extend(literals.unwrap_or(&[]).iter().map(|&b| Token::literal(b)));
}

/// Sends a match longer than one token can be.
#[cold]
fn send_long(mut length: usize, distance: usize, tokens: &mut Vec<Token>) {
    while length > Token::MAX_MATCH {
        // No piece may be shorter than 3 bytes.
        let piece = if length > Token::MAX_MATCH + 3 { Token::MAX_MATCH } else { Token::MAX_MATCH - 3 };
        tokens.push(Token::copy(piece, distance));
        length -= piece;
    }
    tokens.push(Token::copy(length, distance));
}

/// Ends a block: what is left from `anchor` on becomes literals if there was any match.
pub(super) fn send_rest(block: &Block<'_>, anchor: usize, tokens: &mut Vec<Token>) {
    if !tokens.is_empty() {
        send_literals(block.bytes.get(anchor..), tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_matches_are_cut_into_pieces_of_3_and_more() {
        for length in 3..1200 {
            let mut tokens = Vec::new();
            Match { s: 10, t: 5, length }.send(&Block { bytes: &[], start: 0, offset: 0 }, 10, &mut tokens);
            assert_eq!(tokens.iter().map(|t| t.plain_len()).sum::<usize>(), length);
            assert!(tokens.iter().all(|t| t.plain_len() >= 3));
        }
    }

    #[test]
    fn the_common_length_stops_at_the_end_and_at_the_cap() {
        let bytes = [7; 100];
        assert_eq!(common(&bytes, 0, 1, usize::MAX), 99);
        assert_eq!(common(&bytes, 0, 50, 13), 13);
        assert_eq!(common(&bytes, 0, 101, 13), 0);
        let mut bytes = bytes;
        bytes[77] = 8;
        assert_eq!(common(&bytes, 0, 50, usize::MAX), 27);
    }
}
