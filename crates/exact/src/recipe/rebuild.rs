//! Making a blob from its plain bytes, no larger than it may be.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use super::Recipe;
use crate::Encoder;
use crate::fix::{self, FixDigest, FixError, Follow, Progress};

/// The most plain bytes that the encoder takes at once.
const PIECE: usize = 256 << 10;

/// Takes plain bytes, and writes the blob of a recipe to another writer.
///
/// The blob is written while the plain bytes come, but some of it only by [`finish`](Self::finish).
pub struct Rebuild<W> {
    /// `None` after a failure.
    making: Option<Making>,
    ready: Vec<u8>,
    size: u64,
    written: u64,
    inner: W,
}

/// Who makes the blob.
enum Making {
    Encoder(Box<dyn Encoder>),
    Fix(Box<Follow>),
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
    /// The fix can't be followed.
    Fix(FixError),
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
            Self::Fix(error) => error.fmt(f),
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
    /// Makes the blob of `recipe` with its fix, if it needs one, and so many threads, and writes it to `inner`.
    ///
    /// The fix is held in memory. Whoever fetches one needs no more than [`fix::most`] bytes of it.
    ///
    /// # Errors
    ///
    /// The fix is missing, too large, or none, or another one than the recipe names.
    pub fn new(
        recipe: &Recipe,
        fix: Option<Vec<u8>>,
        threads: NonZeroUsize,
        inner: W,
    ) -> Result<Self, RebuildError> {
        let making = match (recipe.fix(), fix) {
            (None, None) => recipe.encoder(threads).map(Making::Encoder).ok_or(FixError::Missing),
            (Some(_), None) => Err(FixError::Missing),
            (None, Some(_)) => Err(FixError::NotNeeded),
            (Some(digest), Some(fix)) => {
                let most = fix::most(recipe.size());
                if fix.len() as u64 > most {
                    Err(FixError::TooLarge { most })
                } else if FixDigest::of(&fix) != *digest {
                    Err(FixError::OtherDigest)
                } else {
                    Follow::new(recipe.method(), fix, threads).map(|follow| Making::Fix(Box::new(follow)))
                }
            }
        };
        let making = Some(making.map_err(RebuildError::Fix)?);
        Ok(Self { making, ready: Vec::new(), size: recipe.size(), written: 0, inner })
    }

    /// Ends the blob, and gives the writer back. Does not flush it.
    ///
    /// # Errors
    ///
    /// The writer fails, or the blob has not the size of the recipe: a [`RebuildError`].
    pub fn finish(mut self) -> io::Result<W> {
        match self.making.take().ok_or(RebuildError::Failed)? {
            Making::Encoder(encoder) => {
                encoder.finish(&mut self.ready);
                self.hand_out()?;
            }
            Making::Fix(mut follow) => {
                if self.follow(&mut follow, &[])? != Progress::Done {
                    return Err(RebuildError::Fix(FixError::Plain).into());
                }
            }
        }
        if self.written < self.size {
            return Err(RebuildError::TooShort { size: self.size, written: self.written }.into());
        }
        Ok(self.inner)
    }

    /// Writes what threads still make of whole parts, to be compared: the blob can't be made to its end after that.
    pub(crate) fn settle(mut self) -> io::Result<()> {
        if let Making::Encoder(encoder) = self.making.as_mut().ok_or(RebuildError::Failed)? {
            encoder.settle(&mut self.ready);
        }
        self.hand_out()
    }

    /// Goes on with these plain bytes as far as it leads.
    fn follow(&mut self, follow: &mut Follow, mut plain: &[u8]) -> io::Result<Progress> {
        loop {
            let progress = follow.step(&mut plain, &mut self.ready).map_err(RebuildError::Fix)?;
            self.hand_out()?;
            if progress != Progress::More {
                return Ok(progress);
            }
        }
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
        let mut making = self.making.take().ok_or(RebuildError::Failed)?;
        match &mut making {
            Making::Encoder(encoder) => {
                encoder.push(plain, &mut self.ready);
                self.hand_out()?;
            }
            Making::Fix(follow) => {
                self.follow(follow, plain)?;
            }
        }
        self.making = Some(making);
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
