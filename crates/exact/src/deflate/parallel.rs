//! One deflate stream on several threads.
//!
//! The stream is cut into chunks. Threads look for matches in all of them at once, each from a cold start
//! some way before its chunk. The thread of the caller goes through the chunks in order. Where the source
//! of a chunk is proved to go on as the source that came through the chunks before
//! ([`TokenSource::same_future`]), its tokens are taken; until then the tokens are found anew, one step
//! after the other. The blocks are cut from the tokens of the whole, so the output is always that of one
//! thread.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;

use super::source::{BlockWriter, TokenSource, Window};
use super::stream::{Sequential, Stages, history, last_stop};
use super::token::Token;
use crate::Encoder;

/// The plain bytes of a chunk. Larger ones take more memory, smaller ones more warming up.
const CHUNK: u64 = 1 << 20;
/// How far before its chunk a source begins. Most agree after 65 KB, all that were seen after 116.
const WARM_UP: u64 = 128 << 10;
/// Within a chunk, sources are compared after so many bytes.
const PIECE: u64 = 256 << 10;
/// The most threads of one encoder.
const MAX_THREADS: usize = 64;

/// An encoder of the two stages, with so many threads for the first of them. One thread is the caller's.
pub(crate) fn encoder<S: TokenSource, W: BlockWriter>(
    config: S::Config,
    writer: W,
    threads: NonZeroUsize,
) -> Box<dyn Encoder> {
    if threads.get() == 1 {
        return Box::new(Sequential::<S, W>::new(config, writer));
    }
    let sizes = Sizes::new(CHUNK, PIECE, WARM_UP, S::GRID);
    Box::new(Parallel::<S, W>::new(config, writer, threads.get().min(MAX_THREADS), sizes))
}

/// How a stream is cut, in bytes, all of them on the grid of the source.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    chunk: u64,
    piece: u64,
    warm_up: u64,
}

impl Sizes {
    fn new(chunk: u64, piece: u64, warm_up: u64, grid: u64) -> Self {
        let [chunk, piece, warm_up] = [chunk, piece, warm_up].map(|size| size.next_multiple_of(grid));
        Self { chunk, piece, warm_up }
    }
}

/// A part of the stream, with the bytes before and behind it that a source must see.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    origin: u64,
    /// The part from which tokens are wanted.
    start: u64,
    end: u64,
    /// Whether the stream ends here.
    is_last: bool,
}

impl Chunk {
    fn window(&self) -> Window<'_> {
        let stream_end = self.is_last.then_some(self.end);
        Window { bytes: &self.bytes, origin: self.origin, stream_end }
    }
}

/// Lists that were used and can be used again, for fresh memory comes page by page.
#[derive(Debug)]
struct Spare<T>(Mutex<Vec<Vec<T>>>);

impl<T> Spare<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    /// An empty list, with memory if there is some.
    fn take(&self) -> Vec<T> {
        self.0.lock().ok().and_then(|mut lists| lists.pop()).unwrap_or_default()
    }

    fn give(&self, mut list: Vec<T>) {
        list.clear();
        if let Ok(mut lists) = self.0.lock() {
            lists.push(list);
        }
    }
}

/// The tokens of a piece of a chunk, as they are if the source is at `from` when the piece begins.
#[derive(Debug)]
struct Piece<S> {
    from: S,
    tokens: Vec<Token>,
    /// Where the piece ends, and where its tokens reach.
    until: u64,
    emitted: u64,
}

/// What a thread finds in a chunk.
#[derive(Debug)]
struct Found<S> {
    pieces: Vec<Piece<S>>,
    end: S,
}

/// Looks for the tokens of a chunk from a cold start.
fn find<S: TokenSource>(config: S::Config, chunk: &Chunk, sizes: Sizes, spare: &Spare<Token>) -> Found<S> {
    let window = chunk.window();
    let cold = chunk.start.saturating_sub(sizes.warm_up);
    let mut source = S::new(config, cold);
    if cold < chunk.start {
        let mut unused = spare.take();
        source.advance(window, chunk.start, &mut unused);
        spare.give(unused);
    }
    let mut pieces = Vec::new();
    let mut until = chunk.start;
    loop {
        until = (until + sizes.piece).min(chunk.end);
        let from = source.clone();
        let mut tokens = spare.take();
        source.advance(window, until, &mut tokens);
        pieces.push(Piece { from, tokens, until, emitted: source.emitted() });
        // The last piece is looked at even if it is empty: a source may hold a token back.
        if until >= chunk.end {
            return Found { pieces, end: source };
        }
    }
}

