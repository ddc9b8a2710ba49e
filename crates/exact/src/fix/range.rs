//! A binary range coder whose chances adapt, and numbers, symbols and bytes on top of it.
//!
//! What is modelled is written once, for both ways: an encoder writes the value that it is given and gives it
//! back; a decoder ignores what it is given, and gives what it reads.

/// The chance of a one, in 65,536ths, and how often it was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    one: u16,
    seen: u16,
}

impl Default for Chance {
    fn default() -> Self {
        Self { one: 1 << 15, seen: 0 }
    }
}

impl Chance {
    /// Of a one that is expected in so many of 256 cases.
    pub(crate) const fn of(cases: u8) -> Self {
        Self { one: (cases as u16) << 8, seen: SEEN_BEFORE }
    }

    /// What is mostly so.
    pub(crate) const LIKELY: Self = Self::of(236);
    /// What is seldom so.
    pub(crate) const UNLIKELY: Self = Self::of(20);
}

/// What was expected weighs as much as so many bits that were seen.
const SEEN_BEFORE: u16 = 1;
/// Chances follow the last so many bits at least.
const MEMORY: u16 = 120;
/// No bit is surer than this many 65,536ths.
const SUREST: i32 = 24;

impl Chance {
    fn learn(&mut self, bit: bool) {
        let target = if bit { (1 << 16) - SUREST } else { SUREST };
        let one = i32::from(self.one);
        self.one = (one + (target - one) * 2 / (2 * i32::from(self.seen) + 3)) as u16;
        self.seen = (self.seen + 1).min(MEMORY);
    }
}

/// One direction of the coder.
pub(crate) trait Coder {
    /// Codes one bit.
    fn bit(&mut self, chance: &mut Chance, bit: bool) -> bool;

    /// Codes a symbol of `chances.len()` values, a power of two.
    fn symbol(&mut self, chances: &mut [Chance], symbol: usize) -> usize {
        let mut top = chances.len() / 2;
        let mut node = 1;
        while top > 0 {
            let bit = self.bit(&mut chances[node], symbol & top != 0);
            node = 2 * node + usize::from(bit);
            top /= 2;
        }
        node - chances.len()
    }

    /// Codes a number.
    fn number(&mut self, model: &mut Number, number: u64) -> u64 {
        let bits = self.symbol(&mut model.bits, (u64::BITS - number.leading_zeros()) as usize & 63);
        let mut value = u64::from(bits > 0);
        for at in (0..bits.saturating_sub(1)).rev() {
            // The bits behind the highest ones are as good as noise.
            let below = bits - 2 - at;
            let context =
                if below < 3 { bits * 8 + (value as usize & ((1 << below) - 1)) + (1 << below) } else { 0 };
            let bit = self.bit(&mut model.rest[context], number >> at & 1 != 0);
            value = value << 1 | u64::from(bit);
        }
        value
    }
}

/// How numbers below 2^63 are spread.
#[derive(Clone, Debug)]
pub(crate) struct Number {
    bits: [Chance; 64],
    rest: Box<[Chance]>,
}

impl Default for Number {
    fn default() -> Self {
        Self { bits: [Chance::default(); 64], rest: vec![Chance::default(); 512].into() }
    }
}

/// The interval that is left, both ends included.
#[derive(Clone, Copy, Debug)]
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    const ALL: Self = Self { low: 0, high: u32::MAX };

    /// The last position of the part that stands for a one.
    fn split(self, chance: Chance) -> u32 {
        let width = u64::from(self.high - self.low);
        self.low + ((width * u64::from(chance.one)) >> 16) as u32
    }

    fn take(&mut self, split: u32, bit: bool) {
        if bit {
            self.high = split;
        } else {
            self.low = split + 1;
        }
    }

    /// Drops the highest byte if it is known.
    fn shift(&mut self) -> Option<u8> {
        if (self.low ^ self.high) >> 24 != 0 {
            return None;
        }
        let byte = (self.high >> 24) as u8;
        self.low <<= 8;
        self.high = self.high << 8 | 0xff;
        Some(byte)
    }
}

/// The writing direction.
#[derive(Debug)]
pub(crate) struct Encoder {
    left: Interval,
    out: Vec<u8>,
}

impl Encoder {
    /// Appends to what is there.
    pub(crate) fn new(out: Vec<u8>) -> Self {
        Self { left: Interval::ALL, out }
    }

    /// How many bytes there are, without the last few.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Ends the bytes with as few more as are needed.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let Interval { low, high } = self.left;
        for count in 0..=4u32 {
            let end = high & u32::MAX.checked_shl(32 - 8 * count).unwrap_or(0);
            if end >= low {
                self.out.extend_from_slice(&end.to_be_bytes()[..count as usize]);
                break;
            }
        }
        self.out
    }
}

impl Coder for Encoder {
    fn bit(&mut self, chance: &mut Chance, bit: bool) -> bool {
        let split = self.left.split(*chance);
        self.left.take(split, bit);
        chance.learn(bit);
        while let Some(byte) = self.left.shift() {
            self.out.push(byte);
        }
        bit
    }
}

/// The reading direction. Behind the last byte it reads zeros, of which four are as it should be.
#[derive(Debug)]
pub(crate) struct Decoder {
    left: Interval,
    value: u32,
    bytes: Vec<u8>,
    next: usize,
}

impl Decoder {
    /// Reads from the position `start` on.
    pub(crate) fn new(bytes: Vec<u8>, start: usize) -> Self {
        let mut decoder = Self { left: Interval::ALL, value: 0, bytes, next: start };
        (0..4).for_each(|_| decoder.take_byte());
        decoder
    }

    fn take_byte(&mut self) {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.value = self.value << 8 | u32::from(byte);
        self.next = self.next.saturating_add(1);
    }

    /// Whether more was read than there is.
    pub(crate) fn is_beyond_end(&self) -> bool {
        self.next > self.bytes.len() + 4
    }

    /// Whether all was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.next >= self.bytes.len()
    }
}

impl Coder for Decoder {
    fn bit(&mut self, chance: &mut Chance, _: bool) -> bool {
        let split = self.left.split(*chance);
        let bit = self.value <= split;
        self.left.take(split, bit);
        chance.learn(bit);
        while self.left.shift().is_some() {
            self.take_byte();
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(coder: &mut impl Coder, values: &[u64]) -> Vec<u64> {
        let (mut number, mut symbols) = (Number::default(), [Chance::default(); 16]);
        let value = |&value: &u64| {
            let symbol = coder.symbol(&mut symbols, value as usize & 15);
            coder.number(&mut number, value & !15) | symbol as u64
        };
        values.iter().map(value).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec(
            (0u64..1 << 62, 0u32..62).prop_map(|(value, shift)| value >> shift), 0..200)) {
            let mut encoder = Encoder::new(vec![7]);
            code(&mut encoder, &values);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(bytes.clone(), 1);
            prop_assert_eq!(code(&mut decoder, &values.iter().map(|_| 0).collect::<Vec<_>>()), values);
            prop_assert!(decoder.is_at_end() && !decoder.is_beyond_end());
        }
    }

    #[test]
    fn what_is_always_the_same_takes_hardly_any_bytes() {
        let mut encoder = Encoder::new(Vec::new());
        code(&mut encoder, &[77; 10_000]);
        assert!(encoder.finish().len() < 300);
    }

    #[test]
    fn a_decoder_knows_that_it_reads_beyond_the_end() {
        let mut decoder = Decoder::new(vec![1, 2, 3], 0);
        (0..200).for_each(|_| {
            decoder.bit(&mut Chance::default(), false);
        });
        assert!(decoder.is_beyond_end());
    }
}
