//! The sequences section of a block.

use super::bits::BitWriter;
use super::fse::{self, State, Table};
use super::words::log2;

/// Literals, then a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The bytes before the match that are written as they are.
    pub(super) literals: u32,
    /// The bytes of the match, less [`MIN_MATCH`].
    pub(super) length: u32,
    /// The distance of the match plus 3, or 1 for that of an earlier match.
    pub(super) offset: u32,
}

/// What a match is longer by than its length in the stream.
pub(super) const MIN_MATCH: usize = 3;
/// The largest table for a block.
const TABLE_LOG: u32 = 8;
/// The most bits a sequence takes: the moves of three states, and what is added to three codes.
const SEQUENCE_BYTES: usize = 12;

/// The codes of the three fields of a sequence: literals, offset, match.
type Codes = [u8; 3];
const FIELDS: usize = 3;
const LITERALS: usize = 0;
const OFFSET: usize = 1;
const MATCH: usize = 2;

/// What is remembered of sequences from block to block.
#[derive(Debug)]
pub(super) struct Sequences {
    predefined: [Table; FIELDS],
    previous: [Option<Box<Table>>; FIELDS],
    /// What becomes of `previous` if the block is accepted.
    next: [Mode; FIELDS],
    codes: Vec<Codes>,
}

/// How the codes of a field are written.
#[derive(Debug, Default)]
enum Mode {
    #[default]
    Predefined,
    /// All are this one.
    Run(u8),
    New(Box<Table>),
    Repeat,
}

impl Sequences {
    pub(super) fn new() -> Self {
        Self {
            predefined: predefined().map(|(norm, log)| Table::new(norm, log)),
            previous: [None, None, None],
            next: Default::default(),
            codes: Vec::new(),
        }
    }

    /// Appends the section. Nothing if a table can't be made; `out` may have grown then.
    pub(super) fn write(&mut self, sequences: &[Sequence], out: &mut Vec<u8>) -> Option<()> {
        count(sequences.len(), out);
        let counts = self.code(sequences);
        let modes_at = out.len();
        out.push(0);
        for (field, counts) in counts.iter().enumerate() {
            let mode = self.choose(field, counts, sequences.len() as u32)?;
            let number = match &mode {
                Mode::Predefined => 0,
                Mode::Run(code) => {
                    out.push(*code);
                    1
                }
                Mode::New(table) => {
                    fse::describe(&table.norm, table.log(), out);
                    2
                }
                Mode::Repeat => 3,
            };
            out[modes_at] |= number << (6 - 2 * field);
            self.next[field] = mode;
        }
        self.stream(sequences, out);
        Some(())
    }

    /// The block was taken: its tables are known to the decoder.
    pub(super) fn accept(&mut self) {
        for (previous, next) in self.previous.iter_mut().zip(&mut self.next) {
            match std::mem::take(next) {
                // The original never repeats a predefined table, and can't repeat a run.
                Mode::Predefined | Mode::Run(_) => *previous = None,
                Mode::New(table) => *previous = Some(table),
                Mode::Repeat => {}
            }
        }
    }

    /// Finds the codes, and counts them by field.
    fn code(&mut self, sequences: &[Sequence]) -> [[u32; 64]; FIELDS] {
        let mut counts = [[0u32; 64]; FIELDS];
        self.codes.clear();
        self.codes.extend(sequences.iter().map(|sequence| {
            let codes =
                [literals_code(sequence.literals), log2(sequence.offset) as u8, match_code(sequence.length)];
            for (counts, &code) in counts.iter_mut().zip(&codes) {
                counts[usize::from(code & 63)] += 1;
            }
            codes
        }));
        counts
    }

    fn choose(&self, field: usize, counts: &[u32; 64], total: u32) -> Option<Mode> {
        let highest = counts.iter().rposition(|count| *count > 0)?;
        let counts = &counts[..=highest];
        if counts[highest] == total {
            return Some(Mode::Run(highest as u8));
        }
        let symbols = counts.len() as u32;
        let log = fse::table_log(TABLE_LOG, total, total, highest as u32);
        let table = Table::new(fse::normalise(counts, log)?, log);
        // All sums wrap in the original, too.
        let described = (((symbols * log) >> 3) + 3) * 8;
        let new = table.cost(counts).wrapping_add(described);
        let new = new.wrapping_add(new.wrapping_add(256) >> 4);
        let old = self.previous[field].as_ref().map_or(fse::IMPOSSIBLE, |table| table.cost(counts));
        let predefined = self.predefined[field].cost(counts);
        Some(if predefined <= old && predefined <= new {
            Mode::Predefined
        } else if old <= new {
            Mode::Repeat
        } else {
            Mode::New(Box::new(table))
        })
    }

    /// The table that a field is encoded with; none if all its codes are the same.
    fn table(&self, field: usize) -> Option<&Table> {
        match &self.next[field] {
            Mode::Predefined => Some(&self.predefined[field]),
            Mode::New(table) => Some(table),
            Mode::Repeat => self.previous[field].as_deref(),
            Mode::Run(_) => None,
        }
    }

