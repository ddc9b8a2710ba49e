//! How much effort a delta is worth, and how memory is shared out.
//!
//! The numbers were tuned on pairs of Debian, PyPI and npm images (`contrib/bench`).

use super::Options;
use super::index::Density;
use super::search::Weights;
use crate::extended::{Compression, Effort};
use crate::tardiff::WriterOptions;

/// Effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
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
    pub(super) fn density(self) -> Density {
        match self {
            Preset::Fast => Density { gram: 16, thin: 2, depth: 2 },
            Preset::Default | Preset::Best => Density { gram: 16, thin: 2, depth: 4 },
        }
    }

    pub(super) fn weights(self) -> Weights {
        let patience = match self {
            Preset::Fast => 8,
            Preset::Default | Preset::Best => 14,
        };
        let copy_from = if self == Preset::Best { 1024 } else { 256 };
        let nearby = match self {
            Preset::Fast => 0,
            Preset::Default => 256 << 10,
            Preset::Best => usize::MAX,
        };
        Weights { seed_same: 16, seed_other: 48, patience, literal: 0.9, nearby, copy_from }
    }

    fn writer(self) -> WriterOptions {
        let base = WriterOptions::default();
        match self {
            Preset::Fast => WriterOptions { level: 6, ..base },
            // A table beyond that of the level: matches far back pay in machine code.
            Preset::Default => WriterOptions { level: 10, hash_log: Some(23), ..base },
            Preset::Best => WriterOptions { level: 19, target_length: Some(LITTLE_TARGET), ..base },
        }
    }
}

/// Shares of `--memory`: an eighth for the window and for the tables of each compressing
/// thread, with `best` two for the tables; the rest is for what is on its way. The index
/// may have a quarter as much on disk.
/// No share depends on the number of threads, since the bytes must not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Bytes of the index, in a file.
    pub index: u64,
    /// Settings of the outer stream.
    writer: WriterOptions,
    /// The dictionary of LZMA in bytes.
    dictionary: u32,
    /// The preset, unless somebody chose a level of zstd.
    preset: Option<Preset>,
    /// Bytes.
    largest_job: u64,
    memory: u64,
}

/// How the content of an extended patch is compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub usual: Compression,
    /// Where whoever applies it waits for slow encoders.
    pub beside_encoders: Compression,
}

/// Every applier accepts this window.
const MAX_WINDOW_LOG: u32 = 27;

/// The window of all presets but `best`: a machine that applies the delta needs
/// half the memory and touches fewer pages, for at most 0.6 per cent more bytes.
const EVERYDAY_WINDOW_LOG: u32 = 25;

/// The same where two patches need such a window: layers are applied side by side, so half of it for
/// each takes no more memory than one. 0.2 per cent more bytes.
const SHARED_WINDOW_LOG: u32 = EVERYDAY_WINDOW_LOG - 1;

/// Smallest window.
const MIN_WINDOW_LOG: u32 = 20;

/// Bytes that liblzma takes for each of its dictionary, and the largest dictionary, as a power of two. It works
/// when all else is done, so it may have three quarters of the memory.
const LZMA_EACH: u64 = 12;
const LARGEST_DICTIONARY_LOG: u32 = 26;

/// Tables of level 22, and those below which a level's own are taken.
const MAX_TABLE_LOG: u32 = 26;
const MIN_TABLE_LOG: u32 = 18;

/// Matches from this length on, in bytes, are looked for beyond the reach of the trees of `best`,
/// in patches of which a good part is beyond it.
const FAR_MATCH: u32 = 16;

/// Raw bytes of a patch from which on the effort of `best` goes into reach; in little ones it goes into
/// long matches, of which tar headers have many: the match lengths in bytes that are good enough.
const LARGE_FROM: u64 = 24 << 20;
const LARGE_TARGET: u32 = 320;
const LITTLE_TARGET: u32 = 600;

/// Bytes of their table (2^21 entries), which must fit into a share.
const FAR_TABLE: u64 = 16 << 20;

/// Trees of level 19, as a power of two.
const LEVEL_TREES: u32 = 24;

/// Bytes of an entry of the match tables.
const TABLE_ENTRY: u64 = 4;

/// Sizes of a compressing thread's job in bytes: with smaller ones threads share a layer better,
/// but each seam costs.
const JOB_SIZES: std::ops::RangeInclusive<u64> = 4 << 20..=32 << 20;

/// Jobs that a layer should have.
const JOBS: u64 = 4;

/// Threads that can have tables of their own within the budget.
const MAX_COMPRESSORS: usize = 2;

