//! The fixed tables of RFC 1951.

/// Symbols of the literal/length code that an encoder uses (286 and 287 exist in the fixed code only).
pub(crate) const LITLEN_SYMBOLS: usize = 286;
/// Symbols of the distance code.
pub(crate) const DISTANCE_SYMBOLS: usize = 30;
/// Symbols of the code length code.
pub(crate) const CODELEN_SYMBOLS: usize = 19;
/// The symbol that ends a block.
pub(crate) const END_OF_BLOCK: usize = 256;
/// The symbol of the shortest match.
pub(crate) const FIRST_LENGTH: usize = 257;
/// The most bits of a literal/length or distance code.
pub(crate) const MAX_CODE_BITS: usize = 15;
/// The most bits of a code length code.
pub(crate) const MAX_CODELEN_BITS: usize = 7;
/// The most bytes a stored block can hold.
pub(crate) const MAX_STORED: usize = 65_535;

/// The order in which the lengths of the code length code are sent.
pub(crate) const CODELEN_ORDER: [u8; CODELEN_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The extra bits of the length symbols, from symbol 257 on.
pub(crate) const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// The shortest length of the length symbols, less 3, from symbol 257 on.
pub(crate) const LENGTH_BASE: [u8; 29] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192,
    224, 255,
];

/// The extra bits of the distance symbols.
pub(crate) const DISTANCE_EXTRA: [u8; DISTANCE_SYMBOLS] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// The shortest distance of the distance symbols, less 1.
pub(crate) const DISTANCE_BASE: [u16; DISTANCE_SYMBOLS] = [
    0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072,
    4096, 6144, 8192, 12288, 16384, 24576,
];

/// The length symbol, less 257, of a length less 3. Length 258 is symbol 285.
pub(crate) const LENGTH_SYMBOL: [u8; 256] = {
    let mut table = [0; 256];
    let mut symbol = 0;
    while symbol < 29 {
        let mut i = LENGTH_BASE[symbol] as usize;
        while i < 256 {
            table[i] = symbol as u8;
            i += 1;
        }
        symbol += 1;
    }
    table
};

/// The distance symbol of a distance less 1: below 256 as it is, from 256 on by its high bits.
const DISTANCE_SYMBOL: [u8; 512] = {
    let mut table = [0; 512];
    let mut symbol = 0;
    while symbol < DISTANCE_SYMBOLS {
        let base = DISTANCE_BASE[symbol] as usize;
        let mut i = if base < 256 { base } else { 256 + (base >> 7) };
        // Later symbols overwrite the rest; symbols of 256 and more leave the lower half alone.
        while i < if base < 256 { 256 } else { 512 } {
            table[i] = symbol as u8;
            i += 1;
        }
        symbol += 1;
    }
    table
};

/// The distance symbol of a distance less 1 (0 to 32,767).
#[inline]
pub(crate) const fn distance_symbol(distance_index: usize) -> usize {
    let i = if distance_index < 256 { distance_index } else { 256 + (distance_index >> 7) };
    DISTANCE_SYMBOL[i & 511] as usize
}

/// The code lengths of the fixed literal/length code, without symbols 286 and 287.
pub(crate) const FIXED_LITLEN: [u8; LITLEN_SYMBOLS] = {
    let mut lengths = [8; LITLEN_SYMBOLS];
    let mut i = 144;
    while i < 280 {
        lengths[i] = if i < 256 { 9 } else { 7 };
        i += 1;
    }
    lengths
};

/// The code length of every distance symbol of the fixed code.
pub(crate) const FIXED_DISTANCE_BITS: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_cover_their_ranges() {
        for (i, &symbol) in LENGTH_SYMBOL.iter().enumerate() {
            let symbol = usize::from(symbol);
            let extra = i - usize::from(LENGTH_BASE[symbol]);
            assert!(extra < 1 << LENGTH_EXTRA[symbol], "length {i}");
        }
        for i in 0..32_768 {
            let symbol = distance_symbol(i);
            let extra = i - usize::from(DISTANCE_BASE[symbol]);
            assert!(extra < 1 << DISTANCE_EXTRA[symbol], "distance {i}");
        }
    }
}
