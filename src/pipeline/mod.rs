//! The last two stages of a layer's way, off the caller's thread: a witness, which hashes, sees what
//! is written, then it goes to the writer.
//!
//! | thread | takes a chunk from | and | then gives it to |
//! |---|---|---|---|
//! | caller | the pool | fills it; what is of the base it leaves as gaps, unless `ENOUGH` chunks are unseen | the witness: a queue of `UNSEEN` |
//! | witness | that queue | closes the gaps and hashes | the writer where it has some already or the caller waits: a queue of `SEEN`; else it writes by itself, and gives it to the pool |
//! | writer | that queue | writes | the pool |
//!
//! So whoever has time reads the base, and the third thread works only where two are not enough. Order is kept: the
//! witness writes by itself only when all that it left to the writer is written. A thread that fails ends; the
//! next one to hand it a chunk asks why.

mod chunk;

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::base::{Blocks, SourceFile};
use crate::error::{Error, Result};
use crate::layer_write::{LayerWrite, Make, read_base};
use crate::pool::{Pool, Pooled};
use chunk::Chunk;

/// Chunks that wait to be seen: 2 MiB. Stretches that keep one side busy take turns with those that keep
/// the other, and with four chunks the other waited for a tenth of the time.
const UNSEEN: usize = 8;

/// Unseen chunks from which on the caller reads the base by itself. With none in stock the witness's
/// thread would wait whenever the caller is slow.
const ENOUGH: usize = 3;

/// Unseen chunks when the caller waits: the one being seen, a full queue, and the one that it cannot get
/// rid of. Only then is a processor free for a third thread; else it takes it from the other two.
const CALLER_WAITS: usize = UNSEEN + 2;

/// Chunks that wait to be written; more of them make nothing faster.
const SEEN: usize = 2;

/// The writer, which two threads have in turn.
struct Out<W> {
    writer: Mutex<W>,
    /// Chunks that were left to the second thread and are not written yet.
    left: AtomicUsize,
}

/// Shows what is written to a witness `L`, then passes it to `W`, on threads of their own.
pub struct Pipeline<L, W> {
    pending: Pooled<Chunk>,
    /// The pending chunk's base bytes are read by the witness's thread.
    leaves_gaps: bool,
    full: Option<SyncSender<Pooled<Chunk>>>,
    /// Chunks that the witness has not seen yet.
    unseen: Arc<AtomicUsize>,
    chunks: Pool<Chunk>,
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
        let (full, full_chunks) = sync_channel(UNSEEN);
        let (seen, seen_chunks) = sync_channel(SEEN);
        let mut chunks = Pool::new(Chunk::new, Chunk::clear);
        let unseen = Arc::new(AtomicUsize::new(0));
        let out = Arc::new(Out { writer: Mutex::new(writer), left: AtomicUsize::new(0) });
        let first = Witness { unseen: unseen.clone(), out: out.clone(), seen };
        let second = out.clone();
        let start = || std::thread::Builder::new();
        Ok(Pipeline {
            pending: chunks.take(),
            leaves_gaps: true,
            full: Some(full),
            unseen,
            chunks,
            witness: Some(start().spawn(move || first.run(witness, &full_chunks))?),
            writer: Some(start().spawn(move || second.write_all(&seen_chunks))?),
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
        if self.pending.fill(by) { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.pending, self.chunks.take());
        self.leaves_gaps = self.unseen.fetch_add(1, Ordering::Relaxed) < ENOUGH;
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
    seen: SyncSender<Pooled<Chunk>>,
}

impl<W: LayerWrite> Witness<W> {
    fn run<L: Write>(self, mut witness: L, chunks: &Receiver<Pooled<Chunk>>) -> io::Result<L> {
        let mut blocks = Blocks::default();
        for mut chunk in chunks {
            chunk.show(&mut blocks, &mut witness)?;
            let caller_waits = self.unseen.fetch_sub(1, Ordering::Relaxed) == CALLER_WAITS;
            if caller_waits || self.out.left.load(Ordering::Acquire) > 0 {
                self.out.left.fetch_add(1, Ordering::Relaxed);
                if self.seen.send(chunk).is_err() {
                    break; // the other thread says why
                }
            } else {
                self.out.write(chunk)?;
            }
        }
        Ok(witness)
    }
}

impl<W: LayerWrite> Out<W> {
    fn write(&self, mut chunk: Pooled<Chunk>) -> io::Result<()> {
        chunk.pass_on(&mut *self.writer.lock().map_err(|_| io::ErrorKind::BrokenPipe)?)
    }

    /// The second thread.
    fn write_all(&self, chunks: &Receiver<Pooled<Chunk>>) -> io::Result<()> {
        for chunk in chunks {
            self.write(chunk)?;
            self.left.fetch_sub(1, Ordering::Release);
        }
        Ok(())
    }
}

impl<L: Write + Send + 'static, W: LayerWrite + Send + 'static> Write for Pipeline<L, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = self.pending.room();
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
        let room = self.pending.room();
        let n = most.min(room.len());
        make(&mut room[..n])?;
        self.advance(n).map_err(|e| Error::from_io(e, "layer"))?;
        Ok(n)
    }

