//! Prefix codes of literals: their lengths, their description, and streams written with them.

use super::bits::BitWriter;
use super::fse;
use super::words::log2;

/// The longest code.
const MAX_BITS: u32 = 11;
/// The largest logarithm of the table that weights are encoded with.
const WEIGHT_LOG: u32 = 6;

/// A code for literals.
#[derive(Clone, Debug)]
pub(super) struct Code {
    /// The code in the low 16 bits, its length above; 0 for bytes without one.
    codes: [u32; 256],
    /// The longest of the codes.
    log: u32,
    /// The highest byte with a code.
    highest: usize,
}

impl Code {
    /// The code for these counts, of which at least two are not 0; their sum is `total`.
    pub(super) fn new(counts: &[u32; 256], total: u32) -> Self {
        let highest = counts.iter().rposition(|count| *count > 0).unwrap_or_default();
        let mut order: Vec<(u32, u8)> = Vec::with_capacity(256);
        order.extend(
            (0..=255u8).map(|byte| (counts[usize::from(byte)], byte)).filter(|(count, _)| *count > 0),
        );
        order.sort_unstable_by_key(|&(count, byte)| (u32::MAX - count, byte));
        let mut lengths = tree_lengths(&order);
        let most = longest_allowed(total, highest as u32);
        let log = lengths.last().copied().unwrap_or_default().min(most);
        limit(&mut lengths, &order, most);
        let mut codes = [0u32; 256];
        for (&length, &(_, byte)) in lengths.iter().zip(&order) {
            codes[usize::from(byte)] = length << 16;
        }
        number(&mut codes, log);
        Self { codes, log, highest }
    }

    fn length(&self, byte: usize) -> u32 {
        self.codes[byte] >> 16
    }

    /// Whether each byte that occurs has a code.
    pub(super) fn covers(&self, counts: &[u32; 256]) -> bool {
        counts.iter().zip(&self.codes).all(|(&count, &code)| count == 0 || code != 0)
    }

    /// The bytes that literals with these counts take.
    pub(super) fn size(&self, counts: &[u32; 256]) -> u32 {
        let bits: u32 = counts.iter().zip(&self.codes).map(|(count, code)| count * (code >> 16)).sum();
        bits.div_ceil(8)
    }

    /// Appends the description of the code. Nothing, if it has none.
    pub(super) fn describe(&self, out: &mut Vec<u8>) -> Option<()> {
        let weight = |byte| match self.length(byte) {
            0 => 0,
            length => (self.log + 1 - length) as u8,
        };
        let weights: Vec<u8> = (0..self.highest).map(weight).collect();
        let begin = out.len();
        out.push(0);
        if let Some(()) = compress_weights(&weights, out) {
            let size = out.len() - begin - 1;
            if size < weights.len() && size < (self.highest + 1) >> 1 {
                out[begin] = size as u8;
                return Some(());
            }
        }
        out.truncate(begin);
        if weights.len() > 128 {
            return None;
        }
        out.push(127 + weights.len() as u8);
        out.extend(weights.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default()));
        Some(())
    }

    /// Appends `literals` as one stream.
    pub(super) fn write(&self, literals: &[u8], out: &mut Vec<u8>) {
        let mut bits = BitWriter::new(out, literals.len() * MAX_BITS as usize / 8 + 1);
        let mut groups = literals.rchunks_exact(5);
        for group in groups.by_ref() {
            // Five codes are at most 55 bits.
            for &byte in group.iter().rev() {
                let code = self.codes[usize::from(byte)];
                bits.add(u64::from(code & 0xffff), code >> 16);
            }
            bits.flush();
        }
        for &byte in groups.remainder().iter().rev() {
            let code = self.codes[usize::from(byte)];
            bits.add(u64::from(code & 0xffff), code >> 16);
        }
        bits.finish();
    }
}

/// The longest code allowed.
fn longest_allowed(total: u32, highest: u32) -> u32 {
    let fitting = log2(total - 1).saturating_sub(1);
    let least = (log2(total) + 1).min(log2(highest) + 2);
    MAX_BITS.min(fitting).max(least).clamp(5, MAX_BITS)
}

/// The lengths of Huffman's codes for symbols in falling order of their counts.
fn tree_lengths(order: &[(u32, u8)]) -> Vec<u32> {
    const NOT_MADE: u32 = 1 << 30;
    let leaves = order.len();
    let mut weights = [NOT_MADE; 256];
    // Of the leaves the index of the parent, then of the inner nodes.
    let mut leaf_parents = [0u8; 256];
    let mut inner_parents = [0u8; 256];
    let (mut leaf, mut inner) = (leaves, 0);
    for node in 0..leaves.saturating_sub(1) {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf > 0 && order[leaf - 1].0 < weights[inner] {
                leaf -= 1;
                leaf_parents[leaf] = node as u8;
                weight += order[leaf].0;
            } else {
                inner_parents[inner] = node as u8;
                weight += weights[inner];
                inner += 1;
            }
        }
        weights[node] = weight;
    }
    let mut depths = [0u32; 256];
    for node in (0..leaves.saturating_sub(2)).rev() {
        depths[node] = depths[usize::from(inner_parents[node])] + 1;
    }
    (0..leaves).map(|leaf| depths[usize::from(leaf_parents[leaf])] + 1).collect()
}

