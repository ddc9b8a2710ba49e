//! The blocks of a stream: kind, size, codes.

use super::FixError;
use super::lengths::Lengths;
use super::range::{Chance, Coder, Number};
use crate::deflate::block::Counts;
use crate::deflate::parse::CodeLengths;

/// How a block begins. What it holds comes behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) is_final: bool,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stored { length: u16, padding: u8 },
    Fixed,
    Dynamic,
}

impl Kind {
    const fn number(self) -> usize {
        match self {
            Self::Stored { .. } => 0,
            Self::Fixed => 1,
            Self::Dynamic => 2,
        }
    }
}

/// The model of the blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// The kind of the block before.
    before: usize,
    is_final: [Chance; 4],
    kinds: [[Chance; 4]; 4],
    stored: Count,
    padding: [Chance; 128],
    run: Count,
    lengths: Lengths,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self {
            before: 3,
            is_final: Default::default(),
            kinds: Default::default(),
            stored: Count::default(),
            padding: [Chance::default(); 128],
            run: Count::default(),
            lengths: Lengths::new(),
        }
    }

    /// Codes how a block begins.
    pub(crate) fn head(&mut self, coder: &mut impl Coder, head: Head) -> Result<Head, FixError> {
        let is_final = coder.bit(&mut self.is_final[self.before], head.is_final);
        let number = coder.symbol(&mut self.kinds[self.before], head.kind.number());
        self.before = number;
        let kind = match number {
            0 => {
                let (length, padding) = match head.kind {
                    Kind::Stored { length, padding } => (length, padding),
                    _ => (0, 0),
                };
                let length = self.stored.code(coder, length.into());
                let length = u16::try_from(length).map_err(|_| FixError::Limit {
                    what: "bytes in a stored block",
                    most: u16::MAX.into(),
                })?;
                let padding = coder.symbol(&mut self.padding, padding.into()) as u8;
                Kind::Stored { length, padding }
            }
            1 => Kind::Fixed,
            2 => Kind::Dynamic,
            _ => return Err(FixError::Blocks),
        };
        Ok(Head { is_final, kind })
    }

    /// Codes how many tokens come next: [`RUN`](super::RUN) if more may follow.
    pub(crate) fn run(&mut self, coder: &mut impl Coder, count: usize) -> Result<usize, FixError> {
        let count = self.run.code(coder, count as u64);
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= super::RUN)
            .ok_or(FixError::Limit { what: "tokens in a run", most: super::RUN as u64 })
    }

    /// Codes the code lengths of a block, given how often symbols occur.
    pub(crate) fn lengths(
        &mut self,
        coder: &mut impl Coder,
        counts: &Counts,
        lengths: &CodeLengths,
    ) -> Result<CodeLengths, FixError> {
        self.lengths.code(coder, counts, lengths)
    }
}

/// A number that is often the one before.
#[derive(Debug, Default)]
pub(crate) struct Count {
    last: u64,
    is_same: Chance,
    other: Number,
}

impl Count {
    pub(crate) fn code(&mut self, coder: &mut impl Coder, count: u64) -> u64 {
        if !coder.bit(&mut self.is_same, count == self.last) {
            self.last = coder.number(&mut self.other, count);
        }
        self.last
    }
}
