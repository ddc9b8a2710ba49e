//! A writer on a thread of its own, so that two stages of a layer's way run at once.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;

/// Chunks on the way: 2.5 MiB. Stretches that keep one side busy take turns with those that keep the other,
/// and with four chunks the other waited for a tenth of the time.
const QUEUE: usize = 10;

/// Chunks from which on the thread has enough to do.
const ENOUGH: usize = QUEUE - 3;

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

    /// The same for bytes that can be made at any time before the end and on any thread.
    ///
    /// # Errors
    /// Those of the writer; those of `make` may come with a later call.
    fn fill_later(&mut self, most: usize, make: Box<MakeLater>) -> Result<usize> {
        self.fill(most, &mut |to| make(to))
    }

    /// Announces that the next `size` bytes written are the whole of a base
    /// file, which the store keeps as `object`: it need not keep them again.
    fn repeats(&mut self, _object: &Arc<str>, _size: u64) {}
}

/// Produces as many bytes as the slice has room for.
pub type Make<'a> = dyn FnMut(&mut [u8]) -> Result<()> + 'a;

/// The same on any thread, and after the caller has gone on.
pub type MakeLater = dyn Fn(&mut [u8]) -> Result<()> + Send;

impl LayerWrite for Vec<u8> {}

impl LayerWrite for io::Sink {}

impl<W: LayerWrite + ?Sized> LayerWrite for Box<W> {
    fn fill(&mut self, most: usize, make: &mut Make<'_>) -> Result<usize> {
        (**self).fill(most, make)
    }

    fn fill_later(&mut self, most: usize, make: Box<MakeLater>) -> Result<usize> {
        (**self).fill_later(most, make)
    }

    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        (**self).repeats(object, size);
    }
}

/// Bytes, and what was announced before which of them.
struct Chunk {
    bytes: Box<[u8]>,
    filled: usize,
    /// What the thread has to make of the filled bytes.
    later: Vec<(Range<usize>, Box<MakeLater>)>,
    repeats: Vec<(usize, Arc<str>, u64)>,
}

/// Passes what is written to `W` on another thread.
pub struct Pipeline<W> {
    pending: Chunk,
    full: Option<SyncSender<Chunk>>,
    /// Chunks come back to be filled again.
    empty: Receiver<Chunk>,
    /// Those that came back.
    spare: Vec<Chunk>,
    /// Chunks that the thread has not given back.
    underway: usize,
    thread: Option<JoinHandle<io::Result<W>>>,
}

impl<W> fmt::Debug for Pipeline<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("underway", &self.underway).finish_non_exhaustive()
    }
}

impl Chunk {
    fn new() -> Self {
        Chunk { bytes: vec![0; CHUNK].into(), filled: 0, later: Vec::new(), repeats: Vec::new() }
    }

    /// Makes what was left for later, and passes all on.
    fn pass_on(&mut self, writer: &mut impl LayerWrite) -> io::Result<()> {
        for (range, make) in self.later.drain(..) {
            make(&mut self.bytes[range])?;
        }
        let mut written = 0;
        for (at, object, size) in self.repeats.drain(..) {
            writer.write_all(&self.bytes[written..at])?;
            writer.repeats(&object, size);
            written = at;
        }
        writer.write_all(&self.bytes[written..self.filled])?;
        self.filled = 0;
        Ok(())
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
        Ok(Pipeline {
            pending: Chunk::new(),
            full: Some(full),
            empty,
            spare: Vec::new(),
            underway: 0,
            thread: Some(thread),
        })
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
        self.take_back();
        let next = self.spare.pop().unwrap_or_else(Chunk::new);
        let chunk = std::mem::replace(&mut self.pending, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send(chunk).is_ok());
        self.underway += 1;
        if sent { Ok(()) } else { self.join().and(Err(io::ErrorKind::BrokenPipe.into())) }
    }

    fn take_back(&mut self) {
        let before = self.spare.len();
        self.spare.extend(self.empty.try_iter());
        self.underway -= self.spare.len() - before;
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
        chunk.pass_on(&mut writer)?;
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

    /// They are made by the thread, unless it lags behind.
    fn fill_later(&mut self, most: usize, make: Box<MakeLater>) -> Result<usize> {
        self.take_back();
        if self.underway > ENOUGH {
            return self.fill(most, &mut |to| make(to));
        }
        let start = self.pending.filled;
        let n = most.min(CHUNK - start);
        self.pending.later.push((start..start + n, make));
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
    fn what_is_made_later_stands_where_it_belongs() {
        let mut pipeline = Pipeline::new(Vec::new()).unwrap();
        let mut expected = Vec::new();
        for n in 0..=255 {
            pipeline.write_all(&[n; 100]).unwrap();
            expected.extend([n; 100]);
            let mut left = CHUNK / 3;
            while left > 0 {
                let make = move |to: &mut [u8]| {
                    to.fill(!n);
                    Ok(())
                };
                left -= pipeline.fill_later(left, Box::new(make)).unwrap();
            }
            expected.resize(expected.len() + CHUNK / 3, !n);
        }
        assert!(pipeline.finish().unwrap() == expected);
    }

    #[test]
    fn a_thread_that_lags_behind_is_spared() {
        struct Waiting(Receiver<()>);
        impl Write for Waiting {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv(); // until the other end is dropped
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl LayerWrite for Waiting {}
        let (release, waiting) = channel();
        let mut pipeline = Pipeline::new(Waiting(waiting)).unwrap();
        let (tell, made) = channel();
        let fill_later = |pipeline: &mut Pipeline<_>| {
            let tell = tell.clone();
            let make = move |_: &mut [u8]| {
                let _ = tell.send(std::thread::current().id());
                Ok(())
            };
            pipeline.fill_later(1, Box::new(make)).unwrap();
        };
        fill_later(&mut pipeline);
        pipeline.write_all(&vec![0; (ENOUGH + 1) * CHUNK]).unwrap();
        fill_later(&mut pipeline);
        drop(release);
        pipeline.finish().unwrap();
        let (first, second) = (made.recv().unwrap(), made.recv().unwrap());
        let here = std::thread::current().id();
        assert_eq!([first, second].iter().filter(|id| **id == here).count(), 1);
    }

    #[test]
    fn an_error_made_later_comes_back() {
        let mut pipeline = Pipeline::new(io::sink()).unwrap();
        pipeline.fill_later(10, Box::new(|_| Err(Error::misfit("the base file ends early")))).unwrap();
        let error = pipeline.finish().unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Misfit);
        assert!(error.to_string().contains("ends early"), "{error}");
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
