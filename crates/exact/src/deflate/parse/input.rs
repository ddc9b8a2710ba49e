//! Bits of a stream that comes in pieces.

/// Reads bits, the lowest first, from bytes that are fed.
#[derive(Clone, Debug, Default)]
pub(super) struct BitReader {
    bytes: Vec<u8>,
    /// The first byte not yet among the held bits.
    next: usize,
    held: u64,
    count: u32,
    /// Bits that were taken.
    taken: u64,
}

impl BitReader {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.next);
        self.next = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bits were taken so far.
    pub(super) fn position(&self) -> u64 {
        self.taken
    }

    /// Holds as many bits as there are, 56 or more if possible.
    #[inline]
    fn refill(&mut self) {
        if self.count >= 56 {
            return;
        }
        if let Some(word) = self.bytes.get(self.next..).and_then(|b| b.first_chunk::<8>()) {
            // The byte that fits in part is read again later, to the same bits.
            self.held |= u64::from_le_bytes(*word) << self.count;
            let bytes = (63 - self.count) / 8;
            self.next += bytes as usize;
            self.count += bytes * 8;
            self.held &= u64::MAX >> (64 - self.count);
            return;
        }
        while self.count < 56 {
            let Some(&byte) = self.bytes.get(self.next) else { return };
            self.held |= u64::from(byte) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }

    /// The next bits, with zeros behind the last, and how many there are: 56 or more, or all.
    #[inline]
    pub(super) fn peek(&mut self) -> (u64, u32) {
        self.refill();
        (self.held, self.count)
    }

    /// Takes bits that [`peek`](Self::peek) has shown.
    #[inline]
    pub(super) fn consume(&mut self, count: u32) {
        debug_assert!(count <= self.count);
        let count = count.min(self.count);
        self.held = if count < 64 { self.held >> count } else { 0 };
        self.count -= count;
        self.taken += u64::from(count);
    }

    /// Takes `count` bits (at most 32), if so many are there.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let (bits, there) = self.peek();
        if there < count {
            return None;
        }
        self.consume(count);
        Some((bits & ((1 << count) - 1)) as u32)
    }

    /// The bits left before the byte border.
    pub(super) fn to_border(&self) -> u32 {
        // Whole bytes are fed, so that what is held ends at a border.
        self.count % 8
    }

    /// Appends up to `count` whole bytes. To be called at a byte border.
    pub(super) fn take_bytes(&mut self, count: usize, out: &mut Vec<u8>) {
        let mut left = count;
        while left > 0 && self.count >= 8 {
            out.push(self.held as u8);
            self.consume(8);
            left -= 1;
        }
        let there = &self.bytes[self.next..];
        let there = &there[..there.len().min(left)];
        out.extend_from_slice(there);
        self.next += there.len();
        self.taken += 8 * there.len() as u64;
    }

    /// The bytes behind the one that the last bit taken is in.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.next - (self.count / 8) as usize..]
    }
}
