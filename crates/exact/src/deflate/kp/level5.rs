//! Level 5: a table of 4-byte hashes, and one of 7-byte hashes with two positions each.

use super::search::*;
use crate::deflate::token::Token;
use crate::deflate::words::le64;

/// The tables of level 5.
#[derive(Clone, Debug)]
pub(super) struct Level5 {
    short: Table<{ 1 << 15 }>,
    long: PairTable<{ 1 << 15 }>,
}

impl Level5 {
    pub(super) fn new() -> Self {
        Self { short: empty(), long: empty() }
    }

    pub(super) fn tables(&self) -> Vec<&[u32]> {
        vec![self.short.as_slice(), self.long.as_flattened()]
    }

    pub(super) fn rebase(&mut self, by: u32) {
        rebase(self.short.as_mut_slice(), by);
        rebase(self.long.as_flattened_mut(), by);
    }

    #[inline(always)]
    fn store(&mut self, short: usize, long: usize, at: u32) {
        self.short[short] = at;
        push(&mut self.long[long], at);
    }

    /// Appends the tokens of `block`, or none if it has no match.
    pub(super) fn find(&mut self, block: &Block<'_>, tokens: &mut Vec<Token>) {
        let bytes = block.bytes;
        if bytes.len() - block.start < SHORTEST {
            return;
        }
        let limit = bytes.len() - 11;
        let mut s = block.start;
        let mut anchor = s;
        let mut value = le64(bytes, s);
        loop {
            let Some((found, next)) = self.search(block, s, anchor, value, limit) else {
                return send_rest(block, anchor, tokens);
            };
            let found = self.check_end(block, found, limit).send(block, anchor, tokens);
            anchor = found.end();
            s = anchor.max(next + 1);
            if s >= limit {
                return send_rest(block, anchor, tokens);
            }
            value = self.index(block, s - found.length + 1, s);
        }
    }

    /// The next match from `s` on, and the position probed ahead.
    #[inline(always)]
    fn search(
        &mut self,
        block: &Block<'_>,
        mut s: usize,
        anchor: usize,
        mut value: u64,
        limit: usize,
    ) -> Option<(Match, usize)> {
        let mut next = s;
        loop {
            let (a, b) = (hash4::<15>(value), hash7::<15>(value));
            s = next;
            next = s + 1 + ((s - anchor) >> 6);
            if next > limit {
                return None;
            }
            let short = self.short[a];
            let [c0, c1] = self.long[b];
            let ahead = le64(block.bytes, next);
            self.store(a, b, block.at(s));
            let (a, b) = (hash4::<15>(ahead), hash7::<15>(ahead));
            if block.at(s).wrapping_sub(c0) < REACH {
                if let Some(t) = block.near(c0, s, value) {
                    self.store(a, b, block.at(next));
                    let older = block.near(c1, s, value);
                    return Some((longer_of_two(block, s, t, older), next));
                }
                if let Some(t) = block.near(c1, s, value) {
                    self.store(a, b, block.at(next));
                    return Some((Match { s, t, length: block.whole(t, s) }, next));
                }
            }
            if let Some(t) = block.near(short, s, value) {
                let pair = self.long[b];
                self.store(a, b, block.at(next));
                let here = Match { s, t, length: block.capped(t, s) };
                return Some((uncapped(block, better_ahead(block, here, pair, next, ahead)), next));
            }
            value = ahead;
        }
    }

    /// Looks for a longer match from the hash of what follows the match.
    #[inline(always)]
    fn check_end(&self, block: &Block<'_>, found: Match, limit: usize) -> Match {
        if found.length >= 30 || found.end() >= limit {
            return found;
        }
        let newest = self.long[hash7::<15>(le64(block.bytes, found.end()))][0];
        // The match would begin 2 bytes on: that skips the byte that most likely stopped it.
        found.replaced(block, found.s + 2, newest, found.length)
    }

    /// Enters positions from `i` on, up to `s`, and returns the bytes at `s`.
    #[inline(always)]
    fn index(&mut self, block: &Block<'_>, mut i: usize, s: usize) -> u64 {
        let bytes = block.bytes;
        if i + 1 < s {
            let v = le64(bytes, i);
            self.short[hash4::<15>(v)] = block.at(i);
            push(&mut self.long[hash7::<15>(v)], block.at(i));
            push(&mut self.long[hash7::<15>(v >> 8)], block.at(i + 1));
            self.short[hash4::<15>(v >> 16)] = block.at(i + 2);
            i += 4;
            while i + 1 < s {
                let v = le64(bytes, i);
                push(&mut self.long[hash7::<15>(v)], block.at(i));
                self.short[hash4::<15>(v >> 8)] = block.at(i + 1);
                i += 3;
            }
        }
        let v = le64(bytes, s - 1);
        self.store(hash4::<15>(v), hash7::<15>(v), block.at(s - 1));
        v >> 8
    }
}

/// The match with `t`, or with `older` if that is longer.
#[inline(always)]
pub(super) fn longer_of_two(block: &Block<'_>, s: usize, t: usize, older: Option<usize>) -> Match {
    let Some(older) = older else { return Match { s, t, length: block.whole(t, s) } };
    let (length, older_length) = (block.capped(t, s), block.capped(older, s));
    let best = if older_length > length {
        Match { s, t: older, length: older_length }
    } else {
        Match { s, t, length }
    };
    uncapped(block, best)
}

/// The match measured beyond 258 bytes, if it was cut there.
#[inline(always)]
pub(super) fn uncapped(block: &Block<'_>, mut found: Match) -> Match {
    if found.length == Token::MAX_MATCH {
        found.length += block.common(found.t + found.length, found.s + found.length);
    }
    found
}

/// `here`, or a longer match from the position probed ahead.
#[inline(always)]
fn better_ahead(block: &Block<'_>, here: Match, pair: [u32; 2], next: usize, ahead: u64) -> Match {
    if block.at(next).wrapping_sub(pair[0]) >= REACH {
        return here;
    }
    for entry in pair {
        if let Some(t) = block.near(entry, next, ahead) {
            let length = block.capped(t, next);
            if length > here.length {
                return Match { s: next, t, length };
            }
        }
    }
    here
}

impl Match {
    /// A match at `s` with the bytes that begin `length - 2` before the entry, if it is in reach and longer.
    #[inline(always)]
    pub(super) fn replaced(self, block: &Block<'_>, s: usize, entry: u32, length: usize) -> Self {
        // Signed, as the entry may lie before the history.
        let t = i64::from(entry) - i64::from(block.offset) - length as i64 + 2;
        let distance = s as i64 - t;
        if t < 0 || distance <= 0 || distance >= i64::from(REACH) {
            return self;
        }
        let t = t as usize;
        let length = block.common(t, s);
        if length > self.length { Self { s, t, length } } else { self }
    }
}
