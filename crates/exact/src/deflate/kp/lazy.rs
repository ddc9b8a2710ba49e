//! Levels 7 to 9: lazy matching over hash chains.

use super::chains::*;
use super::writer::Ending;
use crate::deflate::token::Token;

/// Tokens of a block.
const BLOCK_TOKENS: usize = 32_768;
/// The window slides when fewer bytes than this are ahead.
const LOOK_AHEAD: u32 = 262;

/// Positions are lowered when the window gets here.
const LATE: u32 = 1 << 30;

/// What takes the blocks: their tokens, and their plain bytes if those are still known.
pub(super) type Sink<'s> = dyn FnMut(&[Token], Option<&[u8]>) + 's;

/// The match finder of levels 7 to 9. It lives as long as the stream.
#[derive(Debug)]
pub(super) struct Lazy {
    chains: Chains,
    effort: Effort,
    tokens: Vec<Token>,
    /// The position of the first byte of the window.
    base: u32,
    /// Where the block in the making begins.
    block_start: u32,
    /// The position to be searched next.
    at: u32,
    /// The match at the position before, to be sent if there is no better one at this.
    best: Best,
    /// Whether the byte before `at` is not sent yet.
    pending: bool,
    /// The newest position plus 1 with the hash of the bytes at `at`.
    chain: u32,
    /// Literals since the last match.
    run: u16,
}

impl Lazy {
    pub(super) fn new(effort: Effort) -> Self {
        Self {
            chains: Chains::new(),
            effort,
            tokens: Vec::with_capacity(BLOCK_TOKENS),
            base: FIRST,
            block_start: FIRST,
            at: FIRST,
            best: NONE,
            pending: false,
            chain: 0,
            run: 0,
        }
    }

    /// Starts where positions are soon lowered.
    #[cfg(test)]
    pub(super) fn start_late(&mut self) {
        self.base = LATE - 3 * SLIDE as u32;
        (self.block_start, self.at) = (self.base, self.base);
    }

    /// Makes it as new for another stream; `seen` is the number of bytes in the window.
    pub(super) fn reset(&mut self, seen: usize) {
        self.tokens.clear();
        // Behind all positions entered, and on a multiple of the slide as at the start.
        self.base = (self.base + seen as u32).next_multiple_of(SLIDE as u32);
        self.rebase_late();
        (self.block_start, self.at) = (self.base, self.base);
        (self.best, self.pending, self.chain, self.run) = (NONE, false, 0, 0);
    }

    /// Takes `bytes` as the history at the start of the stream.
    pub(super) fn dictionary(&mut self, bytes: &[u8]) {
        let window = Window { bytes, base: self.base };
        while self.at < window.end() {
            if window.hashable(self.at) {
                self.chains.insert(&window, self.at);
            }
            self.at += 1;
        }
    }

    /// The window has slid by 32 KiB.
    pub(super) fn slide(&mut self) {
        self.base += SLIDE as u32;
        self.rebase_late();
    }

    /// Keeps positions small.
    fn rebase_late(&mut self) {
        if self.base > LATE {
            let by = self.base - SLIDE as u32;
            self.chains.rebase(by);
            self.base -= by;
            self.at = self.at.saturating_sub(by);
            self.block_start = self.block_start.saturating_sub(by);
            self.chain = self.chain.saturating_sub(by);
        }
    }

    /// Searches the window: `bytes` from the window's base on, of which all but the last few are done.
    pub(super) fn step(&mut self, bytes: &[u8], ending: Ending, sink: &mut Sink<'_>) {
        let window = Window { bytes, base: self.base };
        let end = window.end();
        self.chains.weigh(window.range(self.at, end).unwrap_or(&[]), self.effort.costs);
        loop {
            let look = end - self.at;
            if look < LOOK_AHEAD && ending == Ending::Open {
                return;
            }
            if look == 0 {
                if self.pending {
                    self.pending = false;
                    self.literal(&window, self.at - 1, sink);
                }
                if !self.tokens.is_empty() {
                    self.cut(&window, sink);
                }
                return;
            }
            self.position(&window, look as usize, sink);
        }
    }

