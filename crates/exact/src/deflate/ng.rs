//! zlib-ng, which some systems have in place of zlib: by zlib-rs, which searches as zlib-ng 2.3 does.
//!
//! Levels 1 to 4 and 7 to 9 are the same for all inputs that were tried; 5 and 6 for most, as what they find
//! depends on more than is written down.

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::zlib::Level;
use crate::Encoder;

/// How many plain bytes zlib-ng was given at once. What it finds far back depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Piece(usize);

impl Piece {
    /// 32 KiB.
    pub const DEFAULT: Self = Self(32 << 10);
    /// The smallest that is supported, in bytes.
    pub const MIN: usize = 512;
    /// The largest that makes a difference, in bytes.
    pub const MAX: usize = 64 << 10;

    /// A number of bytes, or `None` if it is below [`MIN`](Self::MIN) or above [`MAX`](Self::MAX).
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes < Self::MIN || bytes > Self::MAX { None } else { Some(Self(bytes)) }
    }

    /// The number of bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// What zlib-ng was told. Its memory level is 8, its strategy the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The level.
    pub level: Level,
    /// The bytes it was given at once.
    pub piece: Piece,
}

/// An encoder for a raw deflate stream, as zlib-ng 2.3 makes it.
///
/// It holds what the library needs: below 1 MiB. Should the library fail, the stream ends there: compare its
/// digest.
pub fn encoder(settings: Settings) -> Box<dyn Encoder> {
    let raw = Deflate::new(settings.level.get().into(), false, WINDOW_BITS);
    Box::new(ZlibNg { raw, piece: settings.piece.0, gathered: Vec::new(), buffer: vec![0; OUT_SIZE] })
}

/// 32 KiB, as all have it.
const WINDOW_BITS: u8 = 15;
/// Bytes taken from the library at once.
const OUT_SIZE: usize = 128 << 10;

struct ZlibNg {
    raw: Deflate,
    piece: usize,
    /// Plain bytes until they are a piece.
    gathered: Vec<u8>,
    buffer: Vec<u8>,
}

impl ZlibNg {
    fn compress(&mut self, flush: DeflateFlush, out: &mut Vec<u8>) {
        let mut given = 0;
        loop {
            let (read, written) = (self.raw.total_in(), self.raw.total_out());
            let status = self.raw.compress(&self.gathered[given..], &mut self.buffer, flush);
            given += (self.raw.total_in() - read) as usize;
            let made = (self.raw.total_out() - written) as usize;
            out.extend_from_slice(&self.buffer[..made]);
            // Room that is left says that all was taken.
            if status != Ok(Status::Ok) || (made < OUT_SIZE && given == self.gathered.len()) {
                break;
            }
        }
        self.gathered.clear();
    }
}

impl Encoder for ZlibNg {
    fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            let (now, later) = plain.split_at(plain.len().min(self.piece - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            plain = later;
            if self.gathered.len() == self.piece {
                self.compress(DeflateFlush::NoFlush, out);
            }
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        // As all do that do not know beforehand which bytes are the last.
        self.compress(DeflateFlush::NoFlush, out);
        self.compress(DeflateFlush::Finish, out);
    }
}
