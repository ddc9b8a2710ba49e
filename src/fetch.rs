//! The scheduler: which blob when, how many at once, retry, cancel.
//!
//! The border between tokio and threads: downloads are async tasks of the
//! caller's runtime, each blob is consumed by a blocking worker through a bounded
//! channel. Knows blobs, not what is in them.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use oci_spec::image::Descriptor;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use crate::artifact;
use crate::cancel::{Cancel, interrupted};
use crate::digest::VerifyReader;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::layout::{Layout, check_size, read_verified};
use crate::proxy::Attempts;
use crate::region::Region;
use crate::registry::Blobs;
use crate::spool::Spool;

/// Chunks between a download and its worker: at 256 KiB each, 2 MiB a blob in flight.
const QUEUE: usize = 8;

/// Times that a worker may see its blob, because it met ambiguous base files.
const MAX_ROUNDS: u32 = 4;

/// Where blobs come from.
#[derive(Debug, Clone)]
pub enum Place {
    /// A registry.
    Remote(Arc<Blobs>),
    /// A layout on this machine, read in place.
    Local(Arc<Layout>),
}

impl Place {
    /// Reads a small blob whole, verified.
    ///
    /// # Errors
    /// Verification above `max` bytes or on a mismatch; what the source says.
    pub async fn read_blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        check_size(descriptor, max)?;
        match self {
            Place::Local(layout) => layout.read_blob(descriptor, max),
            Place::Remote(blobs) => {
                let attempts = blobs.attempts();
                let whole = || async {
                    let mut bytes = Vec::new();
                    let mut stream = blobs.open(descriptor.digest(), descriptor.size(), &attempts).await?;
                    while let Some(chunk) = stream.chunk().await? {
                        bytes.extend_from_slice(&chunk);
                    }
                    Ok(bytes)
                };
                read_verified(&attempts.run(whole).await?[..], descriptor)
            }
        }
    }
}

impl Place {
    /// The first bytes of a blob, at most `count`, where they can be had for nothing.
    pub fn head(&self, descriptor: &Descriptor, count: u64) -> Option<Vec<u8>> {
        let Place::Local(layout) = self else { return None };
        let mut head = Vec::new();
        layout.blob(descriptor.digest()).ok()??.reader().take(count).read_to_end(&mut head).ok()?;
        Some(head)
    }

    /// May this layer be had whole here? Of a registry that is known only after trying.
    pub fn may_have(&self, layer: &Descriptor) -> bool {
        match self {
            Place::Remote(_) => true,
            Place::Local(layout) => matches!(layout.blob(layer.digest()), Ok(Some(_))),
        }
    }
}

/// Lets a thread that may wait bring a blob here, by the runtime that this was made in.
#[derive(Debug, Clone)]
pub struct Errand(Handle);

impl Errand {
    /// For threads that the runtime of this task waits for.
    pub fn here() -> Self {
        Errand(Handle::current())
    }

    /// Brings a blob, verified: into `spool`, unless it is on this machine.
    ///
    /// # Errors
    /// What the place says; Verification when it is another blob; local I/O errors.
    pub fn bring(&self, place: &Place, blob: &Descriptor, spool: &Spool) -> Result<Region> {
        let blobs = match place {
            Place::Local(layout) => return layout.require_blob(blob),
            Place::Remote(blobs) => blobs,
        };
        let once = || async {
            let mut here = spool.begin().at(spool.dir().display())?;
            let attempts = blobs.attempts();
            let mut stream = blobs.open(blob.digest(), blob.size(), &attempts).await?;
            while let Some(chunk) = stream.chunk().await? {
                here.write_all(&chunk).at(spool.dir().display())?;
            }
            let region = here.into_region();
            VerifyReader::new(region.reader(), blob.digest().clone(), blob.size())
                .drain()
                .at(blob.digest())?;
            Ok(region)
        };
        self.0.block_on(blobs.attempts().run(once))
    }
}

/// One blob to bring here.
#[derive(Debug, Clone)]
pub struct Download {
    /// Position in the caller's list; results come back in that order.
    pub index: usize,
    /// Digest and size of the blob.
    pub blob: Descriptor,
    /// Where it is.
    pub place: Place,
    /// What came of it so far.
    pub received: Received,
}

