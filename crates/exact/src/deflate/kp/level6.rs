//! Level 6: as level 5, with repeated distances, a second look at the end, and all positions entered.

use super::level5::{longer_of_two, uncapped};
use super::search::*;
use crate::deflate::token::Token;
use crate::deflate::words::{le32, le64};

/// The tables of level 6.
#[derive(Clone, Debug)]
pub(super) struct Level6 {
    short: Table<{ 1 << 15 }>,
    long: PairTable<{ 1 << 15 }>,
}

/// Where the search of a block stands.
#[derive(Clone, Copy, Debug)]
struct Here {
    s: usize,
    anchor: usize,
    /// The bytes at `s`.
    value: u64,
    /// The distance of the last match of this block, or 1.
    repeat: usize,
}

impl Level6 {
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
        let s = block.start;
        let mut here = Here { s, anchor: s, value: le64(bytes, s), repeat: 1 };
        loop {
            let Some((found, next)) = self.search(block, here, limit) else {
                return send_rest(block, here.anchor, tokens);
            };
            let found = self.check_end(block, found, limit).send(block, here.anchor, tokens);
            here.repeat = found.s.wrapping_sub(found.t);
            here.anchor = found.end();
            here.s = here.anchor.max(next + 1);
            if here.s >= limit {
                // The rest of the block is entered, too.
                for i in (next + 1..bytes.len() - 8).step_by(2) {
                    let v = le64(bytes, i);
                    self.store(hash4::<15>(v), hash7::<15>(v), block.at(i));
                }
                return send_rest(block, here.anchor, tokens);
            }
            for i in (next + 1..here.s - 1).step_by(2) {
                let v = le64(bytes, i);
                self.store(hash4::<15>(v), hash7::<15>(v), block.at(i));
                push(&mut self.long[hash7::<15>(v >> 8)], block.at(i + 1));
            }
            here.value = le64(bytes, here.s);
        }
    }

    /// The next match, and the position probed ahead.
    #[inline(always)]
    fn search(&mut self, block: &Block<'_>, here: Here, limit: usize) -> Option<(Match, usize)> {
        let mut value = here.value;
        let mut next = here.s;
        loop {
            let (a, b) = (hash4::<15>(value), hash7::<15>(value));
            let s = next;
            next = s + 1 + ((s - here.anchor) >> 7);
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
                let found = Match { s, t, length: block.capped(t, s) };
                let best = repeated(block, found, here.repeat, value)
                    .unwrap_or_else(|| better_ahead(block, found, pair, next, ahead));
                return Some((uncapped(block, best), next));
            }
            value = ahead;
        }
    }

    /// Looks for a longer match from the hash of what follows the match.
    #[inline(always)]
    fn check_end(&self, block: &Block<'_>, found: Match, limit: usize) -> Match {
        if found.end() >= limit {
            return found;
        }
        let [newest, older] = self.long[hash7::<15>(le64(block.bytes, found.end()))];
        let s = found.s + 2;
        let reached = block.at(s).wrapping_sub(newest).wrapping_add(found.length as u32).wrapping_sub(2);
        // Beyond reach, or after s: then the older one is not tried in the first case.
        if (REACH..u32::MAX / 2).contains(&reached) {
            return found;
        }
        let best = found.replaced(block, s, newest, found.length);
        best.replaced(block, s, older, best.length)
    }
}

/// A longer match one byte on with the distance of the last match.
#[inline(always)]
fn repeated(block: &Block<'_>, found: Match, repeat: usize, value: u64) -> Option<Match> {
    let t = (found.s + 1).checked_sub(repeat)?;
    if le32(block.bytes, t) != (value >> 8) as u32 {
        return None;
    }
    let length = block.capped(t, found.s + 1);
    (length > found.length).then_some(Match { s: found.s + 1, t, length })
}

/// `found`, or the longest of it and the matches from the position probed ahead.
#[inline(always)]
fn better_ahead(block: &Block<'_>, found: Match, pair: [u32; 2], next: usize, ahead: u64) -> Match {
    let mut best = found;
    if block.at(next).wrapping_sub(pair[0]) < REACH {
        for entry in pair {
            if let Some(t) = block.near(entry, next, ahead) {
                let length = block.capped(t, next);
                if length > best.length {
                    best = Match { s: next, t, length };
                }
            }
        }
    }
    best
}
