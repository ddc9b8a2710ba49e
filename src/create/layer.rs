//! One changed layer becomes one patch, checked while it is made.
//!
//! Workers make pieces out of order; this thread writes them in order, zstd
//! compresses on threads of its own, and a checker applies what comes out of it
//! to the base and compares the result with the layer.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::analysis::{Analysis, NewLayer};
use super::beside::{Holders, OldLayers};
use super::dictionary::Frames;
use super::piece::Piece;
use super::preset::Content;
use super::search::{Search, Weights};
use crate::apply::{apply_operations, apply_patch};
use crate::base::{SourceFiles, View};
use crate::cancel::Cancel;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, IoContext, Kind, Result};
use crate::extended::{self, Raw};
use crate::layer_write::LayerWrite;
use crate::region::Region;
use crate::spool::{Spool, Spooled};
use crate::tardiff::{Limits, OpWriter, Version, WriterOptions};

/// Small files are worked on together up to this many bytes.
const GROUP: u64 = 1 << 20;

/// Large files are worked on in blocks of this many bytes.
const BLOCK: u64 = 2 << 20;

/// Pieces that may wait for their turn, beside one for each worker.
const AHEAD: usize = 2;

/// Compressed chunks that may wait for the checker.
const UNCHECKED: usize = 16;

/// What all layers of a delta share.
pub(super) struct Encoder<'a> {
    pub analysis: &'a Analysis,
    /// The base as an applier sees it.
    pub files: &'a dyn SourceFiles,
    pub weights: Weights,
    /// Of the standard patch, if one is made.
    pub version: Option<Version>,
    pub options: WriterOptions,
    /// Of the extended one's content.
    pub content: Content,
    pub threads: usize,
    pub cancel: &'a Cancel,
    /// For an extended patch.
    pub old: Option<Old<'a>>,
    /// Where patches are written, and its streams wait for each other.
    pub spool: &'a Spool,
    /// Told how many bytes of the layer are done.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What extended patches are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Old<'a> {
    pub layers: &'a OldLayers,
    pub holders: &'a Holders,
}

/// The patches for a layer.
#[derive(Debug)]
pub(super) struct Patches {
    /// The layer's plain tar.
    pub tar: Region,
    pub standard: Option<Checked>,
    pub extended: Option<Checked>,
}

/// A patch in a spool file; or why it must not be used, if it does not give the layer.
pub(super) type Checked = Result<(Region, Digest)>;

