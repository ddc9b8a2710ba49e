//! Prefix codes and headers of blocks as zlib and GNU gzip make them.

use crate::deflate::block::{Counts, DistanceCode, DynamicHeader, LitLenCode};
use crate::deflate::huffman::PrefixCode;
use crate::deflate::tables::{CODELEN_SYMBOLS, LITLEN_SYMBOLS, MAX_CODE_BITS, MAX_CODELEN_BITS};

/// The most nodes of a tree: its leaves, and one less to join them.
const MOST_NODES: usize = 2 * LITLEN_SYMBOLS - 1;

/// The codes of a block, and its header.
pub(super) struct BlockCodes {
    pub(super) litlen: LitLenCode,
    pub(super) distance: DistanceCode,
    pub(super) header: DynamicHeader,
}

impl BlockCodes {
    pub(super) fn new(counts: &Counts) -> Self {
        let litlen: LitLenCode = code(&counts.litlen, MAX_CODE_BITS);
        let distance: DistanceCode = code(&counts.distance, MAX_CODE_BITS);
        let [litlens, distances] = [&litlen.lengths[..], &distance.lengths[..]].map(used);
        let mut runs = Vec::with_capacity(litlens.len() + distances.len());
        // No run goes from one code into the other.
        append_runs(litlens, &mut runs);
        append_runs(distances, &mut runs);
        let mut counts = [0u32; CODELEN_SYMBOLS];
        for &(symbol, _) in &runs {
            counts[usize::from(symbol)] += 1;
        }
        let header =
            DynamicHeader::with_code(litlens.len(), distances.len(), runs, code(&counts, MAX_CODELEN_BITS));
        Self { litlen, distance, header }
    }
}

/// The lengths up to the last symbol that has a code.
fn used(lengths: &[u8]) -> &[u8] {
    let count = lengths.iter().rposition(|&length| length > 0).map_or(0, |last| last + 1);
    &lengths[..count]
}

/// The code lengths as runs: symbols, with the value of their extra bits.
fn append_runs(lengths: &[u8], runs: &mut Vec<(u8, u8)>) {
    let mut before = None;
    for run in lengths.chunk_by(|a, b| a == b) {
        let value = run[0];
        let mut left = run.len();
        while left > 0 {
            let count = match value {
                0 => left.min(138),
                // Seven lengths at once the first time, with one of them sent as it is.
                _ if before != Some(value) => left.min(7),
                _ => left.min(6),
            };
            left -= count;
            let repeats = match value {
                0 => count,
                _ if before != Some(value) => count - 1,
                _ => count,
            };
            match (value, repeats) {
                (0, 11..) => runs.push((18, (repeats - 11) as u8)),
                (0, 3..) => runs.push((17, (repeats - 3) as u8)),
                (1.., 3..) => {
                    runs.extend(std::iter::repeat_n((value, 0), count - repeats));
                    runs.push((16, (repeats - 3) as u8));
                }
                _ => runs.extend(std::iter::repeat_n((value, 0), count)),
            }
            before = Some(value);
        }
    }
}

/// A node in the making of a code: how often it occurs, and how deep what is below it is.
#[derive(Clone, Copy, Default)]
struct Node {
    count: u32,
    depth: u8,
    parent: u16,
}

/// A heap of nodes, the rarest at its root; of those as rare, the flattest.
///
/// Which of two equal nodes comes first decides the lengths, so it moves nodes as the original does.
struct Heap<'a> {
    nodes: &'a mut [Node; MOST_NODES],
    items: Vec<u16>,
}

impl Heap<'_> {
    fn comes_first(&self, a: u16, b: u16) -> bool {
        let [a, b] = [a, b].map(|node| self.nodes[usize::from(node)]);
        (a.count, a.depth) <= (b.count, b.depth)
    }

    /// Moves the item at index `i` down to where it belongs.
    fn sift_down(&mut self, mut i: usize) {
        let Some(&item) = self.items.get(i) else { return };
        while let Some(&left) = self.items.get(2 * i + 1) {
            let mut child = 2 * i + 1;
            if let Some(&right) = self.items.get(child + 1)
                && self.comes_first(right, left)
            {
                child += 1;
            }
            if self.comes_first(item, self.items[child]) {
                break;
            }
            self.items[i] = self.items[child];
            i = child;
        }
        self.items[i] = item;
    }
}

