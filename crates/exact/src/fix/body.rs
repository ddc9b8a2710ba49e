//! The deflate stream of a member whose blocks and tokens are in the fix.

use super::blocks::{Blocks, Head, Kind};
use super::plain::Plain;
use super::range::Decoder;
use super::tokens::Tokens;
use super::{FixError, MAX_EMPTY_BLOCKS};
use crate::deflate::Token;
use crate::deflate::bits::BitWriter;
use crate::deflate::block::{
    Counts, DistanceCode, DynamicHeader, LitLenCode, fixed_codes, write_end_of_block, write_tokens,
};
use crate::deflate::huffman::PrefixCode;
use crate::deflate::parse::CodeLengths;
use crate::deflate::tables::{END_OF_BLOCK, LITLEN_SYMBOLS};

/// Tokens and stored bytes are gone through in pieces of so many.
const PIECE: usize = 16 << 10;

/// What is learned of a blob. It serves all of its members.
#[derive(Debug)]
pub(crate) struct Models {
    pub(crate) blocks: Blocks,
    pub(crate) tokens: Tokens,
}

impl Models {
    pub(crate) fn new() -> Self {
        Self { blocks: Blocks::new(), tokens: Tokens::new() }
    }
}

/// What a step has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More plain bytes are needed.
    NeedsPlain,
    /// There is more to do.
    More,
    /// The end was reached.
    Done,
}

/// A stream in the making.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) plain: Plain,
    /// The plain bytes that are in blocks.
    at: u64,
    bits: BitWriter,
    held: Vec<Token>,
    is_final: bool,
    /// Where the block began, and how many before it had no plain bytes.
    begin: u64,
    empty: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Head,
    Stored { left: usize },
    Run { count: usize, codes: Codes },
    End,
}

#[derive(Debug)]
enum Codes {
    /// They come behind the first tokens.
    ToCome,
    Known(Box<(LitLenCode, DistanceCode)>),
}

impl Body {
    /// For so many plain bytes.
    pub(crate) fn new(plain: u64) -> Self {
        Self {
            plain: Plain::new(plain),
            at: 0,
            bits: BitWriter::new(),
            held: Vec::new(),
            is_final: false,
            begin: 0,
            empty: 0,
            state: State::Head,
        }
    }

    /// Takes plain bytes, not more than are left.
    pub(crate) fn push(&mut self, plain: &[u8]) {
        self.plain.push(plain, self.at);
    }

    /// Takes a bounded step.
    pub(crate) fn step(
        &mut self,
        models: &mut Models,
        coder: &mut Decoder,
        out: &mut Vec<u8>,
    ) -> Result<Progress, FixError> {
        if coder.is_beyond_end() {
            return Err(FixError::CutOff);
        }
        match std::mem::replace(&mut self.state, State::End) {
            State::Head => self.begin(models, coder, out)?,
            State::Stored { left } => {
                let left = self.store(models, left, out)?;
                self.state = State::Stored { left };
                if left == 0 {
                    return self.end_block(out);
                }
                if self.plain.wanted(self.at) > 0 {
                    return Ok(Progress::NeedsPlain);
                }
            }
            State::Run { count, codes } => {
                self.take_tokens(models, coder, count)?;
                if self.held.len() < count {
                    self.state = State::Run { count, codes };
                    let is_short = self.plain.wanted(self.at) > 0;
                    return Ok(if is_short { Progress::NeedsPlain } else { Progress::More });
                }
                let codes = self.write_run(models, coder, codes, out)?;
                if count < super::RUN {
                    write_end_of_block(&mut self.bits, out, &codes.0);
                    return self.end_block(out);
                }
                let count = self.next_run(models, coder)?;
                self.state = State::Run { count, codes: Codes::Known(codes) };
            }
            State::End => return Ok(Progress::Done),
        }
        Ok(Progress::More)
    }

    fn begin(&mut self, models: &mut Models, coder: &mut Decoder, out: &mut Vec<u8>) -> Result<(), FixError> {
        let head = models.blocks.head(coder, Head { is_final: false, kind: Kind::Fixed })?;
        self.is_final = head.is_final;
        let codes = match head.kind {
            Kind::Stored { length, padding } => {
                self.bits.put(out, u32::from(head.is_final), 3);
                let to_border = self.bits.odd().wrapping_neg() % 8;
                self.bits.put(out, u32::from(padding) & ((1 << to_border) - 1), to_border);
                self.bits.put(out, u32::from(length) | u32::from(!length) << 16, 32);
                self.bits.align(out);
                self.state = State::Stored { left: length.into() };
                return Ok(());
            }
            Kind::Fixed => {
                self.bits.put(out, 2 + u32::from(head.is_final), 3);
                Codes::Known(Box::new(fixed_codes()))
            }
            Kind::Dynamic => Codes::ToCome,
        };
        let count = self.next_run(models, coder)?;
        self.state = State::Run { count, codes };
        Ok(())
    }

