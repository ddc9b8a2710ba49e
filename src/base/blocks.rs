//! Blocks of base files held in memory, so that most operations of a patch need no system call.

use std::ops::Range;

use super::SourceFile;
use crate::error::Result;

/// Bytes of a block. Places that are near each other share it; what is far from
/// everything else is not worth more (on deltas of compiled code, blocks of 64 KiB read
/// four times the bytes that were used, these 1.4 times).
const BLOCK: u64 = 4 << 10;

/// Blocks held; 2 MiB in all. A patch goes back and forth within a file.
const SLOTS: u64 = 512;

/// Blocks read at once where reading goes on from the block before.
const AHEAD: usize = 4;

/// Spans from this length on are read past the blocks, straight to where they are wanted.
const DIRECT: usize = 4 * BLOCK as usize;

/// How far [`Blocks::worth`] goes up: so soon is noticed that a patch has changed its ways.
const WORTH: i32 = 64;

/// How far it goes down: while blocks are not worth it, one in so many is read all the same, to see
/// whether that is still so.
const PROBE: i32 = 16;

/// The blocks that were read last, each in the only slot where it may be.
/// Neighbouring files of a layer tar share blocks.
#[derive(Debug)]
pub struct Blocks {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// Reads that were spared, less those that were made. Below zero the places are far from each
    /// other, and what is wanted is read alone: a block of 4 KiB costs three times as much as 20 bytes.
    worth: i32,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    /// The file on disk and the number of the block in it.
    holds: Option<(u64, u64)>,
    /// Which bytes of the block are here.
    here: Range<usize>,
}

impl Default for Blocks {
    fn default() -> Self {
        let bytes = vec![0; (BLOCK * SLOTS) as usize];
        Blocks { bytes, slots: vec![Slot::default(); SLOTS as usize], worth: WORTH }
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
        let number = (block.wrapping_add(id.wrapping_mul(7)) % SLOTS) as usize;
        let slot = &self.slots[number];
        if slot.holds == Some((id, block)) && slot.here.contains(&at) {
            self.worth = WORTH.min(self.worth + 1);
        } else {
            self.load(file, offset, number, want);
        }
        let first = number * BLOCK as usize;
        let slot = &mut self.slots[number];
        if at >= slot.here.end {
            // Gone or unreadable: this says which file, and why.
            slot.holds = None;
            let end = first + (BLOCK as usize).min(at + want);
            file.read_exact_at(&mut self.bytes[first + at..end], offset)?;
            return Ok(&self.bytes[first + at..end]);
        }
        let len = (slot.here.end - at).min(want);
        Ok(&self.bytes[first + at..first + at + len])
    }

    /// Reads what is wanted at `offset` into the slot `number`, as a rule with all of its block, and where
    /// reading goes on, with the blocks behind it in the slots behind.
    fn load(&mut self, file: &SourceFile, offset: u64, number: usize, want: usize) {
        let (id, position) = file.content.place(offset);
        let (block, at) = (position / BLOCK, (position % BLOCK) as usize);
        self.worth = if self.worth <= -PROBE { 0 } else { self.worth - 1 };
        let before = |slot: &Slot| slot.holds == block.checked_sub(1).map(|block| (id, block));
        let goes_on = number > 0 && before(&self.slots[number - 1]);
        let span = match (self.worth < 0, goes_on) {
            (true, _) => at..(at + want).min(BLOCK as usize),
            (false, true) => 0..AHEAD * BLOCK as usize,
            (false, false) => 0..BLOCK as usize,
        };
        let first = number * BLOCK as usize;
        let range = first + span.start..self.bytes.len().min(first + span.end);
        let start = position - (at - span.start) as u64;
        let n = file.content.read_around(&mut self.bytes[range], start).unwrap_or(0);
        let end = span.start + n;
        let blocks = end.div_ceil(BLOCK as usize).max(1);
        for (ahead, slot) in self.slots[number..number + blocks].iter_mut().enumerate() {
            let here = span.start..(end - ahead * BLOCK as usize).min(BLOCK as usize);
            *slot = Slot { holds: Some((id, block + ahead as u64)), here };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::base::SourcePath;
    use crate::region::Region;

    fn file(bytes: &[u8]) -> SourceFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let path = SourcePath::clean(b"base").unwrap();
        SourceFile::new(path, Region::whole(file).unwrap())
    }

    fn bytes() -> Vec<u8> {
        (0..4 * BLOCK * SLOTS).map(|i| (i * i / 7) as u8).collect()
    }

    fn check(blocks: &mut Blocks, file: &SourceFile, bytes: &[u8], at: usize, len: usize) {
        let mut found = vec![0; len];
        blocks.read_exact(file, at as u64, &mut found).unwrap();
        assert!(found == bytes[at..at + len], "{len} bytes at {at}");
    }

    #[test]
    fn far_places_are_read_alone_and_near_ones_by_the_block() {
        let bytes = bytes();
        let (file, mut blocks) = (file(&bytes), Blocks::default());
        let far = |i: usize| i * 1_000_003 % (bytes.len() - 100);
        // A multiple of PROBE + 1 rounds may end with the one that probes.
        for i in 0..1001 {
            check(&mut blocks, &file, &bytes, far(i), 1 + i % 100);
        }
        assert!(blocks.worth < 0, "{}", blocks.worth);
        for i in 0..1000 {
            check(&mut blocks, &file, &bytes, i * 30, 30);
        }
        assert_eq!(blocks.worth, WORTH);
    }

    #[test]
    fn the_end_of_a_file_and_what_is_beyond_it() {
        let bytes = &bytes()[..BLOCK as usize + 10];
        let whole = file(bytes);
        for worth in [WORTH, -1] {
            let mut blocks = Blocks { worth, ..Blocks::default() };
            check(&mut blocks, &whole, bytes, bytes.len() - 20, 20);
            check(&mut blocks, &whole, bytes, bytes.len() - 1, 1);
            let error = blocks.read_exact(&whole, bytes.len() as u64 - 5, &mut [0; 10]).unwrap_err();
            assert!(error.to_string().contains("ends early: 5 bytes were wanted"), "{error}");
        }
    }
}
