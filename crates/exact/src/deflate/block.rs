//! What the block writers share: counts, the header of a dynamic block, sizes in bits, and tokens to bits.

use super::bits::BitWriter;
use super::huffman::PrefixCode;
use super::parse::CodeLengths;
use super::tables::*;
use super::token::Token;

/// The code of literals, lengths and the end of the block.
pub(crate) type LitLenCode = PrefixCode<LITLEN_SYMBOLS>;
/// The code of distances.
pub(crate) type DistanceCode = PrefixCode<DISTANCE_SYMBOLS>;

/// How often each symbol of a block occurs.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) litlen: [u32; LITLEN_SYMBOLS],
    pub(crate) distance: [u32; DISTANCE_SYMBOLS],
}

impl Counts {
    /// The counts of `tokens`, without an end of block.
    pub(crate) fn of_tokens(tokens: &[Token]) -> Self {
        let mut litlen = [0; 512];
        let mut distance = [0; 32];
        for token in tokens {
            if token.is_match() {
                litlen[FIRST_LENGTH + usize::from(LENGTH_SYMBOL[token.length_index()])] += 1;
                distance[distance_symbol(token.distance_index()) & 31] += 1;
            } else {
                litlen[usize::from(token.byte())] += 1;
            }
        }
        let mut counts = Self { litlen: [0; LITLEN_SYMBOLS], distance: [0; DISTANCE_SYMBOLS] };
        counts.litlen.copy_from_slice(&litlen[..LITLEN_SYMBOLS]);
        counts.distance.copy_from_slice(&distance[..DISTANCE_SYMBOLS]);
        counts
    }

    /// The counts of `raw` written as literals, without an end of block.
    pub(crate) fn of_bytes(raw: &[u8]) -> Self {
        let mut counts = Self { litlen: [0; LITLEN_SYMBOLS], distance: [0; DISTANCE_SYMBOLS] };
        for &byte in raw {
            counts.litlen[usize::from(byte)] += 1;
        }
        counts
    }

    /// The extra bits of all lengths and distances.
    pub(crate) fn extra_bits(&self) -> u64 {
        let lengths = self.litlen[FIRST_LENGTH..].iter().zip(&LENGTH_EXTRA);
        let distances = self.distance.iter().zip(&DISTANCE_EXTRA);
        lengths.chain(distances).map(|(&count, &extra)| u64::from(count) * u64::from(extra)).sum()
    }

    /// The bits of the symbols with the fixed codes, without block type and extra bits.
    pub(crate) fn fixed_size(&self) -> u64 {
        let litlen: u64 =
            self.litlen.iter().zip(&FIXED_LITLEN).map(|(&c, &l)| u64::from(c) * u64::from(l)).sum();
        let distance: u64 = self.distance.iter().map(|&c| u64::from(c)).sum();
        litlen + distance * u64::from(FIXED_DISTANCE_BITS)
    }

    /// How many literal/length lengths a header sends that stops at the last symbol in use, at least 257.
    pub(crate) fn used_litlen(&self) -> usize {
        self.litlen.iter().rposition(|&c| c > 0).map_or(0, |i| i + 1).max(FIRST_LENGTH)
    }

    /// How many distance lengths a header sends that stops at the last symbol in use, 0 if there is none.
    pub(crate) fn used_distance(&self) -> usize {
        self.distance.iter().rposition(|&c| c > 0).map_or(0, |i| i + 1)
    }
}

/// The header of a dynamic block: the code lengths of its two codes, run-length coded.
#[derive(Clone, Debug)]
pub(crate) struct DynamicHeader {
    litlen: usize,
    distance: usize,
    /// How many lengths of the code length code are sent.
    codelens: usize,
    /// Code length symbols with the value of their extra bits.
    runs: Vec<(u8, u8)>,
    code: PrefixCode<CODELEN_SYMBOLS>,
    /// The size of the header in bits, with the 3 bits of the block type.
    pub(crate) bits: u64,
}

/// The extra bits of code length symbols 16, 17 and 18.
const RUN_EXTRA: [u32; 3] = [2, 3, 7];

impl DynamicHeader {
    /// The header that sends these lengths; 257 to 286 and 1 to 30 of them.
    pub(crate) fn new(litlen: &[u8], distance: &[u8]) -> Self {
        let runs = code_length_runs(litlen, distance);
        let mut counts = [0u32; CODELEN_SYMBOLS];
        for &(symbol, _) in &runs {
            counts[usize::from(symbol)] += 1;
        }
        Self::with_code(litlen.len(), distance.len(), runs, PrefixCode::best(&counts, MAX_CODELEN_BITS))
    }

