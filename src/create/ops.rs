//! Operations of an extended patch, made by a worker, written later in order; and what is in members as such.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use crate::error::{IoContext as _, Result};
use crate::extended::OpWriter;
use crate::member::Packing;
use crate::region::Region;
use crate::spool::Spool;

/// Payloads of up to so many bytes stay in memory while others are made.
const IN_MEMORY: usize = 4 << 10;

/// A place in old bytes: in the tar of a layer, or in what is in a stretch of one. They are numbered together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub holder: usize,
    pub at: u64,
}

impl Place {
    /// `by` bytes further on.
    pub fn on(self, by: u64) -> Self {
        Place { at: self.at + by, ..self }
    }
}

/// A member of a new file, and the operations that make what is in it.
#[derive(Debug)]
pub(super) struct Made {
    /// In the file.
    pub range: Range<u64>,
    pub packing: Packing,
    pub content: Vec<Kept>,
}

/// What a stretch of a layer, or of what is in a member, is made of; payloads stand one after the other in `bytes`.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    ops: Vec<StretchOp>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum StretchOp {
    Data(usize),
    Copy(Place, u64),
    Add(Place, usize),
    Member(Arc<Made>),
}

impl Stretch {
    /// Literal bytes.
    pub fn data(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.ops.push(StretchOp::Data(bytes.len()));
        }
    }

    /// Old bytes as they are.
    pub fn copy(&mut self, from: Place, len: u64) {
        if len > 0 {
            self.ops.push(StretchOp::Copy(from, len));
        }
    }

    /// Differences from old bytes.
    pub fn add(&mut self, from: Place, new: &[u8], old: &[u8]) {
        if !new.is_empty() {
            self.bytes.extend(new.iter().zip(old).map(|(n, o)| n.wrapping_sub(*o)));
            self.ops.push(StretchOp::Add(from, new.len()));
        }
    }

    /// A member, all of it.
    pub fn member(&mut self, made: &Arc<Made>) {
        self.ops.push(StretchOp::Member(made.clone()));
    }

    /// Bytes that it will have in a patch, about: by a fast level of zstd, without what stands around it.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn cost(&self) -> Result<u64> {
        /// The level of that.
        const LEVEL: i32 = 3;
        /// Of an operation, when all are compressed.
        const OPERATION: u64 = 3;
        let payload = zstd::bulk::compress(&self.bytes, LEVEL).at("patch")?.len() as u64;
        let inner = |op: &StretchOp| match op {
            StretchOp::Member(made) => made.content.iter().map(|kept| kept.cost).sum::<u64>(),
            StretchOp::Data(_) | StretchOp::Copy(..) | StretchOp::Add(..) => 0,
        };
        Ok(payload + OPERATION * self.ops.len() as u64 + self.ops.iter().map(inner).sum::<u64>())
    }

    /// Writes the operations.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, writer: &mut OpWriter<'_, impl Write>) -> io::Result<()> {
        write(&self.ops, &self.bytes, writer)
    }

    /// Puts the payload away, in `spool` if it is large.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn keep(self, spool: &Spool) -> Result<Kept> {
        let cost = self.cost()?;
        let payload = if self.bytes.len() <= IN_MEMORY {
            let len = self.bytes.len() as u64;
            Region::of(Arc::new(self.bytes.into_boxed_slice()), len)
        } else {
            let mut out = spool.begin().at(spool.dir().display())?;
            out.write_all(&self.bytes).at(spool.dir().display())?;
            out.into_region()
        };
        Ok(Kept { ops: self.ops.into_boxed_slice(), payload, cost })
    }
}

/// A stretch that waits to be written.
#[derive(Debug)]
pub(super) struct Kept {
    ops: Box<[StretchOp]>,
    payload: Region,
    /// As [`Stretch::cost`].
    pub cost: u64,
}

impl Kept {
    fn write(&self, writer: &mut OpWriter<'_, impl Write>) -> io::Result<()> {
        let mut bytes = vec![0; self.payload.len() as usize];
        self.payload.read_exact_at(&mut bytes, 0)?;
        write(&self.ops, &bytes, writer)
    }
}

/// Hands out payloads that stand one after the other, by their lengths.
pub(super) fn payloads<'a>(bytes: &'a [u8]) -> impl FnMut(usize) -> &'a [u8] {
    let mut rest = bytes;
    move |n| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    }
}

fn write(ops: &[StretchOp], bytes: &[u8], writer: &mut OpWriter<'_, impl Write>) -> io::Result<()> {
    let mut take = payloads(bytes);
    for op in ops {
        match op {
            StretchOp::Data(n) => writer.data(take(*n))?,
            StretchOp::Copy(Place { holder, at }, len) => writer.copy(*holder, *at, *len)?,
            StretchOp::Add(Place { holder, at }, n) => writer.add(*holder, *at, take(*n))?,
            StretchOp::Member(made) => {
                writer.member(&made.packing)?;
                made.content.iter().try_for_each(|kept| kept.write(writer))?;
                writer.end_member()?;
            }
        }
    }
    Ok(())
}
