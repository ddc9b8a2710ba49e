//! One block: which kind it is, and its header.

use super::literals::{Kind, Literals};
use super::sequences::{MIN_MATCH, Sequence, Sequences};
use super::{Family, Level};

/// Whether a block ends the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// More blocks follow.
    Inner,
    /// The last block.
    Last,
}

/// A block as the match finder left it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// All the bytes that are in no match.
    pub(super) literals: Vec<u8>,
    /// The matches, each with the literals before it.
    pub(super) sequences: Vec<Sequence>,
}

impl Found {
    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.literals.clear();
        self.sequences.clear();
    }

    /// Takes `literals` and a match of `length` bytes at `offset`, as in [`Sequence::offset`].
    #[inline(always)]
    pub(super) fn take(&mut self, literals: &[u8], length: usize, offset: u32) {
        self.literals.extend_from_slice(literals);
        self.sequences.push(Sequence {
            literals: literals.len() as u32,
            length: (length - MIN_MATCH) as u32,
            offset,
        });
    }

    /// Whether the block was matched as a run of one byte.
    fn run(&self) -> bool {
        /// A distance of 1.
        const ONE: u32 = 4;
        match self.sequences[..] {
            [Sequence { literals, offset: ONE, .. }] => {
                self.literals.len() <= 1 && self.literals.len() == literals as usize
            }
            _ => false,
        }
    }
}

const RAW: u32 = 0;
const RUN: u32 = 1;
const COMPRESSED: u32 = 2;

/// What turns matches into blocks, with what one block of a frame leaves to the next.
#[derive(Debug)]
pub(super) struct BlockWriter {
    family: Family,
    level: Level,
    literals: Literals,
    sequences: Sequences,
    content: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn new(family: Family, level: Level) -> Self {
        Self {
            family,
            level,
            literals: Literals::default(),
            sequences: Sequences::new(),
            content: Vec::new(),
        }
    }

    /// Appends the block of these bytes, in which `found` was found.
    pub(super) fn write(&mut self, plain: &[u8], found: &Found, position: Position, out: &mut Vec<u8>) {
        let size = plain.len();
        if found.sequences.is_empty() {
            let full = size == self.level.block_size();
            return if self.family.codes_literals_alone(self.level) && !full {
                self.write_literals(plain, position, out)
            } else {
                raw(plain, position, out)
            };
        }
        if self.family.finds_runs() && found.run() {
            return run(plain, position, out);
        }
        let least = found.literals.len() + (size >> self.family.gain_shift()) + 16;
        if size < least {
            return if self.family.codes_literals_alone(self.level) {
                self.write_literals(plain, position, out)
            } else {
                raw(plain, position, out)
            };
        }
        self.content.clear();
        self.literals.write(self.family, &found.literals, &mut self.content);
        let written = self.sequences.write(&found.sequences, &mut self.content);
        if written.is_none() || self.content.len() >= size {
            self.literals.forget();
            return raw(plain, position, out);
        }
        self.sequences.accept();
        header(COMPRESSED, self.content.len(), position, out);
        out.extend_from_slice(&self.content);
    }

    /// A block of literals and no sequences.
    fn write_literals(&mut self, plain: &[u8], position: Position, out: &mut Vec<u8>) {
        self.content.clear();
        match self.literals.write_alone(self.family, plain, &mut self.content) {
            Kind::Raw => raw(plain, position, out),
            Kind::Run => run(plain, position, out),
            Kind::Coded | Kind::Treeless => {
                self.content.push(0);
                header(COMPRESSED, self.content.len(), position, out);
                out.extend_from_slice(&self.content);
            }
        }
    }
}

/// Appends a block of the bytes themselves.
pub(super) fn raw(plain: &[u8], position: Position, out: &mut Vec<u8>) {
    header(RAW, plain.len(), position, out);
    out.extend_from_slice(plain);
}

/// Appends a block of one byte, many times.
fn run(plain: &[u8], position: Position, out: &mut Vec<u8>) {
    header(RUN, plain.len(), position, out);
    out.extend(plain.first());
}

fn header(kind: u32, size: usize, position: Position, out: &mut Vec<u8>) {
    let header = u32::from(position == Position::Last) | kind << 1 | (size as u32) << 3;
    out.extend_from_slice(&header.to_le_bytes()[..3]);
}
