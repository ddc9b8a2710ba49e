//! The `flate` encoder of klauspost/compress since 1.15.10, which is that of Go since 1.27, too.
//!
//! It has two stages: a match finder for each level, which makes tokens, and the block writer
//! that makes blocks of them. Only the writer differs between the families.

mod chains;
mod estimate;
mod lazy;
mod level1;
mod level2;
mod level3;
mod level4;
mod level5;
mod level6;
mod search;
mod source;
mod stream;
mod table;
mod writer;

use std::fmt;
use std::num::NonZeroUsize;

pub use self::estimate::Rounding;
use self::source::{TableSource, TableWriter};
pub(crate) use self::stream::Stream;
use self::writer::Headers;
use super::parallel;
use crate::Encoder;

/// Versions of the encoder with the same output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// klauspost/compress 1.15.10 to 1.17.11 (levels 1 to 3 from 1.15.11, 7 to 9 from 1.15.15).
    A,
    /// klauspost/compress 1.18.0. As [`A`](Self::A), but for level 4.
    A118,
    /// klauspost/compress 1.18.1.
    B,
    /// klauspost/compress 1.18.2 to 1.19.1, and Go from 1.27 on.
    C,
}

impl Family {
    /// All families, the oldest first.
    pub const ALL: [Self; 4] = [Self::A, Self::A118, Self::B, Self::C];

    /// The name, which never changes its meaning.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::A118 => "A1.18.0",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// The family of a [`name`](Self::name), or `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    const fn headers(self) -> Headers {
        match self {
            Self::A | Self::A118 => Headers::All,
            Self::B => Headers::Trimmed,
            Self::C => Headers::TrimmedAndCounted,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A compression level: -2 (Huffman codes only), 0 (stored), or 1 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(i8);

impl Level {
    /// What klauspost/compress and pgzip take if no level is set.
    pub const KLAUSPOST_DEFAULT: Self = Self(5);
    /// What Go from 1.27 on takes if no level is set.
    pub const GO_DEFAULT: Self = Self(6);

    /// The level of a number, or `None` if there is no such level. -1 is none: what it means depends on
    /// the program.
    pub const fn new(level: i8) -> Option<Self> {
        match level {
            -2 | 0..=9 => Some(Self(level)),
            _ => None,
        }
    }

    /// The number of the level.
    pub const fn get(self) -> i8 {
        self.0
    }
}

/// Everything that the output depends on, besides the plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The versions of the encoder.
    pub family: Family,
    /// The compression level.
    pub level: Level,
    /// How floating point numbers are rounded.
    pub rounding: Rounding,
}

impl Settings {
    /// The settings of a family and a level, with the rounding of amd64.
    pub const fn new(family: Family, level: Level) -> Self {
        Self { family, level, rounding: Rounding::Twice }
    }
}

/// An encoder for a raw deflate stream, without dictionary and flushes.
///
/// With more than one of `threads`, so many threads of their own look for matches at levels 1 to 6; the
/// output is the same. With one, it holds up to 390 KB of the plain bytes.
pub fn encoder(settings: Settings, threads: NonZeroUsize) -> Box<dyn Encoder> {
    let level = settings.level.get();
    if threads.get() > 1 && matches!(level, 1..=6) {
        let config = (settings.family, level);
        return parallel::encoder::<TableSource, _>(config, TableWriter::new(settings), threads);
    }
    Box::new(OneStream(Stream::new(settings)))
}

/// A stream on the thread of the caller.
#[derive(Debug)]
struct OneStream(Stream);

impl Encoder for OneStream {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.0.push(plain, out);
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        self.0.finish(out);
    }
}
