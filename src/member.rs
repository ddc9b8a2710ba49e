//! Members: compressed stretches of files, what is in them, and how they are made again from that, byte for byte.
//!
//! `find` tells where they are, `open` what is in one, `recipe` who has made it, and an [`Encoder`] makes it again.
//! A patch is then made on what is in them, old and new, and carries the recipes. What is read in a patch is open to
//! lies: `open` and `Encoder` write no more than they were told, and hold a bounded part of it.

mod decode;
mod encode;
mod find;
mod lzma;
mod prove;
mod recipe;
mod search;
mod xz;
mod zip;

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

pub use self::encode::Encoder;
pub use self::find::find;
pub use self::recipe::{MAX_TEXT, Recipe};
pub use self::search::recipe;
use crate::encoding::{Format, HEAD};
use crate::error::{Error, Result};
use crate::region::Region;

/// How a stretch of a file is compressed. The numbers are those of patches, and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Coding {
    /// One member of gzip.
    Gzip = 1,
    /// A bare deflate stream, as in zip.
    Deflate = 2,
    /// One stream of xz.
    Xz = 3,
    /// One frame of zstd.
    Zstd = 4,
    /// One stream of bzip2.
    Bzip2 = 5,
    /// One bare stream of LZMA, without a size and with a mark at its end.
    Lzma = 6,
}

impl Coding {
    /// The number in patches.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The coding of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Coding::Gzip, Coding::Deflate, Coding::Xz, Coding::Zstd, Coding::Bzip2, Coding::Lzma]
            .into_iter()
            .find(|coding| coding.number() == number)
    }

    /// What begins with these bytes, of which [`HEAD`] are wanted.
    fn sniff(head: &[u8]) -> Option<Self> {
        match Format::sniff(head) {
            // Deflate, and no flags that nobody knows.
            Format::Gzip if head.get(2) == Some(&8) && head.get(3).is_some_and(|flags| flags & 0xe0 == 0) => {
                Some(Coding::Gzip)
            }
            // Not a frame that is skipped.
            Format::Zstd if head.first() == Some(&0x28) => Some(Coding::Zstd),
            Format::Xz => Some(Coding::Xz),
            Format::Bzip2 => Some(Coding::Bzip2),
            Format::Plain => lzma::sniff(head).map(|_| Coding::Lzma),
            Format::Gzip | Format::Zstd => None,
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Xz => "xz",
            Coding::Zstd => "zstd",
            Coding::Bzip2 => "bzip2",
            Coding::Lzma => "lzma",
        })
    }
}

/// A compressed stretch of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is, in bytes of the file.
    pub range: Range<u64>,
    /// How it is compressed.
    pub coding: Coding,
}

/// What is looked into.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of a compressed stretch.
    pub packed: u64,
    /// Most bytes of what is in one.
    pub plain: u64,
    /// Most members of a file; those behind them stay closed.
    pub members: usize,
}

impl Default for Limits {
    /// Initramfs images of some hundred MiB are in; what is larger than that is data, which seldom has an old version. A
    /// jar of 65,535 entries is the largest that zip knows without its larger form.
    fn default() -> Self {
        Limits { packed: 256 << 20, plain: 1 << 30, members: 1 << 16 }
    }
}

/// How large a member is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The compressed stretch.
    pub packed: u64,
    /// What is in it.
    pub plain: u64,
}

/// How a member is made: by which recipe, and how large it comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Packing {
    /// The encoder and its settings; many members share one.
    pub recipe: Arc<Recipe>,
    /// Of the member.
    pub sizes: Sizes,
}

/// The least bytes of a stretch that is worth a look: a recipe and an operation of a patch take some ten.
pub const MIN_PACKED: u64 = 96;

/// Writes what is in a stretch to `out`, at most `max` bytes, and tells how many there were.
///
/// # Errors
/// Verification when it is broken, does not end where the stretch does, holds more than `max` bytes or needs more memory
/// than it may have; those of `out` and of reading.
pub fn open(stretch: &Region, coding: Coding, out: &mut dyn Write, max: u64) -> Result<u64> {
    let decoded = decode::decode(stretch, coding, out, max)?;
    match stretch.len() - decoded.read {
        0 => Ok(decoded.made),
        rest => Err(Error::verification(format!("{rest} bytes behind the end of a {coding} stream"))),
    }
}
