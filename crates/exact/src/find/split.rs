//! The members of gzip or the frames of zstd that a blob consists of.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use super::section::Section;
use super::{NotFound, Sizes, gzip, zstd};
use crate::deflate::parse::{Parser, Step};
use crate::fix::MAX_PARTS;

/// What is read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// A part of the blob, and the part of the plain bytes that is in it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) blob: Range<u64>,
    pub(super) plain: Range<u64>,
    pub(super) kind: Kind,
}

impl Piece {
    /// The deflate stream of a gzip member, alone.
    pub(super) fn stream(&self) -> Self {
        let Kind::Gzip { header } = self.kind else { return self.clone() };
        Self { blob: self.blob.start + header..self.blob.end - gzip::TRAILER, ..self.clone() }
    }

    /// The sizes of both.
    pub(super) fn sizes(&self) -> Sizes {
        let size = |range: &Range<u64>| range.end - range.start;
        Sizes { blob: size(&self.blob), plain: size(&self.plain) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A gzip member with a header of so many bytes.
    Gzip {
        header: u64,
    },
    Zstd,
    /// A frame that is skipped, or bytes behind the last member.
    Raw,
}

/// Splits a blob that begins with a member or a frame, and checks that there are as many plain bytes in it.
pub(super) fn split(
    blob: &mut (impl Read + Seek),
    sizes: Sizes,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<Vec<Piece>, NotFound> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut at, mut plain) = (0, 0);
    while at < sizes.blob {
        if pieces.len() == MAX_PARTS {
            return Err(NotFound::ManyParts);
        }
        if cancelled() {
            return Err(NotFound::Cancelled);
        }
        let found = piece(blob, at, sizes, cancelled);
        let (length, inside, kind) = match found {
            Ok(found) => found,
            Err(error @ (NotFound::Io(_) | NotFound::Cancelled)) => return Err(error),
            Err(error) if pieces.is_empty() => return Err(error),
            // What follows is no member.
            Err(_) => (sizes.blob - at, 0, Kind::Raw),
        };
        pieces.push(Piece { blob: at..at + length, plain: plain..plain + inside, kind });
        at += length;
        plain += inside;
    }
    if plain == sizes.plain { Ok(pieces) } else { Err(NotFound::OtherSize) }
}

/// The piece at a position: its size, that of its plain bytes, and its kind.
fn piece(
    blob: &mut (impl Read + Seek),
    at: u64,
    sizes: Sizes,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<(u64, u64, Kind), NotFound> {
    let mut rest = Section::new(blob, at..sizes.blob)?;
    let mut start = Vec::new();
    rest.by_ref().take(8).read_to_end(&mut start)?;
    rest.rewind()?;
    if gzip::is_member(&start) {
        let header = gzip::long_header(&mut rest)?.len() as u64;
        rest.seek(SeekFrom::Start(header))?;
        let (stream, plain) = stream(&mut rest, cancelled)?;
        let length = header + stream + gzip::TRAILER;
        if length > sizes.blob - at {
            return Err(NotFound::CutOff);
        }
        return Ok((length, plain, Kind::Gzip { header }));
    }
    if let Some(length) = zstd::skippable(&start) {
        return if length <= sizes.blob - at { Ok((length, 0, Kind::Raw)) } else { Err(NotFound::CutOff) };
    }
    if !zstd::is_frame(&start) {
        return Err(NotFound::BrokenFrame);
    }
    let (looks, length) = zstd::frame(&mut rest, sizes.blob - at, &mut Default::default(), cancelled)?;
    let plain = match looks.content {
        Some(plain) => plain,
        None => {
            rest.rewind()?;
            frame_plain(rest.take(length), sizes.plain, cancelled)?
        }
    };
    Ok((length, plain, Kind::Zstd))
}

/// The bytes of the deflate stream that begins here, and of what is in it.
fn stream(blob: &mut impl Read, cancelled: &mut dyn FnMut() -> bool) -> Result<(u64, u64), NotFound> {
    let mut parser = Parser::new();
    let mut buffer = vec![0; BUFFER];
    let mut fed = 0;
    loop {
        match parser.step()? {
            Step::NeedsInput => {
                if cancelled() {
                    return Err(NotFound::Cancelled);
                }
                let count = read(blob, &mut buffer)?;
                if count == 0 {
                    return Err(NotFound::CutOff);
                }
                fed += count as u64;
                parser.feed(&buffer[..count]);
            }
            Step::End => return Ok((fed - parser.rest().len() as u64, parser.plain_position())),
            _ => {}
        }
    }
}

/// How many plain bytes are in a frame, at most `most` and one.
fn frame_plain(frame: impl Read, most: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<u64, NotFound> {
    let decoder = ::zstd::Decoder::with_buffer(BufReader::new(frame)).map_err(|_| NotFound::BrokenFrame)?;
    let mut plain = decoder.take(most.saturating_add(1));
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        if cancelled() {
            return Err(NotFound::Cancelled);
        }
        match plain.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(count) => size += count as u64,
            Err(_) => return Err(NotFound::BrokenFrame),
        }
    }
}

/// Reads what is there, whatever interrupts.
pub(super) fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
