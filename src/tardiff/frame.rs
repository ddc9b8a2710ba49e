//! Dictionary frames: zstd frames that are decoded with a whole base file as dictionary.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use memmap2::MmapMut;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::Limits;
use crate::encoding::read_full;
use crate::error::{Error, IoContext, Result};
use crate::region::scratch;

/// Bytes moved at once.
const CHUNK: usize = 128 << 10;

/// Content of a frame from which on it is decoded in a file: it refers back to all of itself, so that
/// zstd would hold it whole. What is smaller costs less than the window of the patch's own stream.
const LARGE: u64 = 16 << 20;

/// Longest header of a zstd frame in bytes (RFC 8878, 3.1.1).
const MAX_HEADER: usize = 18;

/// Decodes one frame, which is the payload of `len` bytes; gives the number of bytes made.
///
/// # Errors
/// Verification for a broken frame or something behind it; what reader and writer report; Local where
/// there is no room for a large frame.
pub(crate) fn decode_frame(
    frame: &mut impl Read,
    len: u64,
    dictionary: &[u8],
    limits: &Limits,
    out: &mut (impl Write + ?Sized),
) -> Result<u64> {
    if len == 0 {
        return Ok(0);
    }
    let mut head = [0; MAX_HEADER];
    let n = read_full(frame, &mut head).map_err(broken)?;
    let size = zstd_safe::get_frame_content_size(&head[..n]).ok().flatten();
    let mut frame = BufReader::with_capacity(CHUNK, head[..n].chain(frame));
    let largest = 1 << limits.dictionary_window_log;
    let room = match (size, &limits.spool) {
        (Some(size), Some(spool)) if (LARGE..=largest).contains(&size) => room_for(size as usize, spool)?,
        _ => None,
    };
    let made = match room {
        Some(room) => decode_into(room, &mut frame, dictionary, limits, out)?,
        None => decode_in_memory(&mut frame, dictionary, limits, out)?,
    };
    let behind = io::copy(&mut frame, &mut io::sink()).map_err(broken)?;
    if behind > 0 {
        return Err(Error::verification(format!("{behind} bytes stand behind a dictionary frame")));
    }
    Ok(made)
}

/// Errors of the decompressor are about the content; those of the source pass through.
fn broken(e: io::Error) -> Error {
    if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return Error::from_io(e, "patch");
    }
    Error::verification(format!("broken dictionary frame: {e}")).with_source(e)
}

fn decode_in_memory(
    frame: &mut impl BufRead,
    dictionary: &[u8],
    limits: &Limits,
    out: &mut (impl Write + ?Sized),
) -> Result<u64> {
    let mut decoder =
        zstd::stream::read::Decoder::with_ref_prefix(frame, dictionary).map_err(broken)?.single_frame();
    decoder.window_log_max(limits.dictionary_window_log).map_err(broken)?;
    let mut buf = vec![0; CHUNK];
    let mut made = 0;
    loop {
        match decoder.read(&mut buf) {
            Ok(0) => return Ok(made),
            Ok(n) => {
                out.write_all(&buf[..n]).at("layer")?;
                made += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(broken(e)),
        }
    }
}

/// `None` where the file system cannot promise room.
fn room_for(size: usize, spool: &Path) -> Result<Option<MmapMut>> {
    match scratch(spool, size) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        room => room.map(Some).at(spool.display()),
    }
}

/// The content is its own window, in a mapped file: it takes no memory that cannot be taken back.
fn decode_into(
    mut content: MmapMut,
    frame: &mut impl BufRead,
    dictionary: &[u8],
    limits: &Limits,
    out: &mut (impl Write + ?Sized),
) -> Result<u64> {
    let fault = |code| broken(io::Error::other(zstd_safe::get_error_name(code)));
    let mut decoder = DCtx::create();
    decoder.set_parameter(DParameter::WindowLogMax(limits.dictionary_window_log)).map_err(fault)?;
    decoder.set_parameter(DParameter::StableOutBuffer(true)).map_err(fault)?;
    decoder.ref_prefix(dictionary).map_err(fault)?;
    let mut made = 0;
    loop {
        let bytes = frame.fill_buf().map_err(broken)?;
        if bytes.is_empty() {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around_pos(&mut content[..], made);
        let left = decoder.decompress_stream(&mut output, &mut input).map_err(fault)?;
        let (consumed, end) = (input.pos(), output.pos());
        frame.consume(consumed);
        out.write_all(&content[made..end]).at("layer")?;
        if left == 0 {
            return Ok(end as u64);
        }
        if (consumed, end) == (0, made) {
            return Err(broken(io::ErrorKind::InvalidData.into()));
        }
        made = end;
    }
}
