//! The machine that runs a patch: operations, cursor, bounds and limits, once for all who read patches.
//!
//! What an operation comes to is told to a [`Visitor`]: one that writes the layer, one that notes where its
//! bytes are, one that counts them. It gets bytes only that the base has, within the layer's bound.

pub(crate) mod members;

use std::io::{self, Read, Write};

use crate::base::{Held, Holder, SourcePath};
use crate::error::{Advice, Error, IoContext, Result};
use crate::extended;
use crate::member::Packing;
use crate::tardiff::{self, Flow, Limits, Op, OpReader, decode_frame};

/// Bytes that are handed on at once; large enough that a system call a piece does not show.
const CHUNK: usize = 256 << 10;

/// Is told of what the layer is made, in its order.
pub(crate) trait Visitor {
    /// What it knows a base file by.
    type File;

    /// The base file at `path`, and its size; none where no base is looked into.
    fn open(&mut self, path: &SourcePath) -> Result<(Self::File, Option<u64>)>;

    /// The tar of a layer of the base, or what is in a stretch of one, and its size; none where no base is looked into.
    fn open_holder(&mut self, holder: &Holder) -> Result<(Self::File, Option<u64>)>;

    /// What follows is in a member, until it was told to end.
    fn begin_member(&mut self, packing: &Packing) -> Result<()>;

    /// All is there that is in the member which was begun last.
    fn end_member(&mut self) -> Result<()>;

    /// The next `len` bytes are carried by the patch: all of `payload`.
    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()>;

    /// The next `len` bytes stand in a base file, from `at` on.
    fn copied(&mut self, file: &mut Self::File, at: u64, len: u64) -> Result<()>;

    /// The same, each plus a byte of `payload`, modulo 256.
    fn summed(&mut self, file: &mut Self::File, at: u64, payload: &mut impl Read, len: u64) -> Result<()>;

    /// All of a base file, to be a dictionary.
    fn held(&mut self, file: &Self::File) -> Result<Held>;

    /// The next bytes are those that `unpack` writes; it gives their number.
    fn unpacked(&mut self, unpack: &mut Unpack<'_>) -> Result<u64>;

    /// The operation is done with; `read` tells how far the patch was read for it.
    fn done(&mut self, read: &impl Operations) -> Result<()>;
}

/// Most streams that a patch has, of whatever format.
pub(crate) const STREAMS: usize = extended::STREAMS;

/// Writes the content of a dictionary frame.
pub(crate) type Unpack<'a> = dyn FnMut(&mut dyn Write) -> Result<u64> + 'a;

/// Bytes that tell a patch from a whole layer.
pub(crate) const HEAD: u64 = 8;

/// Do these first bytes begin a patch, of whatever format and version?
pub(crate) fn is_patch(head: &[u8]) -> bool {
    tardiff::is_patch(head) || extended::is_extended(head)
}

/// Tells by the first bytes of a blob whether it is a patch, and gives the blob back whole.
///
/// # Errors
/// Those of `blob`.
pub(crate) fn sniff<R: Read>(mut blob: R) -> io::Result<(bool, impl Read)> {
    let head = head_of(&mut blob)?;
    let patch = is_patch(&head);
    Ok((patch, io::Cursor::new(head).chain(blob)))
}

fn head_of(blob: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    blob.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// Where operations are read from: a format of patches.
pub(crate) trait Operations {
    /// The next operation; `None` at the proper end. Payload left unread is an error.
    fn next_op(&mut self) -> Result<Option<Op>>;

    /// The rest of the present operation's payload.
    fn payload(&mut self) -> impl Read + '_;

    /// How far each of its streams was read; at most [`STREAMS`].
    fn flows(&self) -> impl IntoIterator<Item = Flow>;

    /// A complaint about the patch at this place.
    fn broken(&self, what: &str) -> Error;
}

impl<R: Read> Operations for OpReader<R> {
    fn next_op(&mut self) -> Result<Option<Op>> {
        self.next_op()
    }

    fn payload(&mut self) -> impl Read + '_ {
        self.payload()
    }

    fn flows(&self) -> impl IntoIterator<Item = Flow> {
        [self.flow()]
    }

    fn broken(&self, what: &str) -> Error {
        self.broken(what)
    }
}

impl<B: extended::Blocks> Operations for extended::OpReader<B> {
    fn next_op(&mut self) -> Result<Option<Op>> {
        self.next_op()
    }

