//! The match finder of level "default": a table of eight bytes, and one of five.

use super::block::Found;
use super::history::{HashTable, View};
use super::words::{common, le64};

const LONG_BITS: u32 = 17;
const SHORT_BITS: u32 = 15;
/// Shorter blocks are not searched.
const SEARCHED: usize = 16;
/// Bytes at the end of a block where no match begins.
const MARGIN: usize = 10;

/// The state of the search.
#[derive(Debug)]
pub(super) struct DoubleFast {
    long: HashTable<{ 1 << LONG_BITS }>,
    short: HashTable<{ 1 << SHORT_BITS }>,
}

#[inline(always)]
fn hash8(value: u64) -> u32 {
    (value.wrapping_mul(0xcf1b_bcdc_b7a5_6463) >> (64 - LONG_BITS)) as u32
}

#[inline(always)]
fn hash5(value: u64) -> u32 {
    ((value << 24).wrapping_mul(889_523_592_379) >> (64 - SHORT_BITS)) as u32
}

impl DoubleFast {
    pub(super) fn new() -> Self {
        Self { long: HashTable::new(), short: HashTable::new() }
    }

    /// Takes `less` off all positions.
    pub(super) fn rebase(&mut self, less: u32) {
        self.long.rebase(less);
        self.short.rebase(less);
    }

    /// Finds the matches of a block. `ALONE` is for a block that is the whole frame, as at level "fastest".
    pub(super) fn find<const ALONE: bool>(&mut self, view: View<'_>, found: &mut Found) {
        let mut anchor = view.begin;
        if view.bytes.len() - anchor >= SEARCHED {
            anchor = self.search::<ALONE>(view, found);
        }
        found.literals.extend_from_slice(&view.bytes[anchor..]);
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
                let entry = view.entry(word as u32, at);
                let long = self.long.replace(hash8(word), entry);
                let short = self.short.replace(hash5(word), entry);
                let repeats = if ALONE { found.sequences.len() > 2 } else { may_repeat };
                if repeats && view.repeats((at + 1).wrapping_sub(last), (word >> 8) as u32) {
                    let to = at + 1;
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
                if let Some(from) = view.hit(long, word as u32, at) {
                    break (from, at);
                }
                if let Some(from) = view.hit(short, word as u32, at) {
                    break self.longer_after(view, at).unwrap_or((from, at));
                }
                at += 1 + ((at - anchor) >> 7);
                if at >= limit {
                    return anchor;
                }
            };
            let mut before = last;
            last = to - from;
            let length = 4 + common(bytes, from + 4, to + 4);
            let back = view.back(from, to, to.saturating_sub(view.window), anchor);
            found.take(&bytes[anchor..to - back], length + back, last as u32 + 3);
            at = to + length;
            anchor = at;
            if at >= limit {
                return anchor;
            }
            let late = self.index_match(view, at - (length + back) + 1, at - 2);
            let repeats = if ALONE { found.sequences.len() > 2 } else { may_repeat };
            if !repeats {
                continue;
            }
            loop {
                let word = le64(bytes, at);
                if !view.repeats(at - before, word as u32) {
                    break;
                }
                let length = 4 + common(bytes, at - before + 4, at + 4);
                let entry = view.entry(word as u32, at);
                self.long.set(hash8(word), entry);
                // In a frame of one block, the original keeps the hash of the match before.
                self.short.set(hash5(if ALONE { late >> 16 } else { word }), entry);
                found.take(&[], length, 1);
                at += length;
                anchor = at;
                (last, before) = (before, last);
                if at >= limit {
                    return anchor;
                }
            }
        }
    }

    /// A match of the long table one byte later, where the short table has one.
    #[inline(always)]
    fn longer_after(&mut self, view: View<'_>, at: usize) -> Option<(usize, usize)> {
        let word = le64(view.bytes, at + 1);
        let entry = self.long.replace(hash8(word), view.entry(word as u32, at + 1));
        Some((view.hit(entry, word as u32, at + 1)?, at + 1))
    }

    /// Puts places of a match into the tables, near its begin and its end. The word at the later one.
    #[inline(always)]
    fn index_match(&mut self, view: View<'_>, early: usize, late: usize) -> u64 {
        let mut word = 0;
        for place in [early, late] {
            word = le64(view.bytes, place);
            self.long.set(hash8(word), view.entry(word as u32, place));
        }
        for place in [early, late] {
            let word = le64(view.bytes, place) >> 8;
            self.short.set(hash5(word), view.entry(word as u32, place + 1));
        }
        word
    }
}
