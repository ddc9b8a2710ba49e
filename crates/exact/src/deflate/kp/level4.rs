//! Level 4: a table of 4-byte hashes, and one of 7-byte hashes.

use super::search::*;
use crate::deflate::token::Token;
use crate::deflate::words::le64;

/// Where a match from the position probed ahead is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// With the earlier bytes that were found.
    Found,
    /// With bytes as far behind the start of the history as the match reaches back: a slip of klauspost
    /// 1.18.0 and later.
    Slipped,
}

/// The tables of level 4.
#[derive(Clone, Debug)]
pub(super) struct Level4 {
    short: Table<{ 1 << 15 }>,
    long: Table<{ 1 << 15 }>,
    ahead: Ahead,
}

impl Level4 {
    pub(super) fn new(ahead: Ahead) -> Self {
        Self { short: empty(), long: empty(), ahead }
    }

    pub(super) fn tables(&self) -> Vec<&[u32]> {
        vec![self.short.as_slice(), self.long.as_slice()]
    }

    pub(super) fn rebase(&mut self, by: u32) {
        rebase(self.short.as_mut_slice(), by);
        rebase(self.long.as_mut_slice(), by);
    }

    #[inline(always)]
    fn store(&mut self, value: u64, at: u32) {
        self.short[hash4::<15>(value)] = at;
        self.long[hash7::<15>(value)] = at;
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
            let Some((mut found, next)) = self.search(block, s, anchor, value, limit) else {
                return send_rest(block, anchor, tokens);
            };
            found.length = block.whole(found.t, found.s);
            let found = found.send(block, anchor, tokens);
            anchor = found.end();
            s = anchor.max(next + 1);
            if s >= limit {
                if s + 8 < bytes.len() {
                    self.store(le64(bytes, s), block.at(s));
                }
                return send_rest(block, anchor, tokens);
            }
            for i in (next..s - 1).step_by(3) {
                let v = le64(bytes, i);
                self.long[hash7::<15>(v)] = block.at(i);
                self.store(v >> 8, block.at(i + 1));
            }
            let v = le64(bytes, s - 1);
            self.store(v, block.at(s - 1));
            value = v >> 8;
        }
    }

    /// The next match from `next` on, not yet measured, and the position probed ahead.
    #[inline(always)]
    fn search(
        &mut self,
        block: &Block<'_>,
        mut next: usize,
        anchor: usize,
        mut value: u64,
        limit: usize,
    ) -> Option<(Match, usize)> {
        loop {
            let s = next;
            next = s + 1 + ((s - anchor) >> 6);
            if next > limit {
                return None;
            }
            let short = self.short[hash4::<15>(value)];
            let long = self.long[hash7::<15>(value)];
            self.store(value, block.at(s));
            let ahead = le64(block.bytes, next);
            if let Some(t) = block.near(long, s, value) {
                return Some((Match { s, t, length: 0 }, next));
            }
            if let Some(t) = block.near(short, s, value) {
                let here = Match { s, t, length: 0 };
                return Some((self.better_ahead(block, here, next, ahead), next));
            }
            value = ahead;
        }
    }

    /// `here`, or a longer match from the position probed ahead.
    #[inline(always)]
    fn better_ahead(&self, block: &Block<'_>, here: Match, next: usize, ahead: u64) -> Match {
        let Some(t) = block.near(self.long[hash7::<15>(ahead)], next, ahead) else { return here };
        let measured = match self.ahead {
            Ahead::Found => t,
            Ahead::Slipped => next - t,
        };
        if block.common(measured + 4, next + 4) > block.common(here.t + 4, here.s + 4) {
            Match { s: next, t, length: 0 }
        } else {
            here
        }
    }
}
