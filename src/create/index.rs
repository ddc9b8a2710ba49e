//! A sampled index of k-grams: where in the old bytes does this short string occur?

use super::corpus::Corpus;
use crate::error::Result;
use crate::parallel;

/// How densely the old bytes are indexed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Density {
    /// Bytes of a k-gram: 16 or 24.
    pub gram: usize,
    /// Every how many bytes a k-gram is taken, a power of two.
    pub step: u64,
    /// Places remembered for k-grams of one hash.
    pub depth: usize,
}

/// Most threads that fill the table; each reads the whole corpus.
const MAX_FILLERS: usize = 8;

/// Hash table without chains: a bucket is `depth` neighbouring slots.
#[derive(Debug)]
pub(super) struct GramIndex {
    density: Density,
    /// Position divided by the step, plus 1; 0 is an empty slot.
    slots: Vec<u32>,
    /// Bits of a hash that choose the bucket.
    bits: u32,
}

impl GramIndex {
    /// Indexes the corpus in at most `memory` bytes: a large one is sampled more thinly.
    pub fn build(corpus: &Corpus, mut density: Density, memory: u64, threads: usize) -> Result<Self> {
        let bytes = corpus.bytes();
        let most = (memory / 4).max(1 << 12);
        let mut slots = wanted_slots(bytes.len() as u64, density);
        while slots > most {
            density.step *= 2;
            slots = wanted_slots(bytes.len() as u64, density);
        }
        let bits = (slots / density.depth as u64).trailing_zeros();
        let mut index = GramIndex { density, slots: vec![0; slots as usize], bits };
        index.fill(bytes, threads)?;
        Ok(index)
    }

    /// Each filler owns a stretch of the table and passes over all other hashes,
    /// so the table is the same for any number of them.
    fn fill(&mut self, bytes: &[u8], threads: usize) -> Result<()> {
        let fillers = threads.next_power_of_two().min(MAX_FILLERS).min(self.slots.len() / self.density.depth);
        let share = self.slots.len() / fillers;
        let (density, bits) = (self.density, self.bits);
        let parts: Vec<_> = self.slots.chunks_mut(share).map(std::sync::Mutex::new).collect();
        parallel::for_each(fillers, fillers, |filler| {
            let Ok(mut part) = parts[filler].lock() else { return Ok(()) };
            fill_part(&mut part, filler * share, bytes, density, bits);
            Ok(())
        })
    }

    /// Bytes of a k-gram.
    pub fn gram(&self) -> usize {
        self.density.gram
    }

    /// Where the k-gram at the start of `text`, of at least [`GramIndex::gram`] bytes, may occur.
    pub fn candidates(&self, text: &[u8]) -> impl Iterator<Item = u64> {
        let bucket = hash(text, self.density.gram) >> (64 - self.bits);
        let first = bucket as usize * self.density.depth;
        let step = self.density.step;
        self.slots[first..first + self.density.depth]
            .iter()
            .take_while(|slot| **slot != 0)
            .map(move |slot| u64::from(slot - 1) * step)
    }
}

fn fill_part(part: &mut [u32], first: usize, bytes: &[u8], density: Density, bits: u32) {
    let Some(last) = bytes.len().checked_sub(density.gram) else { return };
    let mut before = None;
    for (number, position) in (0..=last).step_by(density.step as usize).enumerate() {
        let bucket = hash(&bytes[position..], density.gram) >> (64 - bits);
        // A run of one byte, or of short records, says the same again and again.
        if before.replace(bucket) == Some(bucket) {
            continue;
        }
        let Some(at) = (bucket as usize * density.depth).checked_sub(first) else { continue };
        let Some(slots) = part.get_mut(at..at + density.depth) else { continue };
        if let Some(free) = slots.iter_mut().find(|slot| **slot == 0) {
            *free = number as u32 + 1;
        }
    }
}

/// A power of two, so that a hash's upper bits choose a bucket. At least two buckets.
fn wanted_slots(bytes: u64, density: Density) -> u64 {
    (bytes / density.step).next_power_of_two().max(density.depth as u64 * 2)
}

fn hash(text: &[u8], gram: usize) -> u64 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&text[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    // Odd constants of high entropy (the digits of the golden ratio and of √2, √3).
    let mut mixed = word(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(8).wrapping_mul(0x6a09_e667_f3bc_c909);
    if gram > 16 {
        mixed ^= word(16).wrapping_mul(0xbb67_ae85_84ca_a73b);
    }
    (mixed ^ (mixed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
