//! A streaming parser for deflate: blocks, code lengths and tokens, with where they are.
//!
//! For telling which encoder has written a stream, for comparing with a trial, and for what a stream
//! deviates. Plain bytes are not made: matches are checked, not copied.

mod decode;
mod header;
mod input;

use std::fmt;

use self::decode::Decoder;
use self::header::HeaderParser;
use self::input::BitReader;
use super::tables::END_OF_BLOCK;
use super::token::Token;

/// Tokens and stored bytes are handed out in runs of at most so many.
pub const MAX_RUN: usize = 4096;

/// What a stream does not obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// Block type 3.
    BlockType,
    /// The length of a stored block and its complement differ.
    StoredLength,
    /// More literal/length or distance symbols than there are.
    SymbolCount,
    /// A code has more codes than fit, or fewer without being a single code of one bit.
    CodeLengths,
    /// A repeat without a length before it, or beyond the last symbol.
    Repeat,
    /// No length for the end of the block.
    NoEndOfBlock,
    /// Bits that are no code.
    NoSuchCode,
    /// A match reaches back beyond the start of the stream.
    Distance,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlockType => "deflate: a block of the reserved type",
            Self::StoredLength => "deflate: the length of a stored block contradicts its complement",
            Self::SymbolCount => "deflate: a header with more symbols than there are",
            Self::CodeLengths => "deflate: code lengths that make no code",
            Self::Repeat => "deflate: code lengths repeated out of bounds",
            Self::NoEndOfBlock => "deflate: a block that cannot end",
            Self::NoSuchCode => "deflate: bits that are no code",
            Self::Distance => "deflate: a match from before the start",
        })
    }
}

impl std::error::Error for ParseError {}

/// The code lengths of a dynamic block, as the header sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeLengths {
    /// How many literal/length code lengths are sent (257 to 286).
    pub litlen: usize,
    /// How many distance code lengths are sent (1 to 30).
    pub distance: usize,
    /// The lengths of the code length code, in the order sent (4 to 19 of them).
    pub code_lengths: Vec<u8>,
    /// The code length symbols (0 to 18), each with the value of its extra bits.
    pub symbols: Vec<(u8, u8)>,
    /// The lengths that the symbols stand for: first `litlen`, then `distance` of them.
    pub lengths: Vec<u8>,
}

/// How a block is coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Plain bytes as they are.
    Stored {
        /// How many.
        length: u16,
        /// The bits before the byte border, mostly zero.
        padding: u8,
    },
    /// Tokens with the fixed codes.
    Fixed,
    /// Tokens with codes of the block.
    Dynamic(CodeLengths),
}

/// The beginning of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// Whether it is marked as the last.
    pub is_final: bool,
    /// Its kind, with what the header holds.
    pub kind: BlockKind,
    /// Where in the stream the block begins, in bits.
    pub bit_position: u64,
    /// How many plain bytes are before it.
    pub plain_position: u64,
}