    /// Handles one position, or a match and all it covers.
    fn position(&mut self, window: &Window<'_>, look: usize, sink: &mut Sink<'_>) {
        self.insert(window);
        let before = std::mem::replace(&mut self.best, NONE);
        let in_reach = self.chain > window.earliest(self.at);
        if in_reach && look > before.length && before.length < self.effort.lazy {
            self.best = self.chains.search(window, self.at, self.chain, &self.effort);
        }
        if before.length >= 4 && self.best.length <= before.length {
            self.send_match(window, before, look, sink);
            return;
        }
        if self.best.length >= 4 {
            self.run = 0;
        }
        if self.pending {
            self.run = self.run.wrapping_add(1);
            self.literal(window, self.at - 1, sink);
            self.at += 1;
            self.skip(window, sink);
        } else {
            self.at += 1;
            self.pending = true;
        }
    }

    /// In a long stretch without matches, takes literals without searching.
    fn skip(&mut self, window: &Window<'_>, sink: &mut Sink<'_>) {
        let long = i64::from(self.run) - i64::from(self.effort.depth);
        if long <= 0 {
            return;
        }
        for _ in 0..1 + (long >> 6) {
            if self.at + 1 >= window.end() {
                break;
            }
            self.literal(window, self.at - 1, sink);
            self.insert(window);
            self.at += 1;
        }
        self.pending = false;
        self.literal(window, self.at - 1, sink);
    }

    /// Sends the match that begins at the position before.
    fn send_match(&mut self, window: &Window<'_>, found: Best, look: usize, sink: &mut Sink<'_>) {
        let found = self.check_end(window, found, look, sink);
        self.tokens.push(Token::copy(found.length, found.distance));
        let next = self.at + found.length as u32 - 1;
        for at in self.at + 1..next {
            if !window.hashable(at) {
                break;
            }
            self.chains.insert(window, at);
        }
        self.at = next;
        self.pending = false;
        self.best = NONE;
        self.run = 0;
        self.cut_if_full(window, sink);
    }

    /// Looks for a longer match from the hash of what follows the match, which begins at the position before.
    fn check_end(&mut self, window: &Window<'_>, found: Best, look: usize, sink: &mut Sink<'_>) -> Best {
        let start = self.at - 1;
        let behind = start + found.length as u32;
        if found.length >= 256 || !window.hashable(behind) {
            return found;
        }
        // Signed, as it may lie before the window.
        let earlier = i64::from(self.chains.newest(window, behind)) - 1 - found.length as i64;
        let distance = i64::from(start) - earlier;
        if distance == found.distance as i64 || earlier <= i64::from(window.earliest(self.at)) + 2 {
            return found;
        }
        let earlier = earlier as u32;
        let mut length = window.common(earlier + 2, start + 2, look.min(260) - 2);
        if length <= found.length {
            return found;
        }
        for skipped in [1, 0] {
            let same = window.byte(start + skipped) == window.byte(earlier + skipped);
            if length >= Token::MAX_MATCH || !same {
                for j in 0..=skipped {
                    self.literal(window, start + j, sink);
                    self.at += 1;
                    self.insert(window);
                }
                break;
            }
            length += 1;
        }
        Best { length, distance: distance as usize }
    }

    /// Enters the position to be searched, if 4 bytes are there.
    #[inline]
    fn insert(&mut self, window: &Window<'_>) {
        if window.hashable(self.at) {
            self.chain = self.chains.insert(window, self.at);
        }
    }

    #[inline]
    fn literal(&mut self, window: &Window<'_>, at: u32, sink: &mut Sink<'_>) {
        self.tokens.push(Token::literal(window.byte(at)));
        self.cut_if_full(window, sink);
    }

    #[inline]
    fn cut_if_full(&mut self, window: &Window<'_>, sink: &mut Sink<'_>) {
        if self.tokens.len() == BLOCK_TOKENS {
            self.cut(window, sink);
        }
    }

    /// Hands on the block, which ends at the position to be searched.
    fn cut(&mut self, window: &Window<'_>, sink: &mut Sink<'_>) {
        // The bytes are unknown if the window slid over the start of the block.
        let raw = if self.block_start >= self.base { window.range(self.block_start, self.at) } else { None };
        sink(&self.tokens, raw);
        self.tokens.clear();
        self.block_start = self.at;
    }
}
