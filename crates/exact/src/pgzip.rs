//! The framing of klauspost/pgzip: blocks that are compressed apart from each other, on several threads.
//!
//! Each block is a stream of klauspost's `flate` with the end of the block before as its dictionary, and
//! ends at a byte border. So the blocks can be made again side by side. The number of threads does not
//! change the output.

use std::fmt;
use std::mem;
use std::num::NonZeroUsize;

use crate::Encoder;
use crate::deflate::kp::{Settings, Stream};
use crate::workers::{Job, Workers};

/// How many bytes of a block are the dictionary of the next.
const TAIL: usize = 16_384;

/// The plain bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(usize);

impl BlockSize {
    /// That of pgzip 1.2.2 and later: 1 MiB.
    pub const DEFAULT: Self = Self(1 << 20);
    /// That of pgzip 1.0.1 to 1.2.1, and of umoci: 256 KiB.
    pub const EARLIER: Self = Self(1 << 18);
    /// The smallest that pgzip allows, in bytes.
    pub const MIN: usize = TAIL + 1;
    /// The largest that is supported, in bytes. Each thread holds a block.
    pub const MAX: usize = 64 << 20;

    /// A block size in bytes, or `None` if it is below [`MIN`](Self::MIN) or above [`MAX`](Self::MAX).
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes < Self::MIN || bytes > Self::MAX { None } else { Some(Self(bytes)) }
    }

    /// The size in bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// The deflate stream that klauspost/pgzip makes.
///
/// Besides the block that it gathers, it holds one block for each thread, one that waits, and what
/// became of them.
pub struct Pgzip {
    settings: Settings,
    size: BlockSize,
    /// The block that is gathered.
    block: Block,
    workers: Workers<Work>,
}

impl Pgzip {
    /// An encoder at the start of a stream, which works on `threads` threads (at most 64) besides the caller's.
    ///
    /// With one, it works on the caller's thread alone.
    pub fn new(settings: Settings, size: BlockSize, threads: NonZeroUsize) -> Self {
        Self { settings, size, block: Block::default(), workers: Workers::new("pgzip", threads) }
    }
}

impl Encoder for Pgzip {
    fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            let room = self.size.0 - self.block.len();
            let (now, later) = plain.split_at(room.min(plain.len()));
            self.block.bytes.extend_from_slice(now);
            plain = later;
            if self.block.len() == self.size.0 {
                let next = self.block.next(self.size);
                let block = mem::replace(&mut self.block, next);
                self.workers.take(Work { block, settings: self.settings }, out);
            }
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        // Empty if the last one was full.
        let mut last = mem::take(&mut self.block);
        last.place = Place::Last;
        self.workers.take(Work { block: last, settings: self.settings }, out);
        self.workers.finish(out);
    }
}

impl fmt::Debug for Pgzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pgzip").field("size", &self.size).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Inner,
    Last,
}

/// Plain bytes to compress.
#[derive(Debug, Default)]
struct Block {
    /// The dictionary, then the block.
    bytes: Vec<u8>,
    /// The length of the dictionary.
    dictionary: usize,
    place: Place,
}

impl Block {
    fn len(&self) -> usize {
        self.bytes.len() - self.dictionary
    }

    /// The block that follows, still empty.
    fn next(&self, size: BlockSize) -> Self {
        let tail = &self.bytes[self.bytes.len().saturating_sub(TAIL)..];
        let mut bytes = Vec::with_capacity(tail.len() + size.0);
        bytes.extend_from_slice(tail);
        Self { dictionary: bytes.len(), bytes, place: Place::Inner }
    }
}

/// A block, and how it is compressed.
struct Work {
    block: Block,
    settings: Settings,
}

impl Job for Work {
    type Tool = Option<Box<Stream>>;

    fn size(&self) -> usize {
        self.block.len()
    }

    fn run(&self, tool: &mut Self::Tool, out: &mut Vec<u8>) {
        let stream = tool.get_or_insert_with(|| Box::new(Stream::new(self.settings)));
        let (dictionary, plain) = self.block.bytes.split_at(self.block.dictionary);
        stream.reset(dictionary);
        stream.push(plain, out);
        stream.flush(out);
        if self.block.place == Place::Last {
            stream.finish(out);
        }
    }
}
