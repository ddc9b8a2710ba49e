//! Writes a layer into the repository while it streams in.
//!
//! Two threads: the caller's splits the tar, a second one compresses the
//! stream, hashes new files for fs-verity and writes them. A file that the
//! layer has in common with the base is a reference to the base's object:
//! nothing of it is written or hashed again but for the diff_id.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use composefs::fsverity::FsVerityHashValue;
use composefs::splitstream::SplitStreamWriter;
use composefs_oci::LAYER_CONTENT_TYPE;
use oci_spec::image::{Descriptor, MediaType};

use super::Shared;
use super::split::{Part, Parts, Splitter};
use crate::digest::VerifiedLayer;
use crate::error::{Error, Result};
use crate::pipeline::LayerWrite;
use crate::store::LayerSink;

/// Size of the pieces that go to the writer.
const CHUNK: usize = 256 << 10;

/// Pieces under way: with [`CHUNK`], 2 MiB a layer.
const QUEUE: usize = 8;

/// A file up to this size goes over in one piece and is hashed in memory, so
/// that one that is there already is not written at all.
const SMALL_FILE: u64 = CHUNK as u64;

/// What the writer is told.
#[derive(Debug)]
enum Piece<H> {
    Inline(Vec<u8>),
    /// A file that is an object already.
    Known {
        id: H,
        size: u64,
    },
    /// A whole file.
    Small(Vec<u8>),
    /// A file of which the content follows.
    Large {
        size: u64,
    },
    Content(Vec<u8>),
    /// The layer is complete and its diff_id is right.
    End,
}

/// Takes a plain layer tar.
#[derive(Debug)]
pub(super) struct SplitSink<H: FsVerityHashValue> {
    splitter: Splitter,
    /// Its own struct, so that the splitter can write into it.
    queue: Queue<H>,
    shared: Arc<Shared<H>>,
}

impl<H: FsVerityHashValue> SplitSink<H> {
    pub(super) fn new(shared: Arc<Shared<H>>) -> Result<Self> {
        let writer = shared.repo.create_stream(LAYER_CONTENT_TYPE).map_err(|e| shared.failed(e))?;
        let (sender, receiver) = sync_channel(QUEUE);
        let task = Writer { shared: shared.clone(), writer, receiver };
        let thread = std::thread::spawn(move || task.run());
        let queue = Queue {
            sender: Some(sender),
            thread: Some(thread),
            inline: Vec::new(),
            announced: None,
            file: FileState::None,
        };
        Ok(SplitSink { splitter: Splitter::new(), queue, shared })
    }
}

impl<H: FsVerityHashValue> Write for SplitSink<H> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.splitter.push(buf, &mut self.queue)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<H: FsVerityHashValue> LayerWrite for SplitSink<H> {
    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        self.queue.announced = H::from_object_pathname(object.as_bytes()).ok().map(|id| (id, size));
    }
}

impl<H: FsVerityHashValue> LayerSink for SplitSink<H> {
    fn finish(mut self: Box<Self>, layer: &VerifiedLayer) -> Result<Descriptor> {
        self.splitter.finish(&mut self.queue)?;
        self.queue.flush_inline()?;
        self.queue.send(Piece::End)?;
        let id = self.queue.join()?;
        self.shared.unnamed().layers.push((layer.diff_id().clone(), id));
        Ok(Descriptor::new(MediaType::ImageLayer, layer.size(), layer.diff_id().as_digest().clone()))
    }
}

/// What becomes of the file whose content passes.
#[derive(Debug)]
enum FileState {
    None,
    /// Announced by the tar; its first bytes decide.
    Begun {
        size: u64,
    },
    /// An object: the bytes are dropped.
    Known {
        left: u64,
    },
    /// Collected in pieces; `left` bytes are not here yet.
    New {
        size: u64,
        left: u64,
        piece: Vec<u8>,
    },
}

/// The caller's end of the queue.
#[derive(Debug)]
struct Queue<H> {
    sender: Option<SyncSender<Piece<H>>>,
    thread: Option<JoinHandle<Result<H>>>,
    inline: Vec<u8>,
    /// A whole base file comes next: its object and size.
    announced: Option<(H, u64)>,
    file: FileState,
}