/// Shortens what is longer than `most`, and lengthens others for it.
fn limit(lengths: &mut [u32], order: &[(u32, u8)], most: u32) {
    let Some(longest) = lengths.last().copied().filter(|longest| *longest > most) else { return };
    let mut debt = 0i64;
    let mut p = lengths.len() - 1;
    while lengths[p] > most && p > 0 {
        debt += (1i64 << (longest - most)) - (1i64 << (longest - lengths[p]));
        lengths[p] = most;
        p -= 1;
    }
    while lengths[p] == most && p > 0 {
        p -= 1;
    }
    debt >>= longest - most;
    let mut last: [Option<usize>; 33] = [None; 33];
    let mut current = most;
    for i in (0..=p).rev() {
        if lengths[i] < current {
            current = lengths[i];
            last[(most - current) as usize] = Some(i);
        }
    }
    while debt > 0 {
        let k = rank_to_lengthen(&last, order, debt);
        let Some(i) = last[k] else { return };
        debt -= 1 << (k - 1);
        if last[k - 1].is_none() {
            last[k - 1] = Some(i);
        }
        lengths[i] += 1;
        last[k] = i.checked_sub(1).filter(|&before| lengths[before] == most - k as u32);
    }
    while debt < 0 {
        let i = match last[1] {
            Some(i) => i + 1,
            None => {
                while lengths[p] == most && p > 0 {
                    p -= 1;
                }
                p + 1
            }
        };
        let Some(length) = lengths.get_mut(i) else { return };
        *length -= 1;
        last[1] = Some(i);
        debt += 1;
    }
}

/// Which rank, counted in bits below the longest, gives a code: the cheapest that pays the most of the debt.
fn rank_to_lengthen(last: &[Option<usize>; 33], order: &[(u32, u8)], debt: i64) -> usize {
    let mut k = debt.ilog2() as usize + 1;
    while k > 1 {
        if let Some(high) = last[k] {
            let Some(low) = last[k - 1] else { break };
            if order[high].0 <= 2 * order[low].0 {
                break;
            }
        }
        k -= 1;
    }
    while k <= MAX_BITS as usize && last[k].is_none() {
        k += 1;
    }
    k
}

/// Numbers the codes: shorter ones above longer ones, and those of a length by their bytes.
fn number(codes: &mut [u32; 256], log: u32) {
    let mut per_length = [0u32; 33];
    for code in codes.iter() {
        per_length[(code >> 16) as usize] += 1;
    }
    let mut next = [0u32; 33];
    let mut value = 0;
    for length in (1..=log as usize).rev() {
        next[length] = value;
        value = (value + per_length[length]) >> 1;
    }
    for code in codes.iter_mut().filter(|code| **code != 0) {
        let slot = &mut next[(*code >> 16) as usize];
        *code |= *slot;
        *slot += 1;
    }
}

/// Appends the weights, encoded with a table of their own. Nothing if that can't be; `out` may have grown then.
fn compress_weights(weights: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let total = weights.len() as u32;
    if total < 2 {
        return None;
    }
    let mut counts = [0u32; MAX_BITS as usize + 1];
    for &weight in weights {
        counts[usize::from(weight)] += 1;
    }
    let highest = counts.iter().rposition(|count| *count > 0)?;
    let most = counts.iter().copied().max()?;
    if most == total || most == 1 || most < total >> 7 {
        return None;
    }
    let log = fse::table_log(WEIGHT_LOG, total, total - 1, highest as u32);
    let norm = fse::normalise(&counts[..=highest], log)?;
    fse::describe(&norm, log, out);
    let table = fse::Table::new(norm, log);
    let mut bits = BitWriter::new(out, weights.len() * 2 + 8);
    let mut rest = weights.iter().rev().copied();
    let (first, second) = (rest.next()?, rest.next()?);
    let (mut one, mut two);
    if weights.len() % 2 == 1 {
        (one, two) = (table.start(first), table.start(second));
        table.encode(&mut one, rest.next()?, &mut bits);
    } else {
        (two, one) = (table.start(first), table.start(second));
    }
    while let (Some(a), Some(b)) = (rest.next(), rest.next()) {
        table.encode(&mut two, a, &mut bits);
        table.encode(&mut one, b, &mut bits);
        bits.flush();
    }
    table.end(&two, &mut bits);
    table.end(&one, &mut bits);
    bits.finish();
    Some(())
}
