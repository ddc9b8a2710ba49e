//! Writing bits, the lowest first.

/// Collects bits into bytes, and appends whole words of them to a buffer that the caller owns.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    /// Bits not yet written, the oldest lowest; the rest is zero.
    held: u64,
    /// How many bits are held: below 32 between calls.
    count: u32,
}

impl BitWriter {
    /// A writer at a byte border.
    pub(crate) const fn new() -> Self {
        Self { held: 0, count: 0 }
    }

    /// Writes the low `count` bits (at most 32) of `bits`, whose higher bits must be zero.
    #[inline]
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, bits: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(bits) >> count == 0, "{bits:#x} in {count} bits");
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// How many bits are not yet whole bytes.
    pub(crate) const fn odd(&self) -> u32 {
        self.count % 8
    }

    /// Pads with zero bits to the byte border, and hands on all that is held.
    pub(crate) fn align(&mut self, out: &mut Vec<u8>) {
        let bytes = self.count.div_ceil(8) as usize;
        out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
        *self = Self::new();
    }

    /// Writes one stored block. Only the first 65,535 bytes of `raw` fit.
    pub(crate) fn stored(&mut self, out: &mut Vec<u8>, raw: &[u8], is_final: bool) {
        debug_assert!(raw.len() <= super::tables::MAX_STORED);
        let length = raw.len().min(super::tables::MAX_STORED);
        self.put(out, u32::from(is_final), 3);
        self.align(out);
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&(!(length as u16)).to_le_bytes());
        out.extend_from_slice(&raw[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_bits_come_first() {
        let mut out = Vec::new();
        let mut bits = BitWriter::new();
        bits.put(&mut out, 0b1, 1);
        bits.put(&mut out, 0b10, 2);
        bits.put(&mut out, 0xffff_ffff, 32);
        bits.align(&mut out);
        assert_eq!(out, [0xfd, 0xff, 0xff, 0xff, 0x07]);
    }

    #[test]
    fn an_empty_final_stored_block() {
        let mut out = Vec::new();
        BitWriter::new().stored(&mut out, &[], true);
        assert_eq!(out, [1, 0, 0, 0xff, 0xff]);
    }
}
