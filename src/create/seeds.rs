//! Seeds of covers, one after the other, in one walk over the piece.

use super::corpus::Span;
use super::index::GramIndex;
use super::nearby::{Nearby, SEED};
use super::search::{Cover, Search, Weights, common, mismatches};

/// Bytes equal on the current diagonal that are taken without asking an index.
const STAY: usize = 32;

/// In tables so many of them are enough: with fewer, another diagonal may be the right one, for an entry
/// further on is like this one but for its numbers.
const STAY_LIKELY: usize = 28;

/// Candidates are compared over at most this many bytes, so that repetitive input costs no more than other.
const GLANCE: usize = 256;

/// Furthest that a miss moves on, in bytes.
const MAX_STRIDE: usize = 32;

/// A new place must beat the current diagonal by this many bytes, in the same file and in another.
const BETTER_SAME: usize = 8;
const BETTER_OTHER: usize = 16;

/// The same for a short seed, in matches above mismatches.
const BETTER_NEAR: i64 = 64;

/// Of two candidates the one in the current file may be this many bytes shorter: it needs no OPEN, nor another back.
const AT_HOME: usize = 12;

/// Matches above mismatches that a short seed must have around it.
const NEAR_LEAST: i64 = 16;

/// So many bytes of the next or the last 32 must be equal for a closer look.
const ALIKE: usize = 18;

/// A comparison ends where it fell this far behind its best.
const LOST: i64 = 16;

/// Each time so many places in a row had no short seed, half as many are looked up, down to 1 of 2^`RARELY`.
const NEAR_PATIENCE: usize = 512;
const RARELY: usize = 4;

/// Old bytes in step with the piece.
#[derive(Debug, Clone, Copy)]
struct Diagonal {
    /// The old file.
    span: Span,
    /// The old position opposite to the first byte of the piece; it may lie before the file.
    base: u64,
}

impl Diagonal {
    fn of(cover: &Cover) -> Self {
        Diagonal { span: cover.span, base: cover.old.wrapping_sub(cover.new as u64) }
    }

    /// The old position opposite byte `at` of the piece, if it is in the file.
    fn opposite(self, at: usize) -> Option<u64> {
        let here = self.base.wrapping_add(at as u64);
        (self.span.start <= here && here < self.span.end).then_some(here)
    }

    fn in_file_of(self, cover: &Cover) -> bool {
        self.span.source == cover.span.source
    }
}

impl Search<'_> {
    /// Seeds in `piece`, ascending and disjoint. `twin` is the old file to begin with and the byte of
    /// it that lies opposite the piece's first.
    pub(super) fn seeds(&self, piece: &[u8], twin: Option<(Span, u64)>) -> Vec<Cover> {
        let old = self.corpus.bytes();
        let diagonal = twin.map(|(span, offset)| Diagonal { span, base: span.start.wrapping_add(offset) });
        let near = twin
            .filter(|(span, _)| Nearby::is_for(piece, *span, self.weights.nearby))
            .map(|(span, offset)| Nearby::new(old, span, offset, piece.len()));
        let mut walk = Walk {
            search: self,
            piece,
            old,
            near,
            diagonal,
            home: diagonal,
            end: 0,
            misses: 0,
            seeds: Vec::new(),
        };
        let mut at = 0;
        while at + STAY <= piece.len() {
            at = match walk.seed(at) {
                Some(seed) => walk.take(seed),
                None => walk.miss(at, self.weights),
            };
        }
        walk.seeds
    }
}

/// A walk over a piece.
struct Walk<'a> {
    search: &'a Search<'a>,
    piece: &'a [u8],
    old: &'a [u8],
    /// Where the piece has tables.
    near: Option<Nearby>,
    /// The last good one, to begin with the twin's.
    diagonal: Option<Diagonal>,
    /// The last good one in the twin.
    home: Option<Diagonal>,
    /// Up to here all is decided.
    end: usize,
    /// In a row.
    misses: usize,
    seeds: Vec<Cover>,
}