    fn payload(&mut self) -> impl Read + '_ {
        self.payload()
    }

    fn flows(&self) -> impl IntoIterator<Item = Flow> {
        self.flows()
    }

    fn broken(&self, what: &str) -> Error {
        self.broken(what)
    }
}

/// Runs a patch to its end, by its first bytes; gives the number of bytes of the layer, at most `max`.
///
/// # Errors
/// Misfit when the base lacks a part of a file; Verification when the patch breaks its format or a limit;
/// what reader and visitor report.
pub(crate) fn run<V: Visitor>(
    mut patch: impl Read,
    limits: &Limits,
    max: u64,
    visitor: &mut V,
) -> Result<u64> {
    let head = head_of(&mut patch).at("patch")?;
    let is_extended = extended::is_extended(&head);
    let patch = io::Cursor::new(head).chain(patch);
    if is_extended {
        run_operations(extended::OpReader::new(patch, limits)?, limits, max, visitor)
    } else {
        run_operations(OpReader::new(patch, limits)?, limits, max, visitor)
    }
}

/// The same for operations that are read somehow.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_operations<V: Visitor>(
    ops: impl Operations,
    limits: &Limits,
    max: u64,
    visitor: &mut V,
) -> Result<u64> {
    let inside = Vec::new();
    let mut machine = Machine { ops, limits, left: max, max, inside, current: None, dictionary: None };
    let mut idle = 0;
    while let Some(op) = machine.ops.next_op()? {
        let made = machine.step(op, visitor)?;
        visitor.done(&machine.ops)?;
        machine.end_members(visitor)?;
        idle = if made > 0 { 0 } else { idle + 1 };
        if idle > limits.idle_ops {
            return Err(machine
                .ops
                .broken(&format!("more than {} operations in a row without effect", limits.idle_ops)));
        }
    }
    if !machine.inside.is_empty() {
        return Err(machine.ops.broken("truncated inside a member"));
    }
    Ok(max - machine.left)
}

struct Machine<'a, O, F> {
    ops: O,
    limits: &'a Limits,
    /// Bytes that may still come of it.
    left: u64,
    max: u64,
    /// Bytes that are still to come into each member which was begun, the innermost last.
    inside: Vec<u64>,
    current: Option<Current<F>>,
    /// The last file that served as dictionary; frames of one file follow each other.
    dictionary: Option<(SourcePath, Held)>,
}

/// The base file that is read at present.
struct Current<F> {
    path: SourcePath,
    file: F,
    size: Option<u64>,
    cursor: u64,
}

impl<F> Current<F> {
    /// Moves on by `len` bytes, which must be there; gives the place of the first.
    fn pass(&mut self, len: u64) -> Result<u64> {
        let (size, at) = (self.size.unwrap_or(u64::MAX), self.cursor);
        let end = at.checked_add(len).filter(|end| *end <= size || len == 0);
        self.cursor = end.ok_or_else(|| {
            Error::misfit(format!("base file {} has {size} bytes, the patch wants {len} at {at}", self.path))
        })?;
        Ok(at)
    }
}

