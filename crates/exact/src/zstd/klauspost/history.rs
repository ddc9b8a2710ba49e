//! The plain bytes that matches reach back to, and the tables that find them.

use super::words::le32;

/// The plain bytes: those within the window, and the block in the making.
#[derive(Debug)]
pub(super) struct History {
    bytes: Vec<u8>,
    /// Where the block in the making begins.
    begin: usize,
    window: usize,
    /// What is added to an index to make the position that tables hold.
    bias: u32,
    /// The highest bias; beyond, positions are counted anew.
    most: u32,
}

/// Positions are counted anew long before they fill 32 bits.
const MOST_BIAS: u32 = 1 << 31;

impl History {
    /// Up to twice the `window` is held.
    pub(super) fn new(window: usize) -> Self {
        // A position in a table that was never set is 0: out of reach from the first byte on.
        Self { bytes: Vec::new(), begin: 0, window, bias: window as u32, most: MOST_BIAS }
    }

    /// Has positions counted anew as soon as their bias is higher.
    #[cfg(test)]
    pub(super) fn count_anew_above(&mut self, most: u32) {
        self.most = most;
    }

    /// The bytes of the block in the making.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// Adds bytes to the block in the making.
    pub(super) fn push(&mut self, plain: &[u8]) {
        self.bytes.extend_from_slice(plain);
    }

    /// The block in the making, with what is before it.
    pub(super) fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, begin: self.begin, window: self.window, bias: self.bias }
    }

    /// Begins the next block, which has up to `room` bytes. Says what to take off the positions of the tables.
    #[must_use]
    pub(super) fn next_block(&mut self, room: usize) -> u32 {
        self.begin = self.bytes.len();
        if self.begin + room <= 2 * self.window || self.begin <= self.window {
            return 0;
        }
        let gone = self.begin - self.window;
        self.bytes.drain(..gone);
        self.begin = self.window;
        self.bias += gone as u32;
        if self.bias <= self.most {
            return 0;
        }
        let less = self.bias - self.window as u32;
        self.bias -= less;
        less
    }
}

/// What a match finder sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// All up to the end of the block.
    pub(super) bytes: &'a [u8],
    /// Where the block begins.
    pub(super) begin: usize,
    /// Matches begin less than this before where they are used.
    pub(super) window: usize,
    bias: u32,
}

impl View<'_> {
    /// The entry for the four bytes `value` at `at`.
    #[inline(always)]
    pub(super) fn entry(&self, value: u32, at: usize) -> u64 {
        u64::from(at as u32 + self.bias) << 32 | u64::from(value)
    }

    /// Where `entry` is, if it is a match at `at` for `value`.
    #[inline(always)]
    pub(super) fn hit(&self, entry: u64, value: u32, at: usize) -> Option<usize> {
        let position = (entry >> 32) as u32;
        let distance = (at as u32 + self.bias).wrapping_sub(position);
        (entry as u32 == value && distance < self.window as u32).then(|| at.wrapping_sub(distance as usize))
    }

    /// Whether `value` is at `at`, before the block's end.
    #[inline(always)]
    pub(super) fn repeats(&self, at: usize, value: u32) -> bool {
        le32(self.bytes, at) == value
    }

    /// How many bytes before `from` are the same as those before `to`, down to `least` and `lowest`.
    #[inline(always)]
    pub(super) fn back(&self, from: usize, to: usize, least: usize, lowest: usize) -> usize {
        let most = from.saturating_sub(least).min(to.saturating_sub(lowest));
        let (a, b) = (&self.bytes[from - most..from], &self.bytes[to - most..to]);
        a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count()
    }
}

/// A table of entries, as [`View::entry`] makes them.
#[derive(Debug)]
pub(super) struct HashTable<const SIZE: usize>(Box<[u64; SIZE]>);

impl<const SIZE: usize> HashTable<SIZE> {
    pub(super) fn new() -> Self {
        // Made on the heap; the length is right, so nothing is made on the stack.
        Self(vec![0; SIZE].into_boxed_slice().try_into().unwrap_or_else(|_| Box::new([0; SIZE])))
    }

    /// The entry at `hash`, which becomes `entry`.
    #[inline(always)]
    pub(super) fn replace(&mut self, hash: u32, entry: u64) -> u64 {
        std::mem::replace(&mut self.0[hash as usize & (SIZE - 1)], entry)
    }

    /// The entry at `hash`.
    #[inline(always)]
    pub(super) fn get(&self, hash: u32) -> u64 {
        self.0[hash as usize & (SIZE - 1)]
    }

    /// Sets the entry at `hash`.
    #[inline(always)]
    pub(super) fn set(&mut self, hash: u32, entry: u64) {
        self.0[hash as usize & (SIZE - 1)] = entry;
    }

    /// Takes `less` off all positions; those that are lower are out of reach.
    pub(super) fn rebase(&mut self, less: u32) {
        for entry in self.0.iter_mut() {
            let position = ((*entry >> 32) as u32).saturating_sub(less);
            *entry = u64::from(position) << 32 | *entry & 0xffff_ffff;
        }
    }
}
