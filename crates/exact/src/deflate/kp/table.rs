//! The match finders of levels 1 to 6 behind one face.

use super::Family;
use super::level1::Level1;
use super::level2::Level2;
use super::level3::Level3;
use super::level4::{Ahead, Level4};
use super::level5::Level5;
use super::level6::Level6;
use super::search::Block;
use crate::deflate::token::Token;

/// A match finder of levels 1 to 6.
#[derive(Clone, Debug)]
pub(super) enum TableFinder {
    L1(Level1),
    L2(Level2),
    L3(Level3),
    L4(Level4),
    L5(Level5),
    L6(Level6),
}

impl TableFinder {
    /// The match finder of a level, 5 for those that have none.
    pub(super) fn new(family: Family, level: i8) -> Self {
        match level {
            1 => Self::L1(Level1::new()),
            2 => Self::L2(Level2::new()),
            3 => Self::L3(Level3::new()),
            4 => Self::L4(Level4::new(if family == Family::A { Ahead::Found } else { Ahead::Slipped })),
            6 => Self::L6(Level6::new()),
            _ => Self::L5(Level5::new()),
        }
    }

    /// Appends the tokens of a block, or none if it has no match.
    pub(super) fn find(&mut self, block: &Block<'_>, tokens: &mut Vec<Token>) {
        match self {
            Self::L1(level) => level.find(block, tokens),
            Self::L2(level) => level.find(block, tokens),
            Self::L3(level) => level.find(block, tokens),
            Self::L4(level) => level.find(block, tokens),
            Self::L5(level) => level.find(block, tokens),
            Self::L6(level) => level.find(block, tokens),
        }
    }

    /// Lowers all positions by `by`.
    pub(super) fn rebase(&mut self, by: u32) {
        match self {
            Self::L1(level) => level.rebase(by),
            Self::L2(level) => level.rebase(by),
            Self::L3(level) => level.rebase(by),
            Self::L4(level) => level.rebase(by),
            Self::L5(level) => level.rebase(by),
            Self::L6(level) => level.rebase(by),
        }
    }

    /// All tables, pairs one after the other.
    pub(super) fn tables(&self) -> Vec<&[u32]> {
        match self {
            Self::L1(level) => level.tables(),
            Self::L2(level) => level.tables(),
            Self::L3(level) => level.tables(),
            Self::L4(level) => level.tables(),
            Self::L5(level) => level.tables(),
            Self::L6(level) => level.tables(),
        }
    }
}
