//! The last two stages of a layer's way, off the caller's thread: a witness, which hashes, sees what
//! is written, then it goes to the writer.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;

/// Chunks that wait to be seen: 2 MiB. Stretches that keep one side busy take turns with those that keep
/// the other, and with four chunks the other waited for a tenth of the time.
const UNSEEN: usize = 8;

/// Unseen chunks from which on the witness's thread has enough to do.
const ENOUGH: usize = UNSEEN - 2;

/// Unseen chunks from which on the witness's thread leaves writing to another. With fewer it is the
/// caller who needs the processor, and a third thread would only take it away.
const LAGS: usize = 3;

/// Chunks that wait to be written; more of them make nothing faster.
const SEEN: usize = 2;

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
    /// What is still to be made of the filled bytes.
    later: Vec<(Range<usize>, Box<MakeLater>)>,
    repeats: Vec<(usize, Arc<str>, u64)>,
}

impl Chunk {
    fn new() -> Self {
        Chunk { bytes: vec![0; CHUNK].into(), filled: 0, later: Vec::new(), repeats: Vec::new() }
    }

    /// Makes what was left for later, and shows all.
    fn show(&mut self, witness: &mut impl Write) -> io::Result<()> {
        for (range, make) in self.later.drain(..) {
            make(&mut self.bytes[range])?;
        }
        witness.write_all(&self.bytes[..self.filled])
    }

    /// Passes all on, and is empty again.
    fn pass_on(&mut self, writer: &mut impl LayerWrite) -> io::Result<()> {
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

/// The writer, which two threads have in turn.
struct Out<W> {
    writer: Mutex<W>,
    /// Chunks that were left to the second thread and are not written yet.
    left: AtomicUsize,
}

/// Shows what is written to a witness `L`, then passes it to `W`, on threads of their own.
pub struct Pipeline<L, W> {
    pending: Chunk,
    full: Option<SyncSender<Chunk>>,
    /// Chunks that the witness has not seen yet.
    unseen: Arc<AtomicUsize>,
    /// Chunks come back to be filled again.
    empty: Receiver<Chunk>,
    /// Those that came back; the last one is still in the processor's cache.
    spare: Vec<Chunk>,
    witness: Option<JoinHandle<io::Result<L>>>,
    writer: Option<JoinHandle<io::Result<()>>>,
    out: Arc<Out<W>>,
}

impl<L, W> fmt::Debug for Pipeline<L, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("unseen", &self.unseen).finish_non_exhaustive()
    }
}

impl<L: Write + Send + 'static, W: LayerWrite + Send + 'static> Pipeline<L, W> {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(witness: L, writer: W) -> io::Result<Self> {
        let (full, chunks) = sync_channel(UNSEEN);
        let (seen, seen_chunks) = sync_channel(SEEN);
        let (back, empty) = channel();
        let unseen = Arc::new(AtomicUsize::new(0));
        let out = Arc::new(Out { writer: Mutex::new(writer), left: AtomicUsize::new(0) });
        let first = Witness { unseen: unseen.clone(), out: out.clone(), seen, back: back.clone() };
        let second = out.clone();
        let start = || std::thread::Builder::new();
        Ok(Pipeline {
            pending: Chunk::new(),
            full: Some(full),
            unseen,
            empty,
            spare: Vec::new(),
            witness: Some(start().spawn(move || first.run(witness, &chunks))?),
            writer: Some(start().spawn(move || second.write_all(&seen_chunks, &back))?),
            out,
        })
    }

    /// Waits until all is written and gives witness and writer back.
    ///
    /// # Errors
    /// Theirs.
    pub fn finish(mut self) -> Result<(L, W)> {
        let witness = self.hand_over().and_then(|()| self.join());
        let out = self.out.clone();
        drop(self);
        let writer = witness.and_then(|witness| {
            // The threads are gone, and with them their shares in it.
            let out = Arc::into_inner(out).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok((witness, out.writer.into_inner().map_err(|_| io::ErrorKind::BrokenPipe)?))
        });
        writer.map_err(|e| Error::from_io(e, "layer"))
    }

