//! Bits written lowest first.

/// Appends bits to bytes.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    at: usize,
    word: u64,
    filled: u32,
}

impl<'a> BitWriter<'a> {
    /// Writes after what `out` holds; more than `most` bytes are not written.
    pub(super) fn new(out: &'a mut Vec<u8>, most: usize) -> Self {
        let at = out.len();
        // Whole words are stored, also the last.
        out.resize(at + most + 8, 0);
        Self { out, at, word: 0, filled: 0 }
    }

    /// The low `bits` of `value`, whose other bits are 0. At most 56 bits go between two calls of `flush`.
    #[inline(always)]
    pub(super) fn add(&mut self, value: u64, bits: u32) {
        self.word |= value << (self.filled & 63);
        self.filled += bits;
    }

    /// Stores the whole bytes.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        if let Some(place) = self.out.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = self.word.to_le_bytes();
        }
        self.at += (self.filled >> 3) as usize;
        self.word >>= self.filled & 56;
        self.filled &= 7;
    }

    /// The end mark, a bit of 1, and zeros up to the whole byte.
    pub(super) fn finish(mut self) {
        self.flush();
        self.add(1, 1);
        self.pad();
    }

    /// Zeros up to the whole byte.
    pub(super) fn pad(mut self) {
        self.flush();
        if self.filled > 0 {
            self.at += 1;
        }
        self.out.truncate(self.at);
    }
}