impl Download {
    /// Of which nothing came yet.
    pub fn new(index: usize, blob: Descriptor, place: Place) -> Self {
        Download { index, blob, place, received: Received::default() }
    }
}

/// Counts the bytes that come, those of failed tries too. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    /// How many came.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What a worker made of a blob.
#[derive(Debug)]
pub enum Worked<T> {
    /// It is done.
    Done(T),
    /// It wants the blob once more, for another round.
    Again,
}

/// How much may happen at once.
#[derive(Debug, Clone, Copy)]
pub struct Concurrency {
    /// Blobs being downloaded.
    pub downloads: usize,
    /// Blobs being worked on, downloading or not.
    pub workers: usize,
}

/// What a worker is given.
pub struct Job {
    /// [`Download::index`].
    pub index: usize,
    /// Counts from 0; more when the worker asked for the blob again.
    pub round: u32,
    /// The blob's bytes, verified at their end.
    pub blob: VerifyReader<Box<dyn Read + Send>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("index", &self.index).field("round", &self.round).finish()
    }
}

/// What is done with each blob.
pub trait Worker<T>: Send + Sync {
    /// Makes something of a blob.
    ///
    /// # Errors
    /// Whatever goes wrong with it.
    fn work(&self, job: Job) -> Result<Worked<T>>;

    /// What becomes of a download that failed for good: a result that lets the others go on, or an
    /// error, which stops them.
    ///
    /// # Errors
    /// The one given, unless it is harmless.
    fn failed(&self, _index: usize, error: Error) -> Result<T> {
        Err(error)
    }
}

impl<T, F: Fn(Job) -> Result<Worked<T>> + Send + Sync> Worker<T> for F {
    fn work(&self, job: Job) -> Result<Worked<T>> {
        self(job)
    }
}

/// Shared by all downloads.
pub type Work<T> = Arc<dyn Worker<T>>;

/// Brings all blobs here and runs `work` on each. The first error that it does not take as
/// harmless stops the rest and is returned.
///
/// # Errors
/// The first failure that is not caused by stopping.
pub async fn run<T: Send + 'static>(
    downloads: Vec<Download>,
    concurrency: Concurrency,
    cancel: &Cancel,
    work: Work<T>,
) -> Result<Vec<T>> {
    let cancel = &cancel.part();
    let slots = Arc::new(Slots {
        downloads: Semaphore::new(concurrency.downloads.max(1)),
        workers: Semaphore::new(concurrency.workers.max(1)),
    });
    let mut results: Vec<Option<T>> = downloads.iter().map(|_| None).collect();
    // Every worker holds a sender of this, so that it ends with the last of them.
    let (at_work, mut all_done) = mpsc::channel::<Infallible>(1);
    let mut tasks = JoinSet::new();
    // The largest first: what takes longest should not begin last.
    let mut downloads: Vec<_> = downloads.into_iter().enumerate().collect();
    downloads.sort_by_key(|(_, download)| Reverse(download.blob.size()));
    for (position, download) in downloads {
        let (slots, cancel) = (slots.clone(), cancel.clone());
        let crew = Crew { work: work.clone(), at_work: at_work.clone() };
        tasks.spawn(async move {
            // Stopped, it waits for no registry and no pause; its worker ends by itself.
            let result = cancel.until(bring(&download, &slots, &cancel, &crew)).await;
            (position, result.or_else(|e| crew.work.failed(download.index, e)))
        });
    }
    let mut first_error = None;
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((position, Ok(value))) => results[position] = Some(value),
            Ok((_, Err(e))) => {
                cancel.cancel();
                keep_cause(&mut first_error, e);
            }
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => {}
        }
    }
    // Nobody works on a layer any more when this returns.
    drop(at_work);
    all_done.recv().await;
    first_error.map_or(Ok(()), Err)?;
    results.into_iter().map(|r| r.ok_or_else(interrupted)).collect()
}

/// Keeps the first error, but lets a real cause replace "interrupted", its echo in the other workers.
fn keep_cause(first: &mut Option<Error>, e: Error) {
    if first.as_ref().is_none_or(|f| f.kind() == Kind::Interrupted && e.kind() != Kind::Interrupted) {
        *first = Some(e);
    }
}

