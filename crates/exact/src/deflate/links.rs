//! Chains of positions whose first bytes have the same hash, for encoders that search along them.

use super::token::Token;

/// The farthest that a chain leads back, in bytes.
pub(crate) const REACH: usize = Token::MAX_DISTANCE;
const REACH_MASK: usize = REACH - 1;

/// What tells which positions make a chain.
pub(crate) trait Hash: Copy {
    /// So many bytes are hashed.
    const BYTES: usize;

    /// The hash of the bytes at an index, all of which are there.
    fn of(self, bytes: &[u8], index: usize) -> usize;
}

/// The chains, for hashes below `N`, a power of two.
#[derive(Clone, Debug)]
pub(crate) struct Links<H, const N: usize> {
    hash: H,
    /// The position in the stream that indices count from.
    origin: u64,
    /// By hash: the newest index plus 1, or 0.
    head: Box<[u32; N]>,
    /// By position modulo 32,768: how far back the one before lies, or 0 if that is out of reach.
    back: Box<[u16; REACH]>,
}

impl<H: Hash, const N: usize> Links<H, N> {
    pub(crate) fn new(hash: H, origin: u64) -> Self {
        Self { hash, origin, head: zeroed(), back: zeroed() }
    }

    /// Counts indices from another position of the stream.
    pub(crate) fn rebase(&mut self, origin: u64) {
        if origin != self.origin {
            for head in self.head.iter_mut() {
                let position = (self.origin + u64::from(*head)).saturating_sub(origin);
                *head = if *head == 0 { 0 } else { u32::try_from(position).unwrap_or(0) };
            }
            self.origin = origin;
        }
    }

    #[inline]
    fn slot(&self, index: usize) -> usize {
        (index + self.origin as usize) & REACH_MASK
    }

    /// How far the index before a linked one lies back, or 0 if it is out of reach.
    #[inline]
    pub(crate) fn back(&self, index: usize) -> usize {
        usize::from(self.back[self.slot(index)])
    }

    /// Inserts an index by its bytes; returns the head before: an index plus 1, or 0.
    #[inline]
    pub(crate) fn insert(&mut self, bytes: &[u8], index: usize) -> usize {
        let hash = self.hash.of(bytes, index) & (N - 1);
        let before = std::mem::replace(&mut self.head[hash], index as u32 + 1) as usize;
        let back = index + 1 - before;
        let slot = self.slot(index);
        self.back[slot] = if before == 0 || back > REACH { 0 } else { back as u16 };
        before
    }

    /// Inserts the indices of a range that have as many bytes as are hashed.
    pub(crate) fn insert_all(&mut self, bytes: &[u8], from: usize, to: usize) {
        for index in from..to.min(bytes.len().saturating_sub(H::BYTES - 1)) {
            self.insert(bytes, index);
        }
    }

    /// Whether from position `at` on the same candidates are found, in the same order.
    pub(crate) fn agree(&self, other: &Self, at: u64) -> bool {
        let lowest = at.saturating_sub(REACH as u64);
        let newest = |links: &Self, head: u32| {
            let position = (links.origin + u64::from(head)).wrapping_sub(1);
            if head > 0 && position >= lowest { Some(position) } else { None }
        };
        let before = |links: &Self, position: u64| {
            let back = u64::from(links.back[position as usize & REACH_MASK]);
            position.checked_sub(back).filter(|&p| back > 0 && p >= lowest)
        };
        self.head.iter().zip(other.head.iter()).all(|(&a, &b)| {
            let (mut a, mut b) = (newest(self, a), newest(other, b));
            while let (Some(p), Some(q)) = (a, b)
                && p == q
            {
                (a, b) = (before(self, p), before(other, q));
            }
            a.is_none() && b.is_none()
        })
    }
}

pub(crate) fn zeroed<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    // By way of the heap: the tables are large for a stack.
    match vec![T::default(); N].into_boxed_slice().try_into() {
        Ok(table) => table,
        Err(_) => Box::new([T::default(); N]),
    }
}
