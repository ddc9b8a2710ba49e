//! Finds, for a piece of a new file, the old bytes that it is made of.
//!
//! First exact seeds, along the diagonal that was last good (the twin's to begin
//! with: the old file of the same name) or from the index; then seeds of one
//! diagonal are joined over their differences, all are grown into the gaps, and
//! those that cost more than they save are dropped.

use super::corpus::{Corpus, Span};
use super::dictionary::Frames;
use super::index::GramIndex;
use super::price;

/// A stretch of a new piece that resembles a stretch of the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cover {
    /// Where it begins in the piece.
    pub new: usize,
    /// Bytes.
    pub len: usize,
    /// Where the old bytes begin in the corpus.
    pub old: u64,
    /// The old file.
    pub span: Span,
}

impl Cover {
    fn end(&self) -> usize {
        self.new + self.len
    }

    fn old_end(&self) -> u64 {
        self.old + self.len as u64
    }

    fn on_diagonal(&self, other: &Cover) -> bool {
        self.span.source == other.span.source
            && self.old.wrapping_sub(self.new as u64) == other.old.wrapping_sub(other.new as u64)
    }
}

/// Weights of the search; bytes of the compressed patch unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    /// Shortest seed in bytes in the file that is open.
    pub seed_same: usize,
    /// Shortest seed in bytes in another file.
    pub seed_other: usize,
    /// After 2^`patience` misses in a row one byte more is passed over at each further miss.
    pub patience: u32,
    /// What a literal byte costs, as a share of what level 1 of zstd makes of it.
    pub literal: f64,
    /// Equal bytes in a row that are worth a COPY of their own within an ADD: zeros in an ADD compress so
    /// well that shorter runs may be cheaper there, while those copied need not be decompressed and added.
    pub copy_from: usize,
}

/// Bytes equal on the current diagonal that are taken without asking the index.
const STAY: usize = 32;

/// Candidates are compared over at most this many bytes, so that repetitive input costs no more than other.
const GLANCE: usize = 256;

/// Furthest that a miss moves on, in bytes.
const MAX_STRIDE: usize = 32;

/// A new place must beat the current diagonal by this many bytes, in the same file and in another.
const BETTER_SAME: usize = 8;
const BETTER_OTHER: usize = 16;

/// Of two candidates the one in the current file may be this many bytes shorter: it needs no OPEN, nor another back.
const AT_HOME: usize = 12;

/// Cost of a byte that differs within a cover, an ADD payload byte that is not zero: until
/// it is estimated, and the bounds of the estimate.
const DIFFERENCE: f64 = 1.1;
const DIFFERENCES: std::ops::RangeInclusive<f64> = 0.4..=1.6;

/// What it costs more when a cover as a whole is judged.
const KEPT: f64 = 0.1;

/// Of a run of zeros in a row so many count for the estimate; longer ones cost no more.
const ZEROS: usize = 64;

/// What two covers cost more than one, beside the literals between them.
const JOIN: f64 = 6.0;

/// What a cover costs: in the file that is open, and with an OPEN. Most is the absolute SEEK,
/// which hardly compresses, and zstd's matches that it breaks.
const COVER_SAME: f64 = 12.0;
const COVER_OTHER: f64 = 24.0;

/// An OPEN that has to be undone for the next cover.
const RETURNING: f64 = 1.8;

/// What the bytes of a piece cost.
#[derive(Debug, Clone, Copy)]
struct Prices {
    /// A literal one.
    literal: f64,
    /// One that differs within a cover.
    difference: f64,
}

/// Looks for the pieces of new files in the old bytes.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub corpus: &'a Corpus,
    pub index: &'a GramIndex,
    pub weights: Weights,
    /// For version 2 of the format.
    pub frames: Option<Frames>,
}