impl Walk<'_> {
    fn seed(&self, at: usize) -> Option<Cover> {
        self.straight_on(at).or_else(|| {
            let near = self.nearby(at);
            let far =
                self.anywhere(at).filter(|far| near.is_none_or(|near| far.len > near.len + BETTER_OTHER));
            far.or(near)
        })
    }

    fn take(&mut self, seed: Cover) -> usize {
        (self.end, self.misses) = (seed.end(), 0);
        let diagonal = Diagonal::of(&seed);
        if self.home.is_some_and(|home| home.in_file_of(&seed)) {
            self.home = Some(diagonal);
        }
        self.diagonal = Some(diagonal);
        self.seeds.push(seed);
        self.end
    }

    fn miss(&mut self, at: usize, weights: Weights) -> usize {
        self.misses += 1;
        at + 1 + (self.misses >> weights.patience).min(MAX_STRIDE)
    }

    /// The seed on the current diagonal; in tables one with a few differences.
    fn straight_on(&self, at: usize) -> Option<Cover> {
        let diagonal = self.diagonal?;
        let here = diagonal.opposite(at)?;
        let new = &self.piece[at..];
        let old = &self.old[here as usize..diagonal.span.end as usize];
        let mut seed = Cover { new: at, len: common(new, old), old: here, span: diagonal.span };
        if seed.len < STAY {
            let (new, old) = (&new[..STAY], old.get(..STAY)?);
            if self.near.is_none() || STAY - mismatches(new, old) < STAY_LIKELY {
                return None;
            }
            let equal = |at: &usize| new[*at] == old[*at];
            let (first, last) = ((0..STAY).find(equal)?, (0..STAY).rev().find(equal)?);
            seed = Cover { new: at + first, len: last + 1 - first, old: here + first as u64, ..seed };
        }
        Some(self.backwards(seed, self.end))
    }

    /// The best short seed in the twin that is worth leaving the current diagonal for.
    fn nearby(&self, at: usize) -> Option<Cover> {
        let (near, home) = (self.near.as_ref()?, self.home?);
        let text = self.piece[at..].first_chunk::<SEED>()?;
        let thinner = (self.misses / NEAR_PATIENCE).min(RARELY) as u32;
        let mut best: Option<(i64, Cover)> = None;
        for position in near.candidates(text, home.base.wrapping_add(at as u64), thinner) {
            let here = position as usize;
            if self.old[here..].first_chunk() != Some(text) {
                continue;
            }
            if !self.is_alike(at, here) {
                continue;
            }
            let (new, old) = (&self.piece[at..], &self.old[here..home.span.end as usize]);
            let (ahead, forward) = best_run(new.iter().zip(old).take(GLANCE).map(|(n, o)| n == o));
            let (new, old) = (&self.piece[self.end..at], &self.old[home.span.start as usize..here]);
            let (behind, back) =
                best_run(new.iter().rev().zip(old.iter().rev()).take(GLANCE).map(|(n, o)| n == o));
            if best.is_none_or(|(score, _)| ahead + behind > score) {
                let old = position - back as u64;
                best = Some((
                    ahead + behind,
                    Cover { new: at - back, len: back + forward, old, span: home.span },
                ));
            }
        }
        let (score, around) = best?;
        if score < NEAR_LEAST {
            return None;
        }
        if let Some(diagonal) = self.diagonal {
            let equal = self.equal_on(diagonal, &around) as i64;
            if score < 2 * equal - around.len as i64 + BETTER_NEAR {
                return None;
            }
        }
        let here = around.old + (at - around.new) as u64;
        Some(self.exact(Cover { new: at, len: 0, old: here, span: home.span }))
    }

    /// Whether more than the seed itself is alike, behind it or before it: most places are not worth more than this look.
    fn is_alike(&self, at: usize, here: usize) -> bool {
        let alike = |new: Option<&[u8; STAY]>, old: Option<&[u8; STAY]>| match (new, old) {
            (Some(new), Some(old)) => STAY - mismatches(new, old) >= ALIKE,
            _ => true,
        };
        alike(self.piece[at..].first_chunk(), self.old[here..].first_chunk())
            || alike(self.piece[..at].last_chunk(), self.old[..here].last_chunk())
    }

    /// The longest seed of the whole corpus that is worth leaving the current diagonal for.
    fn anywhere(&self, at: usize) -> Option<Cover> {
        let (piece, old) = (self.piece, self.old);
        let index: &GramIndex = self.search.index;
        let text = piece[at..].get(..index.gram())?;
        let is_home = |cover: &Cover| self.diagonal.is_some_and(|diagonal| diagonal.in_file_of(cover));
        let worth = |cover: &Cover| cover.len + if is_home(cover) { AT_HOME } else { 0 };
        let mut best: Option<Cover> = None;
        for position in index.candidates(text) {
            let there = &old[position as usize..];
            if !there.starts_with(text) {
                continue;
            }
            let Some(span) = self.search.corpus.span_at(position) else { continue };
            let reach = GLANCE.min((span.end - position) as usize).min(piece.len() - at);
            let len = common(&piece[at..at + reach], &there[..reach]);
            let cover = Cover { new: at, len, old: position, span };
            let cover = self.backwards(cover, self.end.max(at.saturating_sub(GLANCE)));
            if best.is_none_or(|b| worth(&cover) > worth(&b)) {
                best = Some(cover);
            }
        }
        let best = best?;
        let (least, margin) = match is_home(&best) {
            true => (self.search.weights.seed_same, BETTER_SAME),
            false => (self.search.weights.seed_other, BETTER_OTHER),
        };
        let stays = self.diagonal.is_some_and(|diagonal| best.len < self.equal_on(diagonal, &best) + margin);
        (best.len >= least && !stays).then(|| self.exact(best))
    }

    /// Bytes of a cover that are equal on a diagonal.
    fn equal_on(&self, diagonal: Diagonal, cover: &Cover) -> usize {
        let is_equal =
            |at: &usize| diagonal.opposite(*at).is_some_and(|o| self.old[o as usize] == self.piece[*at]);
        (cover.new..cover.end()).filter(is_equal).count()
    }

    /// Grows a cover both ways over equal bytes.
    fn exact(&self, mut cover: Cover) -> Cover {
        let behind = cover.old_end() as usize..cover.span.end as usize;
        cover.len += common(&self.piece[cover.end()..], &self.old[behind]);
        self.backwards(cover, self.end)
    }

    /// Grows a cover backwards over equal bytes, not before `end`.
    fn backwards(&self, cover: Cover, end: usize) -> Cover {
        let room = (cover.new - end).min((cover.old - cover.span.start) as usize);
        let from = cover.old as usize;
        let back = (1..=room).take_while(|n| self.piece[cover.new - n] == self.old[from - n]).count();
        Cover { new: cover.new - back, len: cover.len + back, old: cover.old - back as u64, ..cover }
    }
}

/// Score and length of the start with the most matches above mismatches, given up where all is lost.
fn best_run(matches: impl Iterator<Item = bool>) -> (i64, usize) {
    let (mut score, mut best, mut len) = (0, 0, 0);
    for (at, equal) in matches.enumerate() {
        score += if equal { 1 } else { -1 };
        if score > best {
            (best, len) = (score, at + 1);
        }
        if score < best - LOST {
            break;
        }
    }
    (best, len)
}
