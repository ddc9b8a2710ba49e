//! Go's `compress/flate` up to Go 1.26, levels -2 to 9.
//!
//! Go 1.21 to 1.26 write the same bytes at every level; buildkit carries a copy of the last of them. Go 1.27
//! has other encoders.

mod chain;
mod fast;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

use std::fmt;
use std::num::NonZeroUsize;

pub(crate) use self::chain::Chain;
use self::chain::ChainLevel;
pub(crate) use self::fast::Fast;
use self::fast::NoTokens;
use self::writer::{BestWriter, FastWriter, RawBlocks, RawWriter};
use super::parallel;
use crate::Encoder;

/// A level of `compress/flate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(i8);

impl Level {
    /// Literals only, in Go `HuffmanOnly`.
    pub const HUFFMAN_ONLY: Self = Self(-2);
    /// Stored blocks only, in Go `NoCompression`.
    pub const STORED: Self = Self(0);
    /// The level of -1, in Go `DefaultCompression`.
    pub const DEFAULT: Self = Self(6);

    /// The level with Go's number for it: -2 to 9, where -1 is the same as 6.
    ///
    /// # Errors
    ///
    /// There is no such level.
    pub const fn new(number: i32) -> Result<Self, NoSuchLevel> {
        match number {
            -1 => Ok(Self::DEFAULT),
            -2..=9 => Ok(Self(number as i8)),
            _ => Err(NoSuchLevel(number)),
        }
    }

    /// Go's number for the level; 6 where -1 was asked for.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

/// Go's `compress/flate` knows no level of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchLevel(pub i32);

impl fmt::Display for NoSuchLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Go's compress/flate has levels -2 to 9, not {}", self.0)
    }
}

impl std::error::Error for NoSuchLevel {}

/// An encoder for a raw deflate stream, as `flate.NewWriter` of Go 1.26 and before makes it.
///
/// With more than one of `threads`, so many threads of their own look for matches; the output is the same.
pub fn encoder(level: Level, threads: NonZeroUsize) -> Box<dyn Encoder> {
    match level.0 {
        -2 => parallel::encoder::<NoTokens, _>((), RawWriter::new(RawBlocks::Huffman), NonZeroUsize::MIN),
        0 => parallel::encoder::<NoTokens, _>((), RawWriter::new(RawBlocks::Stored), NonZeroUsize::MIN),
        1 => parallel::encoder::<Fast, _>((), FastWriter::default(), threads),
        number => {
            let level = ChainLevel::of(number);
            parallel::encoder::<Chain, _>(level, BestWriter::new(level.is_lazy()), threads)
        }
    }
}
