//! klauspost's `compress/zstd` for Go, levels "fastest" and "default".
//!
//! Its frames are those of containers/image (podman, buildah, skopeo), buildkit, containerd and umoci. They
//! depend on the release of the library, on the level, and on the calls that the frame was made with; not on
//! the machine, nor on the number of threads. Levels "better" and "best", dictionaries, other windows than those
//! of the level, padding and `WithConcurrentBlocks` are not covered.

mod bits;
mod block;
mod dfast;
mod fast;
mod frame;
mod fse;
mod history;
mod huff0;
mod literals;
mod sequences;
mod words;

use crate::Encoder;

/// Releases of the library that write the same frames, named by the first of them.
///
/// Releases differ only in blocks of few matches, runs, and frames of nothing: large frames are often the same
/// in all. Try the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// 1.15.6 and 1.15.7; their streams, [`Calls::Stream`], also those of 1.14.3 and later.
    V1_15_6,
    /// 1.15.9 to 1.16.3.
    V1_15_9,
    /// 1.16.5 and 1.16.7.
    V1_16_5,
    /// 1.17.0 to 1.17.4.
    V1_17_0,
    /// 1.17.8 to 1.18.4.
    V1_17_8,
    /// 1.18.5 to 1.19.1.
    V1_18_5,
}

impl Family {
    /// All of them, the newest first.
    pub const ALL: [Self; 6] =
        [Self::V1_18_5, Self::V1_17_8, Self::V1_17_0, Self::V1_16_5, Self::V1_15_9, Self::V1_15_6];

    /// The first release of the family: "1.18.5".
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_15_6 => "1.15.6",
            Self::V1_15_9 => "1.15.9",
            Self::V1_16_5 => "1.16.5",
            Self::V1_17_0 => "1.17.0",
            Self::V1_17_8 => "1.17.8",
            Self::V1_18_5 => "1.18.5",
        }
    }

    /// The family whose [`name`](Self::name) is this.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// A block whose matches save less than its size shifted by this, and 16 bytes, is stored.
    const fn gain_shift(self) -> u32 {
        if matches!(self, Self::V1_15_6 | Self::V1_15_9) { 5 } else { 6 }
    }

    /// So many literals and fewer have no code.
    const fn literals_stored(self) -> usize {
        if matches!(self, Self::V1_15_6 | Self::V1_15_9 | Self::V1_16_5) { 32 } else { 16 }
    }

    /// Whether literals with a code are compared with literals as they are.
    const fn weighs_literals(self) -> bool {
        !matches!(self, Self::V1_15_6 | Self::V1_15_9 | Self::V1_16_5)
    }

    /// Whether a block without matches has a code for its literals.
    const fn codes_literals_alone(self, level: Level) -> bool {
        matches!((self, level), (Self::V1_15_6 | Self::V1_15_9, Level::Default))
    }

    /// Whether a block that is one match at the distance of 1 becomes a run.
    const fn finds_runs(self) -> bool {
        matches!(self, Self::V1_17_8 | Self::V1_18_5)
    }

    /// Whether there is a frame of nothing.
    const fn frames_nothing(self) -> bool {
        matches!(self, Self::V1_18_5)
    }

    /// Frames of known size up to this, and at most the window, are one segment.
    const fn longest_segment(self) -> u64 {
        if matches!(self, Self::V1_15_6) { (1 << 20) - 1 } else { u64::MAX }
    }
}

/// A level of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// `SpeedFastest`: zstd's levels 1 and 2. The window is 4 MiB.
    Fastest,
    /// `SpeedDefault`: zstd's levels 3 to 5. The window is 8 MiB.
    Default,
}

impl Level {
    /// How far matches reach back, in bytes.
    const fn window(self) -> usize {
        match self {
            Self::Fastest => 4 << 20,
            Self::Default => 8 << 20,
        }
    }

    /// The most bytes of a block.
    const fn block_size(self) -> usize {
        match self {
            Self::Fastest => 64 << 10,
            Self::Default => 128 << 10,
        }
    }
}

/// How the library was called to make the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calls {
    /// `Write` or `ReadFrom`, then `Close`.
    Stream {
        /// Where `Flush` was called, or `ReadFrom` after `Write`: so many plain bytes, from the start of the
        /// frame, in rising order. One beyond the end means the end.
        flushes: Vec<u64>,
    },
    /// `EncodeAll`, or a stream that was told its size.
    Whole {
        /// The plain bytes, exactly; of another number of bytes, the frame can't be decoded.
        size: u64,
    },
}

impl Calls {
    /// As containers/image does: it looks at 8 bytes, writes them, and then the others.
    pub fn containers_image() -> Self {
        Self::Stream { flushes: vec![8] }
    }

    /// Without a flush.
    pub const fn stream() -> Self {
        Self::Stream { flushes: Vec::new() }
    }
}

/// An encoder for one frame, with a checksum at its end.
///
/// It holds up to two windows of plain bytes, and about 3 MiB.
pub fn encoder(family: Family, level: Level, calls: Calls) -> Box<dyn Encoder> {
    Box::new(frame::Frame::new(family, level, calls))
}