impl Encoder<'_> {
    /// Makes the patches for a layer.
    ///
    /// # Errors
    /// When the layer cannot be read or the disk is full.
    pub fn encode(&self, layer: &NewLayer) -> Result<Patches> {
        let (standard, raw) = match self.version {
            Some(version) => self.standard(layer, version).map(|(patch, raw)| (Some(patch), raw))?,
            None => (None, self.write(layer, None)?),
        };
        let extended = raw.zip(self.old).map(|(raw, old)| self.weave(layer, raw, old));
        // What is wrong with the patch alone is told; what is wrong with the disk ends it all.
        let extended = match extended {
            Some(Err(e)) if !matches!(e.kind(), Kind::Misfit | Kind::Verification) => return Err(e),
            other => other,
        };
        Ok(Patches { tar: layer.tar.clone(), standard, extended })
    }

    /// The standard patch, and the streams of the extended one.
    fn standard(&self, layer: &NewLayer, version: Version) -> Result<(Checked, Option<Raw>)> {
        let (chunks, unchecked) = sync_channel(UNCHECKED);
        let write = || {
            let file = BufWriter::new(self.spool.begin().at(self.spool.dir().display())?);
            let sink = Sink { file, hasher: Hasher::default(), checker: Some(chunks) };
            let mut writer = OpWriter::new(sink, version, self.options).at("patch")?;
            let raw = self.write(layer, Some(&mut writer))?;
            Ok((writer.finish().at("patch")?.finish()?, raw))
        };
        std::thread::scope(|scope| {
            let checker = scope.spawn(|| self.check(&layer.tar, unchecked));
            let written = write();
            let checked = checker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (patch, raw) = written?;
            Ok((checked.map(|()| patch), raw))
        })
    }

    /// The extended patch out of its streams: applied and compared with the layer while it is written.
    fn weave(&self, layer: &NewLayer, raw: Raw, old: Old<'_>) -> Checked {
        let Content { usual, beside_encoders } = self.content;
        let content = if raw.waits_for_encoders() { beside_encoders } else { usual };
        let parts = raw.compress(content, || self.spool.begin(), Spooled::into_region).at("patch")?;
        let out = self.spool.begin().at("patch")?;
        let mut sink = Sink { file: BufWriter::new(out), hasher: Hasher::default(), checker: None };
        let threads = NonZeroUsize::new(self.threads).unwrap_or(NonZeroUsize::MIN);
        let limits = Limits { threads, spool: Some(self.spool.dir().to_owned()), ..Limits::default() };
        let mut compare = Compare { tar: &layer.tar, position: 0, buf: Vec::new() };
        let ops = parts.weave(&mut sink, |holder| old.holders.name(holder), &limits)?;
        apply_operations(ops, &View::new(self.files, 0), &limits, &mut compare)?;
        compare.finish()?;
        sink.finish()
    }

    /// Writes all pieces of a layer.
    fn write(&self, layer: &NewLayer, mut standard: Option<&mut OpWriter<Sink>>) -> Result<Option<Raw>> {
        let ranges = cut(layer);
        let search = Search {
            corpus: &self.analysis.corpus,
            index: &self.analysis.index,
            weights: self.weights,
            frames: (self.version == Some(Version::V2)).then_some(Frames { level: self.options.level }),
        };
        let pairs =
            self.old.map(|old| old.layers.pairs(self.analysis, layer)).transpose()?.unwrap_or_default();
        let beside = self.old.map(|old| (old.layers, &pairs[..]));
        let outer = |holder| self.old?.holders.outer(holder);
        let begin = |_| extended::OpWriter::new(&outer, || self.spool.begin());
        let mut extended = self.old.map(begin).transpose().at("patch")?;
        let encode = |at: usize| Piece::encode(&search, self.analysis, layer, beside, ranges[at].clone());
        in_order(ranges.len(), self.threads, encode, |at, piece: Piece<'_>| {
            self.cancel.check()?;
            if let Some(writer) = &mut standard {
                piece.write(writer).at("patch")?;
            }
            if let (Some(writer), Some(stretch)) = (&mut extended, &piece.beside) {
                stretch.write(writer).at("patch")?;
            }
            (self.progress)(ranges[at].end - ranges[at].start);
            Ok(())
        })?;
        extended.map(|writer| writer.finish(Spooled::into_region)).transpose().at("patch")
    }

    /// Applies the patch that comes through `chunks` and compares the result with the layer.
    fn check(&self, tar: &Region, chunks: Receiver<Vec<u8>>) -> Result<()> {
        let mut compare = Compare { tar, position: 0, buf: Vec::new() };
        let patch = Chunks { chunks, current: io::Cursor::default() };
        apply_patch(patch, &View::new(self.files, 0), &Limits::default(), &mut compare)?;
        compare.finish()
    }
}

/// Cuts a layer into ranges of work: groups of small files, blocks of large ones.
fn cut(layer: &NewLayer) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for file in &layer.files {
        let end = file.member.offset + file.member.size;
        while end - start > BLOCK {
            // Up to the file first, so that its blocks do not depend on what stands before it.
            let stop = if start < file.member.offset { file.member.offset } else { start + BLOCK };
            let stop = stop.min(start + BLOCK);
            ranges.push(start..stop);
            start = stop;
        }
        if end - start >= GROUP {
            ranges.push(start..end);
            start = end;
        }
    }
    while start < layer.tar.len() {
        let stop = layer.tar.len().min(start + BLOCK);
        ranges.push(start..stop);
        start = stop;
    }
    ranges
}

