//! Makes a member again, up to the first byte that differs.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

use super::{Encoder, Recipe, Sizes};
use crate::cancel::Cancel;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::region::Region;

/// Bytes compared at once.
const PIECE: usize = 64 << 10;

/// A member, and what is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) stretch: &'a Region,
    pub(super) plain: &'a Region,
    pub(super) cancel: &'a Cancel,
}

impl Pair<'_> {
    /// Does the recipe make it?
    pub(super) fn is_made_by(&self, recipe: &Recipe, threads: NonZeroUsize) -> Result<bool> {
        let sizes = Sizes { packed: self.stretch.len(), plain: self.plain.len() };
        let encoder = Encoder::new(recipe, sizes, threads, Same::from(self.stretch, 0, 0))?;
        verdict(self.fill(encoder, self.plain).and_then(|encoder| encoder.finish().map(drop)))
    }

    /// Does the recipe, of which something comes out before the end, go on as the member does, for so many bytes of what is in
    /// it? What comes before `skip` may be otherwise.
    pub(super) fn begins_by(&self, recipe: &Recipe, plain: u64, skip: (u64, u64)) -> Result<bool> {
        let sizes = Sizes { packed: u64::MAX, plain: self.plain.len() };
        let same = Same::from(self.stretch, skip.0, skip.1);
        let encoder = Encoder::new(recipe, sizes, NonZeroUsize::MIN, same)?;
        verdict(self.fill(encoder, &self.plain.slice(0, plain)).map(drop))
    }

    fn fill<'b>(&self, mut encoder: Encoder<Same<'b>>, plain: &Region) -> Result<Encoder<Same<'b>>> {
        let mut reader = plain.reader();
        let mut buffer = vec![0; PIECE];
        loop {
            self.cancel.check()?;
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(encoder),
                Ok(n) => encoder.write_all(&buffer[..n]).at("member")?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::from_io(e, "member")),
            }
        }
    }
}

/// Another byte or another size is no error.
fn verdict(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == Kind::Verification => Ok(false),
        Err(e) => Err(e),
    }
}

/// A writer that takes what a stretch holds, and nothing else.
struct Same<'a> {
    stretch: &'a Region,
    /// The next byte.
    at: u64,
    /// Bytes that are not compared.
    skip: u64,
    buffer: Vec<u8>,
}

impl<'a> Same<'a> {
    /// From `at` on, behind the first `skip` bytes that are written.
    fn from(stretch: &'a Region, at: u64, skip: u64) -> Self {
        Same { stretch, at, skip, buffer: vec![0; PIECE] }
    }
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let n = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= n as u64;
            return Ok(n);
        }
        let expected = &mut self.buffer[..bytes.len().min(PIECE)];
        let n = self.stretch.read_at(expected, self.at)?;
        if bytes.get(..n) != Some(&expected[..n]) || (n == 0 && !bytes.is_empty()) {
            return Err(Error::verification("the member differs").into());
        }
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
