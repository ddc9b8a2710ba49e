//! What bytes will cost in the compressed patch, estimated by compressing some of them.

/// Bytes of a file that the price of its literals is estimated from, and the places they are taken at:
/// the first bytes of a program are not like the rest.
const SAMPLE: usize = 256 << 10;
const PLACES: usize = 8;

/// Differing bytes that an estimate needs.
const ENOUGH: usize = 256;

/// zstd level for sums, of which zeros in a row are the most.
const SUMS_LEVEL: i32 = 3;

/// Sums that compress well cost even less where they are added than they do on average, others
/// more: exponent and factor fit the best price found by trial for four pairs of images.
const EXPONENT: i32 = 2;
const FACTOR: f64 = 0.88;

/// A stretch that is tried has at least so many bytes: shorter ones live on what stands before them in the patch.
const SHORTEST_TRIAL: usize = 192;

/// What the literals of a stretch cost in the patch, as a share of what level 1 makes of them alone.
const LITERALS: f64 = 0.9;

/// Compresses both ways of writing a stretch.
#[derive(Default)]
pub(super) struct Trial {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    sums: Vec<u8>,
}

impl Trial {
    /// Bytes saved by adding to `old` instead of writing `new`; `None` where no trial can tell.
    pub fn saving(&mut self, new: &[u8], old: &[u8]) -> Option<f64> {
        if new.len() < SHORTEST_TRIAL {
            return None;
        }
        if self.compressor.is_none() {
            self.compressor = zstd::bulk::Compressor::new(1).ok();
        }
        let compressor = self.compressor.as_mut()?;
        self.sums.clear();
        self.sums.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
        let literals = compressor.compress(new).ok()?.len() as f64;
        let sums = compressor.compress(&self.sums).ok()?.len() as f64;
        Some(LITERALS * literals - sums)
    }
}

/// A literal byte of this content: what level 1 of zstd makes of it.
pub(super) fn of_literals(content: &[u8]) -> f64 {
    let sample = match content.len() <= SAMPLE {
        true => content.to_vec(),
        false => {
            let each = SAMPLE / PLACES;
            let step = (content.len() - each) / (PLACES - 1);
            (0..PLACES).flat_map(|place| &content[place * step..place * step + each]).copied().collect()
        }
    };
    match zstd::bulk::compress(&sample, 1) {
        Ok(packed) if !sample.is_empty() => packed.len() as f64 / sample.len() as f64,
        _ => 1.0,
    }
}

/// A byte that differs, in ADD operations with these payloads; `None` where there are too few to tell.
pub(super) fn of_differences(sums: &[u8]) -> Option<f64> {
    let differing = sums.iter().filter(|sum| **sum != 0).count();
    if differing < ENOUGH {
        return None;
    }
    let packed = zstd::bulk::compress(sums, SUMS_LEVEL).ok()?;
    Some(FACTOR * (packed.len() as f64 / differing as f64).powi(EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_tells_a_moved_table_from_another_one() {
        let entry =
            |n: u64, moved: u64| [n * n * 24 + moved, n * 0x9e37_79b9, n % 7].map(u64::to_le_bytes).concat();
        let table = |moved: u64| (0..100).flat_map(|n| entry(n, moved)).collect::<Vec<u8>>();
        let noise =
            |n: u64| (n ^ n >> 9).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(n | 1);
        let other: Vec<u8> = (1..301).flat_map(|n| noise(n).to_le_bytes()).collect();
        let mut trial = Trial::default();
        assert!(trial.saving(&table(64), &table(0)).unwrap() > 100.0);
        assert!(trial.saving(&table(64), &other).unwrap() < 0.0);
        assert_eq!(trial.saving(&[1; 10], &[1; 10]), None);
    }

    #[test]
    fn what_repeats_is_cheaper_than_noise() {
        let noise: Vec<u8> =
            (0..1 << 20).map(|n: u64| (n.wrapping_mul(n) >> 7) as u8 ^ (n >> 11) as u8).collect();
        assert!(of_literals(&vec![7; 1 << 20]) < 0.01);
        assert!(of_literals(&noise) > of_literals(&noise[..1000].repeat(1000)));
        assert_eq!(of_literals(&[]), 1.0);
        let same_everywhere: Vec<u8> = (0..100_000).map(|n| u8::from(n % 50 == 0)).collect();
        assert!(of_differences(&same_everywhere).unwrap() < 0.5);
        assert!(of_differences(&noise).unwrap() > of_differences(&same_everywhere).unwrap());
        assert_eq!(of_differences(&[0; 10_000]), None);
    }
}
