//! The literals section of a block.

use super::Family;
use super::huff0::Code;

/// From so many literals on there are four streams.
const FOUR_STREAMS: usize = 1024;
/// The bytes of the sizes before four streams.
const JUMP_TABLE: usize = 6;

/// What is remembered of literals from block to block.
#[derive(Debug, Default)]
pub(super) struct Literals {
    /// The last code made and taken.
    code: Option<Code>,
    /// Whether `code` may be used again.
    reusable: bool,
    packed: Vec<u8>,
}

/// How a section came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The literals themselves.
    Raw,
    /// One byte, many times.
    Run,
    /// With a code that is described there.
    Coded,
    /// With the code of an earlier block.
    Treeless,
}

impl Literals {
    /// The block was stored: its code is not known to the decoder.
    pub(super) fn forget(&mut self) {
        self.reusable = false;
    }

    /// Appends the section. Where `Kind::Raw` or `Kind::Run` comes back, `whole` decides about it: nothing is
    /// appended if the section would be the whole block.
    pub(super) fn write(&mut self, family: Family, literals: &[u8], out: &mut Vec<u8>) -> Kind {
        let mut kind = self.pack(literals, family.literals_stored());
        let (size, packed) = (literals.len(), self.packed.len());
        if family.weighs_literals() && matches!(kind, Kind::Coded | Kind::Treeless) && packed + 5 > size {
            let stored = size + plain_header(size);
            if packed + coded_header(size, packed) >= stored {
                kind = Kind::Raw;
            }
        }
        self.append(kind, literals, out);
        kind
    }

    /// As `write` where the section is a block: appends it only if it is coded.
    pub(super) fn write_alone(&mut self, family: Family, literals: &[u8], out: &mut Vec<u8>) -> Kind {
        let kind = self.pack(literals, family.literals_stored());
        if matches!(kind, Kind::Coded | Kind::Treeless) {
            self.append(kind, literals, out);
        }
        kind
    }

    fn append(&mut self, kind: Kind, literals: &[u8], out: &mut Vec<u8>) {
        let size = literals.len();
        match kind {
            Kind::Raw => {
                plain_size(0, size, out);
                out.extend_from_slice(literals);
            }
            Kind::Run => {
                plain_size(1, size, out);
                out.extend(literals.first());
            }
            Kind::Coded | Kind::Treeless => {
                coded_sizes(2 + u64::from(kind == Kind::Treeless), size, self.packed.len(), out);
                out.extend_from_slice(&self.packed);
                self.reusable = true;
            }
        }
    }

    /// Leaves in `packed` what follows the header of a section that is coded.
    fn pack(&mut self, literals: &[u8], stored: usize) -> Kind {
        let size = literals.len();
        if size <= stored {
            return Kind::Raw;
        }
        if !self.reusable {
            self.code = None;
        }
        let counts = histogram(literals);
        let most = counts.iter().copied().max().unwrap_or_default() as usize;
        if most == size {
            return Kind::Run;
        }
        if most == 1 || most < size >> 7 {
            return Kind::Raw;
        }
        let wanted = size - (size >> 4);
        let new = Code::new(&counts, size as u32);
        self.packed.clear();
        if let Some(old) = self.code.as_ref().filter(|old| old.covers(&counts))
            && (old.size(&counts) <= new.size(&counts) || wanted <= 12)
        {
            let written = streams(old, literals, &mut self.packed);
            let fits = written.is_some() && self.packed.len() < wanted;
            return if fits { Kind::Treeless } else { Kind::Raw };
        }
        let written = new.describe(&mut self.packed).and_then(|()| streams(&new, literals, &mut self.packed));
        if written.is_none() || self.packed.len() >= wanted {
            return Kind::Raw;
        }
        self.code = Some(new);
        Kind::Coded
    }
}

/// Appends the literals as one stream or four. Nothing if one of the four is too long.
fn streams(code: &Code, literals: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if literals.len() < FOUR_STREAMS {
        code.write(literals, out);
        return Some(());
    }
    let sizes = out.len();
    out.resize(sizes + JUMP_TABLE, 0);
    for (i, part) in literals.chunks(literals.len().div_ceil(4)).enumerate() {
        let begin = out.len();
        code.write(part, out);
        let size = u16::try_from(out.len() - begin).ok()?;
        if i < 3 {
            out[sizes + 2 * i..][..2].copy_from_slice(&size.to_le_bytes());
        }
    }
    Some(())
}

/// How often each byte occurs.
fn histogram(bytes: &[u8]) -> [u32; 256] {
    // Several tables: equal bytes in a row don't wait for each other.
    let mut tables = [[0u32; 256]; 4];
    let (groups, rest) = bytes.as_chunks::<4>();
    for group in groups {
        for (table, &byte) in tables.iter_mut().zip(group) {
            table[usize::from(byte)] += 1;
        }
    }
    for &byte in rest {
        tables[0][usize::from(byte)] += 1;
    }
    let mut counts = [0; 256];
    for table in &tables {
        for (sum, count) in counts.iter_mut().zip(table) {
            *sum += count;
        }
    }
    counts
}

/// The bytes of the header of literals as they are.
fn plain_header(size: usize) -> usize {
    match size {
        0..16 => 1,
        16..2048 => 2,
        _ => 3,
    }
}

fn plain_size(kind: u32, size: usize, out: &mut Vec<u8>) {
    let value = size as u32;
    let bytes = plain_header(size);
    let header = match bytes {
        1 => kind | value << 3,
        2 => kind | 1 << 2 | value << 4,
        _ => kind | 3 << 2 | value << 4,
    };
    out.extend_from_slice(&header.to_le_bytes()[..bytes]);
}

/// The bytes of the header of coded literals.
fn coded_header(size: usize, packed: usize) -> usize {
    match size.max(packed) {
        0..1024 => 3,
        1024..16_384 => 4,
        _ => 5,
    }
}

fn coded_sizes(kind: u64, size: usize, packed: usize, out: &mut Vec<u8>) {
    let bytes = coded_header(size, packed);
    let (format, bits) = match bytes {
        3 => (u64::from(size >= FOUR_STREAMS), 10),
        4 => (2, 14),
        _ => (3, 18),
    };
    let header = kind | format << 2 | (size as u64) << 4 | (packed as u64) << (4 + bits);
    out.extend_from_slice(&header.to_le_bytes()[..bytes]);
}
