//! The two stages of a deflate encoder: plain bytes to tokens, and tokens to blocks.
//!
//! They stand apart so that several threads can look for matches in pieces of one stream, and the blocks
//! are cut from the tokens of the whole.

use std::ops::Range;

use super::token::Token;

/// The part of the plain stream that can be seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) bytes: &'a [u8],
    /// The position in the stream of the first byte.
    pub(crate) origin: u64,
    /// Where the stream ends, if it ends with these bytes.
    pub(crate) stream_end: Option<u64>,
}

impl<'a> Window<'a> {
    /// The position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.origin + self.bytes.len() as u64
    }

    /// The bytes at these positions, if all of them can be seen.
    pub(crate) fn get(&self, range: Range<u64>) -> Option<&'a [u8]> {
        let start = usize::try_from(range.start.checked_sub(self.origin)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.origin)?).ok()?;
        self.bytes.get(start..end)
    }
}

/// Plain bytes to tokens.
///
/// A source can begin in mid-stream, knowing nothing of what was before. It is of use there once
/// [`same_future`](Self::same_future) says that it goes on as the source does that began at the start.
pub(crate) trait TokenSource: Clone + Send + 'static {
    /// What the source is made of, besides the position: its level.
    type Config: Copy + Send + Sync + 'static;

    /// Sources begin and are stopped at multiples of this many bytes.
    const GRID: u64;
    /// How many bytes behind a stop the source must see, unless the stream ends before.
    const LOOKAHEAD: u64;
    /// How many bytes before its position the source must see.
    const HISTORY: u64;

    /// A source at position `start` (a multiple of [`GRID`](Self::GRID)) that knows of nothing before it.
    fn new(config: Self::Config, start: u64) -> Self;

    /// The next position to look at.
    fn position(&self) -> u64;

    /// The position that the tokens handed out so far reach.
    fn emitted(&self) -> u64 {
        self.position()
    }

    /// Appends the tokens found until the position is `until` or behind it.
    ///
    /// With `until` at the end of the stream, and the end known to the window, all tokens are handed out.
    fn advance(&mut self, window: Window<'_>, until: u64, tokens: &mut Vec<Token>);

    /// Whether both hand out the same tokens from here on, whatever comes. `false` may be wrong, `true` not.
    fn same_future(&self, other: &Self) -> bool;
}

/// Tokens to blocks.
pub(crate) trait BlockWriter: Send + 'static {
    /// How many bytes before the position the tokens reach the writer must see.
    const HISTORY: u64;

    /// Takes the next tokens, which reach position `until`, and writes the blocks that are complete.
    fn write(&mut self, tokens: &[Token], window: Window<'_>, until: u64, out: &mut Vec<u8>);

    /// Writes what is left, and ends the deflate stream.
    fn finish(&mut self, window: Window<'_>, out: &mut Vec<u8>);
}
