//! Blocks of base files held in memory, so that most operations of a patch need no system call.

use super::SourceFile;
use crate::error::Result;

/// Bytes of a block. Places that are near each other share it; what is far from
/// everything else is not worth more (on deltas of compiled code, blocks of 64 KiB read
/// four times the bytes that were used, these 1.4 times).
const BLOCK: u64 = 4 << 10;

/// Blocks held; 2 MiB in all. A patch goes back and forth within a file.
const SLOTS: u64 = 512;

/// Spans from this length on are read past the blocks, straight to where they are wanted.
const DIRECT: usize = 4 * BLOCK as usize;

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
    /// Fills `buf` from `file` at `offset`; the caller has checked that the file has the bytes.
    ///
    /// # Errors
    /// As [`SourceFile::read_exact_at`].
    pub fn read_exact(&mut self, file: &SourceFile, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        if buf.len() >= DIRECT {
            return file.read_exact_at(buf, offset);
        }
        while !buf.is_empty() {
            let found = self.read(file, offset, buf.len())?;
            let n = found.len();
            buf[..n].copy_from_slice(found);
            buf = &mut buf[n..];
            offset += n as u64;
        }
        Ok(())
    }

    /// Adds bytes of `file` from `offset` on to those of `sums`, each modulo 256; the caller has checked
    /// that the file has them.
    ///
    /// # Errors
    /// As [`SourceFile::read_exact_at`].
    pub fn add_exact(&mut self, file: &SourceFile, mut offset: u64, mut sums: &mut [u8]) -> Result<()> {
        while !sums.is_empty() {
            let found = self.read(file, offset, sums.len())?;
            let (now, later) = sums.split_at_mut(found.len());
            for (sum, byte) in now.iter_mut().zip(found) {
                *sum = sum.wrapping_add(*byte);
            }
            offset += now.len() as u64;
            sums = later;
        }
        Ok(())
    }

    /// Up to `want` bytes of `file` at `offset`, at least one.
    fn read(&mut self, file: &SourceFile, offset: u64, want: usize) -> Result<&[u8]> {
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
        let len = (slot.filled - at).min(want);
        Ok(&self.bytes[first + at..first + at + len])
    }
}
