//! One token of a deflate block.

use std::fmt;

/// A literal byte, or a match: a copy of earlier plain bytes.
///
/// Four bytes, as blocks hold many of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u32);

const MATCH: u32 = 1 << 31;
const LONG_FORM: u32 = 1 << 30;

impl Token {
    /// The shortest match, in bytes.
    pub const MIN_MATCH: usize = 3;
    /// The longest match, in bytes.
    pub const MAX_MATCH: usize = 258;
    /// The farthest match, in bytes back.
    pub const MAX_DISTANCE: usize = 32_768;

    /// A literal byte.
    #[inline]
    pub const fn literal(byte: u8) -> Self {
        Self(byte as u32)
    }

    /// A match of `length` bytes (3 to 258) that begins `distance` bytes back (1 to 32,768).
    ///
    /// Numbers out of these bounds give some other token, never a panic.
    #[inline]
    pub const fn copy(length: usize, distance: usize) -> Self {
        let length = length.wrapping_sub(Self::MIN_MATCH) as u32 & 0xff;
        let distance = distance.wrapping_sub(1) as u32 & 0x7fff;
        Self(MATCH | length << 16 | distance)
    }

    /// The match of 258 bytes written with symbol 284 and 31 as its extra bits, as a few encoders do.
    pub(crate) const fn copy_258_long_form(distance: usize) -> Self {
        Self(Self::copy(Self::MAX_MATCH, distance).0 | LONG_FORM)
    }

    /// Whether this is a match.
    #[inline]
    pub const fn is_match(self) -> bool {
        self.0 & MATCH != 0
    }

    /// Whether this is a match of 258 bytes written with symbol 284, not 285.
    pub const fn is_long_form(self) -> bool {
        self.0 & LONG_FORM != 0
    }

    /// How many plain bytes the token stands for: 1 for a literal.
    #[inline]
    pub const fn plain_len(self) -> usize {
        if self.is_match() { self.length_index() + Self::MIN_MATCH } else { 1 }
    }

    /// The literal byte, of a literal.
    #[inline]
    pub const fn byte(self) -> u8 {
        self.0 as u8
    }

    /// The length less 3, of a match.
    #[inline]
    pub(crate) const fn length_index(self) -> usize {
        (self.0 >> 16 & 0xff) as usize
    }

    /// The distance less 1, of a match.
    #[inline]
    pub(crate) const fn distance_index(self) -> usize {
        (self.0 & 0x7fff) as usize
    }

    /// The distance in bytes, of a match; 0 for a literal.
    #[inline]
    pub const fn distance(self) -> usize {
        if self.is_match() { self.distance_index() + 1 } else { 0 }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_match() {
            write!(f, "Match({}, {})", self.plain_len(), self.distance())
        } else {
            write!(f, "Literal({})", self.byte())
        }
    }
}