impl Search<'_> {
    /// The covers of `piece`, ascending and disjoint. `twin` is the old file to
    /// begin with and the byte of it that lies opposite the piece's first.
    pub fn covers(&self, piece: &[u8], twin: Option<(Span, u64)>) -> Vec<Cover> {
        let literal = (price::of_literals(piece) * self.weights.literal).clamp(0.1, 1.0);
        let usual = Prices { literal, difference: DIFFERENCE };
        let seeds = self.seeds(piece, twin);
        let covers = self.settle(piece, seeds.clone(), usual);
        let Some(difference) = price::of_differences(&self.sums(piece, &covers)) else { return covers };
        let difference = difference.clamp(*DIFFERENCES.start(), *DIFFERENCES.end());
        self.settle(piece, seeds, Prices { difference, ..usual })
    }

    /// Makes seeds into covers, which are worth their price.
    fn settle(&self, piece: &[u8], mut covers: Vec<Cover>, prices: Prices) -> Vec<Cover> {
        self.join(piece, &mut covers, prices);
        self.grow(piece, &mut covers);
        self.join(piece, &mut covers, prices);
        self.drop_dear(piece, &mut covers, prices);
        covers
    }

    /// The sums that the covers would need; of a run of zeros the first few.
    fn sums(&self, piece: &[u8], covers: &[Cover]) -> Vec<u8> {
        let corpus = self.corpus.bytes();
        let mut sums = Vec::new();
        for cover in covers {
            let from = cover.old as usize;
            let (new, old) = (&piece[cover.new..cover.end()], &corpus[from..from + cover.len]);
            let mut at = 0;
            while at < new.len() {
                let equal = common(&new[at..], &old[at..]);
                sums.resize(sums.len() + equal.min(ZEROS), 0);
                at += equal;
                sums.extend(new.iter().zip(old).skip(at).take(1).map(|(n, o)| n.wrapping_sub(*o)));
                at += 1;
            }
        }
        sums
    }

    fn seeds(&self, piece: &[u8], twin: Option<(Span, u64)>) -> Vec<Cover> {
        let old = self.corpus.bytes();
        let mut seeds: Vec<Cover> = Vec::new();
        // The current diagonal: the old position opposite to byte 0 of the piece, and its file.
        let mut diagonal = twin.map(|(span, offset)| (span, span.start.wrapping_add(offset)));
        let (mut at, mut end, mut misses) = (0, 0, 0usize);
        let gram = self.index.gram();
        while at + STAY <= piece.len() {
            if let Some((span, base)) = diagonal
                && let Some(here) = opposite(span, base, at)
            {
                let room = (span.end - here) as usize;
                let forward =
                    common(&piece[at..], &old[here as usize..here as usize + room.min(piece.len() - at)]);
                if forward >= STAY {
                    let cover = backwards(piece, old, Cover { new: at, len: forward, old: here, span }, end);
                    end = cover.end();
                    seeds.push(cover);
                    (at, misses) = (end, 0);
                    continue;
                }
            }
            if at + gram <= piece.len()
                && let Some(found) = self.best(piece, at, end, diagonal)
            {
                end = found.end();
                diagonal = Some((found.span, found.old.wrapping_sub(found.new as u64)));
                seeds.push(found);
                (at, misses) = (end, 0);
                continue;
            }
            misses += 1;
            at += 1 + (misses >> self.weights.patience).min(MAX_STRIDE);
        }
        seeds
    }

    /// The longest candidate at `at` that is worth leaving the current diagonal for.
    fn best(&self, piece: &[u8], at: usize, end: usize, diagonal: Option<(Span, u64)>) -> Option<Cover> {
        let old = self.corpus.bytes();
        let mut best: Option<Cover> = None;
        let gram = self.index.gram();
        let is_home = |cover: &Cover| diagonal.is_some_and(|(span, _)| span.source == cover.span.source);
        let worth = |cover: &Cover| cover.len + if is_home(cover) { AT_HOME } else { 0 };
        for position in self.index.candidates(&piece[at..]) {
            let text = &old[position as usize..];
            if text.len() < gram || text[..gram] != piece[at..at + gram] {
                continue;
            }
            let Some(span) = self.corpus.span_at(position) else { continue };
            let reach = GLANCE.min((span.end - position) as usize).min(piece.len() - at);
            let len = common(&piece[at..at + reach], &text[..reach]);
            let cover = backwards(
                piece,
                old,
                Cover { new: at, len, old: position, span },
                end.max(at.saturating_sub(GLANCE)),
            );
            if best.is_none_or(|b| worth(&cover) > worth(&b)) {
                best = Some(cover);
            }
        }
        let mut best = best?;
        let (least, margin) = match is_home(&best) {
            true => (self.weights.seed_same, BETTER_SAME),
            false => (self.weights.seed_other, BETTER_OTHER),
        };
        if best.len < least {
            return None;
        }
        if let Some((span, base)) = diagonal {
            let equal = (best.new..best.end())
                .filter(|i| opposite(span, base, *i).is_some_and(|o| old[o as usize] == piece[*i]))
                .count();
            if best.len < equal + margin {
                return None;
            }
        }
        let room = (best.span.end - best.old_end()) as usize;
        let tail = &piece[best.end()..];
        let behind = best.old_end() as usize;
        best.len += common(tail, &old[behind..behind + room.min(tail.len())]);
        Some(backwards(piece, old, best, end))
    }

    /// Joins neighbours on one diagonal where the differences between them cost less than two covers.
    fn join(&self, piece: &[u8], covers: &mut Vec<Cover>, prices: Prices) {
        let old = self.corpus.bytes();
        covers.dedup_by(|next, kept| {
            if !kept.on_diagonal(next) {
                return false;
            }
            let gap = next.new - kept.end();
            let from = kept.old_end() as usize;
            let differing = mismatches(&piece[kept.end()..next.new], &old[from..from + gap]);
            let joined = prices.difference * differing as f64 <= JOIN + gap as f64 * prices.literal;
            if joined {
                kept.len = next.end() - kept.new;
            }
            joined
        });
    }

    /// Grows covers into the gaps, one point for a byte that matches, one off for one that does not.
    fn grow(&self, piece: &[u8], covers: &mut [Cover]) {
        let old = self.corpus.bytes();
        for right in 0..=covers.len() {
            let gap_start = right.checked_sub(1).map_or(0, |left| covers[left].end());
            let gap_end = covers.get(right).map_or(piece.len(), |c| c.new);
            if gap_start >= gap_end {
                continue;
            }
            let gap = &piece[gap_start..gap_end];
            let forward = right.checked_sub(1).map_or(0, |left| {
                let from = covers[left].old_end();
                let room = (covers[left].span.end - from) as usize;
                best_prefix(gap, &old[from as usize..from as usize + room.min(gap.len())])
            });
            let backward = covers.get(right).map_or(0, |c| {
                let room = ((c.old - c.span.start) as usize).min(gap.len());
                best_suffix(gap, &old[c.old as usize - room..c.old as usize])
            });
            let (forward, backward) = match (forward + backward).checked_sub(gap.len()) {
                None | Some(0) => (forward, backward),
                Some(overlap) => {
                    let left = &covers[right - 1];
                    let a = left.old_end() as usize + forward - overlap;
                    let b = covers[right].old as usize - backward;
                    let text = &gap[forward - overlap..forward];
                    let cut = best_cut(text, &old[a..a + overlap], &old[b..b + overlap]);
                    (forward - overlap + cut, backward - cut)
                }
            };
            if forward > 0 {
                covers[right - 1].len += forward;
            }
            if backward > 0 {
                let cover = &mut covers[right];
                cover.new -= backward;
                cover.old -= backward as u64;
                cover.len += backward;
            }
        }
    }

    fn drop_dear(&self, piece: &[u8], covers: &mut Vec<Cover>, prices: Prices) {
        let old = self.corpus.bytes();
        let mut open: Option<usize> = None;
        let mut kept: Vec<Cover> = Vec::with_capacity(covers.len());
        for (at, cover) in covers.iter().enumerate() {
            let from = cover.old as usize;
            let differing = mismatches(&piece[cover.new..cover.end()], &old[from..from + cover.len]);
            let source = cover.span.source;
            let returns =
                open.is_some() && covers.get(at + 1).is_some_and(|next| Some(next.span.source) == open);
            let overhead = match open {
                Some(open) if open == source => COVER_SAME,
                _ if returns => COVER_OTHER * RETURNING,
                _ => COVER_OTHER,
            };
            if cover.len as f64 * prices.literal - (prices.difference + KEPT) * differing as f64 > overhead {
                open = Some(source);
                kept.push(*cover);
            }
        }
        *covers = kept;
    }
}

