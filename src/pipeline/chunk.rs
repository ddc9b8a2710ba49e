//! A piece of a layer on its way, with the base bytes that it still lacks.

use std::io::{self, Write};
use std::sync::Arc;

use crate::base::{Blocks, SourceFile};
use crate::layer_write::{LayerWrite, read_base};

/// Bytes handed over at once.
pub(super) const CHUNK: usize = 256 << 10;

/// Most gaps of a chunk, 192 KiB: where operations are tiny and lie anywhere in the base, both threads
/// are busy with reading it.
pub(super) const GAPS: usize = 8192;

/// Most base files that the gaps of a chunk are from, but for those that come again.
pub(super) const FILES: usize = 64;

/// Bytes, and what was announced before which of them.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    filled: usize,
    /// Where the filled bytes still lack those of the base.
    gaps: Vec<Gap>,
    /// The base files of the gaps, each as often as another one came in between.
    files: Vec<Arc<SourceFile>>,
    repeats: Vec<(usize, Arc<str>, u64)>,
}

/// A stretch of a chunk whose base bytes are still to be read.
struct Gap {
    at: u32,
    len: u32,
    offset: u64,
    /// Which of the chunk's files.
    file: u32,
    /// They are added to what stands there.
    adds: bool,
}

impl Chunk {
    pub(super) fn new() -> Self {
        Chunk { bytes: vec![0; CHUNK].into(), ..Chunk::default() }
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// More is filled; is it full now?
    pub(super) fn fill(&mut self, by: usize) -> bool {
        self.filled += by;
        self.filled == CHUNK
    }

    /// Announces that the next bytes are those of an object.
    pub(super) fn repeats(&mut self, object: &Arc<str>, size: u64) {
        self.repeats.push((self.filled, object.clone(), size));
    }

    /// Numbers of gaps, and of the files that they are from.
    #[cfg(test)]
    pub(super) fn gaps(&self) -> (usize, usize) {
        (self.gaps.len(), self.files.len())
    }

    /// Leaves the next bytes for later, unless there are too many gaps already.
    pub(super) fn leave_gap(&mut self, len: usize, file: &Arc<SourceFile>, offset: u64, adds: bool) -> bool {
        let is_next = self.files.last().is_none_or(|last| !Arc::ptr_eq(last, file));
        if self.gaps.len() == GAPS || is_next && self.files.len() == FILES {
            return false;
        }
        if is_next {
            self.files.push(file.clone());
        }
        let file = self.files.len() as u32 - 1;
        self.gaps.push(Gap { at: self.filled as u32, len: len as u32, offset, file, adds });
        true
    }

    /// Closes the gaps, and shows all.
    pub(super) fn show(&mut self, blocks: &mut Blocks, witness: &mut impl Write) -> io::Result<()> {
        for gap in self.gaps.drain(..) {
            let range = gap.at as usize..gap.at as usize + gap.len as usize;
            read_base(blocks, &self.files[gap.file as usize], gap.offset, gap.adds, &mut self.bytes[range])?;
        }
        self.files.clear();
        witness.write_all(&self.bytes[..self.filled])
    }

    /// Passes all on.
    pub(super) fn pass_on(&mut self, writer: &mut impl LayerWrite) -> io::Result<()> {
        let mut written = 0;
        for (at, object, size) in self.repeats.drain(..) {
            writer.write_all(&self.bytes[written..at])?;
            writer.repeats(&object, size);
            written = at;
        }
        writer.write_all(&self.bytes[written..self.filled])
    }

    /// A thread that failed may have left it in the middle.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
        self.gaps.clear();
        self.files.clear();
        self.repeats.clear();
    }
}