/// The code for symbols that occur `counts` times, none longer than `limit` bits. It has two symbols at least.
fn code<const N: usize>(counts: &[u32; N], limit: usize) -> PrefixCode<N> {
    let mut nodes = [Node::default(); MOST_NODES];
    let mut items: Vec<u16> = Vec::with_capacity(N);
    for (symbol, &count) in counts.iter().enumerate() {
        nodes[symbol].count = count;
        if count > 0 {
            items.push(symbol as u16);
        }
    }
    // Symbols that do not occur stand in for those that are missing.
    let mut last = items.last().copied();
    while items.len() < 2 {
        let symbol = last.map_or(0, |last| if last < 2 { last + 1 } else { 0 });
        last = Some(symbol);
        nodes[usize::from(symbol)].count = 1;
        items.push(symbol);
    }
    let mut heap = Heap { nodes: &mut nodes, items };
    for i in (0..heap.items.len() / 2).rev() {
        heap.sift_down(i);
    }
    // Joins the two rarest, again and again. Each node is taken before its parent.
    let mut taken = Vec::with_capacity(MOST_NODES);
    for joined in N as u16.. {
        let rarest = heap.items.swap_remove(0);
        heap.sift_down(0);
        let next = heap.items[0];
        taken.extend([rarest, next]);
        let pair = [rarest, next].map(usize::from);
        let [a, b] = pair.map(|node| heap.nodes[node]);
        heap.nodes[usize::from(joined)] =
            Node { count: a.count + b.count, depth: a.depth.max(b.depth) + 1, parent: 0 };
        for node in pair {
            heap.nodes[node].parent = joined;
        }
        heap.items[0] = joined;
        heap.sift_down(0);
        if heap.items.len() == 1 {
            break;
        }
    }
    taken.reverse();
    PrefixCode::canonical(lengths(&nodes, &taken, limit))
}

/// The lengths of the symbols' codes, from the nodes below the root, each behind its parent.
fn lengths<const N: usize>(nodes: &[Node; MOST_NODES], taken: &[u16], limit: usize) -> [u8; N] {
    let mut bits = [0usize; MOST_NODES];
    let mut of_length = [0usize; MAX_CODE_BITS + 1];
    let mut too_long = 0usize;
    for &node in taken {
        let node = usize::from(node);
        let length = bits[usize::from(nodes[node].parent)] + 1;
        too_long += usize::from(length > limit);
        bits[node] = length.min(limit);
        if node < N {
            of_length[bits[node]] += 1;
        }
    }
    let mut lengths = [0; N];
    if too_long == 0 {
        for (length, bits) in lengths.iter_mut().zip(bits) {
            *length = bits as u8;
        }
        return lengths;
    }
    // Two codes too long take the place of a shorter one, which gets one bit more, as does one of them.
    while too_long > 0 {
        let Some(shorter) = (1..limit).rfind(|&length| of_length[length] > 0) else { break };
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
        of_length[limit] -= 1;
        too_long = too_long.saturating_sub(2);
    }
    // The longest codes go to the symbols that were taken first.
    let mut symbols = taken.iter().rev().map(|&node| usize::from(node)).filter(|&node| node < N);
    for length in (1..=limit).rev() {
        for symbol in symbols.by_ref().take(of_length[length]) {
            lengths[symbol] = length as u8;
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_two_symbols_at_least() {
        let lengths = |counts: [u32; 4]| code(&counts, 15).lengths;
        assert_eq!(lengths([0, 0, 0, 0]), [1, 1, 0, 0]);
        assert_eq!(lengths([9, 0, 0, 0]), [1, 1, 0, 0]);
        assert_eq!(lengths([0, 9, 0, 0]), [0, 1, 1, 0]);
        assert_eq!(lengths([0, 0, 0, 9]), [1, 0, 0, 1]);
    }

    #[test]
    fn of_symbols_as_frequent_the_heap_decides() {
        // Once the first is taken, the last one stands in its place.
        assert_eq!(code(&[1, 1, 1], 15).lengths, [2, 1, 2]);
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
            let lengths = code(&counts, limit).lengths;
            assert!(lengths.iter().all(|&length| usize::from(length) <= limit));
            let kraft: u32 = lengths.iter().filter(|&&l| l > 0).map(|&l| 1 << (15 - l)).sum();
            assert_eq!(kraft, 1 << 15, "limit {limit}");
        }
    }

    #[test]
    fn runs_follow_the_rules_of_the_writer() {
        let runs = |lengths: &[u8]| {
            let mut runs = Vec::new();
            append_runs(lengths, &mut runs);
            runs
        };
        assert_eq!(runs(&[0; 139]), [(18, 127), (0, 0)]);
        assert_eq!(runs(&[5; 3]), [(5, 0); 3]);
        assert_eq!(runs(&[5; 9]), [(5, 0), (16, 3), (5, 0), (5, 0)]);
        assert_eq!(runs(&[0, 0, 0, 4, 4, 4, 4]), [(17, 0), (4, 0), (16, 0)]);
    }
}
