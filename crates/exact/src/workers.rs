//! Parts of a stream that are compressed apart from each other, on several threads.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// How many threads are used at most.
const MOST_THREADS: usize = 64;

/// A part to compress.
pub(crate) trait Job: Send + Sync + 'static {
    /// What a thread keeps for its next part, to make it sooner.
    type Tool: Default + Send;

    /// The plain bytes.
    fn size(&self) -> usize;

    /// Compresses the part, and appends it to `out`.
    fn run(&self, tool: &mut Self::Tool, out: &mut Vec<u8>);
}

/// A part on its way to a worker, and where its result goes.
type Sent<J> = (Arc<J>, SyncSender<Vec<u8>>);

/// A part that a worker has, and where its result comes from.
type Waiting<J> = (Arc<J>, Receiver<Vec<u8>>);

/// Threads that compress parts, and the order of those they have.
pub(crate) struct Workers<J: Job> {
    /// `None` if parts are compressed on the caller's thread.
    jobs: Option<Sender<Sent<J>>>,
    threads: Vec<JoinHandle<()>>,
    waiting: VecDeque<Waiting<J>>,
    /// For the caller's thread.
    own: J::Tool,
}

impl<J: Job> Workers<J> {
    /// So many threads, at most [`MOST_THREADS`], besides the caller's; with one, the caller's alone.
    pub(crate) fn new(name: &str, threads: NonZeroUsize) -> Self {
        let mut workers =
            Self { jobs: None, threads: Vec::new(), waiting: VecDeque::new(), own: J::Tool::default() };
        if threads.get() == 1 {
            return workers;
        }
        let (jobs, take) = mpsc::channel();
        let take = Arc::new(Mutex::new(take));
        for _ in 0..threads.get().min(MOST_THREADS) {
            let take = Arc::clone(&take);
            let thread = thread::Builder::new().name(name.into());
            // With fewer threads than asked for it goes on all the same.
            if let Ok(thread) = thread.spawn(move || work(&take)) {
                workers.threads.push(thread);
            }
        }
        if !workers.threads.is_empty() {
            workers.jobs = Some(jobs);
        }
        workers
    }

    /// Takes the next part, and appends what is ready. Waits while there are too many.
    pub(crate) fn take(&mut self, job: J, out: &mut Vec<u8>) {
        // One more than there are threads, so that none waits for the caller to come by.
        while self.waiting.len() > self.threads.len() {
            self.wait(out);
        }
        while let Some(done) = self.waiting.front().and_then(|(_, result)| result.try_recv().ok()) {
            out.extend_from_slice(&done);
            self.waiting.pop_front();
        }
        let job = Arc::new(job);
        let (done, result) = mpsc::sync_channel(1);
        match &self.jobs {
            Some(jobs) if jobs.send((Arc::clone(&job), done)).is_ok() => {
                self.waiting.push_back((job, result));
            }
            _ => {
                while !self.waiting.is_empty() {
                    self.wait(out);
                }
                job.run(&mut self.own, out);
            }
        }
    }

    /// Waits for the oldest part, and appends it.
    fn wait(&mut self, out: &mut Vec<u8>) {
        let Some((job, result)) = self.waiting.pop_front() else { return };
        match result.recv() {
            Ok(done) => out.extend_from_slice(&done),
            // The worker is gone.
            Err(_) => job.run(&mut self.own, out),
        }
    }

    /// Waits for all parts, and appends them.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        while !self.waiting.is_empty() {
            self.wait(out);
        }
    }
}

impl<J: Job> Drop for Workers<J> {
    fn drop(&mut self) {
        // Without senders the workers end. Results that nobody takes are dropped by them.
        self.jobs = None;
        self.waiting.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Compresses parts until there are no more.
fn work<J: Job>(jobs: &Mutex<Receiver<Sent<J>>>) {
    let mut tool = J::Tool::default();
    // The lock is held while waiting: the others wait for it instead.
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok((job, done)) = next() {
        let mut out = Vec::with_capacity(job.size() / 2);
        job.run(&mut tool, &mut out);
        if done.send(out).is_err() {
            return;
        }
    }
}
