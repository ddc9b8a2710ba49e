//! How much effort a delta is worth, and how memory is shared out.

use super::Options;
use super::index::Density;
use super::search::Weights;

/// Effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Preset {
    /// For many images a minute.
    Fast,
    /// For everyday builds.
    #[default]
    Default,
    /// For releases that many machines fetch.
    Best,
}

impl Preset {
    /// zstd level of the patches.
    pub(super) fn level(self) -> i32 {
        match self {
            Preset::Fast => 3,
            Preset::Default => 12,
            Preset::Best => 19,
        }
    }

    pub(super) fn density(self) -> Density {
        match self {
            Preset::Best => Density { gram: 16, step: 4, depth: 4 },
            Preset::Fast | Preset::Default => Density { gram: 24, step: 8, depth: 1 },
        }
    }

    pub(super) fn weights(self) -> Weights {
        match self {
            Preset::Best => Weights { seed_same: 24, seed_other: 48, patience: 12, literal: 0.8 },
            Preset::Fast | Preset::Default => {
                Weights { seed_same: 24, seed_other: 48, patience: 8, literal: 0.6 }
            }
        }
    }
}

/// Shares of `--memory`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Bytes of the index.
    pub index: u64,
    /// Window of the outer stream, a power of two.
    pub window_log: u32,
}

/// Every applier accepts this window.
const MAX_WINDOW_LOG: u32 = 27;

impl Budget {
    /// Shares memory out for layers of at most `largest` bytes.
    pub fn new(options: &Options, largest: u64) -> Self {
        let fits = |log: &u32| options.memory / 4 >= 1 << log;
        let needed = largest.max(1).next_power_of_two().trailing_zeros().max(20);
        let window_log = (20..=MAX_WINDOW_LOG.min(needed)).rev().find(fits).unwrap_or(20);
        Budget { index: options.memory / 4, window_log }
    }
}