impl Budget {
    /// Shares memory out.
    pub fn new(options: &Options) -> Self {
        let share = options.memory / 8;
        let mut writer = options.preset.writer();
        let is_best = options.preset == Preset::Best;
        let widest = if is_best { MAX_WINDOW_LOG } else { EVERYDAY_WINDOW_LOG };
        writer.window_log = log2(share).clamp(MIN_WINDOW_LOG, widest);
        let table_log = |bytes: u64| log2(bytes / TABLE_ENTRY).clamp(MIN_TABLE_LOG, MAX_TABLE_LOG);
        writer.hash_log = writer.hash_log.map(|log| log.min(table_log(share)));
        if is_best {
            // How far back trees reach is worth more than the table that leads to them.
            let trees = table_log(2 * share);
            (writer.chain_log, writer.hash_log) = (Some(trees), Some(trees - 4));
        }
        if let Some(level) = options.level {
            writer = WriterOptions { level, hash_log: None, chain_log: None, target_length: None, ..writer };
        }
        let largest = log2(options.memory / 4 * 3 / LZMA_EACH)
            .clamp(MIN_WINDOW_LOG, widest.min(LARGEST_DICTIONARY_LOG));
        Budget {
            index: options.memory / 4,
            writer,
            dictionary: 1 << largest,
            preset: Some(options.preset).filter(|_| options.level.is_none()),
            largest_job: options.memory / 16,
            memory: options.memory,
        }
    }

    /// Halves the everyday window where several patches, given by their raw bytes, would fill it.
    pub fn share_window(&mut self, patches: impl Iterator<Item = u64>) {
        let large = patches.filter(|raw| needed_window(*raw) >= SHARED_WINDOW_LOG).count();
        if large > 1 && self.writer.window_log == EVERYDAY_WINDOW_LOG {
            self.writer.window_log = SHARED_WINDOW_LOG;
        }
    }

    /// How the content of the extended patch for such a layer is compressed. In LZMA it takes longer to read, so that is
    /// for those who ask for the smallest, or wait for other things anyway.
    pub fn content(&self, raw: u64, jobs: usize) -> Content {
        let zstd = Compression::Zstd(self.writer(raw, jobs));
        let lzma = |effort| Compression::Lzma { dictionary: self.dictionary, effort };
        let (usual, beside_encoders) = match self.preset {
            Some(Preset::Best) => (lzma(Effort::Thorough), lzma(Effort::Thorough)),
            Some(Preset::Default) => (zstd, lzma(Effort::Quick)),
            Some(Preset::Fast) | None => (zstd, zstd),
        };
        Content { usual, beside_encoders }
    }

    /// Settings for a layer whose patch has about `raw` bytes before compression, on up to `jobs` threads.
    pub fn writer(&self, raw: u64, jobs: usize) -> WriterOptions {
        let largest = self.largest_job.clamp(*JOB_SIZES.start(), *JOB_SIZES.end());
        let job = (raw / JOBS).next_power_of_two().clamp(*JOB_SIZES.start(), largest);
        // More memory than the tables could grow to is for more threads.
        let tables = TABLE_ENTRY << MAX_TABLE_LOG;
        let compressors = MAX_COMPRESSORS.max((self.memory / (8 * tables)) as usize).min(jobs);
        // A job also reads what its trees reach before it, and is at least as long as that.
        let needed_trees = (log2(job.next_power_of_two()) + 1).max(LEVEL_TREES);
        let chain_log = self.writer.chain_log.map(|log| log.min(needed_trees));
        let is_large = self.writer.chain_log.is_some() && raw > LARGE_FROM;
        let target_length = if is_large { Some(LARGE_TARGET) } else { self.writer.target_length };
        let beyond_reach = is_large && self.memory / 8 >= FAR_TABLE;
        WriterOptions {
            window_log: self.writer.window_log.min(needed_window(raw)),
            chain_log,
            target_length,
            far_match: beyond_reach.then_some(FAR_MATCH),
            threads: compressors as u32,
            job,
            ..self.writer
        }
    }
}

/// The window that reaches over all of a patch of `raw` bytes.
fn needed_window(raw: u64) -> u32 {
    log2(raw.next_power_of_two()).max(MIN_WINDOW_LOG)
}

fn log2(n: u64) -> u32 {
    n.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_large_patches_share_the_window_of_one() {
        let options = Options {
            preset: Preset::Default,
            level: None,
            patches: crate::create::PatchKinds::Both,
            jobs: 2,
            memory: 512 << 20,
            max_layer: u64::MAX,
            spool: "/".into(),
            exact: crate::exact::Exact::Auto,
            user: crate::create::User::Any,
            notes: None,
            signatures: Vec::new(),
        };
        let window = |patches: &[u64]| {
            let mut budget = Budget::new(&options);
            budget.share_window(patches.iter().copied());
            1 << budget.writer(patches[0], 2).window_log
        };
        assert_eq!(window(&[200 << 20]), 32 << 20);
        assert_eq!(window(&[200 << 20, 8 << 20, 8 << 20]), 32 << 20);
        assert_eq!(window(&[200 << 20, 100 << 20]), 16 << 20);
        assert_eq!(window(&[3 << 20, 100 << 20, 100 << 20]), 4 << 20);
    }
}
