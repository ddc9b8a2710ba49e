//! Threads that hash and write the new objects of a layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

use composefs::fsverity::FsVerityHashValue;

use super::Shared;
use super::objects::{store_large, store_small};
use super::verity::BLOCK;
use crate::error::{Error, IoContext, Result};
use crate::pool::{Pool, Pooled};

/// Threads a layer: to hash and write objects can take as long as all else together.
const THREADS: usize = 2;

/// Bytes that go to a thread at once. Files up to this size are hashed in
/// memory, so that one that is there already is not written at all. As many blocks as one
/// has room for digests of SHA-512, the longest.
const CHUNK: usize = 64 * BLOCK;

/// Chunks on the way to a thread: with the others, 2 MiB a layer.
const QUEUE: usize = 3;

/// What a thread is told.
#[derive(Debug)]
enum Work {
    /// Whole files: each begins a block of `bytes`.
    Files { bytes: Pooled<Vec<u8>>, files: Vec<Small> },
    /// A file of which the content follows.
    Large { number: u64, size: u64 },
    /// Whole blocks, but at the end of the file.
    Content(Pooled<Vec<u8>>),
}

#[derive(Debug, Clone, Copy)]
struct Small {
    number: u64,
    size: usize,
}

/// Takes files one after the other, writes several at the same time.
#[derive(Debug)]
pub(super) struct ObjectWriters<H> {
    threads: Vec<(SyncSender<Work>, JoinHandle<()>)>,
    results: Receiver<(u64, Result<H>)>,
    /// Ids that came before their turn.
    known: BTreeMap<u64, H>,
    next: u64,
    /// The file whose content comes now.
    current: Current,
    /// Small files that were collected, not yet sent.
    bytes: Pooled<Vec<u8>>,
    files: Vec<Small>,
    buffers: Pool<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
enum Current {
    Small { file: Small, start: usize },
    Large { thread: usize, left: u64 },
}

impl<H: FsVerityHashValue> ObjectWriters<H> {
    pub(super) fn new(shared: &Arc<Shared<H>>) -> Result<Self> {
        let (reply, results) = channel();
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let (sender, work) = sync_channel(QUEUE);
            let (shared, reply) = (shared.clone(), reply.clone());
            let thread = std::thread::Builder::new().spawn(move || write_objects(&shared, &work, &reply));
            threads.push((sender, thread.at("thread")?));
        }
        let mut buffers = Pool::new(|| Vec::with_capacity(CHUNK), Vec::clear);
        Ok(ObjectWriters {
            threads,
            results,
            known: BTreeMap::new(),
            next: 0,
            current: Current::Small { file: Small { number: 0, size: 0 }, start: 0 },
            bytes: buffers.take(),
            files: Vec::new(),
            buffers,
        })
    }

    /// Begins a file of `size` bytes, which is not empty; all its content must follow. Gives its number.
    pub(super) fn begin(&mut self, size: u64) -> Result<u64> {
        let number = self.next;
        self.next += 1;
        self.current = match usize::try_from(size) {
            Ok(size) if size <= CHUNK => {
                if self.bytes.len() + size.next_multiple_of(BLOCK) > CHUNK {
                    self.send_files()?;
                }
                Current::Small { file: Small { number, size }, start: self.bytes.len() }
            }
            _ => {
                self.send_files()?;
                let thread = self.send(Work::Large { number, size })?;
                Current::Large { thread, left: size }
            }
        };
        Ok(number)
    }

