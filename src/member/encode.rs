//! Makes a member out of what is in it, while that comes.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use exact_encoders::recipe::{Rebuild, RebuildError};
use liblzma::stream as lzma;

use super::recipe::Encoding;
use super::{Recipe, Sizes};
use crate::error::{Error, IoContext as _, Result};

/// Bytes written at once.
const PIECE: usize = 64 << 10;

/// Takes what is in a member, and writes the member to another writer: it takes and writes exactly as many bytes as it was told.
///
/// What it makes does not depend on threads, nor on how it is given the bytes. Some of it is written only by
/// [`finish`](Self::finish). After an error it is of no use.
pub struct Encoder<W: Write> {
    inner: Inner<W>,
    /// Bytes that are still to come.
    left: u64,
}

enum Inner<W: Write> {
    Exact(Rebuild<W>),
    Library(Library<W>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<W: Write> Encoder<W> {
    /// For a member of these sizes, on up to so many threads.
    ///
    /// # Errors
    /// Verification, when the recipe cannot be followed here: it needs more memory than one may have.
    pub fn new(recipe: &Recipe, sizes: Sizes, threads: NonZeroUsize, out: W) -> Result<Self> {
        let cannot = |e: String| Error::verification(format!("the recipe of a member: {e}"));
        let coder = match &recipe.0 {
            Encoding::Exact(blob) => {
                let blob = blob.for_sizes(sizes.packed, sizes.plain).map_err(|e| cannot(e.to_string()))?;
                let rebuild = Rebuild::new(&blob, None, threads, out).map_err(|e| cannot(e.to_string()))?;
                return Ok(Encoder { inner: Inner::Exact(rebuild), left: sizes.plain });
            }
            Encoding::Xz(settings) => {
                Coder::Lzma(settings.encoder(sizes.plain, threads).map_err(|e| cannot(e.to_string()))?)
            }
            Encoding::Lzma(settings) => {
                Coder::Lzma(settings.encoder(sizes.plain).map_err(|e| cannot(e.to_string()))?)
            }
            // How soon it takes another way to sort changes nothing but the time.
            Encoding::Bzip2 { level } => {
                Coder::Bzip2(bzip2::Compress::new(bzip2::Compression::new(*level), 0))
            }
        };
        let library = Library { coder, buffer: vec![0; PIECE], out, left: sizes.packed };
        let inner = Inner::Library(library);
        Ok(Encoder { inner, left: sizes.plain })
    }

    /// Ends the member, and gives the writer back. Does not flush it.
    ///
    /// # Errors
    /// Verification when its sizes are not what they should be; the writer's.
    pub fn finish(self) -> Result<W> {
        if self.left > 0 {
            return Err(Error::verification(format!(
                "what is in a member ends {} bytes too soon",
                self.left
            )));
        }
        match self.inner {
            Inner::Exact(rebuild) => rebuild.finish().map_err(blame).at("member"),
            Inner::Library(library) => library.finish().at("member"),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(plain.len() as u64).ok_or_else(|| {
            Error::verification(format!("more is in a member than was said: {} bytes were left", self.left))
        })?;
        let n = match &mut self.inner {
            Inner::Exact(rebuild) => rebuild.write(plain).map_err(blame)?,
            Inner::Library(library) => {
                library.push(plain)?;
                plain.len()
            }
        };
        self.left = left + (plain.len() - n) as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// That a blob comes out otherwise is the recipe's fault.
fn blame(e: io::Error) -> io::Error {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<RebuildError>()) {
        Some(error) => Error::verification(format!("a member: {error}")).into(),
        None => e,
    }
}

/// A library that is asked for piece after piece.
struct Library<W> {
    coder: Coder,
    buffer: Vec<u8>,
    out: W,
    /// Bytes that it may still write.
    left: u64,
}

enum Coder {
    Lzma(lzma::Stream),
    Bzip2(bzip2::Compress),
}

impl Coder {
    fn totals(&self) -> (u64, u64) {
        match self {
            Coder::Lzma(stream) => (stream.total_in(), stream.total_out()),
            Coder::Bzip2(stream) => (stream.total_in(), stream.total_out()),
        }
    }

    /// Goes on with some plain bytes, or to the end; tells whether that is reached.
    fn step(&mut self, plain: &[u8], out: &mut [u8], is_end: bool) -> io::Result<bool> {
        Ok(match self {
            Coder::Lzma(stream) => {
                let action = if is_end { lzma::Action::Finish } else { lzma::Action::Run };
                stream.process(plain, out, action)? == lzma::Status::StreamEnd
            }
            Coder::Bzip2(stream) => {
                let action = if is_end { bzip2::Action::Finish } else { bzip2::Action::Run };
                stream.compress(plain, out, action)? == bzip2::Status::StreamEnd
            }
        })
    }
}

impl<W: Write> Library<W> {
    fn push(&mut self, mut plain: &[u8]) -> io::Result<()> {
        while !plain.is_empty() {
            let (read, _) = self.step(plain, false)?;
            plain = &plain[read..];
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        while !self.step(&[], true)?.1 {}
        match self.left {
            0 => Ok(self.out),
            left => {
                Err(Error::verification(format!("the recipe of a member makes {left} bytes too few")).into())
            }
        }
    }

    /// How many bytes were read, and whether the end is reached.
    fn step(&mut self, plain: &[u8], is_end: bool) -> io::Result<(usize, bool)> {
        let before = self.coder.totals();
        let ended = self.coder.step(plain, &mut self.buffer, is_end)?;
        let after = self.coder.totals();
        let (read, made) = (after.0 - before.0, after.1 - before.1);
        if read == 0 && made == 0 && !ended {
            return Err(io::Error::other("an encoder does not go on"));
        }
        self.left = self
            .left
            .checked_sub(made)
            .ok_or_else(|| Error::verification("the recipe of a member makes more bytes than it has"))?;
        self.out.write_all(&self.buffer[..made as usize])?;
        Ok((read as usize, ended))
    }
}
