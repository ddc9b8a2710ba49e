//! Where compressed streams are in a file.

use std::io;

use super::decode::decode;
use super::{Coding, HEAD, Limits, MIN_PACKED, Member, zip};
use crate::cancel::Cancel;
use crate::encoding::read_full;
use crate::error::{IoContext as _, Kind, Result};
use crate::region::Region;

/// Bytes at the beginning that tell what a file is: up to the magic of a kernel image, with that.
const BEGIN: usize = KERNEL.0 + KERNEL.1.len();

/// Where the magic of an x86 kernel image is (Linux, Documentation/arch/x86/boot.rst).
const KERNEL: (usize, &[u8]) = (0x202, b"HdrS");

/// How files begin that hold a stream somewhere: kernel images for EFI, and cpio archives, which an initramfs has before
/// its compressed part.
const CONTAINERS: [&[u8]; 3] = [b"MZ", b"070701", b"070702"];

/// Bytes in which a stream is looked for at once.
const PIECE: usize = 256 << 10;

/// What a bare stream of LZMA begins with, in the middle of a file: other properties stand in few of them.
const LZMA: u8 = 0x5d;

/// So many places that look like the beginning of a stream are tried.
const MAX_TRIALS: usize = 256;

/// The compressed stretches of a file, in ascending order and disjoint.
///
/// That they are whole streams is only known of those in the middle of a file: others are told by first bytes, or by what
/// a zip archive says. It is [`open`](super::open) that knows.
///
/// # Errors
/// Those of reading; Interrupted.
pub fn find(content: &Region, limits: &Limits, cancel: &Cancel) -> Result<Vec<Member>> {
    if content.len() < MIN_PACKED {
        return Ok(Vec::new());
    }
    let mut begin = [0; BEGIN];
    let n = read_full(&mut content.reader(), &mut begin).at("file")?;
    let begin = &begin[..n];
    if let Some(coding) = Coding::sniff(begin) {
        let whole = Member { range: 0..content.len(), coding };
        return Ok(if content.len() <= limits.packed { vec![whole] } else { Vec::new() });
    }
    let is_kernel = begin.get(KERNEL.0..) == Some(KERNEL.1);
    if zip::is_archive(begin) {
        zip::entries(content, limits, cancel)
    } else if is_kernel || CONTAINERS.iter().any(|magic| begin.starts_with(magic)) {
        scan(content, limits, cancel)
    } else {
        Ok(Vec::new())
    }
}

/// Looks for streams all over the file, and takes those that can be read to their end.
fn scan(content: &Region, limits: &Limits, cancel: &Cancel) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut from = 0;
    for _ in 0..MAX_TRIALS {
        if members.len() >= limits.members {
            break;
        }
        let Some((at, coding)) = next(content, from, cancel)? else { break };
        let rest = content.slice(at, limits.packed);
        from = match decode(&rest, coding, &mut cancel.watch(io::sink()), limits.plain) {
            Ok(decoded) if decoded.read >= MIN_PACKED => {
                let end = at + decoded.read;
                members.push(Member { range: at..end, coding });
                end
            }
            Ok(_) => at + 1,
            Err(e) if e.kind() == Kind::Verification => at + 1,
            Err(e) => return Err(e),
        };
    }
    Ok(members)
}

/// The next place from which on a stream may begin.
fn next(content: &Region, mut from: u64, cancel: &Cancel) -> Result<Option<(u64, Coding)>> {
    let mut piece = vec![0; PIECE];
    while content.len() - from >= MIN_PACKED {
        cancel.check()?;
        let n = read_full(&mut content.slice(from, PIECE as u64).reader(), &mut piece).at("file")?;
        // Most bytes begin no stream, which one look at them tells.
        let begins = |byte: &u8| matches!(byte, 0x1f | 0x28 | 0xfd | b'B' | &LZMA);
        let mut heads = piece[..n].windows(HEAD).enumerate().filter(|(_, head)| begins(&head[0]));
        if let Some((at, coding)) = heads.find_map(|(at, head)| Some((at, Coding::sniff(head)?))) {
            return Ok(Some((from + at as u64, coding)));
        }
        if n < HEAD {
            break;
        }
        from += (n - HEAD + 1) as u64;
    }
    Ok(None)
}
