//! The members that a patch makes: each is encoded on a thread of its own, while the next bytes are made. What comes behind
//! one that is not finished waits here, up to a limit.

use std::collections::VecDeque;
use std::io::{self, Read as _, Seek as _, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use tempfile::{SpooledTempFile, spooled_tempfile_in};

use crate::error::{Error, IoContext as _, Result};
use crate::member::{Encoder, Packing};
use crate::tardiff::Limits;

/// Most plain bytes of a member that is given to its thread as a whole; larger ones in pieces, while they come.
const SMALL: u64 = 1 << 20;

/// Bytes of a piece, and pieces that may wait for the encoder.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// Most bytes that wait behind members which are not finished; then they are waited for.
const MAX_HELD: usize = 4 << 20;

/// Bytes of a finished member that are kept in memory; of a larger one all go into an unlinked file.
const MAX_IN_MEMORY: usize = 1 << 20;

/// Most memory of encoders side by side, in bytes; a single one may have as much as any recipe may.
const MAX_MEMORY: u64 = 448 << 20;

/// Encoders that take more memory than this work one at a time, whichever layer they are for.
const LARGE: u64 = 64 << 20;
static ONE_LARGE: Mutex<()> = Mutex::new(());

/// Encodes members and puts out all bytes in order.
#[derive(Debug)]
pub(crate) struct Members {
    threads: NonZeroUsize,
    dir: PathBuf,
    /// What is behind members that were begun in the layer, then the open members, the innermost last.
    queue: Queue,
    open: Vec<Open>,
    /// Members that have all their bytes and were not put out, and the memory of their encoders.
    closed: usize,
    memory: u64,
}

/// An open member: what it takes, and what waits for that.
#[derive(Debug)]
struct Open {
    feed: Feed,
    queue: Queue,
}

/// How an encoder gets its bytes.
#[derive(Debug)]
enum Feed {
    /// All at once, when the member ends.
    Whole { packing: Packing, plain: Vec<u8>, done: SyncSender<Result<SpooledTempFile>> },
    /// As they come.
    Pieces { memory: u64, to: SyncSender<Vec<u8>> },
}

/// What is to be put out, in order.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Bytes of the items that are bytes.
    held: usize,
}

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    Member(Pending),
}

/// A member in the making.
#[derive(Debug)]
struct Pending {
    result: Receiver<Result<SpooledTempFile>>,
    memory: u64,
}

