//! Bytes read as words, and compared.

/// The four bytes at `at`, the first lowest; 0 if they are not all there.
#[inline(always)]
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(word) => u32::from_le_bytes(*word),
        None => 0,
    }
}

/// The eight bytes at `at`, the first lowest; 0 if they are not all there.
#[inline(always)]
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(word) => u64::from_le_bytes(*word),
        None => 0,
    }
}

/// How many bytes from `a` on are those from `b` on; `b` is the later of the two.
#[inline(always)]
pub(super) fn common(bytes: &[u8], a: usize, b: usize) -> usize {
    let (Some(earlier), Some(later)) = (bytes.get(a..), bytes.get(b..)) else { return 0 };
    let (words, rest) = later.as_chunks::<8>();
    let mut length = 0;
    for (x, y) in earlier.as_chunks::<8>().0.iter().zip(words) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return length + (differ.trailing_zeros() >> 3) as usize;
        }
        length += 8;
    }
    length + earlier[length..].iter().zip(rest).take_while(|(x, y)| x == y).count()
}

/// The number of the highest bit that is set; 0 for 0.
#[inline(always)]
pub(super) fn log2(value: u32) -> u32 {
    (value | 1).ilog2()
}