    /// The header that sends so many lengths as these runs, which are coded with `code`.
    pub(crate) fn with_code(
        litlen: usize,
        distance: usize,
        runs: Vec<(u8, u8)>,
        code: PrefixCode<CODELEN_SYMBOLS>,
    ) -> Self {
        let codelens = CODELEN_ORDER.iter().rposition(|&s| code.lengths[usize::from(s)] > 0);
        let codelens = codelens.map_or(4, |last| (last + 1).max(4));
        let size = |symbol: u8| {
            let i = usize::from(symbol);
            u64::from(code.lengths[i]) + RUN_EXTRA.get(i.wrapping_sub(16)).map_or(0, |&extra| extra.into())
        };
        let bits = 17 + 3 * codelens as u64 + runs.iter().map(|&(symbol, _)| size(symbol)).sum::<u64>();
        Self { litlen, distance, codelens, runs, code, bits }
    }

    /// The header as another writer made it.
    pub(crate) fn of(lengths: &CodeLengths) -> Self {
        let mut code = [0; CODELEN_SYMBOLS];
        for (&symbol, &length) in CODELEN_ORDER.iter().zip(&lengths.code_lengths) {
            code[usize::from(symbol)] = length;
        }
        let code = PrefixCode::canonical(code);
        let of = |&(symbol, _): &(u8, u8)| {
            let i = usize::from(symbol);
            u64::from(code.lengths[i]) + u64::from(i.checked_sub(16).map_or(0, |i| RUN_EXTRA[i]))
        };
        Self {
            litlen: lengths.litlen,
            distance: lengths.distance,
            codelens: lengths.code_lengths.len(),
            bits: 17 + 3 * lengths.code_lengths.len() as u64 + lengths.symbols.iter().map(of).sum::<u64>(),
            runs: lengths.symbols.clone(),
            code,
        }
    }

    /// Writes block type and header.
    pub(crate) fn write(&self, bits: &mut BitWriter, out: &mut Vec<u8>, is_final: bool) {
        bits.put(out, 4 + u32::from(is_final), 3);
        bits.put(out, (self.litlen - FIRST_LENGTH) as u32, 5);
        bits.put(out, (self.distance - 1) as u32, 5);
        bits.put(out, (self.codelens - 4) as u32, 4);
        for &symbol in &CODELEN_ORDER[..self.codelens] {
            bits.put(out, u32::from(self.code.lengths[usize::from(symbol)]), 3);
        }
        for &(symbol, extra) in &self.runs {
            let i = usize::from(symbol);
            bits.put(out, u32::from(self.code.codes[i]), u32::from(self.code.lengths[i]));
            if i >= 16 {
                bits.put(out, u32::from(extra), RUN_EXTRA[i - 16]);
            }
        }
    }
}

/// The run-length coded code lengths. Runs cross the border between the two codes.
fn code_length_runs(litlen: &[u8], distance: &[u8]) -> Vec<(u8, u8)> {
    let mut runs = Vec::with_capacity(litlen.len() + distance.len());
    let mut all = litlen.iter().chain(distance).copied().peekable();
    while let Some(value) = all.next() {
        let mut count = 1;
        while all.next_if_eq(&value).is_some() {
            count += 1;
        }
        if value != 0 {
            runs.push((value, 0));
            count -= 1;
            while count >= 3 {
                let k = count.min(6);
                runs.push((16, (k - 3) as u8));
                count -= k;
            }
        } else {
            while count >= 11 {
                let k = count.min(138);
                runs.push((18, (k - 11) as u8));
                count -= k;
            }
            if count >= 3 {
                runs.push((17, (count - 3) as u8));
                count = 0;
            }
        }
        runs.extend(std::iter::repeat_n((value, 0), count));
    }
    runs
}

