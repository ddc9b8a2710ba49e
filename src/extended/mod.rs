//! The extended patch: one that reads the base's layers as the tars that they are, headers included, and what is in
//! compressed stretches of them; it makes such stretches, too.
//!
//! It stands beside the standard patch (`tardiff`) for those who have these tars. What its operations
//! consist of is kept apart by kind, each kind in a compressed stream of its own, since like compresses best with like:
//!
//! | stream | holds |
//! |---|---|
//! | 0 commands | a byte for each operation |
//! | 1 lengths | a number for each: of bytes, or of a row of the table |
//! | 2 moves | how far places are from where the cursor is, signed |
//! | 3 sums | bytes that are added to those of a layer |
//! | 4 literals | bytes that are not in the base |
//!
//! Their compressed bytes come in blocks, in the order in which they are wanted, so a patch is applied as it
//! arrives. `docs/formats.md` has the format byte for byte.

mod compression;
mod decode;
mod encode;
mod streams;
mod table;

pub use compression::{Compression, Effort};
pub use decode::OpReader;
pub use encode::{OpWriter, Parts, Raw};
pub use streams::{Blocks, FromPatch};

/// Bytes of the magic.
pub(crate) const MAGIC_LEN: usize = 8;
const MAGIC: [u8; MAGIC_LEN] = *b"odfpat1\n";
/// That of all versions.
const MAGIC_OF_ALL: &[u8] = b"odfpat";

/// Do these first bytes begin an extended patch, of a known version or not?
pub fn is_extended(head: &[u8]) -> bool {
    head.starts_with(MAGIC_OF_ALL)
}

/// What a command does.
mod command {
    /// Append literals; the cursor goes along.
    pub const DATA: u8 = 0;
    /// Append bytes of the holder.
    pub const COPY: u8 = 1;
    /// Append sums of bytes of the holder and those of the stream.
    pub const ADD: u8 = 2;
    /// Make a holder the current one, its cursor where it was left.
    pub const HOLDER: u8 = 3;
    /// What follows is in a member.
    pub const MEMBER: u8 = 4;
    /// With COPY or ADD: the cursor moves before it.
    pub const MOVE: u8 = 4;
}

/// Streams, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commands = 0,
    Lengths = 1,
    Moves = 2,
    Sums = 3,
    Literals = 4,
}

const KINDS: [Kind; 5] = [Kind::Commands, Kind::Lengths, Kind::Moves, Kind::Sums, Kind::Literals];

/// Streams of a patch.
pub(crate) const STREAMS: usize = KINDS.len();

impl Kind {
    /// Is it of numbers, not of content?
    fn is_control(self) -> bool {
        matches!(self, Kind::Commands | Kind::Lengths | Kind::Moves)
    }
}

/// Longest block in bytes.
const MAX_BLOCK: usize = 64 << 10;

/// Bytes of blocks that may come before they are wanted; a writer that follows the rule needs none but at the end.
const MAX_WAITING: usize = 16 << 20;

/// Most layers that a patch reads, as of an image.
const MAX_LAYERS: u64 = 4096;

/// Most bytes of the table, compressed or not: some hundred thousand members.
const MAX_TABLE: u64 = 8 << 20;

/// Largest window of the table, as a power of two.
const TABLE_WINDOW_LOG: u32 = 23;

/// Most compressed stretches in each other: a module in an initramfs has one around it.
pub(crate) const MAX_DEPTH: u32 = 2;

/// Largest window of a stream of numbers, as a power of two.
const CONTROL_WINDOW_LOG: u32 = 23;