    fn stream(&self, sequences: &[Sequence], out: &mut Vec<u8>) {
        let Some((&last, earlier)) = self.codes.split_last() else { return };
        let mut fields: [Field<'_>; FIELDS] =
            std::array::from_fn(|field| Field::new(self.table(field), last[field]));
        let mut bits = BitWriter::new(out, sequences.len() * SEQUENCE_BYTES + 8);
        if let Some(sequence) = sequences.last() {
            extra(sequence, last, &mut bits);
        }
        for (sequence, codes) in sequences[..earlier.len()].iter().zip(earlier).rev() {
            fields[OFFSET].encode(codes[OFFSET], &mut bits);
            fields[MATCH].encode(codes[MATCH], &mut bits);
            fields[LITERALS].encode(codes[LITERALS], &mut bits);
            bits.flush();
            extra(sequence, *codes, &mut bits);
        }
        for field in [MATCH, OFFSET, LITERALS] {
            fields[field].end(&mut bits);
        }
        bits.finish();
    }
}

/// A field in the making.
struct Field<'a> {
    encoder: Option<(&'a Table, State)>,
}

impl<'a> Field<'a> {
    fn new(table: Option<&'a Table>, first: u8) -> Self {
        Self { encoder: table.map(|table| (table, table.start(first))) }
    }

    #[inline(always)]
    fn encode(&mut self, code: u8, out: &mut BitWriter<'_>) {
        if let Some((table, state)) = &mut self.encoder {
            table.encode(state, code, out);
        }
    }

    fn end(&self, out: &mut BitWriter<'_>) {
        if let Some((table, state)) = &self.encoder {
            table.end(state, out);
        }
    }
}

/// Writes what the codes leave open.
#[inline(always)]
fn extra(sequence: &Sequence, codes: Codes, bits: &mut BitWriter<'_>) {
    add_low(sequence.literals, LITERALS_BITS[usize::from(codes[LITERALS] & 63)], bits);
    add_low(sequence.length, MATCH_BITS[usize::from(codes[MATCH] & 63)], bits);
    add_low(sequence.offset, codes[OFFSET], bits);
    bits.flush();
}

#[inline(always)]
fn add_low(value: u32, count: u8, bits: &mut BitWriter<'_>) {
    let low = u64::from(value) & ((1u64 << (count & 63)) - 1);
    bits.add(low, u32::from(count));
}

/// Appends the number of sequences.
fn count(sequences: usize, out: &mut Vec<u8>) {
    match sequences {
        0..128 => out.push(sequences as u8),
        128..0x7f00 => out.extend([128 + (sequences >> 8) as u8, sequences as u8]),
        _ => {
            let [low, high, ..] = (sequences - 0x7f00).to_le_bytes();
            out.extend([255, low, high]);
        }
    }
}

/// The code of a number of literals.
#[inline(always)]
fn literals_code(literals: u32) -> u8 {
    match LITERALS_CODES.get(literals as usize) {
        Some(code) => *code,
        None => log2(literals) as u8 + 19,
    }
}

/// The code of a match's length.
#[inline(always)]
fn match_code(length: u32) -> u8 {
    match MATCH_CODES.get(length as usize) {
        Some(code) => *code,
        None => log2(length) as u8 + 36,
    }
}

/// Of each code, the bits that it leaves open (RFC 8878, 3.1.1.3.2.1.1).
const LITERALS_BITS: [u8; 64] =
    after(16, &[1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
const MATCH_BITS: [u8; 64] =
    after(32, &[1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
const LITERALS_CODES: [u8; 64] = codes_of(LITERALS_BITS);
const MATCH_CODES: [u8; 128] = codes_of(MATCH_BITS);

/// No bits for the first codes, then those of `steps`.
const fn after(first: usize, steps: &[u8]) -> [u8; 64] {
    let mut bits = [0; 64];
    let mut i = 0;
    while i < steps.len() {
        bits[first + i] = steps[i];
        i += 1;
    }
    bits
}

/// The codes of the lowest values.
const fn codes_of<const N: usize>(bits: [u8; 64]) -> [u8; N] {
    let mut codes = [0; N];
    let mut value = 0;
    let mut code = 0;
    while value < N {
        let mut left = 1usize << bits[code];
        while left > 0 && value < N {
            codes[value] = code as u8;
            value += 1;
            left -= 1;
        }
        code += 1;
    }
    codes
}

/// The probabilities of RFC 8878, 3.1.1.3.2.2, and the logarithms of the tables' sizes.
fn predefined() -> [(Vec<i16>, u32); FIELDS] {
    let literals = [
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1,
        -1, -1, -1,
    ];
    let offsets =
        [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1];
    let lengths = [
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ];
    [(literals.to_vec(), 6), (offsets.to_vec(), 5), (lengths.to_vec(), 6)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_format() {
        assert_eq!([0, 15, 16, 17, 18, 63, 64, 65_536].map(literals_code), [0, 15, 16, 16, 17, 24, 25, 35]);
        assert_eq!([0, 31, 32, 34, 127, 128, 65_536].map(match_code), [0, 31, 32, 33, 42, 43, 52]);
    }

    #[test]
    fn predefined_tables_are_full() {
        for (norm, log) in predefined() {
            assert_eq!(norm.iter().map(|share| share.unsigned_abs()).sum::<u16>(), 1 << log);
        }
    }

    #[test]
    fn counts_take_one_to_three_bytes() {
        let bytes = |sequences| {
            let mut out = Vec::new();
            count(sequences, &mut out);
            out
        };
        assert_eq!(bytes(127), [127]);
        assert_eq!(bytes(0x1234), [0x92, 0x34]);
        assert_eq!(bytes(0x7f00 + 258), [255, 2, 1]);
    }
}
