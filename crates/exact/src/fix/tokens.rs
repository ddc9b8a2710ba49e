//! Tokens, coded by what hash chains say about the place where they stand.
//!
//! Each token is coded with all before it known, so a wrong guess costs its bits and nothing later. Which
//! guesses are good is learned: what encoders have in common is written down here, their habits are not.

use super::FixError;
use super::chains::{Candidate, Chains, Found, Kind, View};
use super::range::{Chance, Coder};
use crate::deflate::Token;
use crate::deflate::tables::{DISTANCE_BASE, DISTANCE_EXTRA, DISTANCE_SYMBOLS, distance_symbol};

/// How many candidates are asked for in turn.
const MOST_ASKED: usize = 48;

const LENGTH_CLASSES: usize = 11;

/// Classes of lengths that encoders treat alike.
fn length_class(length: usize) -> usize {
    match length {
        0..3 => 0,
        3..=6 => length - 2,
        7..=8 => 5,
        9..=16 => 6,
        17..=32 => 7,
        33..=128 => 8,
        129..=257 => 9,
        _ => 10,
    }
}

/// Classes of distances: encoders leave far matches that are short.
fn distance_class(distance: usize) -> usize {
    match distance {
        0..=512 => 0,
        513..=4096 => 1,
        4097..=16_384 => 2,
        _ => 3,
    }
}

/// Chances by context.
#[derive(Debug)]
struct Contexts(Box<[Chance]>);

impl Contexts {
    fn new(count: usize, chance: Chance) -> Self {
        Self(vec![chance; count].into())
    }
}

/// What came before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Match,
    Literal,
    /// A literal though there was a match.
    Deferred,
}