    /// The base is read by the witness's thread, unless it lags behind.
    fn fill_from(
        &mut self,
        most: usize,
        file: &Arc<SourceFile>,
        offset: u64,
        blocks: &mut Blocks,
        mut sums: Option<&mut Make<'_>>,
    ) -> Result<usize> {
        let room = self.pending.room();
        let n = most.min(room.len());
        if let Some(sums) = &mut sums {
            sums(&mut room[..n])?;
        }
        let adds = sums.is_some();
        if !self.leaves_gaps || !self.pending.leave_gap(n, file, offset, adds) {
            read_base(blocks, file, offset, adds, &mut self.pending.room()[..n])?;
        }
        self.advance(n).map_err(|e| Error::from_io(e, "layer"))?;
        Ok(n)
    }

    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        self.pending.repeats(object, size);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::chunk::{CHUNK, FILES, GAPS};
    use super::*;
    use crate::base::SourcePath;
    use crate::region::Region;

    #[test]
    fn everything_arrives_in_order() {
        let mut pipeline = Pipeline::new(Vec::new(), Vec::new()).unwrap();
        let bytes: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i * 7) as u8).collect();
        for piece in bytes.chunks(1000) {
            pipeline.write_all(piece).unwrap();
        }
        assert!(pipeline.finish().unwrap() == (bytes.clone(), bytes));
    }

    /// A base file of the bytes 0, 1, …, 255, and so on.
    fn base(size: usize) -> Arc<SourceFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&(0..size).map(|i| i as u8).collect::<Vec<_>>()).unwrap();
        let path = SourcePath::clean(b"base").unwrap();
        Arc::new(SourceFile::new(path, Region::whole(file).unwrap()))
    }

    #[test]
    fn base_bytes_stand_where_they_belong() {
        let (file, mut blocks) = (base(2 * CHUNK), Blocks::default());
        let mut pipeline = Pipeline::new(Vec::new(), Vec::new()).unwrap();
        let mut expected = Vec::new();
        for n in 0..=255u8 {
            pipeline.write_all(&[n; 100]).unwrap();
            expected.extend([n; 100]);
            let adds = n % 3 == 0;
            let mut sum = |to: &mut [u8]| {
                to.fill(n);
                Ok(())
            };
            let mut offset = usize::from(n);
            let end = offset + CHUNK / 3;
            while offset < end {
                let sums: Option<&mut Make<'_>> = if adds { Some(&mut sum) } else { None };
                let n = pipeline.fill_from(end - offset, &file, offset as u64, &mut blocks, sums).unwrap();
                offset += n;
            }
            let difference = if adds { n } else { 0 };
            expected.extend((usize::from(n)..end).map(|i| (i as u8).wrapping_add(difference)));
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
        let (file, mut blocks) = (base(1), Blocks::default());
        pipeline.fill_from(1, &file, 0, &mut blocks, None).unwrap();
        assert_eq!(pipeline.pending.gaps().0, 1);
        pipeline.write_all(&vec![0; (ENOUGH + 1) * CHUNK]).unwrap();
        pipeline.fill_from(1, &file, 0, &mut blocks, None).unwrap();
        assert_eq!(pipeline.pending.gaps().0, 0);
        drop(release);
        pipeline.finish().unwrap();
    }

    #[test]
    fn no_chunk_has_gaps_without_end() {
        let mut blocks = Blocks::default();
        let mut most = |files: &[Arc<SourceFile>]| {
            let mut pipeline = Pipeline::new(Vec::new(), Vec::new()).unwrap();
            for at in 0..2 * GAPS {
                let file = &files[at % files.len()];
                pipeline.fill_from(1, file, 7, &mut blocks, None).unwrap();
            }
            let most = pipeline.pending.gaps();
            assert!(pipeline.finish().unwrap().0 == [7; 2 * GAPS]);
            most
        };
        assert_eq!(most(&[base(8)]), (GAPS, 1));
        let files: Vec<_> = (0..2 * FILES).map(|_| base(8)).collect();
        assert_eq!(most(&files).1, FILES);
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_of_finish() {
        let file = base(5);
        let mut pipeline = Pipeline::new(io::sink(), io::sink()).unwrap();
        pipeline.fill_from(20_000, &file, 0, &mut Blocks::default(), None).unwrap();
        let error = pipeline.finish().unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Misfit);
        assert!(error.to_string().contains("ends early"), "{error}");
    }

    #[test]
    fn a_chunk_that_a_failing_thread_left_is_used_from_its_beginning() {
        let mut pipeline = Pipeline::new(Vec::new(), Vec::new()).unwrap();
        let mut chunk = pipeline.chunks.take();
        assert!(chunk.leave_gap(1, &base(1), 0, false));
        chunk.fill(CHUNK);
        drop(chunk);
        pipeline.write_all(&[7; 2 * CHUNK]).unwrap();
        let expected = vec![7; 2 * CHUNK];
        assert!(pipeline.finish().unwrap() == (expected.clone(), expected));
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
        fn check<L: Write + Send + 'static, W: LayerWrite + Send + 'static>(new: fn() -> (L, W)) {
            let pipeline = || {
                let (witness, writer) = new();
                Pipeline::new(witness, writer).unwrap()
            };
            let mut full = pipeline();
            let result = (0..100).try_for_each(|_| full.write_all(&[0; CHUNK]));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
            let mut full = pipeline();
            full.write_all(b"the last bytes").unwrap();
            assert!(full.finish().is_err());
        }
        check(|| (io::sink(), Full));
        check(|| (Full, io::sink()));
    }
}
