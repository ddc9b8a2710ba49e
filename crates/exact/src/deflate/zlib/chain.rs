//! The match finder: chains of positions whose three bytes have the same hash.

use super::config::{Config, End, Mode, Search, ThreeBytes};
use crate::deflate::links;
use crate::deflate::source::{TokenSource, Window};
use crate::deflate::token::Token;
use crate::deflate::words::{common_prefix, le32};

/// The original keeps so many bytes, and moves them by half of them.
const WINDOW: u64 = 2 * STEP;
const STEP: u64 = 32 << 10;
/// With fewer bytes than this ahead, the original moves its window and reads on.
const LOOKAHEAD: u64 = 262;
/// The farthest a match can lie back.
const REACH: usize = (STEP - LOOKAHEAD) as usize;
/// A match of three bytes is refused on lazy levels if it lies farther back.
const FAR_FOR_THREE: usize = 4096;
/// What is no match yet: one byte less than the shortest.
const NO_MATCH: usize = 2;

type Links = links::Links<ThreeBytes, { 1 << 16 }>;

/// Where the window of the original begins when it looks at position `at`.
///
/// It moves when few bytes are ahead, and it was full before. As that depends on the position alone, so
/// does what is lost. Its first byte is never part of a match.
pub(super) fn window_base(at: u64, stream_end: Option<u64>) -> u64 {
    // Few bytes are ahead at the end even where the window is not full.
    let is_end = stream_end.is_some_and(|end| end.saturating_sub(at) < LOOKAHEAD);
    let first = WINDOW - LOOKAHEAD + u64::from(!is_end);
    if at < first { 0 } else { ((at - first) / STEP + 1) * STEP }
}

/// The state of the search.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    config: Config,
    position: u64,
    /// The match found at the byte before `position` (lazy levels).
    held: Found,
    /// Whether the byte before `position` is not yet handed out (lazy levels).
    pending: bool,
    /// So many positions before a border could not be inserted, for the bytes behind it were not known.
    late: usize,
    /// Where the window begins, once it stands.
    standing: Option<u64>,
    links: Links,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    length: usize,
    distance: usize,
}

impl Found {
    const NONE: Self = Self { length: NO_MATCH, distance: 0 };
}

/// The words that a longer match must share with the target.
struct Probe {
    offset: usize,
    mask: u32,
    word: u32,
}

impl Probe {
    /// For matches of more than `length` bytes.
    #[inline]
    fn new(target: &[u8], length: usize) -> Self {
        let offset = length.saturating_sub(3);
        // There may be no four bytes to compare. Then all is compared.
        let mask = match target.len().saturating_sub(offset) {
            0..4 => 0,
            _ if length > NO_MATCH => u32::MAX,
            _ => 0xff_ffff,
        };
        Self { offset, mask, word: le32(target, offset) & mask }
    }

    #[inline]
    fn fits(&self, bytes: &[u8], candidate: usize) -> bool {
        le32(bytes, candidate + self.offset) & self.mask == self.word
    }
}

impl Search {
    /// The best match at index `i` that is longer than `least`, among candidates above `lowest`.
    #[inline]
    fn best(self, links: &Links, walk: &Walk<'_>, first: usize, lowest: usize, least: usize) -> Found {
        let (bytes, i) = (walk.bytes, walk.i);
        let target = &bytes[i..bytes.len().min(i + Token::MAX_MATCH)];
        let stop = self.nice.min(target.len());
        let depth = match self.mode {
            Mode::Lazy { good, .. } if least >= good => self.depth / 4,
            _ => self.depth,
        };
        let mut best = Found { length: least, distance: 0 };
        let mut probe = Probe::new(target, least);
        let mut candidate = first;
        for _ in 0..depth {
            if probe.fits(bytes, candidate) {
                let length = common_prefix(&bytes[candidate..], target);
                if length > best.length {
                    best = Found { length, distance: i - candidate };
                    if length >= stop {
                        break;
                    }
                    probe = Probe::new(target, length);
                }
            }
            let back = links.back(candidate);
            if back == 0 || candidate <= lowest + back {
                break;
            }
            candidate -= back;
        }
        if best.distance == 0 { Found::NONE } else { best }
    }
}

/// Where the search goes on, in indices of a window.
struct Walk<'a> {
    bytes: &'a [u8],
    origin: u64,
    stream_end: Option<u64>,
    stop: usize,
    i: usize,
    /// The window base, and up to where it stays so.
    base: u64,
    base_until: u64,
}

impl<'a> Walk<'a> {
    fn new(window: Window<'a>, position: u64, until: u64) -> Self {
        let index = |position: u64| position.saturating_sub(window.origin) as usize;
        Self {
            bytes: window.bytes,
            origin: window.origin,
            stream_end: window.stream_end,
            stop: index(until).min(window.bytes.len()),
            i: index(position),
            base: 0,
            base_until: 0,
        }
    }

    fn at(&self) -> u64 {
        self.origin + self.i as u64
    }

    /// The bytes ahead.
    fn left(&self) -> usize {
        self.bytes.len() - self.i
    }

    fn is_near_end(&self) -> bool {
        self.stream_end.is_some() && self.left() < LOOKAHEAD as usize
    }

    fn base(&mut self) -> u64 {
        let at = self.at();
        if at >= self.base_until || self.is_near_end() {
            self.base = window_base(at, self.stream_end);
            // One less than when it moves: at the end of the stream it does so earlier.
            self.base_until = self.base + WINDOW - LOOKAHEAD;
        }
        self.base
    }
}