/// The model of the tokens of a stream.
#[derive(Debug)]
pub(crate) struct Tokens {
    chains: Chains,
    here: Found,
    next: Found,
    /// Whether `next` is that of the position.
    is_searched: bool,
    before: Before,
    /// Whether the last matches were the best ones, and as long as they could be.
    best_before: usize,
    full_before: usize,
    is_match: Contexts,
    is_best: Contexts,
    is_this: Contexts,
    is_full: Contexts,
    missing: Contexts,
    is_long_form: Chance,
    distance: [Chance; 32],
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let mut is_match = Contexts::new(LENGTH_CLASSES * 4 * 3 * 4 * Kind::COUNT, Chance::default());
        // Where there is nothing to match.
        is_match.0[0] = Chance::of(1);
        Self {
            chains: Chains::new(),
            here: Found::default(),
            next: Found::default(),
            is_searched: false,
            before: Before::default(),
            best_before: 0,
            full_before: 0,
            is_match,
            is_best: Contexts::new(LENGTH_CLASSES * Kind::COUNT * 2 * 4, Chance::LIKELY),
            is_this: Contexts::new(LENGTH_CLASSES * Kind::COUNT * 2 * 2, Chance::default()),
            is_full: Contexts::new(LENGTH_CLASSES * 4, Chance::LIKELY),
            missing: Contexts::new(256, Chance::default()),
            is_long_form: Chance::UNLIKELY,
            distance: [Chance::default(); 32],
        }
    }

    /// Begins another stream. What was learned stays.
    pub(crate) fn restart(&mut self) {
        self.chains.clear();
        self.is_searched = false;
        self.before = Before::default();
    }

    /// Codes the token at the position of the view.
    pub(crate) fn code(
        &mut self,
        coder: &mut impl Coder,
        view: View<'_>,
        token: Token,
    ) -> Result<Token, FixError> {
        std::mem::swap(&mut self.here, &mut self.next);
        if !self.is_searched {
            self.chains.search(view, &mut self.here);
        }
        self.chains.insert(view, Kind::Literal);
        let best = self.here.best();
        if best.is_some_and(|best| best.length < Token::MAX_MATCH) {
            self.chains.search(view.later(1), &mut self.next);
            self.is_searched = true;
        } else {
            self.is_searched = false;
            self.next.candidates.clear();
        }
        let is_match = coder.bit(&mut self.is_match.0[self.match_context(best)], token.is_match());
        if !is_match {
            self.before = if best.is_some() { Before::Deferred } else { Before::Literal };
            let Some(byte) = view.bytes.get(view.index) else { return Err(FixError::Token) };
            return Ok(Token::literal(*byte));
        }
        let token = self.code_match(coder, view, token)?;
        self.before = Before::Match;
        self.note(view, token);
        Ok(token)
    }

    /// Passes over bytes that are in no token.
    pub(crate) fn skip(&mut self, view: View<'_>) {
        self.chains.insert(view, Kind::Literal);
        self.is_searched = false;
    }

    fn match_context(&self, best: Option<Candidate>) -> usize {
        let Some(Candidate { distance, length, kind }) = best else { return 0 };
        let later = self.next.best().map_or(0, |next| next.length);
        let gain = match later {
            _ if later <= length => usize::from(later == length),
            _ if later == length + 1 => 2,
            _ => 3,
        };
        let mut context = length_class(length) * 4 + gain;
        context = context * 3 + self.before as usize;
        context = context * 4 + distance_class(distance);
        context * Kind::COUNT + kind as usize
    }

    fn code_match(
        &mut self,
        coder: &mut impl Coder,
        view: View<'_>,
        token: Token,
    ) -> Result<Token, FixError> {
        let distance = self.code_distance(coder, token)?;
        if distance as u64 > view.at {
            return Err(FixError::Token);
        }
        let full = view.length_at(distance);
        if full < Token::MIN_MATCH {
            return Err(FixError::Token);
        }
        let context = length_class(full) * 4 + self.full_before;
        let is_full = coder.bit(&mut self.is_full.0[context], token.plain_len() == full);
        self.full_before = self.full_before << 1 & 2 | usize::from(is_full);
        let mut length = full;
        if !is_full {
            let missing = coder.symbol(&mut self.missing.0, full.saturating_sub(token.plain_len() + 1) & 255);
            length = full.checked_sub(missing + 1).ok_or(FixError::Token)?;
        }
        if length < Token::MIN_MATCH {
            return Err(FixError::Token);
        }
        if length == Token::MAX_MATCH && coder.bit(&mut self.is_long_form, token.is_long_form()) {
            return Ok(Token::copy_258_long_form(distance));
        }
        Ok(Token::copy(length, distance))
    }

    fn code_distance(&mut self, coder: &mut impl Coder, token: Token) -> Result<usize, FixError> {
        let distance = token.distance();
        if let Some(best) = self.here.best() {
            let is_nearest = usize::from(self.here.best == 0);
            let context = (length_class(best.length) * Kind::COUNT + best.kind as usize) * 2 + is_nearest;
            let context = context * 4 + self.best_before;
            let is_best = coder.bit(&mut self.is_best.0[context], distance == best.distance);
            self.best_before = self.best_before << 1 & 2 | usize::from(is_best);
            if is_best {
                return Ok(best.distance);
            }
            let mut longest = 0;
            for candidate in self.here.candidates.iter().take(MOST_ASKED) {
                if candidate.distance == best.distance {
                    continue;
                }
                let is_longer = usize::from(candidate.length > longest);
                longest = longest.max(candidate.length);
                let context = length_class(candidate.length) * Kind::COUNT + candidate.kind as usize;
                let context = (context * 2 + is_longer) * 2 + usize::from(candidate.length == best.length);
                if coder.bit(&mut self.is_this.0[context], distance == candidate.distance) {
                    return Ok(candidate.distance);
                }
            }
        }
        let index = distance.saturating_sub(1);
        let symbol = coder.symbol(&mut self.distance, distance_symbol(index));
        if symbol >= DISTANCE_SYMBOLS {
            return Err(FixError::Token);
        }
        let base = usize::from(DISTANCE_BASE[symbol]);
        let mut extra = 0;
        for at in (0..DISTANCE_EXTRA[symbol]).rev() {
            let bit = coder.bit(&mut Chance::default(), index.saturating_sub(base) >> at & 1 != 0);
            extra = extra << 1 | usize::from(bit);
        }
        Ok(base + extra + 1)
    }

    /// Notes the positions of a match. The first is noted already.
    fn note(&mut self, view: View<'_>, token: Token) {
        let length = token.plain_len();
        self.chains.mark(view, Kind::MatchStart);
        for i in 1..length {
            let kind = match (i, length - i) {
                (_, 1) => Kind::MatchLast,
                (1, _) => Kind::MatchSecond,
                (_, 2) => Kind::BeforeLast,
                (2, _) => Kind::MatchThird,
                _ => Kind::MatchInner,
            };
            self.chains.insert(view.later(i), kind);
        }
        self.is_searched = false;
    }
}
