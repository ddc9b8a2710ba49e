//! Corrections: what a blob has and no encoder gives.
//!
//! A fix tells the parts of a blob: bytes as they are, members that the recipe's encoder makes, and members whose
//! blocks and tokens are told, as far as they could not be guessed. Its format is described in the README of the
//! crate.

pub(crate) mod blocks;
pub(crate) mod body;
pub(crate) mod chains;
mod digest;
mod error;
mod follow;
mod lengths;
pub(crate) mod parts;
pub(crate) mod plain;
pub(crate) mod range;
pub(crate) mod tokens;

pub(crate) use self::body::Progress;
pub use self::digest::FixDigest;
pub use self::error::FixError;
pub(crate) use self::follow::Follow;

/// What a fix begins with.
pub(crate) const MAGIC: [u8; 6] = *b"odfx1\n";

/// A fix has at most the size of the blob divided by this.
pub const SHARE: u64 = 10;
/// The most bytes of any fix: it is held in memory.
pub const MAX_SIZE: u64 = 64 << 20;
/// The most parts of a blob.
pub const MAX_PARTS: usize = 1 << 18;
/// So many parts may be without plain bytes of their own. Each costs an encoder.
pub const FREE_PARTS: u64 = 1024;
/// For each further one, there are as many plain bytes on average.
pub const PLAIN_PER_PART: u64 = 128;
/// The most bytes of a header of gzip in a fix.
pub const MAX_HEADER: usize = 1 << 20;

/// The most blocks without plain bytes in a row.
pub const MAX_EMPTY_BLOCKS: usize = 1024;

/// Tokens of a block are held and told in runs of so many: the codes of a block are told after the first.
pub(crate) const RUN: usize = 1 << 18;
/// How many plain bytes beyond a position are seen, unless they end before.
pub(crate) const LOOKAHEAD: usize = 264;

/// The most bytes that the fix of a blob of `size` bytes may have.
pub const fn most(size: u64) -> u64 {
    let share = size / SHARE;
    if share < MAX_SIZE { share } else { MAX_SIZE }
}

#[cfg(test)]
mod tests;
