//! The header of a block.

use super::decode::Table;
use super::input::BitReader;
use super::{BlockKind, CodeLengths, ParseError};
use crate::deflate::tables::{
    CODELEN_ORDER, CODELEN_SYMBOLS, DISTANCE_SYMBOLS, END_OF_BLOCK, FIRST_LENGTH, LITLEN_SYMBOLS,
    MAX_CODELEN_BITS,
};

/// A header that is read as its bits come.
#[derive(Debug)]
pub(super) struct HeaderParser {
    start: u64,
    is_final: bool,
    stage: Stage,
    lengths: CodeLengths,
}

#[derive(Debug)]
enum Stage {
    Type,
    Padding,
    StoredLength { padding: u8 },
    Counts,
    CodeLengthCode { count: usize },
    Lengths(Box<Table>),
}

impl HeaderParser {
    /// For a block that begins `start` bits into the stream.
    pub(super) fn new(start: u64) -> Self {
        Self { start, is_final: false, stage: Stage::Type, lengths: CodeLengths::default() }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Goes on reading. `None`: more input is needed.
    pub(super) fn parse(&mut self, input: &mut BitReader) -> Result<Option<(bool, BlockKind)>, ParseError> {
        loop {
            let next = match &self.stage {
                Stage::Type => {
                    let Some(bits) = input.take(3) else { return Ok(None) };
                    self.is_final = bits & 1 != 0;
                    match bits >> 1 {
                        0 => Stage::Padding,
                        1 => return Ok(Some((self.is_final, BlockKind::Fixed))),
                        2 => Stage::Counts,
                        _ => return Err(ParseError::BlockType),
                    }
                }
                Stage::Padding => {
                    let padding = input.take(input.to_border()).unwrap_or_default() as u8;
                    Stage::StoredLength { padding }
                }
                Stage::StoredLength { padding } => {
                    let Some(bits) = input.take(32) else { return Ok(None) };
                    let length = bits as u16;
                    if length != !((bits >> 16) as u16) {
                        return Err(ParseError::StoredLength);
                    }
                    return Ok(Some((self.is_final, BlockKind::Stored { length, padding: *padding })));
                }
                Stage::Counts => {
                    let Some(bits) = input.take(14) else { return Ok(None) };
                    self.lengths.litlen = FIRST_LENGTH + (bits & 31) as usize;
                    self.lengths.distance = 1 + (bits >> 5 & 31) as usize;
                    if self.lengths.litlen > LITLEN_SYMBOLS || self.lengths.distance > DISTANCE_SYMBOLS {
                        return Err(ParseError::SymbolCount);
                    }
                    Stage::CodeLengthCode { count: 4 + (bits >> 10) as usize }
                }
                Stage::CodeLengthCode { count } => {
                    while self.lengths.code_lengths.len() < *count {
                        let Some(bits) = input.take(3) else { return Ok(None) };
                        self.lengths.code_lengths.push(bits as u8);
                    }
                    let mut lengths = [0; CODELEN_SYMBOLS];
                    for (&symbol, &length) in CODELEN_ORDER.iter().zip(&self.lengths.code_lengths) {
                        lengths[usize::from(symbol)] = length;
                    }
                    Stage::Lengths(Box::new(Table::new(&lengths, MAX_CODELEN_BITS)?))
                }
                Stage::Lengths(table) => {
                    return Ok(if read_lengths(table, &mut self.lengths, input)? {
                        Some((self.is_final, BlockKind::Dynamic(std::mem::take(&mut self.lengths))))
                    } else {
                        None
                    });
                }
            };
            self.stage = next;
        }
    }
}

/// Reads code lengths. Returns whether all of them are there.
fn read_lengths(table: &Table, into: &mut CodeLengths, input: &mut BitReader) -> Result<bool, ParseError> {
    let wanted = into.litlen + into.distance;
    while into.lengths.len() < wanted {
        let (bits, there) = input.peek();
        let Some((symbol, used)) = table.decode(bits, there)? else { return Ok(false) };
        let (extra_bits, least) = match symbol {
            16 => (2, 3),
            17 => (3, 3),
            18 => (7, 11),
            _ => (0, 1),
        };
        if used + extra_bits > there {
            return Ok(false);
        }
        let extra = (bits >> used) as u8 & ((1 << extra_bits) - 1);
        let repeated = match symbol {
            16 => *into.lengths.last().ok_or(ParseError::Repeat)?,
            17 | 18 => 0,
            length => length as u8,
        };
        let count = least + usize::from(extra);
        if into.lengths.len() + count > wanted {
            return Err(ParseError::Repeat);
        }
        into.lengths.resize(into.lengths.len() + count, repeated);
        into.symbols.push((symbol as u8, extra));
        input.consume(used + extra_bits);
    }
    if into.lengths[END_OF_BLOCK] == 0 {
        return Err(ParseError::NoEndOfBlock);
    }
    Ok(true)
}
