//! Reads operations from an extended patch that may be hostile: nothing is allocated by a number it states.

use std::io::{self, Read};
use std::str::FromStr as _;

use super::streams::{Blocks, FromPatch, Streams, broken, number};
use super::{Kind, MAGIC, MAGIC_LEN, MAX_LAYERS, command};
use crate::digest::{DiffId, Digest};
use crate::encoding::read_full;
use crate::error::{Error, IoContext, Result};
use crate::tardiff::{Limits, Op};

/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// Reads a patch operation by operation, as the machine takes them.
pub struct OpReader<B> {
    streams: Streams<B>,
    layers: Vec<Layer>,
    /// Position of the current one.
    current: Option<usize>,
    /// Where the machine's cursor is.
    machine: u64,
    /// What follows the operation that was given last.
    next: Option<Op>,
    /// Payload bytes of the present operation not yet read, and their stream.
    payload: u64,
    from: Kind,
}

/// A layer of the base, and the patch's cursor in it.
struct Layer {
    diff_id: DiffId,
    cursor: u64,
}

impl<B> std::fmt::Debug for OpReader<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpReader").field("offset", &self.streams.offset).finish()
    }
}

impl<R: Read> OpReader<FromPatch<R>> {
    /// Reads magic and table.
    ///
    /// # Errors
    /// Misfit for another version, Verification when the patch is broken.
    pub fn new(mut reader: R, limits: &Limits) -> Result<Self> {
        let mut magic = [0; MAGIC_LEN];
        let n = read_full(&mut reader, &mut magic).at("patch")?;
        if n < MAGIC_LEN {
            return Err(Error::verification(format!("patch ends after {n} bytes")));
        }
        if magic != MAGIC {
            let found = magic.escape_ascii();
            return Err(Error::misfit(format!("unknown extended patch \"{found}\", known is odfpat1"))
                .with_hint("a newer oci-delta-fetch may know it"));
        }
        let count = number(&mut reader)?.filter(|count| *count <= MAX_LAYERS);
        let count = count.ok_or_else(|| broken(&format!("more than {MAX_LAYERS} layers")))?;
        let layers = (0..count).map(|_| {
            let mut digest = [0; DIGEST];
            if read_full(&mut reader, &mut digest).at("patch")? < DIGEST {
                return Err(broken("truncated in the table of layers"));
            }
            diff_id(&digest)
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        OpReader::of(FromPatch(reader), layers, limits)
    }
}

fn diff_id(digest: &[u8; DIGEST]) -> Result<DiffId> {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = Digest::from_str(&format!("sha256:{hex}"));
    digest.map(DiffId::new).map_err(|e| broken(&format!("the table of layers: {e}")))
}

impl<B: Blocks> OpReader<B> {
    /// Of blocks, and the layers that they read.
    ///
    /// # Errors
    /// When there is no memory for the decoders.
    pub(super) fn of(blocks: B, layers: Vec<DiffId>, limits: &Limits) -> Result<Self> {
        let layers = layers.into_iter().map(|diff_id| Layer { diff_id, cursor: 0 }).collect();
        let streams = Streams::new(blocks, limits).at("patch")?;
        let (current, machine, next) = (None, 0, None);
        Ok(OpReader { streams, layers, current, machine, next, payload: 0, from: Kind::Literals })
    }

    /// Decompressed bytes that were read, of all streams.
    pub fn offset(&self) -> u64 {
        self.streams.offset
    }

    /// A complaint about the patch.
    pub fn broken(&self, what: &str) -> Error {
        broken(&format!("after {} bytes: {what}", self.streams.offset))
    }

    /// The next operation; `None` at the proper end.
    ///
    /// # Errors
    /// Verification for a broken patch, Misfit for an unknown operation, and whatever the blocks' source reports.
    pub fn next_op(&mut self) -> Result<Option<Op>> {
        if self.payload > 0 {
            return Err(self.broken("payload was left unread"));
        }
        let op = match self.next.take() {
            Some(op) => op,
            None => match self.streams.byte(Kind::Commands)? {
                Some(code) => self.operation(code)?,
                None => {
                    self.streams.finish()?;
                    return Ok(None);
                }
            },
        };
        match op {
            Op::Data(len) => (self.payload, self.from) = (len, Kind::Literals),
            Op::Add(len) => (self.payload, self.from) = (len, Kind::Sums),
            _ => {}
        }
        Ok(Some(op))
    }

    /// What a command comes to; what follows it waits in `next`.
    fn operation(&mut self, code: u8) -> Result<Op> {
        let moves = code & command::MOVE != 0;
        let kind = code & !command::MOVE;
        if kind > command::LAYER || moves && !matches!(kind, command::COPY | command::ADD) {
            return Err(Error::misfit(format!("unknown command {code} in an extended patch"))
                .with_hint("the patch is damaged or of a newer format"));
        }
        let len = self.streams.number(Kind::Lengths)?;
        match kind {
            command::DATA => {
                // New bytes mostly stand in for as many old ones.
                if let Some(current) = self.current {
                    let layer = &mut self.layers[current];
                    layer.cursor = layer.cursor.saturating_add(len);
                }
                Ok(Op::Data(len))
            }
            command::LAYER => {
                let found = usize::try_from(len).ok().filter(|at| *at < self.layers.len());
                let at = found.ok_or_else(|| {
                    self.broken(&format!("layer {len} of the base, the table has {}", self.layers.len()))
                })?;
                (self.current, self.machine) = (Some(at), 0);
                Ok(Op::Layer(self.layers[at].diff_id.clone()))
            }
            _ => {
                let by = if moves { signed(self.streams.number(Kind::Moves)?) } else { 0 };
                let op = if kind == command::COPY { Op::Copy(len) } else { Op::Add(len) };
                self.at_cursor(by, len, op)
            }
        }
    }

    /// `op`, which takes `len` bytes, after the machine's cursor was set `by` bytes from the patch's.
    fn at_cursor(&mut self, by: i64, len: u64, op: Op) -> Result<Op> {
        let current = self.current.ok_or_else(|| self.broken("no layer is open"))?;
        let layer = &mut self.layers[current];
        let at = layer.cursor.checked_add_signed(by);
        let span = at.and_then(|at| Some((at, at.checked_add(len)?)));
        let Some((at, end)) = span else {
            return Err(self.broken("it moves out of a layer"));
        };
        layer.cursor = end;
        if std::mem::replace(&mut self.machine, end) == at {
            return Ok(op);
        }
        self.next = Some(op);
        Ok(Op::Seek(at))
    }

    /// The rest of the present operation's payload.
    pub fn payload(&mut self) -> impl Read + '_ {
        Payload(self)
    }
}

/// Of 0, 1, 2, 3, 4… makes 0, -1, 1, -2, 2…
fn signed(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Payload bytes of one operation; ends before the next one.
struct Payload<'a, B>(&'a mut OpReader<B>);

impl<B: Blocks> Read for Payload<'_, B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.0.payload).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.0.streams.read(self.0.from, &mut buf[..want])?;
        if n == 0 {
            return Err(self.0.broken("truncated inside an operation").into());
        }
        self.0.payload -= n as u64;
        Ok(n)
    }
}
