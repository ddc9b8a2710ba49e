//! Prefix codes of limited length, built as Go's `compress/flate` and klauspost's `flate` build them.

use super::tables::MAX_CODE_BITS;

/// A prefix code over `N` symbols. A symbol of length 0 has no code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrefixCode<const N: usize> {
    /// Code lengths in bits.
    pub(crate) lengths: [u8; N],
    /// Codes as they are sent: the first bit lowest.
    pub(crate) codes: [u16; N],
}

impl<const N: usize> PrefixCode<N> {
    /// The best code for symbols that occur `counts` times, none longer than `limit` bits (at most 15).
    ///
    /// There are many best codes; this is the one of package-merge where on equal weight a package comes
    /// before a leaf. One symbol alone gets a code of one bit.
    pub(crate) fn best(counts: &[u32; N], limit: usize) -> Self {
        let mut lengths = [0; N];
        best_lengths(counts, limit.min(MAX_CODE_BITS), &mut lengths);
        Self::canonical(lengths)
    }

    /// The canonical code of RFC 1951 3.2.2 with these lengths (at most 15 bits each).
    pub(crate) fn canonical(lengths: [u8; N]) -> Self {
        let mut next = [0u32; MAX_CODE_BITS + 2];
        for &length in &lengths {
            next[usize::from(length).min(MAX_CODE_BITS) + 1] += u32::from(length > 0);
        }
        // next[b + 1] holds how many codes have b bits; made into the first code of each length.
        let mut code = 0;
        for slot in next[1..=MAX_CODE_BITS].iter_mut() {
            code = (code + *slot) << 1;
            *slot = code;
        }
        let mut codes = [0; N];
        for (code, &length) in codes.iter_mut().zip(&lengths) {
            if length > 0 {
                let slot = &mut next[usize::from(length).min(MAX_CODE_BITS)];
                *code = (*slot as u16).reverse_bits() >> (16 - length.min(16));
                *slot += 1;
            }
        }
        Self { lengths, codes }
    }

    /// The bits that symbols take which occur `counts` times.
    pub(crate) fn size(&self, counts: &[u32; N]) -> u64 {
        self.lengths.iter().zip(counts).map(|(&l, &c)| u64::from(l) * u64::from(c)).sum()
    }
}

/// The most symbols of any code here.
const MAX_SYMBOLS: usize = 288;

/// Sets `lengths` for symbols that occur `counts` times; see [`PrefixCode::best`].
fn best_lengths(counts: &[u32], limit: usize, lengths: &mut [u8]) {
    debug_assert!(counts.len() <= MAX_SYMBOLS);
    let mut keys = [0u64; MAX_SYMBOLS];
    let mut n = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        if count > 0 {
            keys[n] = u64::from(count) << 16 | symbol as u64;
            n += 1;
        }
    }
    let keys = &mut keys[..n];
    if n <= 2 {
        for &key in keys.iter() {
            lengths[(key & 0xffff) as usize] = 1;
        }
        return;
    }
    // Ascending by count, then by symbol.
    keys.sort_unstable();
    let mut leaves = [0u32; MAX_SYMBOLS];
    for (leaf, &key) in leaves.iter_mut().zip(keys.iter()) {
        *leaf = (key >> 16) as u32;
    }
    let used = leaves_used(&leaves[..n], limit.min(n - 1));
    for (i, &key) in keys.iter().enumerate() {
        // The number of rows that take leaf i.
        lengths[(key & 0xffff) as usize] = used.iter().filter(|&&a| i < a).count() as u8;
    }
}

/// Package-merge: how many leaves each row contributes, rows in any order, unused rows 0.
fn leaves_used(leaves: &[u32], rows: usize) -> [usize; MAX_CODE_BITS] {
    let n = leaves.len();
    // before[row][k]: the leaves among the first 2k items of the row.
    let mut before = [[0u16; MAX_SYMBOLS + 1]; MAX_CODE_BITS];
    let mut row = [0u32; 2 * MAX_SYMBOLS];
    let mut packages = [0u32; MAX_SYMBOLS];
    let mut len = n;
    row[..n].copy_from_slice(leaves);
    for (k, leaves) in before[0].iter_mut().enumerate() {
        *leaves = (2 * k) as u16;
    }
    for before in before.iter_mut().take(rows).skip(1) {
        // An odd last item is dropped. No more than 2n - 2 items are ever looked at.
        let count = len / 2;
        for (package, pair) in packages.iter_mut().zip(row[..len].chunks_exact(2)) {
            *package = pair[0] + pair[1];
        }
        let (mut leaf, mut package) = (0, 0);
        len = (n + count).min(2 * n - 2);
        for (i, item) in row[..len].iter_mut().enumerate() {
            if i.is_multiple_of(2) {
                before[i / 2] = leaf as u16;
            }
            if leaf < n && (package >= count || leaves[leaf] < packages[package]) {
                *item = leaves[leaf];
                leaf += 1;
            } else {
                *item = packages[package];
                package += 1;
            }
        }
        if len.is_multiple_of(2) {
            before[len / 2] = leaf as u16;
        }
    }
    let mut used = [0; MAX_CODE_BITS];
    let mut pairs = n - 1;
    for row in (0..rows).rev() {
        let a = usize::from(before[row][pairs]);
        used[row] = a;
        // Each package taken here is a pair of the row below.
        pairs = 2 * pairs - a;
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_symbols_take_one_bit() {
        let none = PrefixCode::best(&[0, 0, 0], 7);
        assert_eq!(none.lengths, [0, 0, 0]);
        let one = PrefixCode::best(&[0, 9, 0], 7);
        assert_eq!((one.lengths, one.codes), ([0, 1, 0], [0, 0, 0]));
        let two = PrefixCode::best(&[0, 9, 1], 7);
        assert_eq!((two.lengths, two.codes), ([0, 1, 1], [0, 0, 1]));
    }

    #[test]
    fn codes_are_canonical_and_reversed() {
        // The example of RFC 1951 3.2.2.
        let code = PrefixCode::canonical([3, 3, 3, 3, 3, 2, 4, 4]);
        assert_eq!(code.codes, [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111]);
    }

    #[test]
    fn lengths_obey_the_limit_and_fill_the_code() {
        let mut counts = [0; 286];
        let (mut a, mut b) = (1, 1);
        for count in counts.iter_mut().take(22) {
            *count = a;
            (a, b) = (b, a + b);
        }
        for limit in [7, 15] {
            let code = PrefixCode::best(&counts, limit);
            assert!(code.lengths.iter().all(|&l| usize::from(l) <= limit));
            let kraft: u32 = code.lengths.iter().filter(|&&l| l > 0).map(|&l| 1 << (15 - l)).sum();
            assert_eq!(kraft, 1 << 15, "limit {limit}");
        }
    }
}