/// Runs `make` for `0..count` on `threads` threads and `take` on this one, in order.
fn in_order<T: Send>(
    count: usize,
    threads: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let desk = Desk { state: Mutex::new(State { done: BTreeMap::new(), taken: 0 }), changed: Condvar::new() };
    let next = AtomicUsize::new(0);
    let ahead = threads + AHEAD;
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count || !desk.may_begin(at, ahead) {
                        return;
                    }
                    let broken = Stop(&desk);
                    let made = make(at);
                    std::mem::forget(broken);
                    desk.put(at, made);
                }
            });
        }
        // Also when `take` panics: the scope waits for all who wait for their turn.
        let _end = Stop(&desk);
        (0..count).try_for_each(|at| take(at, desk.get(at)?))
    })
}

/// Where pieces wait for their turn.
struct Desk<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    done: BTreeMap<usize, Result<T>>,
    /// Pieces that were taken; `usize::MAX` when no more will be.
    taken: usize,
}

impl<T> Desk<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits until number `at` is near its turn; false when it is not needed any more.
    fn may_begin(&self, at: usize, ahead: usize) -> bool {
        let mut state = self.lock();
        while state.taken != usize::MAX && at >= state.taken + ahead {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.taken != usize::MAX
    }

    fn put(&self, at: usize, made: Result<T>) {
        self.lock().done.insert(at, made);
        self.changed.notify_all();
    }

    fn get(&self, at: usize) -> Result<T> {
        let mut state = self.lock();
        loop {
            if state.taken == usize::MAX {
                return Err(Error::local("a worker died"));
            }
            if let Some(made) = state.done.remove(&at) {
                state.taken = at + 1;
                self.changed.notify_all();
                return made;
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn stop(&self) {
        self.lock().taken = usize::MAX;
        self.changed.notify_all();
    }
}

/// Sends everyone home when it is dropped.
struct Stop<'a, T>(&'a Desk<T>);

impl<T> Drop for Stop<'_, T> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Takes the compressed patch: to the file, the hash, and the checker.
struct Sink {
    file: BufWriter<Spooled>,
    hasher: Hasher,
    /// Gone when the checker has seen enough.
    checker: Option<SyncSender<Vec<u8>>>,
}

impl Sink {
    /// What was written, and its digest.
    fn finish(self) -> Result<(Region, Digest)> {
        let file = self.file.into_inner().map_err(|e| Error::from_io(e.into_error(), "patch"))?;
        Ok((file.into_region(), self.hasher.finish()))
    }
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hasher.update(&buf[..n]);
        if self.checker.as_ref().is_some_and(|c| c.send(buf[..n].to_vec()).is_err()) {
            self.checker = None;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The patch as the checker reads it.
struct Chunks {
    chunks: Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.current.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            match self.chunks.recv() {
                Ok(chunk) => self.current = io::Cursor::new(chunk),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Compares what is written with a tar.
struct Compare<'a> {
    tar: &'a Region,
    position: u64,
    buf: Vec<u8>,
}

impl Compare<'_> {
    fn finish(&self) -> Result<()> {
        if self.position == self.tar.len() {
            return Ok(());
        }
        Err(Error::verification(format!("the patch gives {} bytes of {}", self.position, self.tar.len())))
    }
}

impl LayerWrite for Compare<'_> {}

impl Write for Compare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buf.resize(bytes.len(), 0);
        let same = self.tar.read_exact_at(&mut self.buf, self.position).is_ok() && self.buf == bytes;
        if !same {
            return Err(Error::verification(format!(
                "the patch gives other bytes than the layer has after byte {}",
                self.position
            ))
            .into());
        }
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_either_side_ends_all_threads() {
        for bad in ["make", "take"] {
            let (ended, end) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let run = || {
                    let make = |at| if bad == "make" && at == 3 { panic!("made") } else { Ok(at) };
                    let take = |at, _| if bad == "take" && at == 1 { panic!("taken") } else { Ok(()) };
                    in_order(1000, 2, make, take)
                };
                ended.send(std::panic::catch_unwind(run).is_ok_and(|result| result.is_ok())).unwrap();
            });
            let ended = end.recv_timeout(std::time::Duration::from_secs(20));
            assert_eq!(ended, Ok(false), "{bad}");
        }
    }
}
