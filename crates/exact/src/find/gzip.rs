//! The header and the trailer of a gzip member.

use std::io::{Read, Seek, SeekFrom};

use super::{NotFound, Sizes};
use crate::fix;
use crate::recipe::MAX_HEADER;

/// The bytes of CRC-32 and size.
pub(super) const TRAILER: u64 = 8;

const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

/// Whether a gzip member of deflate begins so.
pub(super) fn is_member(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b, 8])
}

/// Reads the header from the start of a member, if it fits into a recipe.
pub(super) fn header(blob: &mut (impl Read + Seek)) -> Result<Vec<u8>, NotFound> {
    header_up_to(blob, MAX_HEADER)
}

/// Reads the header from the start of a member, if it fits into a fix.
pub(super) fn long_header(blob: &mut (impl Read + Seek)) -> Result<Vec<u8>, NotFound> {
    match header_up_to(blob, MAX_HEADER) {
        Err(NotFound::LongHeader) => header_up_to(blob, fix::MAX_HEADER),
        read => read,
    }
}

fn header_up_to(blob: &mut (impl Read + Seek), most: usize) -> Result<Vec<u8>, NotFound> {
    blob.rewind()?;
    let mut start = Vec::new();
    blob.by_ref().take(most as u64 + 1).read_to_end(&mut start)?;
    let length = length(&start);
    match length {
        Some(length) if length <= most => {
            start.truncate(length);
            Ok(start)
        }
        _ if start.len() > most => Err(NotFound::LongHeader),
        _ => Err(NotFound::CutOff),
    }
}

/// The length of the header that begins so, if it ends here.
fn length(start: &[u8]) -> Option<usize> {
    let flags = *start.get(3)?;
    let mut length = 10;
    if flags & EXTRA != 0 {
        let extra = [*start.get(length)?, *start.get(length + 1)?];
        length += 2 + usize::from(u16::from_le_bytes(extra));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            length += start.get(length..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        length += 2;
    }
    (length <= start.len()).then_some(length)
}

/// Checks that the blob ends with the size of the plain bytes, as one member does.
pub(super) fn check_size(blob: &mut (impl Read + Seek), sizes: Sizes, header: u64) -> Result<(), NotFound> {
    if sizes.blob < header + TRAILER {
        return Err(NotFound::CutOff);
    }
    blob.seek(SeekFrom::End(-4))?;
    let mut size = [0; 4];
    blob.read_exact(&mut size)?;
    if u32::from_le_bytes(size) == sizes.plain as u32 { Ok(()) } else { Err(NotFound::OtherSize) }
}
