//! Level 3: one table of 5-byte hashes, with two positions each.

use super::search::*;
use crate::deflate::token::Token;
use crate::deflate::words::le64;

/// The table of level 3.
#[derive(Clone, Debug)]
pub(super) struct Level3 {
    table: PairTable<{ 1 << 16 }>,
}

/// How far back level 3 looks.
const LOOK_BACK: u32 = 32_764;

impl Level3 {
    pub(super) fn new() -> Self {
        Self { table: empty() }
    }

    pub(super) fn tables(&self) -> Vec<&[u32]> {
        vec![self.table.as_flattened()]
    }

    pub(super) fn rebase(&mut self, by: u32) {
        rebase(self.table.as_flattened_mut(), by);
    }

    #[inline(always)]
    fn enter(&mut self, value: u64, at: u32) {
        push(&mut self.table[hash5::<16>(value)], at);
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
                    // The end of the earlier bytes is entered, not that of the match.
                    let t = found.t + found.length;
                    if t + 8 < bytes.len() && t > 0 {
                        self.enter(le64(bytes, t), block.at(t));
                    }
                    return send_rest(block, anchor, tokens);
                }
                for i in ((s + 2).saturating_sub(found.length)..s.saturating_sub(5)).step_by(6) {
                    self.enter(le64(bytes, i), block.at(i));
                }
                let v = le64(bytes, s - 2);
                self.enter(v, block.at(s - 2));
                self.enter(v >> 8, block.at(s - 1));
                let v = v >> 16;
                let pair = &mut self.table[hash5::<16>(v)];
                let before = *pair;
                push(pair, block.at(s));
                let Some(t) = again(block, before, s, v) else {
                    value = v >> 8;
                    s += 1;
                    break;
                };
                found = Match { s, t, length: 0 };
            }
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
            next = s + 1 + ((s - anchor) >> 7);
            if next > limit {
                return None;
            }
            let pair = &mut self.table[hash5::<16>(value)];
            let before = *pair;
            push(pair, block.at(s));
            if let Some(t) = first(block, before, s, value) {
                return Some((Match { s, t, length: 0 }, next));
            }
            value = le64(block.bytes, next);
        }
    }
}

/// Which of the two entries the first match at `s` takes. The borders differ, as in the original.
#[inline(always)]
fn first(block: &Block<'_>, [c0, c1]: [u32; 2], s: usize, value: u64) -> Option<usize> {
    let t = block.within(c0, s, LOOK_BACK, value);
    let Some(t) = t else {
        // The older one is tried only if the newest is in reach.
        let in_reach = block.at(s).wrapping_sub(c0) <= LOOK_BACK;
        return if in_reach { block.within(c1, s, LOOK_BACK - 1, value) } else { None };
    };
    match block.within(c1, s, LOOK_BACK, value) {
        Some(older) if block.common(older + 4, s + 4) > block.common(t + 4, s + 4) => Some(older),
        _ => Some(t),
    }
}

/// Which of the two entries goes on right behind a match.
#[inline(always)]
fn again(block: &Block<'_>, [c0, c1]: [u32; 2], s: usize, value: u64) -> Option<usize> {
    if block.at(s).wrapping_sub(c0) >= LOOK_BACK {
        return None;
    }
    block.within(c0, s, LOOK_BACK - 1, value).or_else(|| block.within(c1, s, LOOK_BACK - 1, value))
}