impl<O: Operations, F> Machine<'_, O, F> {
    /// Does one operation; gives the number of bytes that came of it.
    fn step<V: Visitor<File = F>>(&mut self, op: Op, visitor: &mut V) -> Result<u64> {
        match op {
            Op::Open(path) => {
                let (file, size) = visitor.open(&path)?;
                self.current = Some(Current { path, file, size, cursor: 0 });
                Ok(0)
            }
            Op::Holder(holder) => {
                let (file, size) = visitor.open_holder(&holder)?;
                let path = holder.path()?;
                self.current = Some(Current { path, file, size, cursor: 0 });
                Ok(0)
            }
            Op::Member(packing) => {
                if self.inside.len() >= extended::MAX_DEPTH as usize {
                    return Err(self.ops.broken("members in members in members"));
                }
                self.grow(packing.sizes.packed)?;
                self.inside.push(packing.sizes.plain);
                visitor.begin_member(&packing)?;
                Ok(0)
            }
            Op::Seek(position) => {
                opened(&mut self.current, &self.ops)?.cursor = position;
                Ok(0)
            }
            Op::Data(len) => {
                self.grow(len)?;
                visitor.carried(&mut self.ops.payload(), len)?;
                Ok(len)
            }
            Op::Copy(len) => {
                self.grow(len)?;
                let current = opened(&mut self.current, &self.ops)?;
                let at = current.pass(len)?;
                visitor.copied(&mut current.file, at, len)?;
                Ok(len)
            }
            Op::Add(len) => {
                self.grow(len)?;
                let current = opened(&mut self.current, &self.ops)?;
                let at = current.pass(len)?;
                visitor.summed(&mut current.file, at, &mut self.ops.payload(), len)?;
                Ok(len)
            }
            Op::Dictionary(len) => self.frame(len, visitor),
        }
    }

    /// So many bytes more are in the layer, or in the member that is made.
    fn grow(&mut self, len: u64) -> Result<()> {
        let Some(inside) = self.inside.last_mut() else {
            self.left = self.left.checked_sub(len).ok_or_else(|| grown(self.max))?;
            return Ok(());
        };
        match inside.checked_sub(len) {
            Some(left) => *inside = left,
            None => return Err(self.ops.broken("more is in a member than was said")),
        }
        Ok(())
    }

    /// Ends the members that all is there of.
    fn end_members<V: Visitor<File = F>>(&mut self, visitor: &mut V) -> Result<()> {
        while self.inside.pop_if(|left| *left == 0).is_some() {
            visitor.end_member()?;
        }
        Ok(())
    }

    fn frame<V: Visitor<File = F>>(&mut self, len: u64, visitor: &mut V) -> Result<u64> {
        let (limits, most) = (self.limits, self.limits.dictionary);
        let Current { path, file, size, cursor } = opened(&mut self.current, &self.ops)?;
        let size = size.unwrap_or_default();
        if size > most {
            return Err(Error::verification(format!(
                "dictionary {path} has {size} bytes, at most {most} are allowed"
            )));
        }
        *cursor = size;
        if self.dictionary.as_ref().is_none_or(|(held, _)| held != path) {
            // The old one goes first: there is never more than one in memory.
            self.dictionary = None;
            self.dictionary = Some((path.clone(), visitor.held(file)?));
        }
        let dictionary = self.dictionary.as_ref().map_or(&[][..], |(_, content)| &**content);
        let (left, max) = (self.left, self.max);
        let made = {
            let mut frame = self.ops.payload();
            visitor.unpacked(&mut |out| {
                let mut out = Bounded { inner: out, left, max };
                decode_frame(&mut frame, len, dictionary, limits, &mut out)
            })?
        };
        self.grow(made)?;
        Ok(made)
    }
}

/// The current file; the machine's other parts can be used beside it.
fn opened<'a, F>(current: &'a mut Option<Current<F>>, ops: &impl Operations) -> Result<&'a mut Current<F>> {
    current.as_mut().ok_or_else(|| ops.broken("no base file is open"))
}

fn grown(max: u64) -> Error {
    Error::verification(format!("layer grows beyond {max} bytes")).with_hint(Advice::RaiseLayerLimit)
}

/// Hands `len` bytes on in pieces: `next` gets what is left, up to [`CHUNK`], and says how many it took.
pub(crate) fn in_pieces(len: u64, mut next: impl FnMut(usize) -> Result<usize>) -> Result<()> {
    let mut left = len;
    while left > 0 {
        left -= next(usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK)))? as u64;
    }
    Ok(())
}

/// Refuses more bytes than are left.
struct Bounded<W> {
    inner: W,
    left: u64,
    max: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(buf.len() as u64).ok_or_else(|| grown(self.max))?;
        self.inner.write_all(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
