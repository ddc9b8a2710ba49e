//! Finds, for a piece of a new file, the old bytes that it is made of.
//!
//! First seeds (`seeds`), along the diagonal that was last good (the twin's to begin
//! with: the old file of the same name) or from the index; then seeds of one
//! diagonal are joined over their differences, all are grown into the gaps, and
//! those that cost more than they save are dropped.

use super::corpus::{Corpus, Span};
use super::dictionary::Frames;
use super::index::GramIndex;
use super::price::{self, Trial};

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
    pub(super) fn end(&self) -> usize {
        self.new + self.len
    }

    pub(super) fn old_end(&self) -> u64 {
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
    /// Short seeds are looked for where an old file has up to so many bytes beside the piece, and in tables
    /// always: beyond them that takes more time than it saves the compressor.
    pub nearby: usize,
    /// Equal bytes in a row that are worth a COPY of their own within an ADD: zeros in an ADD compress so
    /// well that shorter runs may be cheaper there, while those copied need not be decompressed and added.
    pub copy_from: usize,
}

/// Cost of a byte that differs within a cover, an ADD payload byte that is not zero: until
/// it is estimated, and the bounds of the estimate.
const DIFFERENCE: f64 = 1.1;
const DIFFERENCES: std::ops::RangeInclusive<f64> = 0.4..=1.6;

/// What it costs more when a cover as a whole is judged.
const KEPT: f64 = 0.1;

/// Where more than one byte of so many differs, a trial decides whether the cover is worth its price.
const DOUBTFUL: usize = 16;

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
        let covers = self.settle(piece, seeds.clone(), usual, None);
        let Some(difference) = price::of_differences(&self.sums(piece, &covers)) else { return covers };
        let difference = difference.clamp(*DIFFERENCES.start(), *DIFFERENCES.end());
        self.settle(piece, seeds, Prices { difference, ..usual }, Some(Trial::default()))
    }

    /// Makes seeds into covers, which are worth their price: by estimate, or by trial where that is in doubt.
    fn settle(
        &self,
        piece: &[u8],
        mut covers: Vec<Cover>,
        prices: Prices,
        trial: Option<Trial>,
    ) -> Vec<Cover> {
        self.join(piece, &mut covers, prices);
        self.grow(piece, &mut covers);
        self.join(piece, &mut covers, prices);
        self.drop_dear(piece, &mut covers, prices, trial);
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

    fn drop_dear(&self, piece: &[u8], covers: &mut Vec<Cover>, prices: Prices, mut trial: Option<Trial>) {
        let old = self.corpus.bytes();
        let mut open: Option<usize> = None;
        let mut kept: Vec<Cover> = Vec::with_capacity(covers.len());
        for (at, cover) in covers.iter().enumerate() {
            let from = cover.old as usize;
            let source = cover.span.source;
            let returns =
                open.is_some() && covers.get(at + 1).is_some_and(|next| Some(next.span.source) == open);
            let overhead = match open {
                Some(open) if open == source => COVER_SAME,
                _ if returns => COVER_OTHER * RETURNING,
                _ => COVER_OTHER,
            };
            let (new, old) = (&piece[cover.new..cover.end()], &old[from..from + cover.len]);
            let differing = mismatches(new, old);
            let doubted = trial.as_mut().filter(|_| differing * DOUBTFUL > cover.len);
            let tried = doubted.and_then(|trial| trial.saving(new, old));
            let estimate = cover.len as f64 * prices.literal - (prices.difference + KEPT) * differing as f64;
            if tried.unwrap_or(estimate) > overhead {
                open = Some(source);
                kept.push(*cover);
            }
        }
        *covers = kept;
    }
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

pub(super) fn mismatches(a: &[u8], b: &[u8]) -> usize {
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