    fn next_run(&mut self, models: &mut Models, coder: &mut Decoder) -> Result<usize, FixError> {
        self.held.clear();
        models.blocks.run(coder, 0)
    }

    /// Writes stored bytes, as far as they are here. Returns how many are left.
    fn store(&mut self, models: &mut Models, mut left: usize, out: &mut Vec<u8>) -> Result<usize, FixError> {
        if left as u64 > self.plain.size() - self.at {
            return Err(FixError::Blocks);
        }
        while left > 0 && self.plain.wanted(self.at) == 0 {
            let view = self.plain.view(self.at);
            out.extend(view.bytes.get(view.index));
            models.tokens.skip(view);
            self.at += 1;
            left -= 1;
        }
        Ok(left)
    }

    /// Takes tokens until there are `count`, or no more plain bytes, or enough for a step.
    fn take_tokens(
        &mut self,
        models: &mut Models,
        coder: &mut Decoder,
        count: usize,
    ) -> Result<(), FixError> {
        let most = count.min(self.held.len() + PIECE);
        while self.held.len() < most && self.plain.wanted(self.at) == 0 {
            let token = models.tokens.code(coder, self.plain.view(self.at), Token::literal(0))?;
            self.at += token.plain_len() as u64;
            self.held.push(token);
        }
        Ok(())
    }

    /// Writes the tokens that are held, and before the first of a block its header.
    fn write_run(
        &mut self,
        models: &mut Models,
        coder: &mut Decoder,
        codes: Codes,
        out: &mut Vec<u8>,
    ) -> Result<Box<(LitLenCode, DistanceCode)>, FixError> {
        let counts = counts(&self.held);
        let codes = match codes {
            Codes::Known(codes) => codes,
            Codes::ToCome => {
                let lengths = models.blocks.lengths(coder, &counts, &CodeLengths::default())?;
                DynamicHeader::of(&lengths).write(&mut self.bits, out, self.is_final);
                Box::new(codes_of(&lengths))
            }
        };
        let is_short =
            |counts: &[u32], lengths: &[u8]| counts.iter().zip(lengths).any(|(c, l)| *c > 0 && *l == 0);
        if is_short(&counts.litlen, &codes.0.lengths) || is_short(&counts.distance, &codes.1.lengths) {
            return Err(FixError::Codes);
        }
        write_tokens(&mut self.bits, out, &self.held, &codes.0, &codes.1);
        Ok(codes)
    }

    fn end_block(&mut self, out: &mut Vec<u8>) -> Result<Progress, FixError> {
        self.state = State::Head;
        self.empty = if self.at == self.begin { self.empty + 1 } else { 0 };
        self.begin = self.at;
        if self.empty > MAX_EMPTY_BLOCKS {
            return Err(FixError::Limit { what: "empty blocks in a row", most: MAX_EMPTY_BLOCKS as u64 });
        }
        if !self.is_final {
            return Ok(Progress::More);
        }
        self.bits.align(out);
        self.state = State::End;
        if self.at < self.plain.size() { Err(FixError::Blocks) } else { Ok(Progress::Done) }
    }
}

/// The counts of tokens, and of one end.
pub(crate) fn counts(tokens: &[Token]) -> Counts {
    let mut counts = Counts::of_tokens(tokens);
    for _ in tokens.iter().filter(|token| token.is_long_form()) {
        counts.litlen[LITLEN_SYMBOLS - 1] -= 1;
        counts.litlen[LITLEN_SYMBOLS - 2] += 1;
    }
    counts.litlen[END_OF_BLOCK] = 1;
    counts
}

fn codes_of(lengths: &CodeLengths) -> (LitLenCode, DistanceCode) {
    fn code<const N: usize>(sent: &[u8]) -> PrefixCode<N> {
        let mut lengths = [0; N];
        lengths[..sent.len()].copy_from_slice(sent);
        PrefixCode::canonical(lengths)
    }
    let (litlen, distance) = lengths.lengths.split_at(lengths.litlen);
    (code(litlen), code(distance))
}