    /// More of the pending chunk is filled; a full one goes on its way.
    fn advance(&mut self, by: usize) -> io::Result<()> {
        self.pending.filled += by;
        if self.pending.filled == CHUNK { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.spare.extend(self.empty.try_iter());
        let next = self.spare.pop().unwrap_or_else(Chunk::new);
        let chunk = std::mem::replace(&mut self.pending, next);
        self.unseen.fetch_add(1, Ordering::Relaxed);
        let sent = self.full.as_ref().is_some_and(|full| full.send(chunk).is_ok());
        if sent { Ok(()) } else { self.join().and(Err(io::ErrorKind::BrokenPipe.into())) }
    }

    /// The threads end when they have no more to do, or with the error that stopped one.
    fn join(&mut self) -> io::Result<L> {
        self.full = None;
        let witness = joined(self.witness.take());
        let writer = joined(self.writer.take());
        writer.and(witness)
    }
}

fn joined<T>(thread: Option<JoinHandle<io::Result<T>>>) -> io::Result<T> {
    match thread.map(JoinHandle::join) {
        Some(Ok(result)) => result,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Given up: waits until the writer is gone too, with what it holds.
impl<L, W> Drop for Pipeline<L, W> {
    fn drop(&mut self) {
        self.full = None;
        // Their errors do not matter any more.
        let _ = self.witness.take().map(JoinHandle::join);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

/// What the first thread has beside the witness.
struct Witness<W> {
    unseen: Arc<AtomicUsize>,
    out: Arc<Out<W>>,
    seen: SyncSender<Chunk>,
    back: Sender<Chunk>,
}

impl<W: LayerWrite> Witness<W> {
    fn run<L: Write>(self, mut witness: L, chunks: &Receiver<Chunk>) -> io::Result<L> {
        for mut chunk in chunks {
            chunk.show(&mut witness)?;
            let lags = self.unseen.fetch_sub(1, Ordering::Relaxed) > LAGS;
            if lags || self.out.left.load(Ordering::Acquire) > 0 {
                self.out.left.fetch_add(1, Ordering::Relaxed);
                if self.seen.send(chunk).is_err() {
                    break; // the other thread says why
                }
            } else {
                self.out.write(&mut chunk)?;
                let _ = self.back.send(chunk); // nobody waits for the last ones
            }
        }
        Ok(witness)
    }
}

impl<W: LayerWrite> Out<W> {
    fn write(&self, chunk: &mut Chunk) -> io::Result<()> {
        chunk.pass_on(&mut *self.writer.lock().map_err(|_| io::ErrorKind::BrokenPipe)?)
    }

    /// The second thread.
    fn write_all(&self, chunks: &Receiver<Chunk>, back: &Sender<Chunk>) -> io::Result<()> {
        for mut chunk in chunks {
            self.write(&mut chunk)?;
            self.left.fetch_sub(1, Ordering::Release);
            let _ = back.send(chunk);
        }
        Ok(())
    }
}

impl<L: Write + Send + 'static, W: LayerWrite + Send + 'static> Write for Pipeline<L, W> {
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

impl<L: Write + Send + 'static, W: LayerWrite + Send + 'static> LayerWrite for Pipeline<L, W> {
    fn fill(&mut self, most: usize, make: &mut Make<'_>) -> Result<usize> {
        let room = &mut self.pending.bytes[self.pending.filled..];
        let n = most.min(room.len());
        make(&mut room[..n])?;
        self.advance(n).map_err(|e| Error::from_io(e, "layer"))?;
        Ok(n)
    }

    /// They are made by the witness's thread, unless it lags behind.
    fn fill_later(&mut self, most: usize, make: Box<MakeLater>) -> Result<usize> {
        if self.unseen.load(Ordering::Relaxed) > ENOUGH {
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
        let mut pipeline = Pipeline::new(Vec::new(), Vec::new()).unwrap();
        let bytes: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i * 7) as u8).collect();
        for piece in bytes.chunks(1000) {
            pipeline.write_all(piece).unwrap();
        }
        assert!(pipeline.finish().unwrap() == (bytes.clone(), bytes));
    }

    #[test]
    fn what_is_made_later_stands_where_it_belongs() {
        let mut pipeline = Pipeline::new(Vec::new(), Vec::new()).unwrap();
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
        assert!(pipeline.finish().unwrap() == (expected.clone(), expected));
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
        let (release, waiting) = channel();
        let mut pipeline = Pipeline::new(Waiting(waiting), io::sink()).unwrap();
        let (tell, made) = channel();
        let fill_later = |pipeline: &mut Pipeline<_, _>| {
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
        let mut pipeline = Pipeline::new(io::sink(), io::sink()).unwrap();
        pipeline.fill_later(10, Box::new(|_| Err(Error::misfit("the base file ends early")))).unwrap();
        let error = pipeline.finish().unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Misfit);
        assert!(error.to_string().contains("ends early"), "{error}");
    }

    #[test]
    fn the_errors_of_witness_and_writer_come_back() {
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
        fn check(mut pipeline: impl FnMut() -> Pipeline<Box<dyn Write + Send>, Box<dyn LayerWrite + Send>>) {
            let mut full = pipeline();
            let result = (0..100).try_for_each(|_| full.write_all(&[0; CHUNK]));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
            let mut full = pipeline();
            full.write_all(b"the last bytes").unwrap();
            assert!(full.finish().unwrap_err().to_string().contains("storage"));
        }
        check(|| Pipeline::new(Box::new(io::sink()), Box::new(Full)).unwrap());
        check(|| Pipeline::new(Box::new(Full), Box::new(io::sink())).unwrap());
    }
}
