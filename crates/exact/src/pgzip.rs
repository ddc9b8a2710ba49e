//! The framing of klauspost/pgzip: blocks that are compressed apart from each other, on several threads.
//!
//! Each block is a stream of klauspost's `flate` with the end of the block before as its dictionary, and
//! ends at a byte border. So the blocks can be made again side by side. The number of threads does not
//! change the output.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::Encoder;
use crate::deflate::kp::{Settings, Stream};

/// How many bytes of a block are the dictionary of the next.
const TAIL: usize = 16_384;

/// How many threads are used at most.
const MOST_THREADS: usize = 64;

/// The plain bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(usize);

impl BlockSize {
    /// That of pgzip 1.2.2 and later: 1 MiB.
    pub const DEFAULT: Self = Self(1 << 20);
    /// That of pgzip 1.0.1 to 1.2.1, and of umoci: 256 KiB.
    pub const EARLIER: Self = Self(1 << 18);
    /// The smallest that pgzip allows, in bytes.
    pub const MIN: usize = TAIL + 1;
    /// The largest that is supported, in bytes. Each thread holds a block.
    pub const MAX: usize = 64 << 20;

    /// A block size in bytes, or `None` if it is below [`MIN`](Self::MIN) or above [`MAX`](Self::MAX).
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes < Self::MIN || bytes > Self::MAX { None } else { Some(Self(bytes)) }
    }

    /// The size in bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// The deflate stream that klauspost/pgzip makes.
///
/// Besides the block that it gathers, it holds one block for each thread, one that waits, and what
/// became of them.
pub struct Pgzip {
    size: BlockSize,
    /// The block that is gathered.
    block: Block,
    workers: Workers,
}

impl Pgzip {
    /// An encoder at the start of a stream, which works on `threads` threads (at most 64) besides the caller's.
    ///
    /// With one, it works on the caller's thread alone.
    pub fn new(settings: Settings, size: BlockSize, threads: NonZeroUsize) -> Self {
        Self { size, block: Block::default(), workers: Workers::new(settings, threads) }
    }
}

impl Encoder for Pgzip {
    fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            let room = self.size.0 - self.block.len();
            let (now, later) = plain.split_at(room.min(plain.len()));
            self.block.bytes.extend_from_slice(now);
            plain = later;
            if self.block.len() == self.size.0 {
                let next = self.block.next(self.size);
                self.workers.take(mem::replace(&mut self.block, next), out);
            }
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        // Empty if the last one was full.
        let mut last = mem::take(&mut self.block);
        last.place = Place::Last;
        self.workers.take(last, out);
        self.workers.finish(out);
    }
}

impl fmt::Debug for Pgzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pgzip").field("size", &self.size).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Inner,
    Last,
}

/// Plain bytes to compress.
#[derive(Debug, Default)]
struct Block {
    /// The dictionary, then the block.
    bytes: Vec<u8>,
    /// The length of the dictionary.
    dictionary: usize,
    place: Place,
}

impl Block {
    fn len(&self) -> usize {
        self.bytes.len() - self.dictionary
    }

    /// The block that follows, still empty.
    fn next(&self, size: BlockSize) -> Self {
        let tail = &self.bytes[self.bytes.len().saturating_sub(TAIL)..];
        let mut bytes = Vec::with_capacity(tail.len() + size.0);
        bytes.extend_from_slice(tail);
        Self { dictionary: bytes.len(), bytes, place: Place::Inner }
    }

    fn compress(&self, stream: &mut Stream, out: &mut Vec<u8>) {
        let (dictionary, plain) = self.bytes.split_at(self.dictionary);
        stream.reset(dictionary);
        stream.push(plain, out);
        stream.flush(out);
        if self.place == Place::Last {
            stream.finish(out);
        }
    }
}

/// A block on its way to a worker, and where its result goes.
type Job = (Arc<Block>, SyncSender<Vec<u8>>);

/// A block that a worker has, and where its result comes from.
type Waiting = (Arc<Block>, Receiver<Vec<u8>>);

/// Threads that compress blocks, and the order of those they have.
struct Workers {
    settings: Settings,
    /// `None` if blocks are compressed on the caller's thread.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    waiting: VecDeque<Waiting>,
    /// For the caller's thread, made when it is needed.
    own: Option<Box<Stream>>,
}

impl Workers {
    fn new(settings: Settings, threads: NonZeroUsize) -> Self {
        let mut workers =
            Self { settings, jobs: None, threads: Vec::new(), waiting: VecDeque::new(), own: None };
        if threads.get() == 1 {
            return workers;
        }
        let (jobs, take) = mpsc::channel();
        let take = Arc::new(Mutex::new(take));
        for _ in 0..threads.get().min(MOST_THREADS) {
            let take = Arc::clone(&take);
            let thread = thread::Builder::new().name("pgzip".into());
            // With fewer threads than asked for it goes on all the same.
            if let Ok(thread) = thread.spawn(move || work(settings, &take)) {
                workers.threads.push(thread);
            }
        }
        if !workers.threads.is_empty() {
            workers.jobs = Some(jobs);
        }
        workers
    }

    /// Takes the next block, and appends what is ready. Waits while there are too many blocks.
    fn take(&mut self, block: Block, out: &mut Vec<u8>) {
        // One more than there are threads, so that none waits for the caller to come by.
        while self.waiting.len() > self.threads.len() {
            self.wait(out);
        }
        while let Some(done) = self.waiting.front().and_then(|(_, result)| result.try_recv().ok()) {
            out.extend_from_slice(&done);
            self.waiting.pop_front();
        }
        let block = Arc::new(block);
        let (done, result) = mpsc::sync_channel(1);
        match &self.jobs {
            Some(jobs) if jobs.send((Arc::clone(&block), done)).is_ok() => {
                self.waiting.push_back((block, result));
            }
            _ => {
                while !self.waiting.is_empty() {
                    self.wait(out);
                }
                self.compress(&block, out);
            }
        }
    }

    /// Waits for the oldest block, and appends it.
    fn wait(&mut self, out: &mut Vec<u8>) {
        let Some((block, result)) = self.waiting.pop_front() else { return };
        match result.recv() {
            Ok(done) => out.extend_from_slice(&done),
            // The worker is gone.
            Err(_) => self.compress(&block, out),
        }
    }

    /// Compresses a block on the caller's thread.
    fn compress(&mut self, block: &Block, out: &mut Vec<u8>) {
        let stream = self.own.get_or_insert_with(|| Box::new(Stream::new(self.settings)));
        block.compress(stream, out);
    }

    /// Waits for all blocks, and appends them.
    fn finish(&mut self, out: &mut Vec<u8>) {
        while !self.waiting.is_empty() {
            self.wait(out);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Without senders the workers end. Results that nobody takes are dropped by them.
        self.jobs = None;
        self.waiting.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Compresses blocks until there are no more.
fn work(settings: Settings, jobs: &Mutex<Receiver<Job>>) {
    let mut stream = Stream::new(settings);
    // The lock is held while waiting: the others wait for it instead.
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok((block, done)) = next() {
        let mut out = Vec::with_capacity(block.len() / 2);
        block.compress(&mut stream, &mut out);
        if done.send(out).is_err() {
            return;
        }
    }
}