/// A chunk for a thread, and where its answer goes.
type Job<S> = (Arc<Chunk>, SyncSender<Found<S>>);

/// Threads that look for tokens. They end when this is dropped.
#[derive(Debug)]
struct Threads<S> {
    jobs: Option<Sender<Job<S>>>,
    handles: Vec<thread::JoinHandle<()>>,
    /// Lists of tokens, from the one who has written them back to those who find them.
    spare: Arc<Spare<Token>>,
}

impl<S: TokenSource> Threads<S> {
    /// As many of `count` as can be had.
    fn new(config: S::Config, count: usize, sizes: Sizes) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let queue = Arc::new(Mutex::new(queue));
        let spare = Spare::new();
        let handles = (0..count)
            .map_while(|_| {
                let (queue, spare) = (Arc::clone(&queue), Arc::clone(&spare));
                let work = move || {
                    // The lock is held while waiting, never while working.
                    let next = || queue.lock().ok()?.recv().ok();
                    while let Some((chunk, answer)) = next() {
                        let found = find(config, &chunk, sizes, &spare);
                        // Who gets the answer wants the chunk's memory, too.
                        drop(chunk);
                        // Nobody may wait for it any more.
                        let _ = answer.send(found);
                    }
                };
                thread::Builder::new().name("deflate".into()).spawn(work).ok()
            })
            .collect();
        Self { jobs: Some(jobs), handles, spare }
    }

    /// Hands on a chunk. Without an answer to come, there is no thread to give one.
    fn submit(&self, chunk: Arc<Chunk>) -> Option<Receiver<Found<S>>> {
        if self.handles.is_empty() {
            return None;
        }
        let (answer, found) = mpsc::sync_channel(1);
        self.jobs.as_ref()?.send((chunk, answer)).ok()?;
        Some(found)
    }
}

impl<S> Drop for Threads<S> {
    fn drop(&mut self) {
        self.jobs = None;
        for handle in self.handles.drain(..) {
            // One that panicked gave no answer, and its chunk was done without it.
            let _ = handle.join();
        }
    }
}

/// A chunk on its way.
#[derive(Debug)]
struct Pending<S> {
    chunk: Arc<Chunk>,
    found: Option<Receiver<Found<S>>>,
}

#[derive(Debug)]
struct Parallel<S: TokenSource, W: BlockWriter> {
    stages: Stages<S, W>,
    sizes: Sizes,
    /// The plain bytes of the next chunk, and those before it that it needs.
    plain: Vec<u8>,
    origin: u64,
    /// Where the next chunk begins.
    start: u64,
    pending: VecDeque<Pending<S>>,
    /// Memory of chunks that are done.
    spare: Vec<Vec<u8>>,
    threads: Threads<S>,
}

impl<S: TokenSource, W: BlockWriter> Parallel<S, W> {
    fn new(config: S::Config, writer: W, threads: usize, sizes: Sizes) -> Self {
        Self {
            stages: Stages::new(S::new(config, 0), writer),
            sizes,
            plain: Vec::new(),
            origin: 0,
            start: 0,
            pending: VecDeque::new(),
            spare: Vec::new(),
            threads: Threads::new(config, threads, sizes),
        }
    }

    /// Hands the chunk up to `end` to the threads.
    fn submit(&mut self, end: u64, is_last: bool) {
        let keep = end.saturating_sub(self.sizes.warm_up.max(history::<S, W>())).max(self.origin);
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(&self.plain[(keep - self.origin) as usize..]);
        let bytes = std::mem::replace(&mut self.plain, kept);
        let chunk = Arc::new(Chunk { bytes, origin: self.origin, start: self.start, end, is_last });
        self.origin = keep;
        self.start = end;
        let found = self.threads.submit(Arc::clone(&chunk));
        self.pending.push_back(Pending { chunk, found });
    }

