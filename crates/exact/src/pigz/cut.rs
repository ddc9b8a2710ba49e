//! Where jobs end.

use std::mem;
use std::ops::Range;

use super::Cut;

/// The plain bytes of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where its pieces end, the last with the job; one at least.
    pub(super) pieces: Vec<u64>,
    /// Whether the stream ends with it.
    pub(super) is_last: bool,
}

/// Cuts a stream into jobs.
#[derive(Debug)]
pub(super) enum Cutter {
    Even { size: u64, start: u64 },
    Rsyncable(Buffers),
}

impl Cutter {
    pub(super) fn new(cut: Cut, size: usize) -> Self {
        let size = size as u64;
        match cut {
            Cut::Even => Self::Even { size, start: 0 },
            Cut::Rsyncable => Self::Rsyncable(Buffers::new(size)),
        }
    }

    /// The next job, if the bytes at hand tell where it ends. They begin at position `origin`.
    pub(super) fn next(&mut self, bytes: &[u8], origin: u64, is_end: bool) -> Option<Part> {
        let known = origin + bytes.len() as u64;
        match self {
            Self::Even { size, start } => {
                let full = *start + *size;
                // There is no empty job behind a full one.
                let is_last = known <= full;
                if is_last && !is_end {
                    return None;
                }
                let end = known.min(full);
                let part = Part { start: *start, end, pieces: vec![end], is_last };
                *start = end;
                Some(part)
            }
            Self::Rsyncable(buffers) => buffers.next(bytes, origin, is_end),
        }
    }
}

/// The bits of the rolling hash, and its value at which a piece ends. It begins with that value.
const MASK: u32 = 4095;
const HIT: u32 = 2047;

/// The buffers of the original: its jobs depend on how they are filled.
///
/// All ranges are positions in the stream, one behind the other.
#[derive(Debug)]
pub(super) struct Buffers {
    size: u64,
    /// The buffer of the next job; `None` before the first.
    next: Option<Range<u64>>,
    /// A buffer that was read, but has to wait.
    held: Option<Range<u64>>,
    /// How far all is read.
    read: u64,
    /// How far it is hashed.
    hashed: u64,
    hash: u32,
    /// Whether the next buffer is what is left of the one before, and has no hit.
    is_rest: bool,
}

impl Buffers {
    const fn new(size: u64) -> Self {
        Self { size, next: None, held: None, read: 0, hashed: 0, hash: HIT, is_rest: false }
    }

    /// The next bytes of the stream, as many as a buffer holds, if they are at hand.
    fn read(&mut self, known: u64, is_end: bool) -> Option<Range<u64>> {
        let full = self.read + self.size;
        if known < full && !is_end {
            return None;
        }
        let start = mem::replace(&mut self.read, known.min(full));
        Some(start..self.read)
    }

    /// Hashes on to a position, and appends where hits are.
    fn scan(&mut self, bytes: &[u8], origin: u64, until: u64, hits: &mut Vec<u64>) {
        while self.hashed < until {
            let byte = bytes.get((self.hashed - origin) as usize).copied().unwrap_or(0);
            self.hash = (self.hash << 1 ^ u32::from(byte)) & MASK;
            self.hashed += 1;
            if self.hash == HIT {
                hits.push(self.hashed);
            }
        }
    }

    fn next(&mut self, bytes: &[u8], origin: u64, is_end: bool) -> Option<Part> {
        let known = origin + bytes.len() as u64;
        if self.next.is_none() {
            self.next = Some(self.read(known, is_end)?);
        }
        let mut later = match self.held.take() {
            Some(held) => held,
            None => self.read(known, is_end)?,
        };
        let now = self.next.take()?;
        let mut hits = Vec::new();
        if !mem::take(&mut self.is_rest) {
            self.scan(bytes, origin, now.end, &mut hits);
        }
        let own_hits = hits.len();
        let last_hit = hits.last().copied();
        let until = later.end.min(now.start + self.size);
        self.scan(bytes, origin, until, &mut hits);
        let end = if let Some(&hit) = hits[own_hits..].last() {
            hit
        } else if let Some(hit) = last_hit {
            if hit < now.end && !later.is_empty() {
                // The rest is a job of its own, and what was read behind it waits.
                self.held = Some(mem::replace(&mut later, hit..now.end));
                self.is_rest = true;
                hit
            } else {
                now.end
            }
        } else {
            self.hashed.max(now.end)
        };
        later.start = later.start.max(end);
        let mut pieces = hits;
        if pieces.last() != Some(&end) {
            pieces.push(end);
        }
        let is_last = later.is_empty();
        self.next = Some(later);
        Some(Part { start: now.start, end, pieces, is_last })
    }
}
