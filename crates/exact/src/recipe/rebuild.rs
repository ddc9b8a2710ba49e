//! Making a blob from its plain bytes, no larger than it may be.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use super::Recipe;
use crate::Encoder;

/// The most plain bytes that the encoder takes at once.
const PIECE: usize = 256 << 10;

/// Takes plain bytes, and writes the blob of a recipe to another writer.
///
/// The blob is written while the plain bytes come, but some of it only by [`finish`](Self::finish).
pub struct Rebuild<W> {
    /// `None` after a failure.
    encoder: Option<Box<dyn Encoder>>,
    ready: Vec<u8>,
    size: u64,
    written: u64,
    inner: W,
}

/// Why the blob does not come out. Found inside an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RebuildError {
    /// The blob would become larger than the recipe says.
    TooLong {
        /// What the recipe says, in bytes.
        size: u64,
    },
    /// The blob is at its end, and smaller than the recipe says.
    TooShort {
        /// What the recipe says, in bytes.
        size: u64,
        /// What has come out, in bytes.
        written: u64,
    },
    /// An earlier call has failed.
    Failed,
}

impl fmt::Display for RebuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { size } => write!(f, "rebuild: more than the {size} bytes of the recipe come out"),
            Self::TooShort { size, written } => {
                write!(f, "rebuild: {written} bytes come out, not the {size} of the recipe")
            }
            Self::Failed => f.write_str("rebuild: has failed before"),
        }
    }
}

impl std::error::Error for RebuildError {}

impl From<RebuildError> for io::Error {
    fn from(error: RebuildError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl<W: Write> Rebuild<W> {
    /// Makes the blob of `recipe` with so many threads, and writes it to `inner`.
    pub fn new(recipe: &Recipe, threads: NonZeroUsize, inner: W) -> Self {
        Self {
            encoder: Some(recipe.encoder(threads)),
            ready: Vec::new(),
            size: recipe.size(),
            written: 0,
            inner,
        }
    }

    /// Ends the blob, and gives the writer back. Does not flush it.
    ///
    /// # Errors
    ///
    /// The writer fails, or the blob has not the size of the recipe: a [`RebuildError`].
    pub fn finish(mut self) -> io::Result<W> {
        self.encoder.take().ok_or(RebuildError::Failed)?.finish(&mut self.ready);
        self.hand_out()?;
        if self.written < self.size {
            return Err(RebuildError::TooShort { size: self.size, written: self.written }.into());
        }
        Ok(self.inner)
    }

    fn hand_out(&mut self) -> io::Result<()> {
        let after = self.written.saturating_add(self.ready.len() as u64);
        if after > self.size {
            return Err(RebuildError::TooLong { size: self.size }.into());
        }
        self.inner.write_all(&self.ready)?;
        self.ready.clear();
        self.written = after;
        Ok(())
    }
}

impl<W: Write> Write for Rebuild<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let plain = &plain[..plain.len().min(PIECE)];
        // It comes back only if all goes well.
        let mut encoder = self.encoder.take().ok_or(RebuildError::Failed)?;
        encoder.push(plain, &mut self.ready);
        self.hand_out()?;
        self.encoder = Some(encoder);
        Ok(plain.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W> fmt::Debug for Rebuild<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild")
            .field("size", &self.size)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
