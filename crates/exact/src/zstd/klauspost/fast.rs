//! The match finder of level "fastest": one table.

use super::block::Found;
use super::history::{HashTable, View};
use super::words::{common, le64};

const TABLE_BITS: u32 = 15;
/// Shorter blocks are not searched.
const SEARCHED: usize = 10;
/// Bytes at the end of a block where no match begins.
const MARGIN: usize = 8;

/// The state of the search.
#[derive(Debug)]
pub(super) struct Fast {
    table: HashTable<{ 1 << TABLE_BITS }>,
}

#[inline(always)]
fn hash6(value: u64) -> u32 {
    ((value << 16).wrapping_mul(227_718_039_650_203) >> (64 - TABLE_BITS)) as u32
}

impl Fast {
    pub(super) fn new() -> Self {
        Self { table: HashTable::new() }
    }

    /// Takes `less` off all positions.
    pub(super) fn rebase(&mut self, less: u32) {
        self.table.rebase(less);
    }

    /// Finds the matches of a block. `ALONE` is for a block that is the whole frame: there, the original looks
    /// anew at each place whether it may repeat, else only after each match that is no repetition.
    pub(super) fn find<const ALONE: bool>(&mut self, view: View<'_>, found: &mut Found) {
        let bytes = view.bytes;
        let end = bytes.len();
        let mut anchor = view.begin;
        if end - anchor >= SEARCHED {
            anchor = self.search::<ALONE>(view, found);
        }
        found.literals.extend_from_slice(&bytes[anchor..]);
    }

    /// Says up to where matches were found.
    fn search<const ALONE: bool>(&mut self, view: View<'_>, found: &mut Found) -> usize {
        let bytes = view.bytes;
        let limit = bytes.len() - MARGIN;
        let mut at = view.begin;
        let mut anchor = at;
        // Without effect: what is repeated was set by a match.
        let mut last = 1;
        loop {
            let may_repeat = found.sequences.len() > 2;
            let (from, to) = loop {
                let word = le64(bytes, at);
                let (low, next) = (hash6(word), hash6(word >> 8));
                let first = self.table.get(low);
                let second = self.table.get(next);
                self.table.set(low, view.entry(word as u32, at));
                self.table.set(next, view.entry((word >> 8) as u32, at + 1));
                let repeats = if ALONE { found.sequences.len() > 2 } else { may_repeat };
                if repeats && view.repeats((at + 2).wrapping_sub(last), (word >> 16) as u32) {
                    let to = at + 2;
                    let from = to - last;
                    let length = 4 + common(bytes, from + 4, to + 4);
                    // At least one literal stays.
                    let back = view.back(from, to, at.saturating_sub(view.window), anchor + 1);
                    found.take(&bytes[anchor..to - back], length + back, 1);
                    at = to + length;
                    anchor = at;
                    if at >= limit {
                        return anchor;
                    }
                    continue;
                }
                if let Some(from) = view.hit(first, word as u32, at) {
                    break (from, at);
                }
                if let Some(from) = view.hit(second, (word >> 8) as u32, at + 1) {
                    break (from, at + 1);
                }
                at += 2 + ((at - anchor) >> 5);
                if at >= limit {
                    return anchor;
                }
            };
            let before = last;
            last = to - from;
            let length = 4 + common(bytes, from + 4, to + 4);
            let back = view.back(from, to, to.saturating_sub(view.window), anchor);
            found.take(&bytes[anchor..to - back], length + back, last as u32 + 3);
            at = to + length;
            anchor = at;
            if at >= limit {
                return anchor;
            }
            let word = le64(bytes, at);
            let repeats = if ALONE { found.sequences.len() > 2 } else { may_repeat };
            if repeats && view.repeats(at - before, word as u32) {
                let length = 4 + common(bytes, at - before + 4, at + 4);
                self.table.set(hash6(word), view.entry(word as u32, at));
                found.take(&[], length, 1);
                at += length;
                anchor = at;
                last = before;
                if at >= limit {
                    return anchor;
                }
            }
        }
    }
}
