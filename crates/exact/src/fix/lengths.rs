//! The code lengths of a dynamic block, as its header sends them.

use super::FixError;
use super::range::{Chance, Coder};
use crate::deflate::block::Counts;
use crate::deflate::huffman::PrefixCode;
use crate::deflate::parse::CodeLengths;
use crate::deflate::tables::{
    CODELEN_ORDER, CODELEN_SYMBOLS, DISTANCE_SYMBOLS, END_OF_BLOCK, FIRST_LENGTH, LITLEN_SYMBOLS,
    MAX_CODE_BITS, MAX_CODELEN_BITS,
};

/// The model of code lengths: they are those of a best code, and sent in the longest runs, unless told otherwise.
#[derive(Debug)]
pub(super) struct Lengths {
    litlen: Guessed<32>,
    distance: Guessed<32>,
    codelens: Guessed<16>,
    /// By the guessed length.
    lengths: [Guessed<16>; 16],
    code_lengths: [Guessed<8>; 8],
    runs: Runs,
}

impl Lengths {
    pub(super) fn new() -> Self {
        Self {
            litlen: Guessed::new(),
            distance: Guessed::new(),
            codelens: Guessed::new(),
            lengths: std::array::from_fn(|_| Guessed::new()),
            code_lengths: std::array::from_fn(|_| Guessed::new()),
            runs: Runs::new(),
        }
    }

    pub(super) fn code(
        &mut self,
        coder: &mut impl Coder,
        counts: &Counts,
        actual: &CodeLengths,
    ) -> Result<CodeLengths, FixError> {
        let codes = FixError::Codes;
        let guess = counts.used_litlen() - FIRST_LENGTH;
        let litlen = FIRST_LENGTH + self.litlen.code(coder, guess, actual.litlen.wrapping_sub(FIRST_LENGTH));
        let guess = counts.used_distance().max(1) - 1;
        let distance = 1 + self.distance.code(coder, guess, actual.distance.wrapping_sub(1));
        if litlen > LITLEN_SYMBOLS || distance > DISTANCE_SYMBOLS {
            return Err(codes);
        }
        let mut lengths = Vec::with_capacity(litlen + distance);
        let best_litlen = PrefixCode::best(&counts.litlen, MAX_CODE_BITS).lengths;
        let best_distance = PrefixCode::best(&counts.distance, MAX_CODE_BITS).lengths;
        for &guess in best_litlen[..litlen].iter().chain(&best_distance[..distance]) {
            let length = actual.lengths.get(lengths.len()).copied().unwrap_or(0);
            let model = &mut self.lengths[usize::from(guess)];
            lengths.push(model.code(coder, guess.into(), length.into()) as u8);
        }
        if lengths[END_OF_BLOCK] == 0 {
            return Err(codes);
        }
        let symbols = self.runs.code(coder, &lengths, &actual.symbols)?;
        let mut counts = [0; CODELEN_SYMBOLS];
        symbols.iter().for_each(|(symbol, _)| counts[usize::from(*symbol)] += 1);
        let best = PrefixCode::best(&counts, MAX_CODELEN_BITS).lengths;
        let in_use = CODELEN_ORDER.iter().rposition(|symbol| counts[usize::from(*symbol)] > 0);
        let guess = in_use.map_or(4, |last| last + 1).max(4) - 4;
        let sent = 4 + self.codelens.code(coder, guess, actual.code_lengths.len().wrapping_sub(4));
        let sent = CODELEN_ORDER.get(..sent).ok_or(codes)?;
        let mut code_lengths = Vec::with_capacity(sent.len());
        for &symbol in sent {
            let guess = best[usize::from(symbol)];
            let length = actual.code_lengths.get(code_lengths.len()).copied().unwrap_or(0);
            let model = &mut self.code_lengths[usize::from(guess)];
            code_lengths.push(model.code(coder, guess.into(), length.into()) as u8);
        }
        let has_code =
            |symbol: u8| sent.iter().zip(&code_lengths).any(|(s, length)| *s == symbol && *length > 0);
        if !symbols.iter().all(|(symbol, _)| has_code(*symbol)) {
            return Err(codes);
        }
        Ok(CodeLengths { litlen, distance, code_lengths, symbols, lengths })
    }
}

/// A value that is mostly as guessed.
#[derive(Debug)]
struct Guessed<const N: usize> {
    is_right: Chance,
    other: [Chance; N],
}

impl<const N: usize> Guessed<N> {
    fn new() -> Self {
        Self { is_right: Chance::LIKELY, other: [Chance::default(); N] }
    }

    fn code(&mut self, coder: &mut impl Coder, guess: usize, value: usize) -> usize {
        if coder.bit(&mut self.is_right, value == guess) {
            return guess;
        }
        coder.symbol(&mut self.other, value & (N - 1))
    }
}

/// The shortest and the longest run of code length symbols 16 to 18.
const RUNS: [(usize, usize); 3] = [(3, 6), (3, 10), (11, 138)];

/// The model of the run-length code.
#[derive(Debug)]
struct Runs {
    /// By whether it is zero, whether it is the length before, and how many of it follow.
    is_run: [Chance; 64],
    /// Whether zeros repeat the length before, which is zero, too.
    is_repeat: Chance,
    /// The length of a run, by whether it repeats the length before.
    count: [Guessed<256>; 2],
}

impl Runs {
    fn new() -> Self {
        Self {
            is_run: [Chance::LIKELY; 64],
            is_repeat: Chance::UNLIKELY,
            count: std::array::from_fn(|_| Guessed::new()),
        }
    }

    /// Codes which symbols stand for the lengths.
    fn code(
        &mut self,
        coder: &mut impl Coder,
        lengths: &[u8],
        actual: &[(u8, u8)],
    ) -> Result<Vec<(u8, u8)>, FixError> {
        let mut symbols = Vec::with_capacity(lengths.len());
        let mut at = 0;
        while let Some(&length) = lengths.get(at) {
            let (symbol, extra) = actual.get(symbols.len()).copied().unwrap_or((0, 0));
            let same = lengths[at..].iter().take_while(|other| **other == length).count();
            let is_again = at > 0 && lengths[at - 1] == length;
            let possible = same >= 3 && (is_again || length == 0);
            let context = usize::from(length == 0) * 32 + usize::from(is_again) * 16 + same.min(15);
            if !possible || !coder.bit(&mut self.is_run[context], symbol >= 16) {
                symbols.push((length, 0));
                at += 1;
                continue;
            }
            let is_repeat = length != 0 || (is_again && coder.bit(&mut self.is_repeat, symbol == 16));
            let most = same.min(if is_repeat { 6 } else { 138 });
            let model = &mut self.count[usize::from(is_repeat)];
            let least = RUNS.get(usize::from(symbol).wrapping_sub(16)).map_or(0, |run| run.0);
            let count = model.code(coder, most, least + usize::from(extra));
            if !(3..=most).contains(&count) {
                return Err(FixError::Codes);
            }
            let kind = if is_repeat { 0 } else { 1 + usize::from(count > 10) };
            symbols.push((16 + kind as u8, (count - RUNS[kind].0) as u8));
            at += count;
        }
        Ok(symbols)
    }
}