impl Members {
    /// None yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        Members {
            threads: limits.threads,
            dir: limits.spool.clone().unwrap_or_else(std::env::temp_dir),
            queue: Queue::default(),
            open: Vec::new(),
            closed: 0,
            memory: 0,
        }
    }

    /// Is a member open?
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Is there nothing that waits?
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.queue.items.is_empty()
    }

    /// What follows is in a member.
    ///
    /// # Errors
    /// Those of members before it, and of `out`.
    pub(crate) fn begin(&mut self, packing: &Packing, out: &mut dyn Write) -> Result<()> {
        let memory = packing.recipe.memory(packing.sizes);
        self.make_room(memory, out)?;
        let (done, result) = sync_channel(1);
        self.innermost().items.push_back(Item::Member(Pending { result, memory }));
        let feed = if packing.sizes.plain <= SMALL {
            Feed::Whole { packing: packing.clone(), plain: Vec::new(), done }
        } else {
            let (to, pieces) = sync_channel::<Vec<u8>>(PIECES);
            self.encode(packing.clone(), done, move |encoder| {
                pieces.into_iter().try_for_each(|piece| encoder.write_all(&piece))
            })?;
            Feed::Pieces { memory, to }
        };
        self.open.push(Open { feed, queue: Queue::default() });
        Ok(())
    }

    /// All is there of the innermost one.
    ///
    /// # Errors
    /// Those of members in it, and of `out`.
    pub(crate) fn end(&mut self, out: &mut dyn Write) -> Result<()> {
        while self.put_out_first(self.open.len(), out)? {}
        let Some(Open { feed, .. }) = self.open.pop() else { return Ok(()) };
        self.closed += 1;
        match feed {
            Feed::Whole { packing, plain, done } => {
                self.memory += packing.recipe.memory(packing.sizes);
                self.encode(packing, done, move |encoder| encoder.write_all(&plain))
            }
            // That the sender goes tells the encoder that it has all.
            Feed::Pieces { memory, .. } => {
                self.memory += memory;
                Ok(())
            }
        }
    }

    /// Takes the next bytes, of the innermost member or of the layer.
    ///
    /// # Errors
    /// Those of members before them, and of `out`.
    pub(crate) fn write(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<()> {
        let level = self.open.len();
        if self.innermost().items.is_empty() {
            return self.put(level, bytes, out);
        }
        self.innermost().hold(bytes);
        if self.innermost().held > MAX_HELD {
            while self.put_out_first(level, out)? {}
        }
        Ok(())
    }

    /// Waits for all members; none is open.
    ///
    /// # Errors
    /// Theirs, and those of `out`.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        while self.put_out_first(0, out)? {}
        Ok(())
    }

    /// The queue of the innermost member, or of the layer.
    fn innermost(&mut self) -> &mut Queue {
        self.open.last_mut().map_or(&mut self.queue, |open| &mut open.queue)
    }

    /// Waits for members until another one may be begun.
    fn make_room(&mut self, memory: u64, out: &mut dyn Write) -> Result<()> {
        let level = self.open.len();
        while self.closed > self.threads.get() || self.closed > 0 && self.memory + memory > MAX_MEMORY {
            if !self.put_out_first(level, out)? {
                break;
            }
        }
        Ok(())
    }

    /// Puts out what is first in the queue of a level, of which no member is open; false when there is nothing.
    fn put_out_first(&mut self, level: usize, out: &mut dyn Write) -> Result<bool> {
        let queue = match level.checked_sub(1) {
            None => &mut self.queue,
            Some(at) => &mut self.open[at].queue,
        };
        match queue.items.pop_front() {
            None => return Ok(false),
            Some(Item::Bytes(bytes)) => {
                queue.held -= bytes.len();
                self.put(level, &bytes, out)?;
            }
            Some(Item::Member(Pending { result, memory })) => {
                self.closed -= 1;
                self.memory -= memory;
                let mut packed = ended(&result)?;
                packed.rewind().at("member")?;
                let mut piece = vec![0; PIECE];
                loop {
                    match packed.read(&mut piece).at("member")? {
                        0 => break,
                        n => self.put(level, &piece[..n], out)?,
                    }
                }
            }
        }
        Ok(true)
    }

    /// Gives bytes to the member at this level, counted from 1, or to the layer.
    fn put(&mut self, level: usize, bytes: &[u8], out: &mut dyn Write) -> Result<()> {
        let Some(at) = level.checked_sub(1) else { return out.write_all(bytes).at("layer") };
        match &mut self.open[at].feed {
            Feed::Whole { plain, .. } => {
                plain.extend_from_slice(bytes);
                Ok(())
            }
            Feed::Pieces { to, .. } => {
                for piece in bytes.chunks(PIECE) {
                    if to.send(piece.to_vec()).is_err() {
                        return Err(self.fault_of(at));
                    }
                }
                Ok(())
            }
        }
    }

    /// Why an open member takes no more bytes.
    fn fault_of(&mut self, at: usize) -> Error {
        let around = match at.checked_sub(1) {
            None => &self.queue,
            Some(outer) => &self.open[outer].queue,
        };
        match around.items.back() {
            Some(Item::Member(pending)) => match ended(&pending.result) {
                Err(e) => e,
                Ok(_) => Error::local("an encoder ended before its input"),
            },
            _ => Error::local("an encoder is lost"),
        }
    }

    /// Makes a member on a thread; `fill` gives the encoder what is in it.
    fn encode(
        &self,
        packing: Packing,
        done: SyncSender<Result<SpooledTempFile>>,
        fill: impl FnOnce(&mut Encoder<SpooledTempFile>) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (threads, out) = (self.threads, spooled_tempfile_in(MAX_IN_MEMORY, &self.dir));
        // One in another would wait for that one, which waits for it.
        let is_outermost = self.open.is_empty();
        let work = move || {
            let Packing { recipe, sizes } = &packing;
            let is_large = is_outermost && recipe.memory(*sizes) > LARGE;
            let _alone = is_large.then(|| ONE_LARGE.lock().unwrap_or_else(PoisonError::into_inner));
            let mut encoder = Encoder::new(recipe, *sizes, threads, out)?;
            fill(&mut encoder).at("member")?;
            encoder.finish()
        };
        // Whoever waited for it may have given up.
        let run = move || drop(done.send(work()));
        std::thread::Builder::new().name("member".to_owned()).spawn(run).at("thread for a member")?;
        Ok(())
    }
}

impl Queue {
    fn hold(&mut self, bytes: &[u8]) {
        self.held += bytes.len();
        match self.items.back_mut() {
            Some(Item::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.items.push_back(Item::Bytes(bytes.to_vec())),
        }
    }
}

/// Waits for a member.
fn ended(result: &Receiver<Result<SpooledTempFile>>) -> Result<SpooledTempFile> {
    result.recv().unwrap_or_else(|_| Err(Error::local("an encoder died")))
}
