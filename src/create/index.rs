//! A sampled index of k-grams: where in the old bytes does this short string occur?
//!
//! Which k-grams are in it their own hash decides, so old and new bytes agree on
//! the sample, and most positions of a new file need no look into the table.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use memmap2::MmapMut;

use super::corpus::Corpus;
use crate::error::{IoContext, Result};
use crate::parallel;
use crate::region;

/// How densely the old bytes are indexed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Density {
    /// Bytes of a k-gram, 8 to 24.
    pub gram: usize,
    /// One k-gram of 2^`thin` is in the sample.
    pub thin: u32,
    /// Places remembered for k-grams of one hash.
    pub depth: usize,
}

/// The table is filled in 2^6 parts, each of which fits into a processor's cache.
const PART_BITS: u32 = 6;

/// Bytes of the corpus that are sorted before a round of filling, and the tasks they are shared among.
const ROUND: usize = 32 << 20;
const SHARES: usize = 16;

/// Positions are kept in 32 bits. Bytes behind the first 4 GiB are found by names alone.
const MAX_INDEXED: usize = u32::MAX as usize;

/// Bytes of a slot.
const SLOT: usize = 4;

/// Hash table without chains: a bucket is `depth` neighbouring slots.
#[derive(Debug)]
pub(super) struct GramIndex {
    density: Density,
    /// Position plus 1, 32 bits each; 0 is an empty slot. In a mapped unlinked file,
    /// so that the tables of the compressor can have the memory.
    slots: MmapMut,
    /// Bits of a hash that choose the bucket.
    bits: u32,
}

impl GramIndex {
    /// Indexes the corpus in at most `memory` bytes of a file in `dir`: a large one is sampled more thinly.
    ///
    /// # Errors
    /// When there is no room for the file.
    pub fn build(
        corpus: &Corpus,
        mut density: Density,
        memory: u64,
        threads: usize,
        dir: &Path,
    ) -> Result<Self> {
        let bytes = corpus.bytes();
        let bytes = &bytes[..bytes.len().min(MAX_INDEXED)];
        let most = (memory / SLOT as u64).max(1 << 12);
        let mut slots = wanted_slots(bytes.len(), density);
        while slots > most {
            density.thin += 1;
            slots = wanted_slots(bytes.len(), density);
        }
        let bits = (slots / density.depth as u64).ilog2();
        let slots = region::scratch(dir, (SLOT * density.depth) << bits).at(dir.display())?;
        let mut index = GramIndex { density, slots, bits };
        index.fill(bytes, threads)?;
        Ok(index)
    }

    /// Random writes to a large table are slow, so samples are sorted roughly
    /// first and then put in, part of the table by part. A bucket gets its
    /// samples in ascending order whatever the number of threads.
    fn fill(&mut self, bytes: &[u8], threads: usize) -> Result<()> {
        let (density, bits) = (self.density, self.bits);
        let part_bytes = self.slots.len() >> PART_BITS;
        let parts: Vec<_> = self.slots.chunks_mut(part_bytes).map(Mutex::new).collect();
        for round in (0..bytes.len()).step_by(ROUND) {
            let share = ROUND / SHARES;
            let sorted: Vec<OnceLock<Vec<Vec<Sample>>>> = (0..SHARES).map(|_| OnceLock::new()).collect();
            parallel::for_each(SHARES, threads, |at| {
                let start = (round + at * share).min(bytes.len());
                let end = (start + share + density.gram - 1).min(bytes.len());
                let _ = sorted[at].set(sort_samples(&bytes[start..end], start, density, bits));
                Ok(())
            })?;
            parallel::for_each(parts.len(), threads, |part| {
                let Ok(mut slots) = parts[part].lock() else { return Ok(()) };
                for samples in sorted.iter().filter_map(OnceLock::get) {
                    put_in(&mut slots, part * part_bytes, &samples[part], density);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Bytes of a k-gram.
    pub fn gram(&self) -> usize {
        self.density.gram
    }

    /// Where the k-gram at the start of `text`, of at least [`GramIndex::gram`]
    /// bytes, may occur; nothing when it is not of the sample.
    pub fn candidates(&self, text: &[u8]) -> impl Iterator<Item = u64> {
        let hash = hash(text, self.density.gram);
        let slots = match is_sampled(hash, self.density) {
            true => {
                let bytes = SLOT * self.density.depth;
                let first = bucket(hash, self.bits) * bytes;
                &self.slots[first..first + bytes]
            }
            false => &[],
        };
        let positions = slots.as_chunks::<SLOT>().0.iter().map(|slot| u32::from_ne_bytes(*slot));
        positions.take_while(|position| *position != 0).map(|position| u64::from(position - 1))
    }
}

/// A k-gram of the sample.
#[derive(Debug, Clone, Copy)]
struct Sample {
    bucket: u32,
    position: u32,
}

/// The samples in `bytes`, which begin at `start` of the corpus, by the part of the table they go to.
fn sort_samples(bytes: &[u8], start: usize, density: Density, bits: u32) -> Vec<Vec<Sample>> {
    let mut sorted = vec![Vec::new(); 1 << PART_BITS];
    let mut before = None;
    for (at, text) in bytes.windows(density.gram).enumerate() {
        let hash = hash(text, density.gram);
        // A run of one byte says the same again and again.
        if is_sampled(hash, density) && before.replace(hash) != Some(hash) {
            let bucket = bucket(hash, bits);
            let sample = Sample { bucket: bucket as u32, position: (start + at) as u32 };
            sorted[bucket >> (bits - PART_BITS)].push(sample);
        }
    }
    sorted
}

/// Puts samples into the part of the table that begins at byte `first`.
fn put_in(part: &mut [u8], first: usize, samples: &[Sample], density: Density) {
    let bytes = SLOT * density.depth;
    for sample in samples {
        let at = sample.bucket as usize * bytes - first;
        let slots = part[at..at + bytes].as_chunks_mut::<SLOT>().0;
        if let Some(free) = slots.iter_mut().find(|slot| **slot == [0; SLOT]) {
            *free = (sample.position + 1).to_ne_bytes();
        }
    }
}

/// Twice the sample, a power of two: a hash's bits choose the bucket.
fn wanted_slots(bytes: usize, density: Density) -> u64 {
    (bytes as u64 >> density.thin).next_power_of_two().max((density.depth as u64) << (PART_BITS + 1))
}

fn is_sampled(hash: u64, density: Density) -> bool {
    hash & ((1 << density.thin) - 1) == 0
}

fn bucket(hash: u64, bits: u32) -> usize {
    (hash >> (64 - bits)) as usize
}

fn hash(text: &[u8], gram: usize) -> u64 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&text[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    // Odd constants of high entropy (the digits of the golden ratio and of √2, √3).
    let mut mixed =
        word(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(gram - 8).wrapping_mul(0x6a09_e667_f3bc_c909);
    if gram > 16 {
        mixed ^= word(8).wrapping_mul(0xbb67_ae85_84ca_a73b);
    }
    (mixed ^ (mixed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
