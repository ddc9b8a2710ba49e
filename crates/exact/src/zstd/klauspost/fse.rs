//! Tables of finite state entropy: how counts become probabilities, and probabilities a table.

use super::bits::BitWriter;
use super::words::log2;

/// The largest logarithm of a table's size.
const MAX_LOG: u32 = 8;
const MIN_LOG: u32 = 5;
/// The symbols that the largest of the alphabets has.
pub(super) const MAX_SYMBOLS: usize = 53;
/// What a symbol costs that a table can't write, in bits.
pub(super) const IMPOSSIBLE: u32 = u32::MAX;

/// The logarithm of the size of the table for `total` symbols of which `highest` is the highest; at most `most`.
pub(super) fn table_log(most: u32, total: u32, reach: u32, highest: u32) -> u32 {
    // The original subtracts in a byte: of few symbols, the difference wraps and sets no limit.
    let fitting = (log2(total - 1) as u8).wrapping_sub(2);
    let least = (log2(reach) + 1).min(log2(highest) + 2);
    most.min(u32::from(fitting)).max(least).clamp(MIN_LOG, MAX_LOG)
}

/// The counts `counts`, scaled to a sum of `1 << log`; -1 is a probability below 1.
///
/// Nothing if what is scaled leaves a symbol nothing.
pub(super) fn normalise(counts: &[u32], log: u32) -> Option<Vec<i16>> {
    const ROUND_UP: [u64; 8] = [0, 473_195, 504_333, 520_860, 550_000, 700_000, 750_000, 830_000];
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let scale = 62 - log;
    let step = (1u64 << 62) / total;
    let low = total >> log;
    let mut left = 1i64 << log;
    let (mut biggest, mut at) = (0, 0);
    let mut norm = vec![0i16; counts.len()];
    for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = u64::from(count);
        if count <= low {
            norm[i] = -1;
            left -= 1;
            continue;
        }
        let exact = count * step;
        let mut share = exact >> scale;
        if share < 8 && exact - (share << scale) > ROUND_UP[share as usize] << (scale - 20) {
            share += 1;
        }
        if share > biggest {
            (biggest, at) = (share, i);
        }
        norm[i] = share as i16;
        left -= share as i64;
    }
    if -left >= i64::from(norm[at] >> 1) {
        return spread_rest(counts, total, log);
    }
    norm[at] += left as i16;
    Some(norm)
}

/// The second way to scale, for counts that the first takes too much for.
fn spread_rest(counts: &[u32], total: u64, log: u32) -> Option<Vec<i16>> {
    const OPEN: i16 = -2;
    let low = total >> log;
    let mut one = (3 * total) >> (log + 1);
    let mut left = total;
    let mut todo = 1u64 << log;
    let mut norm = vec![0i16; counts.len()];
    for (share, &count) in norm.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        let count = u64::from(count);
        *share = if count <= low {
            -1
        } else if count <= one {
            1
        } else {
            OPEN
        };
        if *share != OPEN {
            todo = todo.checked_sub(1)?;
            left -= count;
        }
    }
    if left.checked_div(todo)? > one {
        one = 3 * left / (2 * todo);
        for (share, &count) in norm.iter_mut().zip(counts) {
            if *share == OPEN && u64::from(count) <= one {
                *share = 1;
                todo = todo.checked_sub(1)?;
                left -= u64::from(count);
            }
        }
    }
    if left == 0 {
        if !norm.iter().any(|share| *share > 0) {
            return None;
        }
        while todo > 0 {
            for share in norm.iter_mut().filter(|share| **share > 0).take(todo as usize) {
                *share += 1;
                todo -= 1;
            }
        }
        return Some(norm);
    }
    let bits = 62 - log;
    let middle = (1u64 << (bits - 1)) - 1;
    let rate = ((todo << bits) + middle) / left;
    let mut sum = middle;
    for (share, &count) in norm.iter_mut().zip(counts).filter(|(share, _)| **share == OPEN) {
        let next = sum + u64::from(count) * rate;
        *share = ((next >> bits) - (sum >> bits)) as i16;
        if *share < 1 {
            return None;
        }
        sum = next;
    }
    Some(norm)
}

/// Appends the description of a table.
pub(super) fn describe(norm: &[i16], log: u32, out: &mut Vec<u8>) {
    let mut bits = BitWriter::new(out, 2 * norm.len() + 8);
    bits.add(u64::from(log - MIN_LOG), 4);
    let mut width = log + 1;
    let mut threshold = 1i32 << log;
    let mut remaining = threshold + 1;
    let mut symbol = 0;
    while symbol < norm.len() && remaining > 1 {
        bits.flush();
        let share = i32::from(norm[symbol]);
        symbol += 1;
        let most = 2 * threshold - 1 - remaining;
        remaining -= share.abs();
        let mut value = share + 1;
        if value >= threshold {
            value += most;
        }
        bits.add(value as u64, width - u32::from(value < most));
        if share == 0 {
            let mut zeros = norm[symbol..].iter().take_while(|share| **share == 0).count();
            symbol += zeros;
            while zeros >= 3 {
                bits.flush();
                bits.add(3, 2);
                zeros -= 3;
            }
            bits.add(zeros as u64, 2);
        }
        while remaining < threshold {
            width -= 1;
            threshold >>= 1;
        }
    }
    bits.pad();
}

