//! Prefix codes and tokens.

use super::input::BitReader;
use super::{CodeLengths, ParseError};
use crate::deflate::huffman::PrefixCode;
use crate::deflate::tables::*;
use crate::deflate::token::Token;

/// Symbols that a table can tell apart: those of the fixed literal/length code.
const MAX_SYMBOLS: usize = 288;
/// Codes up to so many bits are found with one look.
const ROOT_BITS: u32 = 10;

/// A table to decode one prefix code.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// By the next bits: a symbol and the length of its code, which is 0 if it is longer than the index.
    root: Vec<(u16, u8)>,
    /// The longer codes, ascending as numbers read the first bit highest, with length and symbol.
    long: Vec<(u16, u8, u16)>,
}

impl Table {
    /// For codes of these lengths, at most `limit` bits.
    pub(super) fn new(lengths: &[u8], limit: usize) -> Result<Self, ParseError> {
        let mut padded = [0; MAX_SYMBOLS];
        let count = lengths.len().min(MAX_SYMBOLS);
        padded[..count].copy_from_slice(&lengths[..count]);
        check(&padded, limit)?;
        let code = PrefixCode::canonical(padded);
        let mut root = vec![(0, 0); 1 << ROOT_BITS];
        let mut long = Vec::new();
        for (symbol, (&bits, &length)) in code.codes.iter().zip(&code.lengths).enumerate() {
            if length == 0 {
                continue;
            }
            if u32::from(length) <= ROOT_BITS {
                for slot in root[usize::from(bits)..].iter_mut().step_by(1 << length) {
                    *slot = (symbol as u16, length);
                }
            } else {
                long.push((bits.reverse_bits(), length, symbol as u16));
            }
        }
        long.sort_unstable();
        Ok(Self { root, long })
    }

    /// The next symbol and the length of its code. `None`: more of the `there` bits are needed.
    #[inline]
    pub(super) fn decode(&self, bits: u64, there: u32) -> Result<Option<(usize, u32)>, ParseError> {
        let (symbol, length) = self.root[bits as usize & ((1 << ROOT_BITS) - 1)];
        if length > 0 && u32::from(length) <= there {
            return Ok(Some((usize::from(symbol), u32::from(length))));
        }
        if length > 0 {
            return Ok(None);
        }
        self.decode_long(bits, there)
    }

    #[cold]
    fn decode_long(&self, bits: u64, there: u32) -> Result<Option<(usize, u32)>, ParseError> {
        let ahead = (bits as u16).reverse_bits();
        let next = self.long.partition_point(|&(code, ..)| code <= ahead);
        let found = next.checked_sub(1).and_then(|i| self.long.get(i));
        match found {
            Some(&(code, length, symbol)) if (code ^ ahead) >> (16 - length) == 0 => {
                let length = u32::from(length);
                Ok((length <= there).then_some((usize::from(symbol), length)))
            }
            // Zeros stand for bits still to come: only with all of them is it sure.
            _ if there < MAX_CODE_BITS as u32 => Ok(None),
            _ => Err(ParseError::NoSuchCode),
        }
    }
}

/// Whether lengths make a code: a complete one, one of a single bit, or one without symbols.
fn check(lengths: &[u8], limit: usize) -> Result<(), ParseError> {
    let mut used = 0u32;
    let mut symbols = 0;
    for &length in lengths.iter().filter(|&&length| length > 0) {
        if usize::from(length) > limit {
            return Err(ParseError::CodeLengths);
        }
        symbols += 1;
        used += 1 << (MAX_CODE_BITS - usize::from(length));
    }
    let is_single_bit = symbols == 1 && used == 1 << (MAX_CODE_BITS - 1);
    if symbols == 0 || is_single_bit || used == 1 << MAX_CODE_BITS {
        Ok(())
    } else {
        Err(ParseError::CodeLengths)
    }
}

/// The codes of a block.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    codes: Option<(Table, Table)>,
}

impl Decoder {
    pub(super) fn set_fixed(&mut self) -> Result<(), ParseError> {
        let mut litlen = [8; MAX_SYMBOLS];
        litlen[..LITLEN_SYMBOLS].copy_from_slice(&FIXED_LITLEN);
        // Distances 30 and 31 have codes, too, and are no distances.
        let distance = [FIXED_DISTANCE_BITS; 32];
        self.set(&litlen, &distance)
    }

    pub(super) fn set_dynamic(&mut self, lengths: &CodeLengths) -> Result<(), ParseError> {
        let (litlen, distance) = lengths.lengths.split_at(lengths.litlen.min(lengths.lengths.len()));
        self.set(litlen, distance)
    }

    fn set(&mut self, litlen: &[u8], distance: &[u8]) -> Result<(), ParseError> {
        let table = |lengths| Table::new(lengths, MAX_CODE_BITS);
        self.codes = Some((table(litlen)?, table(distance)?));
        Ok(())
    }

    /// The next symbol, with its token unless it ends the block. `None`: more input is needed.
    #[inline]
    pub(super) fn next(&self, input: &mut BitReader) -> Result<Option<(usize, Token)>, ParseError> {
        let Some((litlen, distance)) = &self.codes else { return Err(ParseError::NoSuchCode) };
        let (bits, there) = input.peek();
        let Some((symbol, used)) = litlen.decode(bits, there)? else { return Ok(None) };
        if symbol <= END_OF_BLOCK {
            input.consume(used);
            return Ok(Some((symbol, Token::literal(symbol as u8))));
        }
        let (Some(&extra), Some(&base)) =
            (LENGTH_EXTRA.get(symbol - FIRST_LENGTH), LENGTH_BASE.get(symbol - FIRST_LENGTH))
        else {
            return Err(ParseError::NoSuchCode);
        };
        let length = usize::from(base) + low(bits >> used, extra);
        let used = used + u32::from(extra);
        if used > there {
            return Ok(None);
        }
        let Some((far, more)) = distance.decode(bits >> used, there - used)? else { return Ok(None) };
        let (Some(&extra), Some(&base)) = (DISTANCE_EXTRA.get(far), DISTANCE_BASE.get(far)) else {
            return Err(ParseError::NoSuchCode);
        };
        let used = used + more;
        let back = usize::from(base) + low(bits >> used, extra) + 1;
        let used = used + u32::from(extra);
        if used > there {
            return Ok(None);
        }
        input.consume(used);
        let token = if length == 255 && symbol == FIRST_LENGTH + 27 {
            Token::copy_258_long_form(back)
        } else {
            Token::copy(length + Token::MIN_MATCH, back)
        };
        Ok(Some((symbol, token)))
    }
}

/// The low `count` bits.
#[inline]
fn low(bits: u64, count: u8) -> usize {
    bits as usize & ((1 << count) - 1)
}
