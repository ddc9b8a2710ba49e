//! A writer on a thread of its own, so that two stages of a layer's way run at once.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;

/// Chunks on the way: 1 MiB, enough to even out short stalls.
const QUEUE: usize = 4;

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

    /// Announces that the next `size` bytes written are the whole of a base
    /// file, which the store keeps as `object`: it need not keep them again.
    fn repeats(&mut self, _object: &Arc<str>, _size: u64) {}
}

/// Produces as many bytes as the slice has room for.
pub type Make<'a> = dyn FnMut(&mut [u8]) -> Result<()> + 'a;

impl LayerWrite for Vec<u8> {}

impl LayerWrite for io::Sink {}

impl<W: LayerWrite + ?Sized> LayerWrite for Box<W> {
    fn fill(&mut self, most: usize, make: &mut Make<'_>) -> Result<usize> {
        (**self).fill(most, make)
    }

    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        (**self).repeats(object, size);
    }
}

/// Bytes, and what was announced before which of them.
#[derive(Debug)]
struct Chunk {
    bytes: Box<[u8]>,
    filled: usize,
    repeats: Vec<(usize, Arc<str>, u64)>,
}

/// Passes what is written to `W` on another thread.
#[derive(Debug)]
pub struct Pipeline<W> {
    pending: Chunk,
    full: Option<SyncSender<Chunk>>,
    /// Chunks come back to be filled again.
    empty: Receiver<Chunk>,
    thread: Option<JoinHandle<io::Result<W>>>,
}

impl Chunk {
    fn new() -> Self {
        Chunk { bytes: vec![0; CHUNK].into(), filled: 0, repeats: Vec::new() }
    }
}

impl<W: LayerWrite + Send + 'static> Pipeline<W> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(writer: W) -> io::Result<Self> {
        let (full, chunks) = sync_channel(QUEUE);
        let (back, empty) = channel();
        let thread = std::thread::Builder::new().spawn(move || pass_on(writer, &chunks, &back))?;
        Ok(Pipeline { pending: Chunk::new(), full: Some(full), empty, thread: Some(thread) })
    }

    /// Waits until all is written and gives the writer back.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> Result<W> {
        self.hand_over().and_then(|()| self.join()).map_err(|e| Error::from_io(e, "layer"))
    }

    /// More of the pending chunk is filled; a full one goes to the thread.
    fn advance(&mut self, by: usize) -> io::Result<()> {
        self.pending.filled += by;
        if self.pending.filled == CHUNK { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Chunk::new());
        let chunk = std::mem::replace(&mut self.pending, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send(chunk).is_ok());
        if sent { Ok(()) } else { self.join().and(Err(io::ErrorKind::BrokenPipe.into())) }
    }

    /// The thread ends when it has no more to do, or with the error that stopped it.
    fn join(&mut self) -> io::Result<W> {
        self.full = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Given up: waits until the writer is gone too, with what it holds.
impl<W> Drop for Pipeline<W> {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its error does not matter any more
        }
    }
}

fn pass_on<W: LayerWrite>(mut writer: W, chunks: &Receiver<Chunk>, back: &Sender<Chunk>) -> io::Result<W> {
    for mut chunk in chunks {
        let mut written = 0;
        for (at, object, size) in chunk.repeats.drain(..) {
            writer.write_all(&chunk.bytes[written..at])?;
            writer.repeats(&object, size);
            written = at;
        }
        writer.write_all(&chunk.bytes[written..chunk.filled])?;
        chunk.filled = 0;
        let _ = back.send(chunk); // nobody waits for the last ones
    }
    Ok(writer)
}

impl<W: LayerWrite + Send + 'static> Write for Pipeline<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = &mut self.pending.bytes[self.pending.filled..];
        let n = buf.len().min(room.len());
        room[..n].copy_from_slice(&buf[..n]);
        self.advance(n)?;
        Ok(n)
    }

    /// Nothing to do: [`Pipeline::finish`] says when all is written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: LayerWrite + Send + 'static> LayerWrite for Pipeline<W> {
    fn fill(&mut self, most: usize, make: &mut Make<'_>) -> Result<usize> {
        let room = &mut self.pending.bytes[self.pending.filled..];
        let n = most.min(room.len());
        make(&mut room[..n])?;
        self.advance(n).map_err(|e| Error::from_io(e, "layer"))?;
        Ok(n)
    }

    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        self.pending.repeats.push((self.pending.filled, object.clone(), size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order() {
        let mut pipeline = Pipeline::new(Vec::new()).unwrap();
        let bytes: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i * 7) as u8).collect();
        for piece in bytes.chunks(1000) {
            pipeline.write_all(piece).unwrap();
        }
        assert_eq!(pipeline.finish().unwrap(), bytes);
    }

    #[test]
    fn the_writers_error_comes_back() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl LayerWrite for Full {}
        let mut pipeline = Pipeline::new(Full).unwrap();
        let result = (0..100).try_for_each(|_| pipeline.write_all(&[0; CHUNK]));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut pipeline = Pipeline::new(Full).unwrap();
        pipeline.write_all(b"the last bytes").unwrap();
        assert!(pipeline.finish().is_err());
    }
}