impl<H> Queue<H> {
    fn send(&mut self, piece: Piece<H>) -> Result<()> {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(piece).is_ok());
        if sent {
            return Ok(());
        }
        // The writer has stopped: its own error is the reason.
        self.join().and_then(|_| Err(Error::local("the layer's writer stopped")))
    }

    fn join(&mut self) -> Result<H> {
        drop(self.sender.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(Error::local("the layer's writer died")),
        }
    }

    fn flush_inline(&mut self) -> Result<()> {
        if self.inline.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.inline);
        self.send(Piece::Inline(bytes))
    }

    /// Chooses how the file that begins now is kept.
    fn open_file(&mut self, size: u64) -> Result<()> {
        self.flush_inline()?;
        self.file = match self.announced.take() {
            Some((id, known)) if known == size => {
                self.send(Piece::Known { id, size })?;
                FileState::Known { left: size }
            }
            _ => {
                if size > SMALL_FILE {
                    self.send(Piece::Large { size })?;
                }
                let piece = Vec::with_capacity(size.min(CHUNK as u64) as usize);
                FileState::New { size, left: size, piece }
            }
        };
        Ok(())
    }

    fn content(&mut self, mut bytes: &[u8]) -> Result<()> {
        if let FileState::Begun { size } = self.file {
            self.open_file(size)?;
        }
        match &mut self.file {
            FileState::Known { left } => *left = left.saturating_sub(bytes.len() as u64),
            FileState::New { size, left, piece } => {
                let small = *size <= SMALL_FILE;
                let mut full = Vec::new();
                while !bytes.is_empty() {
                    let n = bytes.len().min(CHUNK - piece.len());
                    piece.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    *left -= n as u64;
                    if piece.len() == CHUNK || *left == 0 {
                        let next = Vec::with_capacity((*left).min(CHUNK as u64) as usize);
                        let done = std::mem::replace(piece, next);
                        full.push(if small { Piece::Small(done) } else { Piece::Content(done) });
                    }
                }
                for piece in full {
                    self.send(piece)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl<H> Parts for Queue<H> {
    fn begin_file(&mut self, size: u64) -> Result<()> {
        self.file = FileState::Begun { size };
        // Said before this file's header, it was about something else.
        self.announced = None;
        Ok(())
    }

    fn part(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        if part == Part::Content {
            return self.content(bytes);
        }
        self.announced = None;
        self.inline.extend_from_slice(bytes);
        if self.inline.len() >= CHUNK { self.flush_inline() } else { Ok(()) }
    }
}

/// The writing end.
struct Writer<H: FsVerityHashValue> {
    shared: Arc<Shared<H>>,
    writer: SplitStreamWriter<H>,
    receiver: Receiver<Piece<H>>,
}

impl<H: FsVerityHashValue> Writer<H> {
    /// Writes everything; gives the id of the stream, which has no name yet.
    fn run(mut self) -> Result<H> {
        let Writer { shared, writer, receiver } = &mut self;
        let failed = |e| shared.failed(e);
        loop {
            match receiver.recv() {
                Ok(Piece::Inline(bytes)) => writer.write_inline(&bytes),
                Ok(Piece::Known { id, size }) => {
                    writer.add_external_size(size);
                    writer.write_reference(id).map_err(failed)?;
                }
                Ok(Piece::Small(bytes)) => writer.write_external(&bytes).map_err(failed)?,
                Ok(Piece::Large { size }) => {
                    let content = Content { receiver, left: size, piece: io::Cursor::default() };
                    let id = shared.repo.ensure_object_from_reader(content, size).map_err(failed)?;
                    writer.add_external_size(size);
                    writer.write_reference(id).map_err(failed)?;
                }
                Ok(Piece::End) => break,
                Ok(Piece::Content(_)) | Err(_) => return Err(abandoned()),
            }
        }
        self.writer.done().map_err(|e| self.shared.failed(e))
    }
}

fn abandoned() -> Error {
    Error::local("the layer was given up")
}

/// Reads a large file out of the queue; its end before `left` bytes is an error.
struct Content<'a, H> {
    receiver: &'a Receiver<Piece<H>>,
    left: u64,
    piece: io::Cursor<Vec<u8>>,
}

impl<H> Read for Content<'_, H> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let mut n = self.piece.read(buf)?;
        if n == 0 && !buf.is_empty() {
            let Ok(Piece::Content(bytes)) = self.receiver.recv() else { return Err(abandoned().into()) };
            self.piece = io::Cursor::new(bytes);
            n = self.piece.read(buf)?;
        }
        self.left -= n as u64;
        Ok(n)
    }
}