/// The old position opposite byte `at` of the piece, if it is in the file.
fn opposite(span: Span, base: u64, at: usize) -> Option<u64> {
    let here = base.wrapping_add(at as u64);
    (span.start <= here && here < span.end).then_some(here)
}

/// Grows a cover backwards over equal bytes, not before `end`.
fn backwards(piece: &[u8], old: &[u8], cover: Cover, end: usize) -> Cover {
    let room = (cover.new - end).min((cover.old - cover.span.start) as usize);
    let from = cover.old as usize;
    let back = (1..=room).take_while(|n| piece[cover.new - n] == old[from - n]).count();
    Cover { new: cover.new - back, len: cover.len + back, old: cover.old - back as u64, span: cover.span }
}

/// Length of the common start.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    for (at, (x, y)) in a.chunks_exact(8).zip(b.chunks_exact(8)).enumerate() {
        let differing = word(x) ^ word(y);
        if differing != 0 {
            return at * 8 + differing.trailing_zeros() as usize / 8;
        }
    }
    let tail = n - n % 8;
    tail + a[tail..].iter().zip(&b[tail..]).take_while(|(x, y)| x == y).count()
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn mismatches(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).filter(|(x, y)| x != y).count()
}

fn best_prefix(gap: &[u8], old: &[u8]) -> usize {
    best_run(gap.iter().zip(old).map(|(x, y)| x == y))
}

fn best_suffix(gap: &[u8], old: &[u8]) -> usize {
    best_run(gap.iter().rev().zip(old.iter().rev()).map(|(x, y)| x == y))
}

/// Length of the run from the start with the most matches above mismatches.
fn best_run(matches: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut len) = (0i64, 0i64, 0);
    for (at, equal) in matches.enumerate() {
        score += if equal { 1 } else { -1 };
        if score > best {
            (best, len) = (score, at + 1);
        }
    }
    len
}

/// How much of `text` the left old bytes should have, the right ones getting the rest.
fn best_cut(text: &[u8], left: &[u8], right: &[u8]) -> usize {
    let (mut score, mut best, mut cut) = (0i64, 0i64, 0);
    for (at, ((t, l), r)) in text.iter().zip(left).zip(right).enumerate() {
        score += i64::from(t == l) - i64::from(t == r);
        if score > best {
            (best, cut) = (score, at + 1);
        }
    }
    cut
}
