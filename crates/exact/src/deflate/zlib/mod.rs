//! zlib, and GNU gzip, which shares its search and its codes: levels 1 to 9.
//!
//! zlib 1.2.11 to 1.3.2 write the same bytes. zlib-ng, which some systems have in place of zlib, does not.

mod chain;
mod codes;
mod config;
mod writer;

use std::num::NonZeroUsize;

pub(crate) use self::chain::Chain;
pub(crate) use self::config::Config;
pub(crate) use self::writer::Writer;
use super::parallel;
use crate::Encoder;

/// How hard is searched: 1 to 9.
///
/// Level 0 is left out: where its blocks end depends on the buffers of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// What zlib takes for level -1.
    pub const DEFAULT: Self = Self(6);

    /// A level, or `None` if it is not 1 to 9.
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 9 { Some(Self(level)) } else { None }
    }

    /// The number of the level.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The memory that zlib was allowed: how long blocks are, and the size of the hash table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Level 8, that of zlib if it is not told: blocks of up to 16,383 symbols.
    #[default]
    Usual,
    /// Level 9, the most: blocks of up to 32,767 symbols.
    Most,
}

impl Memory {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Usual, Self::Most];

    /// zlib's number for it.
    pub const fn get(self) -> u8 {
        match self {
            Self::Usual => 8,
            Self::Most => 9,
        }
    }
}

/// What zlib was told. The window is always 32 KiB, and the strategy the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The level.
    pub level: Level,
    /// The memory level.
    pub memory: Memory,
}

/// An encoder for a raw deflate stream, as zlib makes it that is given all of the plain bytes.
///
/// With more than one of `threads`, so many threads of their own look for matches; the output is the same.
pub fn encoder(settings: Settings, threads: NonZeroUsize) -> Box<dyn Encoder> {
    parallel::encoder::<Chain, _>(Config::zlib(settings), Writer::zlib(settings), threads)
}

/// An encoder for a raw deflate stream, as GNU gzip 1.12 makes it.
///
/// With more than one of `threads`, so many threads of their own look for matches; the output is the same.
pub fn gnu_encoder(level: Level, threads: NonZeroUsize) -> Box<dyn Encoder> {
    parallel::encoder::<Chain, _>(Config::gnu(level), Writer::gnu(level), threads)
}