    /// Takes the stream through the oldest chunks, until no more than `left` are on their way.
    fn collect(&mut self, left: usize, out: &mut Vec<u8>) {
        while self.pending.len() > left {
            let Some(Pending { chunk, found }) = self.pending.pop_front() else { return };
            // Without an answer all is found here.
            match found.and_then(|found| found.recv().ok()) {
                Some(found) => self.stitch(&chunk, found, out),
                None => self.stages.advance(chunk.window(), chunk.end, out),
            }
            if chunk.is_last {
                self.stages.writer.finish(chunk.window(), out);
            }
            if let Ok(Chunk { mut bytes, .. }) = Arc::try_unwrap(chunk) {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// Takes the stream through a chunk, with the tokens that are proved to be the right ones.
    fn stitch(&mut self, chunk: &Chunk, found: Found<S>, out: &mut Vec<u8>) {
        let window = chunk.window();
        let mut is_proved = false;
        for piece in found.pieces {
            is_proved = is_proved || self.stages.source.same_future(&piece.from);
            if is_proved {
                self.stages.writer.write(&piece.tokens, window, piece.emitted, out);
            } else {
                self.stages.advance(window, piece.until, out);
            }
            self.threads.spare.give(piece.tokens);
        }
        if is_proved {
            self.stages.source = found.end;
        }
    }
}

impl<S: TokenSource, W: BlockWriter> Encoder for Parallel<S, W> {
    fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        let full = self.sizes.chunk + S::LOOKAHEAD;
        while !plain.is_empty() {
            let filled = self.origin + self.plain.len() as u64 - self.start;
            let room = (full.saturating_sub(filled) as usize).min(plain.len());
            let (now, later) = plain.split_at(room);
            self.plain.extend_from_slice(now);
            plain = later;
            let end = self.origin + self.plain.len() as u64;
            if end >= self.start + full {
                self.submit(last_stop::<S>(end), false);
                // One chunk waits for a thread while each of them has one.
                self.collect(self.threads.handles.len() + 1, out);
            }
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        let end = self.origin + self.plain.len() as u64;
        self.submit(end, true);
        self.collect(0, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::go::testing::{CHAIN_LEVELS, chain, fast, mixed, words};

    /// The output, with chunks so small that sources often do not agree where a chunk begins.
    fn output(encoder: impl Encoder + 'static, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder: Box<dyn Encoder> = Box::new(encoder);
        for piece in plain.chunks(50_000) {
            encoder.push(piece, &mut out);
        }
        encoder.finish(&mut out);
        out
    }

    fn same<S: TokenSource, W: BlockWriter>(config: S::Config, writer: impl Fn() -> W, what: &str) {
        for (seed, chunk, warm_up) in [(1, 200_000, 140_000), (2, 150_000, 40_000), (3, 90_000, 1000)] {
            let plain = mixed(seed, 1_300_000);
            let sizes = Sizes::new(chunk, 40_000, warm_up, S::GRID);
            let parallel = output(Parallel::<S, W>::new(config, writer(), 3, sizes), &plain);
            let alone = output(Sequential::<S, W>::new(config, writer()), &plain);
            assert!(parallel == alone, "{what}, chunks of {chunk}, warm-up {warm_up}");
            let nobody = output(Parallel::<S, W>::new(config, writer(), 0, sizes), &plain);
            assert!(nobody == alone, "{what} without a thread");
        }
    }

    #[test]
    fn chunks_of_chain_levels_make_the_same_stream() {
        for level in CHAIN_LEVELS {
            let (config, writer) = chain(level);
            same::<crate::deflate::go::Chain, _>(config, writer, &format!("level {level}"));
        }
    }

    #[test]
    fn chunks_of_the_fast_level_make_the_same_stream() {
        same::<crate::deflate::go::Fast, _>((), fast, "level 1");
    }

    #[test]
    fn chunks_of_zlib_and_gnu_gzip_make_the_same_stream() {
        use crate::deflate::zlib::{Chain, Config, Level, Memory, Settings, Writer};
        for level in [1, 3, 4, 6].map(|level| Level::new(level).expect("a level")) {
            let settings = Settings { level, memory: Memory::Usual };
            same::<Chain, _>(Config::zlib(settings), || Writer::zlib(settings), &format!("zlib {level:?}"));
            same::<Chain, _>(Config::gnu(level), || Writer::gnu(level), &format!("gzip {level:?}"));
        }
    }

    #[test]
    fn sources_agree_after_a_warm_up() {
        let plain = words(4, 700_000);
        let window = Window { bytes: &plain, origin: 0, stream_end: None };
        for level in CHAIN_LEVELS {
            let (config, _) = chain(level);
            let mut ends = [0, 200_000].map(|start| {
                let mut source = crate::deflate::go::Chain::new(config, start);
                source.advance(window, 460_000, &mut Vec::new());
                source
            });
            let [from_start, warm] = &mut ends;
            assert!(from_start.same_future(warm), "level {level}");
            warm.advance(window, 470_000, &mut Vec::new());
            assert!(!from_start.same_future(warm), "level {level}");
        }
    }
}
