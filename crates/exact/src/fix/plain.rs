//! The plain bytes around a position that moves on.

use super::LOOKAHEAD;
use super::chains::View;
use crate::deflate::Token;

/// How many bytes before the position are held.
const HISTORY: usize = Token::MAX_DISTANCE;
/// So many bytes are dropped at once.
const DROP: usize = 128 << 10;

/// The plain bytes of one member that are seen.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    bytes: Vec<u8>,
    /// The position of the first byte.
    origin: u64,
    /// All plain bytes of the member.
    size: u64,
}

impl Plain {
    /// For a member of so many plain bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The position behind the last byte that is here.
    pub(crate) fn end(&self) -> u64 {
        self.origin + self.bytes.len() as u64
    }

    /// How many bytes are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.size - self.end()
    }

    /// How many bytes are wanted for the token at `at`.
    pub(crate) fn wanted(&self, at: u64) -> usize {
        let end = at.saturating_add(LOOKAHEAD as u64).min(self.size);
        end.saturating_sub(self.end()) as usize
    }

    /// Takes the next bytes of the member, not more than are [`left`](Self::left), and drops those far before `at`.
    pub(crate) fn push(&mut self, bytes: &[u8], at: u64) {
        let far = (at.saturating_sub(self.origin) as usize).saturating_sub(HISTORY);
        if far >= DROP {
            self.bytes.drain(..far.min(self.bytes.len()));
            self.origin += far as u64;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The view from `at`, which is not behind the end.
    pub(crate) fn view(&self, at: u64) -> View<'_> {
        let index = (at.saturating_sub(self.origin) as usize).min(self.bytes.len());
        View { bytes: &self.bytes, index, at }
    }
}