impl Chain {
    /// A source behind a dictionary: the first `length` bytes of the windows that it will see.
    pub(crate) fn with_dictionary(config: Config, dictionary: &[u8]) -> Self {
        let mut chain = Self::new(config, 0);
        chain.links.insert_all(dictionary, 0, dictionary.len());
        chain.position = dictionary.len() as u64;
        chain.late = dictionary.len().min(NO_MATCH);
        chain
    }

    /// Inserts the positions that were too near to the last border.
    fn insert_late(&mut self, walk: &Walk<'_>) {
        while self.late > 0 && walk.left() + self.late > NO_MATCH {
            self.links.insert(walk.bytes, walk.i - self.late);
            self.late -= 1;
        }
    }

    /// Inserts the present position and looks for a match that is longer than `least`.
    #[inline]
    fn look(&mut self, walk: &mut Walk<'_>, least: usize, is_wanted: bool) -> Found {
        let mut base = walk.base();
        if self.config.end == End::Stands && walk.is_near_end() {
            base = *self.standing.get_or_insert(base);
        }
        // Where the window stands, its end can be reached.
        let is_beyond = walk.at() > base + WINDOW - LOOKAHEAD;
        if walk.left() <= NO_MATCH {
            return Found::NONE;
        }
        let before = self.links.insert(walk.bytes, walk.i);
        // The first byte of the window, and what is before it.
        let lost = (base + 1).saturating_sub(walk.origin) as usize;
        let far = walk.i.saturating_sub(REACH);
        let Some(first) = before.checked_sub(1).filter(|first| *first >= lost.max(far)) else {
            return Found::NONE;
        };
        if !is_wanted || is_beyond {
            return Found::NONE;
        }
        // Candidates behind the first must be nearer by one byte.
        let lowest = far.max(lost.saturating_sub(1));
        self.config.search.best(&self.links, walk, first, lowest, least)
    }

    fn greedy(&mut self, walk: &mut Walk<'_>, insert_limit: usize, tokens: &mut Vec<Token>) {
        let bytes = walk.bytes;
        while walk.i < walk.stop {
            let found = self.look(walk, NO_MATCH, true);
            if found.length > NO_MATCH {
                tokens.push(Token::copy(found.length, found.distance));
                let next = walk.i + found.length;
                if found.length <= insert_limit && bytes.len() - next > NO_MATCH {
                    self.links.insert_all(bytes, walk.i + 1, next);
                }
                walk.i = next;
            } else {
                tokens.push(Token::literal(bytes[walk.i]));
                walk.i += 1;
            }
        }
    }

    fn lazy(&mut self, walk: &mut Walk<'_>, limit: usize, tokens: &mut Vec<Token>) {
        let bytes = walk.bytes;
        while walk.i < walk.stop {
            let i = walk.i;
            let before = self.held;
            self.held = self.look(walk, before.length, before.length < limit);
            if self.held.length == 3 && self.held.distance > FAR_FOR_THREE {
                self.held = Found::NONE;
            }
            if before.length > NO_MATCH && self.held.length <= before.length {
                // It begins at the byte before.
                tokens.push(Token::copy(before.length, before.distance));
                walk.i += before.length - 1;
                self.links.insert_all(bytes, i + 1, walk.i);
                self.pending = false;
                self.held = Found::NONE;
            } else {
                if self.pending {
                    tokens.push(Token::literal(bytes[i - 1]));
                }
                self.pending = true;
                walk.i += 1;
            }
        }
        if self.pending && walk.stream_end == Some(walk.at()) {
            tokens.push(Token::literal(bytes[walk.i - 1]));
            self.pending = false;
        }
    }
}

impl TokenSource for Chain {
    type Config = Config;
    const GRID: u64 = 1;
    const LOOKAHEAD: u64 = LOOKAHEAD;
    const HISTORY: u64 = STEP;

    fn new(config: Config, start: u64) -> Self {
        Self {
            config,
            position: start,
            held: Found::NONE,
            pending: false,
            late: 0,
            standing: None,
            links: Links::new(config.hash, start),
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn emitted(&self) -> u64 {
        self.position - u64::from(self.pending)
    }

    fn advance(&mut self, window: Window<'_>, until: u64, tokens: &mut Vec<Token>) {
        self.links.rebase(window.origin);
        let mut walk = Walk::new(window, self.position, until);
        self.insert_late(&walk);
        match self.config.search.mode {
            Mode::Greedy { insert_limit } => self.greedy(&mut walk, insert_limit, tokens),
            Mode::Lazy { limit, .. } => self.lazy(&mut walk, limit, tokens),
        }
        self.position = walk.at();
        if walk.stream_end == Some(self.position) {
            self.late = walk.i.min(NO_MATCH);
        }
    }

    fn same_future(&self, other: &Self) -> bool {
        self.config == other.config
            && self.position == other.position
            && self.held == other.held
            && self.pending == other.pending
            && self.late == other.late
            && self.standing == other.standing
            && self.links.agree(&other.links, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_moves_when_few_bytes_are_ahead() {
        let at = |at| window_base(at, None);
        assert_eq!([at(0), at(65_274), at(65_275), at(65_275 + 32_767)], [0, 0, 32_768, 32_768]);
        assert_eq!(at(65_275 + 32_768), 65_536);
        // One byte earlier where the stream ends.
        assert_eq!(window_base(65_274, Some(65_300)), 32_768);
        assert_eq!(window_base(65_274, Some(65_536)), 0);
    }
}
