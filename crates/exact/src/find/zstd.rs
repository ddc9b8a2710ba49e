//! What a zstd frame says about its encoder.

use std::io::{BufReader, Read, Seek};

use super::{NotFound, Seen, Sizes};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// After so many blocks it is asked whether to stop.
const ROUND: u64 = 1024;

/// What is seen of a frame.
#[derive(Debug)]
pub(super) struct Looks {
    /// The size of the plain bytes, if the header tells it.
    pub(super) content: Option<u64>,
    /// The byte for the window, if there is one.
    pub(super) window: Option<u8>,
    /// Whether there is a checksum behind the last block.
    pub(super) has_checksum: bool,
    /// The plain bytes of the first block, if its header tells them and it is not the last.
    pub(super) first: Option<u64>,
    /// Whether the last block is empty, and not the only one.
    pub(super) ends_empty: bool,
}

/// Whether a frame begins so.
pub(super) fn is_frame(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// The size of a frame that is skipped, if one begins so.
pub(super) fn skippable(start: &[u8]) -> Option<u64> {
    let (magic, rest) = start.split_first_chunk::<4>()?;
    let is_skipped = u32::from_le_bytes(*magic) >> 4 == 0x0184_d2a5;
    is_skipped.then_some(8 + u64::from(u32::from_le_bytes(*rest.first_chunk()?)))
}

/// Looks at a blob of one frame.
pub(super) fn look(
    blob: &mut (impl Read + Seek),
    sizes: Sizes,
    seen: &mut Seen,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<Looks, NotFound> {
    let (looks, length) = frame(blob, sizes.blob, seen, cancelled)?;
    if looks.content.is_some_and(|content| content != sizes.plain) {
        return Err(NotFound::OtherSize);
    }
    if length < sizes.blob { Err(NotFound::Trailing) } else { Ok(looks) }
}

/// Goes through the frame from block to block, and tells its length. At most `size` bytes are there.
pub(super) fn frame(
    blob: &mut (impl Read + Seek),
    size: u64,
    seen: &mut Seen,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<(Looks, u64), NotFound> {
    let mut blob = BufReader::new(blob);
    let [_, _, _, _, descriptor] = bytes(&mut blob)?;
    let is_single = descriptor & 1 << 5 != 0;
    let mut at = 5;
    let mut window = None;
    if !is_single {
        let [byte] = bytes(&mut blob)?;
        window = Some(byte);
        at += 1;
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    blob.seek_relative(dictionary)?;
    let (content, length) = match descriptor >> 6 {
        0 if is_single => (Some(bytes::<1>(&mut blob)?[0].into()), 1),
        0 => (None, 0),
        1 => (Some(u64::from(u16::from_le_bytes(bytes(&mut blob)?)) + 256), 2),
        2 => (Some(u32::from_le_bytes(bytes(&mut blob)?).into()), 4),
        _ => (Some(u64::from_le_bytes(bytes(&mut blob)?)), 8),
    };
    at += dictionary as u64 + length;
    let has_checksum = descriptor & 1 << 2 != 0;
    let mut looks = Looks { content, window, has_checksum, first: None, ends_empty: false };
    for count in 0u64.. {
        if count.is_multiple_of(ROUND) && cancelled() {
            return Err(NotFound::Cancelled);
        }
        let [low, middle, high] = bytes(&mut blob)?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let (is_last, kind, length) = (header & 1 != 0, header >> 1 & 3, u64::from(header >> 3));
        // A run is one byte.
        let stored = if kind == 1 { 1 } else { length };
        if kind == 3 {
            return Err(NotFound::BrokenFrame);
        }
        if count == 0 && !is_last && kind != 2 {
            looks.first = Some(length);
            seen.blocks.push(length);
        }
        at += 3 + stored;
        if at > size {
            return Err(NotFound::CutOff);
        }
        if is_last {
            looks.ends_empty = count > 0 && kind == 0 && length == 0;
            break;
        }
        blob.seek_relative(stored as i64)?;
    }
    if has_checksum {
        at += 4;
    }
    if at > size { Err(NotFound::CutOff) } else { Ok((looks, at)) }
}

fn bytes<const N: usize>(blob: &mut impl Read) -> Result<[u8; N], NotFound> {
    let mut bytes = [0; N];
    match blob.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(NotFound::CutOff),
        Err(error) => Err(error.into()),
    }
}