    /// The next bytes of the file.
    pub(super) fn content(&mut self, mut bytes: &[u8]) -> Result<()> {
        match &mut self.current {
            Current::Small { file, start } => {
                self.bytes.extend_from_slice(bytes);
                if self.bytes.len() == *start + file.size {
                    self.files.push(*file);
                    let end = self.bytes.len().next_multiple_of(BLOCK);
                    self.bytes.resize(end, 0);
                }
            }
            Current::Large { thread, left } => {
                let thread = *thread;
                *left -= bytes.len() as u64;
                let ends = *left == 0;
                while !bytes.is_empty() {
                    let (next, rest) = bytes.split_at(bytes.len().min(CHUNK - self.bytes.len()));
                    self.bytes.extend_from_slice(next);
                    bytes = rest;
                    if self.bytes.len() == CHUNK || (ends && bytes.is_empty()) {
                        let content = self.take_bytes();
                        let sent = self.threads[thread].0.send(Work::Content(content));
                        sent.map_err(|_| self.fault())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The id of a file; `None` when it is not known yet and `wait` is not set.
    /// To be asked for each file once, in their order.
    pub(super) fn id(&mut self, number: u64, wait: bool) -> Result<Option<H>> {
        loop {
            if let Some(id) = self.known.remove(&number) {
                return Ok(Some(id));
            }
            let result = match (self.results.try_recv(), wait) {
                (Ok(result), _) => result,
                (Err(_), false) => return Ok(None),
                (Err(_), true) => {
                    self.send_files()?;
                    self.results.recv().map_err(|_| abandoned())?
                }
            };
            self.known.insert(result.0, result.1?);
        }
    }

    /// Takes what was collected, and begins an empty buffer.
    fn take_bytes(&mut self) -> Pooled<Vec<u8>> {
        std::mem::replace(&mut self.bytes, self.buffers.take())
    }

    fn send_files(&mut self) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let bytes = self.take_bytes();
        let files = std::mem::take(&mut self.files);
        self.send(Work::Files { bytes, files }).map(drop)
    }

    /// Sends to a thread that has room, else to the next in turn.
    fn send(&mut self, mut work: Work) -> Result<usize> {
        for (at, (thread, _)) in self.threads.iter().enumerate() {
            match thread.try_send(work) {
                Ok(()) => return Ok(at),
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => work = back,
            }
        }
        let turn = (self.next % THREADS as u64) as usize;
        self.threads[turn].0.send(work).map_err(|_| self.fault())?;
        Ok(turn)
    }

    /// Why a thread stopped: it said so before.
    fn fault(&self) -> Error {
        self.results.try_iter().find_map(|(_, result)| result.err()).unwrap_or_else(abandoned)
    }
}

impl<H> Drop for ObjectWriters<H> {
    fn drop(&mut self) {
        for (sender, thread) in self.threads.drain(..) {
            drop(sender);
            // It has said on its channel what there was to say.
            let _ = thread.join();
        }
    }
}

/// The work of a thread, until the first error.
fn write_objects<H: FsVerityHashValue>(
    shared: &Shared<H>,
    work: &Receiver<Work>,
    reply: &Sender<(u64, Result<H>)>,
) {
    let tell = |number, result: Result<H>| {
        let going_on = result.is_ok();
        reply.send((number, result)).is_ok() && going_on
    };
    for next in work {
        let going_on = match next {
            Work::Files { bytes, files } => {
                let sizes: Vec<usize> = files.iter().map(|file| file.size).collect();
                let ids = store_small(shared, &bytes, &sizes);
                files.iter().zip(ids).all(|(file, id)| tell(file.number, id))
            }
            Work::Large { number, size } => {
                tell(number, store_large(shared, size, &mut Content { work, left: size }))
            }
            Work::Content(_) => false,
        };
        if !going_on {
            return;
        }
    }
}

/// The pieces of a large file out of the queue; its end before `left` bytes is an error.
struct Content<'a> {
    work: &'a Receiver<Work>,
    left: u64,
}

impl Iterator for Content<'_> {
    type Item = Result<Pooled<Vec<u8>>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let Ok(Work::Content(bytes)) = self.work.recv() else { return Some(Err(abandoned())) };
        self.left -= bytes.len() as u64;
        Some(Ok(bytes))
    }
}

/// What a thread that was given up says; nobody hears it but who gave it up.
fn abandoned() -> Error {
    Error::local("the layer was given up")
}
