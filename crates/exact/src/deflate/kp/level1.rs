//! Level 1: one table of 5-byte hashes.

use super::search::*;
use crate::deflate::token::Token;
use crate::deflate::words::le64;

/// The table of level 1.
#[derive(Clone, Debug)]
pub(super) struct Level1 {
    table: Table<{ 1 << 15 }>,
}

impl Level1 {
    pub(super) fn new() -> Self {
        Self { table: empty() }
    }

    pub(super) fn tables(&self) -> Vec<&[u32]> {
        vec![self.table.as_slice()]
    }

    pub(super) fn rebase(&mut self, by: u32) {
        rebase(self.table.as_mut_slice(), by);
    }

    #[inline(always)]
    fn swap(&mut self, hash: usize, at: u32) -> u32 {
        std::mem::replace(&mut self.table[hash], at)
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
            loop {
                found.length = block.whole(found.t, found.s);
                found = found.send(block, anchor, tokens);
                anchor = found.end();
                s = anchor.max(next + 1);
                if s >= limit {
                    if s + found.length + 8 < bytes.len() {
                        self.table[hash5::<15>(le64(bytes, s))] = block.at(s);
                    }
                    return send_rest(block, anchor, tokens);
                }
                let v = le64(bytes, s - 2);
                self.table[hash5::<15>(v)] = block.at(s - 2);
                let v = v >> 16;
                let entry = self.swap(hash5::<15>(v), block.at(s));
                let Some(t) = block.within(entry, s, REACH, v) else {
                    value = v >> 8;
                    s += 1;
                    break;
                };
                found = Match { s, t, length: 0 };
            }
        }
    }

    /// The next match from `s` on, not yet measured, and the position probed ahead.
    #[inline(always)]
    fn search(
        &mut self,
        block: &Block<'_>,
        mut s: usize,
        anchor: usize,
        mut value: u64,
        limit: usize,
    ) -> Option<(Match, usize)> {
        loop {
            let hash = hash5::<15>(value);
            let mut next = s + 2 + ((s - anchor) >> 5);
            if next > limit {
                return None;
            }
            let ahead = le64(block.bytes, next);
            let entry = self.swap(hash, block.at(s));
            let hash = hash5::<15>(ahead);
            if let Some(t) = block.near(entry, s, value) {
                self.table[hash] = block.at(next);
                return Some((Match { s, t, length: 0 }, next));
            }
            value = ahead;
            s = next;
            next += 1;
            let entry = self.swap(hash, block.at(s));
            if let Some(t) = block.near(entry, s, value) {
                // In the slot of `s`: that is how the original has it.
                self.table[hash] = block.at(next);
                return Some((Match { s, t, length: 0 }, next));
            }
            value = ahead >> 8;
            s = next;
        }
    }
}
