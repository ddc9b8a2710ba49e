//! Short seeds in the old file that lies beside a piece.
//!
//! Where code moved, tables of relocations, symbols and types have another number in every entry, and
//! hardly sixteen bytes in a row are as before. Eight are, but those stand in many places: so one file
//! is looked at alone, and of its places the ones nearest to where the bytes before came from.

use super::corpus::Span;

/// Bytes of a seed.
pub(super) const SEED: usize = 8;

/// Furthest that old bytes may have moved, in bytes.
const REACH: u64 = 512 << 10;

/// One seed of 2^`THIN` is in the sample, in stretches of more than `LARGE` bytes one of 2^`THIN_IF_LARGE`:
/// their tables are longer.
const THIN: u32 = 1;
const THIN_IF_LARGE: u32 = 3;
const LARGE: usize = 256 << 10;

/// Places given on either side of the expected one.
const DEPTH: usize = 4;

/// Bits of a place, which bound the stretch.
const PLACE_BITS: u32 = 22;
const PLACE: u32 = (1 << PLACE_BITS) - 1;

/// A piece of which at least one byte of so many is zero has tables of numbers. Text has none,
/// what is compressed few.
const ZERO_IN: usize = 16;

/// One of which so many are zero is a table for the most part, as kernel modules are with their relocations.
const ZERO_IN_TABLE: usize = 3;

/// Sampled places of an old stretch by the eight bytes that stand there.
#[derive(Debug)]
pub(super) struct Nearby {
    /// Where the stretch begins in the corpus.
    from: u64,
    /// One seed of 2^`thin` is in the sample.
    thin: u32,
    /// Bits of a hash that choose the bucket.
    bits: u32,
    /// Where each bucket begins in `places`, and the end of the last one.
    starts: Vec<u32>,
    /// Places in the stretch, ascending in each bucket, each below ten more bits of its hash: most of what
    /// has only the bucket in common is so told apart without a look at the old bytes.
    places: Vec<u32>,
}

impl Nearby {
    /// Whether an index is worth its time: in a piece that is a table for the most part always, in one that has
    /// tables where it needs no more than `most` bytes of `span`.
    pub fn is_for(piece: &[u8], span: Span, most: usize) -> bool {
        let zeros = piece.iter().filter(|byte| **byte == 0).count();
        let bytes = (span.end - span.start).min(piece.len() as u64 + 2 * REACH) as usize;
        zeros >= piece.len() / ZERO_IN_TABLE || bytes <= most && zeros >= piece.len() / ZERO_IN
    }

    /// Indexes what may lie beside `len` new bytes of which the first is opposite byte `offset` of `span`.
    pub fn new(corpus: &[u8], span: Span, offset: u64, len: usize) -> Self {
        let middle = span.start.saturating_add(offset);
        let from = middle.saturating_sub(REACH).clamp(span.start, span.end);
        let to = middle.saturating_add(len as u64 + REACH).clamp(from, span.end.min(from + u64::from(PLACE)));
        let old = &corpus[from as usize..to as usize];
        let thin = if old.len() > LARGE { THIN_IF_LARGE } else { THIN };
        let bits = (old.len() >> thin).max(64).ilog2();
        let mut starts = vec![0u32; (1 << bits) + 1];
        let bucket = |hash: u64| (hash >> (64 - bits)) as usize;
        each_sample(old, thin, |hash, _| starts[bucket(hash)] += 1);
        let mut before = 0;
        for start in &mut starts {
            before += std::mem::replace(start, before);
        }
        let mut places = vec![0; before as usize];
        // Filling moves each start to the end of its bucket, which is the start of the next one.
        each_sample(old, thin, |hash, at| {
            let start = &mut starts[bucket(hash)];
            places[*start as usize] = tag(hash) | at as u32;
            *start += 1;
        });
        starts.rotate_right(1);
        starts[0] = 0;
        Nearby { from, thin, bits, starts, places }
    }

    /// Places in the corpus where the eight bytes at the start of `text` may stand, of those the ones nearest
    /// to `expected`. With each `thinner`, half of the seeds have none.
    pub fn candidates(&self, text: &[u8], expected: u64, thinner: u32) -> impl Iterator<Item = u64> {
        let hash = hash(text);
        let bucket = (hash >> (64 - self.bits)) as usize;
        let places = match is_sampled(hash, self.thin + thinner) {
            true => &self.places[self.starts[bucket] as usize..self.starts[bucket + 1] as usize],
            false => &[],
        };
        let expected = expected.saturating_sub(self.from).min(u64::from(PLACE)) as u32;
        let above = places.partition_point(|place| place & PLACE < expected);
        let nearest = &places[above.saturating_sub(DEPTH)..(above + DEPTH).min(places.len())];
        let like = nearest.iter().filter(move |place| **place & !PLACE == tag(hash));
        like.map(|place| self.from + u64::from(place & PLACE))
    }
}

fn each_sample(old: &[u8], thin: u32, mut take: impl FnMut(u64, usize)) {
    for (at, text) in old.windows(SEED).enumerate() {
        let hash = hash(text);
        if is_sampled(hash, thin) {
            take(hash, at);
        }
    }
}

fn is_sampled(hash: u64, thin: u32) -> bool {
    hash & ((1 << thin) - 1) == 0
}

/// Bits that choose neither the sample nor the bucket.
fn tag(hash: u64) -> u32 {
    (hash >> 10) as u32 & !PLACE
}

fn hash(text: &[u8]) -> u64 {
    let mut word = [0; SEED];
    word.copy_from_slice(&text[..SEED]);
    // The digits of the golden ratio.
    let mixed = u64::from_le_bytes(word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_nearest_to_the_expected_one_are_given() {
        // Seeds are sampled: some of these are.
        let texts: Vec<[u8; SEED]> =
            (0..64u64).map(|n| (n * 0x0123_4567_89ab_cdef + 1).to_le_bytes()).collect();
        let corpus: Vec<u8> = (0..100).flat_map(|_| texts.concat()).collect();
        let span = Span { start: 0, end: corpus.len() as u64, source: 0 };
        let near = Nearby::new(&corpus, span, 0, corpus.len());
        let round = 64 * SEED as u64;
        let mut sampled = 0;
        for (at, text) in texts.iter().enumerate() {
            let home = 50 * round + (at * SEED) as u64;
            let found: Vec<u64> = near.candidates(text, home, 0).collect();
            if !found.is_empty() {
                sampled += 1;
                assert!(found.contains(&home) && found.contains(&(home - round)), "{found:?} {home}");
                assert!(found.len() <= 2 * DEPTH);
                assert!(found.iter().all(|place| corpus[*place as usize..].starts_with(text)));
            }
        }
        assert!((16..=48).contains(&sampled), "{sampled}");
    }
}
