//! The framing of pigz: jobs that are compressed apart from each other, on several threads.
//!
//! Each job is a piece of a zlib stream, with the plain bytes before it as its dictionary, and ends at a byte
//! border. The number of threads does not change the output.

mod cut;

use std::fmt;
use std::num::NonZeroUsize;

use self::cut::{Cutter, Part};
use crate::Encoder;
use crate::deflate::source::{BlockWriter, TokenSource, Window};
use crate::deflate::stream::Stages;
use crate::deflate::zlib::{Chain, Config, Level, Memory, Settings as Zlib, Writer};
use crate::workers::{Job, Workers};

/// How many plain bytes before a job are its dictionary.
pub(crate) const DICTIONARY: usize = 32 << 10;

/// The most plain bytes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(usize);

impl BlockSize {
    /// That of pigz if it is not told: 128 KiB.
    pub const DEFAULT: Self = Self(128 << 10);
    /// The smallest that pigz allows, in bytes.
    pub const MIN: usize = DICTIONARY;
    /// The largest that is supported, in bytes. Each thread holds a job.
    pub const MAX: usize = 4 << 20;
    /// They are multiples of so many bytes.
    pub const UNIT: usize = 1 << 10;

    /// A block size in bytes, or `None` if it is below [`MIN`](Self::MIN), above [`MAX`](Self::MAX), or no
    /// multiple of [`UNIT`](Self::UNIT).
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes < Self::MIN || bytes > Self::MAX || !bytes.is_multiple_of(Self::UNIT) {
            None
        } else {
            Some(Self(bytes))
        }
    }

    /// The size in bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// What a job knows of the bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dictionary {
    /// The last 32 KiB.
    Present,
    /// Nothing, as with the option `-i`.
    Absent,
}

/// Where jobs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// When they are full.
    Even,
    /// At certain plain bytes, as with the option `-R`.
    Rsyncable,
}

/// What pigz was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The level.
    pub level: Level,
    /// The size of jobs.
    pub block: BlockSize,
    /// What jobs know of each other.
    pub dictionary: Dictionary,
    /// Where they end.
    pub cut: Cut,
}

impl Settings {
    /// A level without options.
    pub const fn new(level: Level) -> Self {
        Self { level, block: BlockSize::DEFAULT, dictionary: Dictionary::Present, cut: Cut::Even }
    }
}

/// The deflate stream that pigz makes.
///
/// It holds up to four jobs, and one for each thread and what became of it.
pub struct Pigz {
    settings: Settings,
    cutter: Cutter,
    /// The plain bytes of the next jobs, and those before them that are their dictionary.
    plain: Vec<u8>,
    /// The position in the stream of the first byte of `plain`.
    origin: u64,
    workers: Workers<Work>,
}

impl Pigz {
    /// An encoder at the start of a stream, which works on `threads` threads (at most 64) besides the caller's.
    ///
    /// With one, it works on the caller's thread alone.
    pub fn new(settings: Settings, threads: NonZeroUsize) -> Self {
        Self {
            settings,
            cutter: Cutter::new(settings.cut, settings.block.get()),
            plain: Vec::new(),
            origin: 0,
            workers: Workers::new("pigz", threads),
        }
    }

    /// Hands on the jobs that can be cut from the bytes at hand.
    fn hand_on(&mut self, is_end: bool, out: &mut Vec<u8>) {
        while let Some(part) = self.cutter.next(&self.plain, self.origin, is_end) {
            let index = |position: u64| (position - self.origin) as usize;
            let start = index(part.start);
            let known = match self.settings.dictionary {
                Dictionary::Present => start.saturating_sub(DICTIONARY),
                Dictionary::Absent => start,
            };
            let bytes = self.plain[known..index(part.end)].to_vec();
            let is_last = part.is_last;
            let kept = index(part.end).saturating_sub(DICTIONARY);
            let work = Work { settings: self.settings, bytes, dictionary: start - known, part };
            self.workers.take(work, out);
            self.plain.drain(..kept);
            self.origin += kept as u64;
            if is_last {
                return;
            }
        }
    }
}

impl Encoder for Pigz {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        for part in plain.chunks(self.settings.block.get()) {
            self.plain.extend_from_slice(part);
            self.hand_on(false, out);
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        self.hand_on(true, out);
        self.workers.finish(out);
    }
}

impl fmt::Debug for Pigz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pigz").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A job.
struct Work {
    settings: Settings,
    /// The dictionary, then the plain bytes.
    bytes: Vec<u8>,
    /// The length of the dictionary.
    dictionary: usize,
    part: Part,
}

impl Job for Work {
    type Tool = ();

    fn size(&self) -> usize {
        self.bytes.len() - self.dictionary
    }

    fn run(&self, (): &mut (), out: &mut Vec<u8>) {
        let zlib = Zlib { level: self.settings.level, memory: Memory::Usual };
        let config = Config::zlib(zlib);
        let source = Chain::with_dictionary(config, &self.bytes[..self.dictionary]);
        let mut stages = Stages::new(source, Writer::zlib(zlib));
        stages.writer.go_on_at(self.dictionary as u64);
        // Where windows begin.
        let mut first = 0;
        for (i, piece) in self.part.pieces.iter().enumerate() {
            let bytes = &self.bytes[first..self.dictionary + (piece - self.part.start) as usize];
            let end = bytes.len() as u64;
            let window = Window { bytes, origin: 0, stream_end: Some(end) };
            stages.advance(window, end, out);
            if self.part.is_last && i + 1 == self.part.pieces.len() {
                stages.writer.finish(window, out);
                return;
            }
            stages.writer.flush(window, out);
            end_piece(&mut stages.writer, self.settings.dictionary, out);
            if self.settings.dictionary == Dictionary::Absent {
                // All before is forgotten.
                first += bytes.len();
                stages.source = Chain::new(config, 0);
                stages.writer.go_on_at(0);
            }
        }
    }
}

/// An empty block with fixed codes: its bits, and how many.
const EMPTY_FIXED: (u32, u32) = (2, 10);

/// Fills up to a byte border with empty blocks.
fn end_piece(writer: &mut Writer, dictionary: Dictionary, out: &mut Vec<u8>) {
    let bits = writer.bits();
    if dictionary == Dictionary::Absent {
        bits.stored(out, &[], false);
        bits.stored(out, &[], false);
    } else if bits.odd() % 2 == 1 {
        bits.stored(out, &[], false);
    } else {
        while bits.odd() != 0 {
            bits.put(out, EMPTY_FIXED.0, EMPTY_FIXED.1);
        }
    }
    bits.align(out);
}
