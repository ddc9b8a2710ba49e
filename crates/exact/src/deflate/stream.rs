//! The two stages as one encoder, on the thread of the caller.

use super::source::{BlockWriter, TokenSource, Window};
use super::token::Token;
use crate::Encoder;

/// The plain bytes of which tokens are made at once.
const STEP: u64 = 1 << 20;

/// A deflate stream in the making, one step after the other.
#[derive(Debug)]
pub(crate) struct Sequential<S, W> {
    stages: Stages<S, W>,
    plain: Vec<u8>,
    /// The position in the stream of the first byte of `plain`.
    origin: u64,
}

/// Both stages, at the same place of the stream.
#[derive(Debug)]
pub(crate) struct Stages<S, W> {
    pub(crate) source: S,
    pub(crate) writer: W,
    tokens: Vec<Token>,
}

impl<S: TokenSource, W: BlockWriter> Stages<S, W> {
    pub(crate) fn new(source: S, writer: W) -> Self {
        Self { source, writer, tokens: Vec::new() }
    }

    /// Takes the stream on until position `until`.
    pub(crate) fn advance(&mut self, window: Window<'_>, until: u64, out: &mut Vec<u8>) {
        // Shorter steps than the window keep the list of tokens short.
        while self.source.position() < until || window.stream_end == Some(until) {
            let stop = until.min((self.source.position() + STEP / 8).next_multiple_of(S::GRID));
            self.tokens.clear();
            self.source.advance(window, stop, &mut self.tokens);
            self.writer.write(&self.tokens, window, self.source.emitted(), out);
            if stop == until {
                break;
            }
        }
    }
}

/// The last position of the grid at which a source may be stopped that sees the stream up to `end`.
pub(crate) fn last_stop<S: TokenSource>(end: u64) -> u64 {
    let last = end.saturating_sub(S::LOOKAHEAD);
    last - last % S::GRID
}

/// How many bytes before a position must be kept.
pub(crate) const fn history<S: TokenSource, W: BlockWriter>() -> u64 {
    // Position and end of the tokens lie up to one match apart.
    let longest = if S::HISTORY > W::HISTORY { S::HISTORY } else { W::HISTORY };
    longest + Token::MAX_MATCH as u64
}

impl<S: TokenSource, W: BlockWriter> Sequential<S, W> {
    /// An encoder at the start of a stream.
    pub(crate) fn new(config: S::Config, writer: W) -> Self {
        Self { stages: Stages::new(S::new(config, 0), writer), plain: Vec::new(), origin: 0 }
    }

    fn window<'a>(plain: &'a [u8], origin: u64, ends: bool) -> Window<'a> {
        let stream_end = ends.then_some(origin + plain.len() as u64);
        Window { bytes: plain, origin, stream_end }
    }
}

impl<S: TokenSource, W: BlockWriter> Encoder for Sequential<S, W> {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        for part in plain.chunks(STEP as usize) {
            self.plain.extend_from_slice(part);
            let end = self.origin + self.plain.len() as u64;
            let until = last_stop::<S>(end);
            if until < self.stages.source.position() + STEP {
                continue;
            }
            self.stages.advance(Self::window(&self.plain, self.origin, false), until, out);
            let keep = self.stages.source.position().saturating_sub(history::<S, W>());
            let drop = keep.saturating_sub(self.origin);
            self.plain.drain(..drop as usize);
            self.origin += drop;
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        let window = Self::window(&self.plain, self.origin, true);
        self.stages.advance(window, window.end(), out);
        self.stages.writer.finish(window, out);
    }
}