/// A step through the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// All that was fed is parsed, and the stream goes on.
    NeedsInput,
    /// A block begins.
    Block(BlockHead),
    /// The next tokens of the block, at most [`MAX_RUN`].
    Tokens(&'a [Token]),
    /// The next bytes of a stored block, at most [`MAX_RUN`].
    Stored(&'a [u8]),
    /// The block ends.
    BlockEnd {
        /// Where in the stream, in bits.
        bit_position: u64,
        /// How many plain bytes are before.
        plain_position: u64,
    },
    /// The final block has ended. Later steps say the same.
    End,
}

/// A parser for one raw deflate stream.
///
/// It holds no more than what it was fed and one run of tokens or bytes, whatever the stream says.
#[derive(Debug)]
pub struct Parser {
    input: BitReader,
    state: State,
    decoder: Decoder,
    plain: u64,
    tokens: Vec<Token>,
    stored: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Before a block, or in its header.
    Head(HeaderParser),
    Stored {
        left: usize,
        is_final: bool,
    },
    Codes {
        is_final: bool,
    },
    /// Behind the symbol that ends a block, which is still to be told.
    Ended {
        is_final: bool,
    },
    End,
    Failed(ParseError),
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self {
            input: BitReader::default(),
            state: State::Head(HeaderParser::new(0)),
            decoder: Decoder::default(),
            plain: 0,
            tokens: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// Gives it the next bytes of the stream. What it does not need yet, it holds.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.feed(bytes);
    }

    /// How many plain bytes the steps so far stand for.
    pub fn plain_position(&self) -> u64 {
        self.plain
    }

    /// How far into the stream the steps so far reach, in bits.
    pub fn bit_position(&self) -> u64 {
        self.input.position()
    }

    /// The bytes fed that are behind the end of the stream. Of use after [`Step::End`].
    pub fn rest(&self) -> &[u8] {
        self.input.rest()
    }

    /// Takes the next step.
    ///
    /// # Errors
    ///
    /// The stream is no deflate stream. All later steps fail, too.
    pub fn step(&mut self) -> Result<Step<'_>, ParseError> {
        match self.try_step() {
            Ok(Happened::Nothing) => Ok(Step::NeedsInput),
            Ok(Happened::Block(head)) => Ok(Step::Block(head)),
            Ok(Happened::Tokens) => Ok(Step::Tokens(&self.tokens)),
            Ok(Happened::Stored) => Ok(Step::Stored(&self.stored)),
            Ok(Happened::BlockEnd) => {
                Ok(Step::BlockEnd { bit_position: self.input.position(), plain_position: self.plain })
            }
            Ok(Happened::End) => Ok(Step::End),
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    fn try_step(&mut self) -> Result<Happened, ParseError> {
        match &mut self.state {
            State::Head(header) => {
                let Some((is_final, kind)) = header.parse(&mut self.input)? else {
                    return Ok(Happened::Nothing);
                };
                let bit_position = header.start();
                self.state = match &kind {
                    BlockKind::Stored { length, .. } => {
                        State::Stored { left: usize::from(*length), is_final }
                    }
                    BlockKind::Fixed => {
                        self.decoder.set_fixed()?;
                        State::Codes { is_final }
                    }
                    BlockKind::Dynamic(lengths) => {
                        self.decoder.set_dynamic(lengths)?;
                        State::Codes { is_final }
                    }
                };
                let plain_position = self.plain;
                Ok(Happened::Block(BlockHead { is_final, kind, bit_position, plain_position }))
            }
            State::Stored { left: 0, is_final } | State::Ended { is_final } => {
                self.state = if *is_final {
                    State::End
                } else {
                    State::Head(HeaderParser::new(self.input.position()))
                };
                Ok(Happened::BlockEnd)
            }
            State::Stored { left, .. } => {
                self.stored.clear();
                self.input.take_bytes((*left).min(MAX_RUN), &mut self.stored);
                *left -= self.stored.len();
                self.plain += self.stored.len() as u64;
                Ok(if self.stored.is_empty() { Happened::Nothing } else { Happened::Stored })
            }
            State::Codes { is_final } => {
                let is_final = *is_final;
                if self.run()? {
                    self.state = State::Ended { is_final };
                }
                match (self.tokens.is_empty(), &self.state) {
                    (false, _) => Ok(Happened::Tokens),
                    (true, State::Ended { .. }) => self.try_step(),
                    (true, _) => Ok(Happened::Nothing),
                }
            }
            State::End => Ok(Happened::End),
            State::Failed(error) => Err(*error),
        }
    }

    /// Reads the next run of tokens. Returns whether the block ends behind it.
    fn run(&mut self) -> Result<bool, ParseError> {
        self.tokens.clear();
        while self.tokens.len() < MAX_RUN {
            let Some((symbol, token)) = self.decoder.next(&mut self.input)? else { return Ok(false) };
            if symbol == END_OF_BLOCK {
                return Ok(true);
            }
            if token.distance() as u64 > self.plain {
                return Err(ParseError::Distance);
            }
            self.plain += token.plain_len() as u64;
            self.tokens.push(token);
        }
        Ok(false)
    }
}

/// A step without what it borrows.
enum Happened {
    Nothing,
    Block(BlockHead),
    Tokens,
    Stored,
    BlockEnd,
    End,
}

#[cfg(test)]
mod tests;
