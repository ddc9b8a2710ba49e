//! Writes a layer into the repository while it streams in.
//!
//! The caller's thread splits the tar and writes the stream; new files go to
//! threads that hash them for fs-verity and write them. A file that the layer
//! has in common with the base is a reference to the base's object: nothing of
//! it is written or hashed again but for the diff_id.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use composefs::fsverity::FsVerityHashValue;
use composefs::splitstream::SplitStreamWriter;
use composefs_oci::LAYER_CONTENT_TYPE;
use oci_spec::image::{Descriptor, MediaType};

use super::Shared;
use super::split::{Part, Parts, Splitter};
use super::writers::ObjectWriters;
use crate::digest::VerifiedLayer;
use crate::error::Result;
use crate::layer_write::LayerWrite;
use crate::store::LayerSink;

/// Bytes of the stream that may wait for the digest of an object before them.
const MAX_WAITING: usize = 4 << 20;

/// Takes a plain layer tar.
#[derive(Debug)]
pub(super) struct SplitSink<H: FsVerityHashValue> {
    splitter: Splitter,
    /// Its own struct, so that the splitter can write into it.
    stream: Stream<H>,
    shared: Arc<Shared<H>>,
}

impl<H: FsVerityHashValue> SplitSink<H> {
    pub(super) fn new(shared: Arc<Shared<H>>) -> Result<Self> {
        let writer = shared.repo.create_stream(LAYER_CONTENT_TYPE).map_err(|e| shared.failed(e))?;
        let stream = Stream {
            writer,
            objects: ObjectWriters::new(&shared)?,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            announced: None,
            file: FileState::None,
            shared: shared.clone(),
        };
        Ok(SplitSink { splitter: Splitter::new(), stream, shared })
    }
}

impl<H: FsVerityHashValue> Write for SplitSink<H> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.splitter.push(buf, &mut self.stream)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<H: FsVerityHashValue> LayerWrite for SplitSink<H> {
    fn repeats(&mut self, object: &Arc<str>, size: u64) {
        self.stream.announced = H::from_object_pathname(object.as_bytes()).ok().map(|id| (id, size));
    }
}

impl<H: FsVerityHashValue> LayerSink for SplitSink<H> {
    fn finish(mut self: Box<Self>, layer: &VerifiedLayer) -> Result<Descriptor> {
        self.splitter.finish(&mut self.stream)?;
        let id = self.stream.finish()?;
        self.shared.unnamed().layers.push((layer.diff_id().clone(), id));
        Ok(Descriptor::new(MediaType::ImageLayer, layer.size(), layer.diff_id().as_digest().clone()))
    }
}

/// What becomes of the file whose content passes.
#[derive(Debug, Clone, Copy)]
enum FileState {
    None,
    /// Announced by the tar; its first bytes decide.
    Begun {
        size: u64,
    },
    /// An object already: the bytes are dropped.
    Known,
    New,
}

/// A part of the stream that waits for its turn.
#[derive(Debug)]
enum Pending<H> {
    /// So many of the waiting bytes.
    Inline(usize),
    /// A file that is an object already.
    Known { id: H, size: u64 },
    /// The next file that was given to the writers.
    New { number: u64, size: u64 },
}

/// The split stream, written in order although objects become known out of order.
#[derive(Debug)]
struct Stream<H: FsVerityHashValue> {
    writer: SplitStreamWriter<H>,
    objects: ObjectWriters<H>,
    pending: VecDeque<Pending<H>>,
    /// The inline bytes of all that is pending.
    waiting: VecDeque<u8>,
    /// A whole base file comes next: its object and size.
    announced: Option<(H, u64)>,
    file: FileState,
    shared: Arc<Shared<H>>,
}

impl<H: FsVerityHashValue> Stream<H> {
    /// Chooses how the file that begins now is kept.
    fn open_file(&mut self, size: u64) -> Result<()> {
        self.file = match self.announced.take() {
            Some((id, known)) if known == size => {
                self.pending.push_back(Pending::Known { id, size });
                FileState::Known
            }
            _ => {
                let number = self.objects.begin(size)?;
                self.pending.push_back(Pending::New { number, size });
                FileState::New
            }
        };
        self.advance(false)
    }

    fn inline(&mut self, bytes: &[u8]) -> Result<()> {
        if self.pending.is_empty() {
            self.writer.write_inline(bytes);
            return Ok(());
        }
        self.waiting.extend(bytes);
        match self.pending.back_mut() {
            Some(Pending::Inline(len)) => *len += bytes.len(),
            _ => self.pending.push_back(Pending::Inline(bytes.len())),
        }
        self.advance(false)
    }

    /// Writes what is complete; waits where too much would be held, or for everything.
    fn advance(&mut self, all: bool) -> Result<()> {
        while let Some(next) = self.pending.front() {
            let wait = all || self.waiting.len() > MAX_WAITING;
            let (id, size) = match next {
                Pending::Inline(len) => {
                    let (front, rest) = self.waiting.as_slices();
                    let in_front = front.len().min(*len);
                    self.writer.write_inline(&front[..in_front]);
                    self.writer.write_inline(&rest[..len - in_front]);
                    self.waiting.drain(..len);
                    self.pending.pop_front();
                    continue;
                }
                Pending::Known { id, size } => (id.clone(), *size),
                Pending::New { number, size } => match self.objects.id(*number, wait)? {
                    Some(id) => (id, *size),
                    None => break,
                },
            };
            self.writer.add_external_size(size);
            self.writer.write_reference(id).map_err(|e| self.shared.failed(e))?;
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Stores the stream; gives its id, which has no name yet.
    fn finish(mut self) -> Result<H> {
        self.advance(true)?;
        self.writer.done().map_err(|e| self.shared.failed(e))
    }
}

impl<H: FsVerityHashValue> Parts for Stream<H> {
    fn begin_file(&mut self, size: u64) -> Result<()> {
        self.file = FileState::Begun { size };
        // Said before this file's header, it was about something else.
        self.announced = None;
        Ok(())
    }

    fn part(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        if part == Part::Inline {
            self.announced = None;
            return self.inline(bytes);
        }
        if let FileState::Begun { size } = self.file {
            self.open_file(size)?;
        }
        match self.file {
            FileState::New => self.objects.content(bytes),
            _ => Ok(()),
        }
    }
}