/// Writes `tokens` with the two codes, without an end of block. Symbols must have codes.
pub(crate) fn write_tokens(
    bits: &mut BitWriter,
    out: &mut Vec<u8>,
    tokens: &[Token],
    litlen: &LitLenCode,
    distance: &DistanceCode,
) {
    let lengths = length_words(litlen);
    let literals: [Word; 256] = std::array::from_fn(|i| Word::new(litlen.codes[i].into(), litlen.lengths[i]));
    let distances: [DistanceWord; 32] = std::array::from_fn(|i| DistanceWord::new(distance, i));
    for &token in tokens {
        if !token.is_match() {
            literals[usize::from(token.byte())].put(bits, out);
            continue;
        }
        if token.is_long_form() {
            // Symbol 284 with all its extra bits set.
            let code = u32::from(litlen.codes[284]) | 31 << litlen.lengths[284];
            Word::new(code, litlen.lengths[284] + 5).put(bits, out);
        } else {
            lengths[token.length_index()].put(bits, out);
        }
        let word = distances[distance_symbol(token.distance_index()) & 31];
        let extra = u32::from(token.distance_index() as u16 - word.base);
        bits.put(out, u32::from(word.code) | extra << word.length, u32::from(word.length + word.extra));
    }
}

/// Writes the symbol that ends a block.
pub(crate) fn write_end_of_block(bits: &mut BitWriter, out: &mut Vec<u8>, litlen: &LitLenCode) {
    bits.put(out, litlen.codes[END_OF_BLOCK].into(), litlen.lengths[END_OF_BLOCK].into());
}

/// Writes `raw` as literals, without an end of block.
pub(crate) fn write_literals(bits: &mut BitWriter, out: &mut Vec<u8>, raw: &[u8], litlen: &LitLenCode) {
    for &byte in raw {
        let i = usize::from(byte);
        bits.put(out, litlen.codes[i].into(), litlen.lengths[i].into());
    }
}

/// The two fixed codes.
pub(crate) fn fixed_codes() -> (LitLenCode, DistanceCode) {
    // Symbols 286 and 287 are never sent, but stand before the codes of 9 bits.
    let mut lengths = [8; 288];
    lengths[..LITLEN_SYMBOLS].copy_from_slice(&FIXED_LITLEN);
    let all = PrefixCode::canonical(lengths);
    let litlen = LitLenCode { lengths: FIXED_LITLEN, codes: std::array::from_fn(|i| all.codes[i]) };
    (litlen, PrefixCode::canonical([FIXED_DISTANCE_BITS; DISTANCE_SYMBOLS]))
}

/// Up to 24 bits to send, and above them their number.
#[derive(Clone, Copy)]
struct Word(u32);

impl Word {
    const fn new(bits: u32, count: u8) -> Self {
        Self(bits | (count as u32) << 24)
    }

    #[inline]
    fn put(self, bits: &mut BitWriter, out: &mut Vec<u8>) {
        bits.put(out, self.0 & 0xff_ffff, self.0 >> 24);
    }
}

/// What is sent for each length less 3: its symbol's code and the extra bits.
fn length_words(litlen: &LitLenCode) -> [Word; 256] {
    std::array::from_fn(|i| {
        let symbol = usize::from(LENGTH_SYMBOL[i]);
        let (code, length) = (litlen.codes[FIRST_LENGTH + symbol], litlen.lengths[FIRST_LENGTH + symbol]);
        let extra = i as u32 - u32::from(LENGTH_BASE[symbol]);
        Word::new(u32::from(code) | extra << length, length + LENGTH_EXTRA[symbol])
    })
}

/// What is sent for a distance symbol, and how to find its extra bits.
#[derive(Clone, Copy)]
struct DistanceWord {
    code: u16,
    base: u16,
    length: u8,
    extra: u8,
}

impl DistanceWord {
    fn new(code: &DistanceCode, symbol: usize) -> Self {
        let i = symbol.min(DISTANCE_SYMBOLS - 1);
        Self {
            code: code.codes[i],
            base: DISTANCE_BASE[i],
            length: code.lengths[i],
            extra: DISTANCE_EXTRA[i],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_the_rules_of_the_writer() {
        let runs = code_length_runs(&[0; 139], &[]);
        assert_eq!(runs, [(18, 127), (0, 0)]);
        let runs = code_length_runs(&[5; 4], &[5; 4]);
        assert_eq!(runs, [(5, 0), (16, 3), (5, 0)]);
        let runs = code_length_runs(&[1, 0, 0, 0], &[0, 2]);
        assert_eq!(runs, [(1, 0), (17, 1), (2, 0)]);
    }

    #[test]
    fn fixed_codes_are_those_of_the_rfc() {
        let (litlen, distance) = fixed_codes();
        assert_eq!(litlen.codes[0], 0b0000_1100);
        assert_eq!(litlen.codes[144], 0b0_0001_0011);
        assert_eq!(litlen.codes[256], 0);
        assert_eq!(litlen.codes[280], 0b0000_0011);
        assert_eq!(distance.codes[1], 0b10000);
    }
}