/// How a symbol moves the state.
#[derive(Clone, Copy, Debug, Default)]
struct Move {
    bits: u32,
    find: i32,
}

/// A table to encode with.
#[derive(Clone, Debug)]
pub(super) struct Table {
    log: u32,
    /// The probabilities that the table is made of.
    pub(super) norm: Vec<i16>,
    moves: [Move; MAX_SYMBOLS],
    states: Vec<u16>,
}

impl Table {
    /// The table for probabilities with a sum of `1 << log`.
    pub(super) fn new(norm: Vec<i16>, log: u32) -> Self {
        let size = 1usize << log;
        let mut places = vec![0u8; size];
        let mut top = size;
        for symbol in (0..norm.len()).filter(|&symbol| norm[symbol] == -1) {
            top -= 1;
            places[top] = symbol as u8;
        }
        let stride = (size >> 1) + (size >> 3) + 3;
        let mut place = 0;
        for (symbol, &share) in norm.iter().enumerate() {
            for _ in 0..share.max(0) {
                places[place] = symbol as u8;
                place = (place + stride) & (size - 1);
                while place >= top && top > 0 {
                    place = (place + stride) & (size - 1);
                }
            }
        }
        let mut moves = [Move::default(); MAX_SYMBOLS];
        let mut next = [0usize; MAX_SYMBOLS];
        let mut before = 0i32;
        for (symbol, &share) in norm.iter().enumerate() {
            let share = i32::from(share);
            next[symbol] = before as usize;
            let find = if share.abs() <= 1 { before - 1 } else { before - share };
            moves[symbol] = Move { bits: move_bits(share, log), find };
            before += share.abs();
        }
        let mut states = vec![0u16; size];
        for (place, &symbol) in places.iter().enumerate() {
            let slot = &mut next[usize::from(symbol)];
            states[*slot] = (size + place) as u16;
            *slot += 1;
        }
        Self { log, norm, moves, states }
    }

    /// The logarithm of the table's size: the bits of a state.
    pub(super) fn log(&self) -> u32 {
        self.log
    }

    /// The bits that the symbols of these counts take, or [`IMPOSSIBLE`].
    pub(super) fn cost(&self, counts: &[u32]) -> u32 {
        if self.norm.len() < counts.len() {
            return IMPOSSIBLE;
        }
        let mut sum = 0u32;
        for (symbol, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let delta = self.moves[symbol].bits;
            let whole = (delta >> 16) + 1;
            let part = (((whole << 16) - delta - (1 << self.log)) << 8) >> self.log;
            let cost = (whole << 8) - part;
            if self.norm[symbol] == 0 || cost > (self.log + 1) << 8 {
                return IMPOSSIBLE;
            }
            sum = sum.wrapping_add(count.wrapping_mul(cost));
        }
        sum >> 8
    }

    /// The state that stands for `symbol` as the first to be encoded.
    #[inline]
    pub(super) fn start(&self, symbol: u8) -> State {
        let step = self.moves[usize::from(symbol)];
        let bits = (step.bits + (1 << 15)) >> 16;
        let from = ((bits << 16) - step.bits) >> bits;
        State(self.follow(from, step))
    }

    /// Encodes `symbol`: writes what the state loses.
    #[inline(always)]
    pub(super) fn encode(&self, state: &mut State, symbol: u8, out: &mut BitWriter<'_>) {
        let step = self.moves[usize::from(symbol) % MAX_SYMBOLS];
        let bits = (state.0 + step.bits) >> 16;
        out.add(u64::from(state.0 & ((1 << bits) - 1)), bits);
        state.0 = self.follow(state.0 >> bits, step);
    }

    #[inline(always)]
    fn follow(&self, from: u32, step: Move) -> u32 {
        let index = from.wrapping_add_signed(step.find) as usize;
        u32::from(self.states.get(index).copied().unwrap_or_default())
    }

    /// Writes the state, from which the decoder starts.
    pub(super) fn end(&self, state: &State, out: &mut BitWriter<'_>) {
        out.add(u64::from(state.0) & ((1 << self.log) - 1), self.log);
    }
}

/// The state of an encoder.
#[derive(Clone, Debug)]
pub(super) struct State(u32);

/// What is added to a state so that its upper half is the number of bits to write.
fn move_bits(share: i32, log: u32) -> u32 {
    if share <= 1 {
        return (log << 16) - (1 << log);
    }
    let most = log - log2(share as u32 - 1);
    (most << 16) - ((share as u32) << most)
}
