//! The estimate of a block's size with a code of its own: IEEE single precision, in exactly this order.

use crate::deflate::block::Counts;
use crate::deflate::tables::*;

/// Whether a product and the sum it goes into are rounded once or twice.
///
/// Go's compiler fuses the two on some architectures (arm64, ppc64, s390x, riscv64). It hardly ever changes
/// the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// As amd64 does.
    #[default]
    Twice,
    /// Fused multiply and add.
    Fused,
}

impl Rounding {
    #[inline]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        match self {
            Self::Twice => a * b + c,
            Self::Fused => a.mul_add(b, c),
        }
    }

    /// Bits of a symbol of probability `p`.
    #[inline]
    fn cost(self, p: f32) -> f32 {
        (-self.log2(p)).clamp(1.0, 15.0)
    }

    /// An approximation of the binary logarithm.
    #[inline]
    fn log2(self, p: f32) -> f32 {
        const A: f32 = f32::from_bits(0xbeb0_8ff9);
        const B: f32 = f32::from_bits(0x4001_9420);
        const C: f32 = f32::from_bits(0x3f2c_c4c7);
        let bits = p.to_bits();
        let exponent = ((bits >> 23 & 255) as i32 - 128) as f32;
        let mantissa = f32::from_bits((bits & 0x807f_ffff) + 0x3f80_0000);
        exponent + self.mul_add(self.mul_add(A, mantissa, B), mantissa, -C)
    }

    /// The sum over `counts` of count times cost, added to `sum`.
    fn add_costs(self, mut sum: f32, counts: &[u32], inverse: f32) -> f32 {
        for &count in counts {
            if count > 0 {
                let count = count as f32;
                sum = self.mul_add(self.cost(count * inverse), count, sum);
            }
        }
        sum
    }
}

/// The estimated size in bits, without a header, of a block of `tokens` tokens.
///
/// `tokens` counts an end of block only if there is one among them. `counts` is of the tokens alone.
pub(super) fn estimate(counts: &Counts, tokens: usize, rounding: Rounding) -> u64 {
    if tokens == 0 {
        return 0;
    }
    let inverse = 1.0 / tokens as f32;
    let mut sum = rounding.add_costs(0.0, &counts.litlen[..END_OF_BLOCK], inverse);
    sum += 15.0;
    let lengths = &counts.litlen[FIRST_LENGTH..];
    sum = rounding.add_costs(sum, lengths, inverse);
    let matches: u32 = lengths.iter().sum();
    if matches > 0 {
        sum = rounding.add_costs(sum, &counts.distance, 1.0 / matches as f32);
    }
    sum as u64 + counts.extra_bits()
}
