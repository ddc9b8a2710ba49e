//! What the tests share.

#![allow(dead_code)]

pub mod original;

use exact_encoders::Encoder;
use sha2::{Digest, Sha256};

/// The output for `plain`, pushed in pieces of `piece` bytes.
pub fn encode(mut encoder: Box<dyn Encoder>, plain: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in plain.chunks(piece) {
        encoder.push(part, &mut out);
    }
    encoder.finish(&mut out);
    out
}

/// The SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hex digits stand for.
pub fn hex_bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// Numbers that are the same for the same seed.
pub struct Numbers(u64);

impl Numbers {
    /// Numbers for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number, below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % bound
    }
}

/// Bytes like those of a layer: words, records, copies from near and far, noise, long runs of one byte.
pub fn layer_like(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let words: Vec<Vec<u8>> = (0..500)
        .map(|_| (0..2 + numbers.below(9)).map(|_| b'a' + numbers.below(26) as u8).collect())
        .collect();
    let mut out: Vec<u8> = Vec::with_capacity(length + 8192);
    while out.len() < length {
        let size = 50 + numbers.below(4000);
        let end = out.len() + size;
        match numbers.below(12) {
            0 => (0..size).for_each(|_| out.push(numbers.below(256) as u8)),
            1 => out.resize(end, numbers.below(2) as u8),
            2 | 3 => {
                let mut record = numbers.below(1 << 30) as u64;
                while out.len() < end {
                    record += numbers.below(64) as u64;
                    out.extend_from_slice(&record.to_le_bytes());
                }
            }
            4..=6 if out.len() > 1000 => {
                let start = out.len() - 1 - numbers.below(out.len().min(60_000) - 1);
                (0..size).for_each(|i| out.push(out[start + i]));
            }
            _ => {
                while out.len() < end {
                    let word = numbers.below(500).min(numbers.below(500)).min(numbers.below(500));
                    out.extend_from_slice(&words[word]);
                    out.push(if numbers.below(15) == 0 { b'\n' } else { b' ' });
                }
            }
        }
    }
    out.truncate(length);
    out
}

/// Inputs by name: sizes around the borders of encoders, and data of several kinds.
pub fn inputs() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for length in [0, 1, 4, 16, 17, 127, 128, 1000, 32_769, 65_535, 65_536, 65_537, 131_070, 300_000] {
        all.push((format!("layer-{length}"), layer_like(length as u64 + 1, length)));
    }
    let mut numbers = Numbers::new(77);
    all.push(("noise-140000".into(), (0..140_000).map(|_| numbers.below(256) as u8).collect()));
    all.push(("zeros-300000".into(), vec![0; 300_000]));
    let period: Vec<u8> = (0..301).map(|_| numbers.below(256) as u8).collect();
    all.push(("period-150000".into(), period.iter().copied().cycle().take(150_000).collect()));
    // Few bits per byte, and few matches.
    all.push((
        "skewed-100000".into(),
        (0..100_000).map(|_| numbers.below(20).min(numbers.below(20)) as u8).collect(),
    ));
    all
}

/// A long input, of several chunks for each thread.
pub fn long_input() -> Vec<u8> {
    layer_like(4711, 14_000_000)
}
