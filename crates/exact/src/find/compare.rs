//! Making a blob again, up to the first byte that differs.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

use super::NotFound;
use crate::recipe::{Rebuild, RebuildError, Recipe};

/// What is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// How a blob compares with what a recipe makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No difference, as far as it was made.
    Same,
    Differs {
        /// So many bytes are the same.
        at: u64,
    },
}

/// Makes the blob from at most `limit` plain bytes, and to its end if there are no more.
pub(super) fn compare<B: Read, P: Read>(
    (recipe, fix): (&Recipe, Option<&[u8]>),
    (blob, mut plain): (B, P),
    limit: u64,
    threads: NonZeroUsize,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<Verdict, NotFound> {
    let mut same = Same { blob, buffer: vec![0; PIECE], count: 0, differs: false };
    let fix = fix.map(<[u8]>::to_vec);
    let mut rebuild = Rebuild::new(recipe, fix, threads, &mut same).map_err(io::Error::from)?;
    let mut buffer = vec![0; PIECE];
    let mut left = limit;
    let outcome = loop {
        if cancelled() {
            return Err(NotFound::Cancelled);
        }
        if left == 0 {
            break rebuild.settle();
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match plain.read(&mut buffer[..most]) {
            Ok(0) => break rebuild.finish().map(drop),
            Ok(count) => {
                left -= count as u64;
                if let Err(error) = rebuild.write_all(&buffer[..count]) {
                    break Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    };
    match outcome {
        Ok(()) => Ok(Verdict::Same),
        Err(error) if same.differs || is_other_size(&error) => Ok(Verdict::Differs { at: same.count }),
        Err(error) => Err(error.into()),
    }
}

fn is_other_size(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<RebuildError>())
}

/// A writer that takes what the blob holds, and nothing else.
struct Same<B> {
    blob: B,
    buffer: Vec<u8>,
    /// The bytes that are the same.
    count: u64,
    differs: bool,
}

impl<B: Read> Write for Same<B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = bytes.len().min(PIECE);
        let buffer = &mut self.buffer[..most];
        let read = match self.blob.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            read => read?,
        };
        let same = bytes.iter().zip(&buffer[..read]).take_while(|(a, b)| a == b).count();
        self.count += same as u64;
        if same < read || (read == 0 && most > 0) {
            self.differs = true;
            return Err(io::Error::other("the blob differs"));
        }
        Ok(read)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