/// Who does the work.
struct Crew<T> {
    work: Work<T>,
    at_work: mpsc::Sender<Infallible>,
}

struct Slots {
    downloads: Semaphore,
    workers: Semaphore,
}

async fn bring<T: Send + 'static>(
    download: &Download,
    slots: &Slots,
    cancel: &Cancel,
    crew: &Crew<T>,
) -> Result<T> {
    if let Some(e) = artifact::unreadable(&download.blob) {
        return Err(e);
    }
    let _worker = slots.workers.acquire().await.map_err(|_| interrupted())?;
    for round in 0..MAX_ROUNDS {
        let step = match &download.place {
            Place::Remote(blobs) => {
                let attempts = blobs.attempts();
                let remote = (&**blobs, &attempts);
                let once = || stream_once(download, remote, round, slots, cancel, crew);
                let nothing_came = || download.received.bytes() == 0;
                let gone = |e: Error| match artifact::is_elsewhere(&download.blob) {
                    Some(elsewhere) if e.kind() == Kind::Misfit && nothing_came() => elsewhere.with_source(e),
                    _ => e,
                };
                attempts.run(once).await.map_err(gone)?
            }
            Place::Local(layout) => {
                let _slot = slots.downloads.acquire().await.map_err(|_| interrupted())?;
                let region = layout.require_blob(&download.blob)?;
                let reader = Tallied { inner: region.reader(), received: download.received.clone() };
                start(download, round, Box::new(cancel.watch(reader)), crew).await?
            }
        };
        if let Worked::Done(value) = step {
            return Ok(value);
        }
    }
    Err(Error::verification(format!("blob {} was asked for too often", download.blob.digest())))
}

/// One download with its worker. The slot is given back as soon as the last
/// byte is here, so that the next download runs while this layer is finished.
async fn stream_once<T: Send + 'static>(
    download: &Download,
    (blobs, attempts): (&Blobs, &Attempts),
    round: u32,
    slots: &Slots,
    cancel: &Cancel,
    crew: &Crew<T>,
) -> Result<Worked<T>> {
    let slot = slots.downloads.acquire().await.map_err(|_| interrupted())?;
    if cancel.is_cancelled() {
        return Err(interrupted());
    }
    let mut stream = blobs.open(download.blob.digest(), download.blob.size(), attempts).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader = cancel.watch(ChannelReader { receiver, chunk: Bytes::new() });
    let worker = start(download, round, Box::new(reader), crew);
    loop {
        let item = stream.chunk().await.transpose();
        let Some(item) = item else { break };
        let failed = item.as_ref().map(|chunk| download.received.add(chunk.len())).is_err();
        // A worker that stopped early has an error of its own, which beats ours.
        if sender.send(item).await.is_err() || failed {
            break;
        }
    }
    drop(sender);
    drop(stream);
    drop(slot);
    worker.await
}

/// Starts a worker at once; the future gives its result.
fn start<T: Send + 'static>(
    download: &Download,
    round: u32,
    reader: Box<dyn Read + Send>,
    crew: &Crew<T>,
) -> impl Future<Output = Result<Worked<T>>> + use<T> {
    let blob = VerifyReader::new(reader, download.blob.digest().clone(), download.blob.size());
    let job = Job { index: download.index, round, blob };
    let (work, at_work) = (crew.work.clone(), crew.at_work.clone());
    on_thread(move || {
        let result = work.work(job);
        drop((work, at_work));
        result
    })
}

/// Starts what blocks on a thread for that, at once; the future gives its result.
///
/// # Errors
/// Those of `task`.
pub fn on_thread<T: Send + 'static>(
    task: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let task = spawn_blocking(task);
    async {
        match task.await {
            Ok(result) => result,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => Err(interrupted()),
        }
    }
}

struct ChannelReader {
    receiver: mpsc::Receiver<Result<Bytes>>,
    chunk: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.chunk.len());
        buf[..n].copy_from_slice(&self.chunk[..n]);
        self.chunk.advance(n);
        Ok(n)
    }
}

/// Counts what is read.
struct Tallied<R> {
    inner: R,
    received: Received,
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.received.add(n);
        Ok(n)
    }
}
