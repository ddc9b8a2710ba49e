//! Stages and inputs for the tests of other modules.

use super::chain::ChainLevel;
use super::writer::{BestWriter, FastWriter};

/// The levels of the chain search, but the slowest.
pub(crate) const CHAIN_LEVELS: [i8; 6] = [2, 3, 4, 5, 6, 7];

/// The stages of a chain level.
pub(crate) fn chain(level: i8) -> (ChainLevel, impl Fn() -> BestWriter) {
    let level = ChainLevel::of(level);
    (level, move || BestWriter::new(level.is_lazy()))
}

/// The writer of level 1.
pub(crate) fn fast() -> FastWriter {
    FastWriter::default()
}

/// Numbers below a bound, the same ones for the same seed.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % bound
    }
}

/// Words of a small vocabulary.
pub(crate) fn words(seed: u64, length: usize) -> Vec<u8> {
    let mut below = numbers(seed);
    let vocabulary: Vec<Vec<u8>> =
        (0..300).map(|_| (0..2 + below(9)).map(|_| b'a' + below(26) as u8).collect()).collect();
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        out.extend_from_slice(&vocabulary[below(300).min(below(300))]);
        out.push(if below(12) == 0 { b'\n' } else { b' ' });
    }
    out.truncate(length);
    out
}

/// Bytes of many kinds: words, copies from near and far, noise, long runs.
pub(crate) fn mixed(seed: u64, length: usize) -> Vec<u8> {
    let mut below = numbers(seed);
    let mut out: Vec<u8> = Vec::with_capacity(length + 70_000);
    while out.len() < length {
        match below(16) {
            0 => (0..below(3000)).for_each(|_| out.push(below(256) as u8)),
            1 => out.extend(std::iter::repeat_n(below(4) as u8, below(20_000))),
            2..=7 => (0..below(400)).for_each(|_| out.extend(b"lib usr .so bin"[below(12)..].iter().take(3))),
            _ if !out.is_empty() => {
                let back = 1 + below(out.len().min(40_000));
                let start = out.len() - back;
                (0..below(300)).for_each(|i| out.push(out[start + i % back]));
            }
            _ => {}
        }
    }
    out.truncate(length);
    out
}
