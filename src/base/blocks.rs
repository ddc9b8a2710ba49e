//! Blocks of base files held in memory, so that most operations of a patch need no system call.

use super::SourceFile;
use crate::error::Result;

/// Bytes of a block: large enough that reading it costs more than asking for it.
const BLOCK: u64 = 64 << 10;

/// Blocks held; 4 MiB in all. A patch goes back and forth within a file.
const SLOTS: u64 = 64;

/// The blocks that were read last, each in the only slot where it may be.
/// Neighbouring files of a layer tar share blocks.
#[derive(Debug)]
pub struct Blocks {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The file on disk and the number of the block in it.
    holds: Option<(u64, u64)>,
    /// Bytes of it, fewer at the end of the file.
    filled: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks { bytes: vec![0; (BLOCK * SLOTS) as usize], slots: vec![Slot::default(); SLOTS as usize] }
    }
}

impl Blocks {
    /// Up to `want` bytes of `file` at `offset`, at least one; the caller has
    /// checked that the file has them.
    ///
    /// # Errors
    /// As [`SourceFile::read_exact_at`].
    pub fn read(&mut self, file: &SourceFile, offset: u64, want: u64) -> Result<&[u8]> {
        let (id, position) = file.content.place(offset);
        let (block, at) = (position / BLOCK, (position % BLOCK) as usize);
        let number = (block ^ id.wrapping_mul(7)) % SLOTS;
        let first = (number * BLOCK) as usize;
        let bytes = &mut self.bytes[first..first + BLOCK as usize];
        let slot = &mut self.slots[number as usize];
        if slot.holds != Some((id, block)) {
            slot.holds = None;
            slot.filled = file.content.read_around(bytes, block * BLOCK).unwrap_or(0);
            slot.holds = Some((id, block));
        }
        if at >= slot.filled {
            // Gone or unreadable: this says which file, and why.
            slot.holds = None;
            file.read_exact_at(&mut bytes[at..at + 1], offset)?;
            return Ok(&self.bytes[first + at..first + at + 1]);
        }
        let len = (slot.filled - at).min(usize::try_from(want).unwrap_or(usize::MAX));
        Ok(&self.bytes[first + at..first + at + len])
    }
}
