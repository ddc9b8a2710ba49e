//! As much of the GVariant format as objects of ostree take: arrays and structures of variable size.
//!
//! A container ends with offsets that say where its members end; how many bytes an offset has, the size of the whole
//! container says. Little-endian throughout. (GVariant specification, "Serialisation Format", 2.3.)

/// A container that is not what its type says.
#[derive(Debug)]
pub(super) struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// Bytes of an offset in a container of `len` bytes.
fn offset_size(len: usize) -> usize {
    match len {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn offset_at(bytes: &[u8], at: usize, size: usize) -> Result<usize> {
    let field = bytes.get(at..at + size).ok_or(Malformed)?;
    let mut number = [0; 8];
    number[..size].copy_from_slice(field);
    usize::try_from(u64::from_le_bytes(number)).map_err(|_| Malformed)
}

/// The elements of an array of elements of variable size, which begin at multiples of `align`.
pub(super) fn array(bytes: &[u8], align: usize) -> Result<Vec<&[u8]>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let size = offset_size(bytes.len());
    let offsets = offset_at(bytes, bytes.len().checked_sub(size).ok_or(Malformed)?, size)?;
    let members = bytes.get(..offsets).ok_or(Malformed)?;
    let mut elements = Vec::new();
    let mut start = 0usize;
    for at in (offsets..bytes.len()).step_by(size) {
        let end = offset_at(bytes, at, size)?;
        let element = members.get(start.next_multiple_of(align)..end);
        elements.push(element.ok_or(Malformed)?);
        start = end;
    }
    Ok(elements)
}

/// A structure.
pub(super) struct Structure<'a> {
    bytes: &'a [u8],
    /// Where its members of variable size end, without the last if that ends the structure; then where all ends.
    ends: Vec<usize>,
}

impl<'a> Structure<'a> {
    /// One that says of so many members where they end.
    pub fn new(bytes: &'a [u8], variable: usize) -> Result<Self> {
        let size = offset_size(bytes.len());
        let end = bytes.len().checked_sub(variable * size).ok_or(Malformed)?;
        let mut ends = Vec::with_capacity(variable + 1);
        for n in 1..=variable {
            ends.push(offset_at(bytes, bytes.len() - n * size, size)?);
        }
        ends.push(end);
        Ok(Structure { bytes: &bytes[..end], ends })
    }

    /// From byte `from` to where the `n`th member ends, counted from 0.
    pub fn member(&self, from: usize, n: usize) -> Result<&'a [u8]> {
        self.bytes.get(from..self.end(n)?).ok_or(Malformed)
    }

    /// Where the `n`th member of variable size ends.
    pub fn end(&self, n: usize) -> Result<usize> {
        self.ends.get(n).copied().ok_or(Malformed)
    }

    /// The text that ends there, without the NUL that closes it.
    pub fn text(&self, from: usize, n: usize) -> Result<&'a [u8]> {
        match self.member(from, n)?.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(text),
            _ => Err(Malformed),
        }
    }
}

/// The text that stands under `key` in a dictionary of variants (`a{sv}`).
pub(super) fn text_in<'a>(dictionary: &'a [u8], key: &str) -> Result<Option<&'a [u8]>> {
    for entry in array(dictionary, 8)? {
        let entry = Structure::new(entry, 1)?;
        if entry.text(0, 0)? != key.as_bytes() {
            continue;
        }
        let value = entry.member(entry.end(0)?.next_multiple_of(8), 1)?;
        return value.strip_suffix(b"\0\0s").map(Some).ok_or(Malformed);
    }
    Ok(None)
}

/// A structure that has `fixed` first, then the members `variable`, none of which is aligned; the last one is not
/// said where it ends.
pub(super) fn structure(fixed: &[u8], variable: &[&[u8]]) -> Vec<u8> {
    let mut out = fixed.to_vec();
    let mut ends = Vec::new();
    for member in variable {
        out.extend_from_slice(member);
        ends.push(out.len());
    }
    ends.pop();
    framed(out, ends.into_iter().rev())
}

/// An array of elements that are not aligned.
pub(super) fn array_of(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut ends = Vec::new();
    for element in elements {
        out.extend_from_slice(element);
        ends.push(out.len());
    }
    framed(out, ends.into_iter())
}

/// With offsets of as few bytes as will do for the container that has them.
fn framed(mut out: Vec<u8>, ends: impl ExactSizeIterator<Item = usize>) -> Vec<u8> {
    let fits = |size: &usize| offset_size(out.len() + ends.len() * size) <= *size;
    let size = [1, 2, 4].into_iter().find(fits).unwrap_or(8);
    for end in ends {
        out.extend_from_slice(&(end as u64).to_le_bytes()[..size]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for long in [3, 250, 256, 70_000] {
            let name = [vec![b'n'; long], vec![0]].concat();
            let pair = structure(b"", &[&name, b"value"]);
            let list = array_of(&[pair.clone(), Vec::new(), pair.clone()]);
            let read = array(&list, 1).unwrap();
            assert_eq!(read, [&pair[..], b"", &pair]);
            let read = Structure::new(read[0], 1).unwrap();
            assert_eq!(read.text(0, 0).unwrap().len(), long);
            assert_eq!(read.member(read.end(0).unwrap(), 1).unwrap(), b"value");
        }
    }

    #[test]
    fn broken_containers_are_told() {
        let list = array_of(&[b"one".to_vec(), b"three".to_vec()]);
        assert_eq!(array(&list, 1).unwrap(), [&b"one"[..], b"three"]);
        for at in 0..list.len() {
            for value in 0..=255 {
                let mut list = list.clone();
                list[at] = value;
                let _ = array(&list, 8);
                let _ = text_in(&list, "one");
                let _ = Structure::new(&list, 6).and_then(|s| s.text(3, 5).map(drop));
            }
        }
        assert!(array(b"\x09", 1).is_err());
        assert!(array(b"ab\x02\x01", 1).is_err(), "ends go up");
        assert!(Structure::new(b"ab", 3).is_err());
    }
}
