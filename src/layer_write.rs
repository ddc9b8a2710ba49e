//! What a layer tar is written into: by the applier, and on the way to the store.

use std::io::{self, Write};
use std::sync::Arc;

use crate::base::{Blocks, SourceFile};
use crate::error::{Error, Result};

/// Bytes of a piece that a writer without a buffer of its own is filled with.
const PIECE: usize = 16 << 10;

/// Takes a layer tar, and is told where it repeats what the store has.
pub trait LayerWrite: Write {
    /// Lets `make` produce the next bytes, at most `most`, where this writer wants to have
    /// them: they need not be copied. `make` fills all that it is given; that may be less.
    ///
    /// # Errors
    /// Those of `make` and of the writer.
    fn fill(&mut self, most: usize, make: &mut Make<'_>) -> Result<usize> {
        let mut piece = [0; PIECE];
        let piece = &mut piece[..most.min(PIECE)];
        make(piece)?;
        self.write_all(piece).map_err(|e| Error::from_io(e, "layer"))?;
        Ok(piece.len())
    }

    /// The same for bytes of a base file from `offset` on, which the caller knows to be there, plus
    /// those that `sums` makes, if any, each modulo 256.
    ///
    /// # Errors
    /// Those of `sums` and of the writer; those of the file may come with a later call.
    fn fill_from(
        &mut self,
        most: usize,
        file: &Arc<SourceFile>,
        offset: u64,
        blocks: &mut Blocks,
        mut sums: Option<&mut Make<'_>>,
    ) -> Result<usize> {
        let adds = sums.is_some();
        self.fill(most, &mut |to| {
            sums.as_mut().map_or(Ok(()), |sums| sums(to))?;
            read_base(blocks, file, offset, adds, to)
        })
    }

    /// Announces that the next `size` bytes written are the whole of a base
    /// file, which the store keeps as `object`: it need not keep them again.
    fn repeats(&mut self, _object: &Arc<str>, _size: u64) {}
}

/// Produces as many bytes as the slice has room for.
pub type Make<'a> = dyn FnMut(&mut [u8]) -> Result<()> + 'a;

/// Fills `to` with bytes of a base file, or adds them to what stands there.
pub(crate) fn read_base(
    blocks: &mut Blocks,
    file: &SourceFile,
    offset: u64,
    adds: bool,
    to: &mut [u8],
) -> Result<()> {
    if adds { blocks.add_exact(file, offset, to) } else { blocks.read_exact(file, offset, to) }
}

impl LayerWrite for Vec<u8> {}

impl LayerWrite for io::Sink {}

/// A boxed writer has no room of its own to be filled.
impl<W: LayerWrite + ?Sized> LayerWrite for Box<W> {
    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        (**self).repeats(object, size);
    }
}
