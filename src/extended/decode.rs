//! Reads operations from an extended patch that may be hostile: nothing is allocated by a number it states.

use std::io::{self, Read};

use super::streams::{Blocks, FromPatch, Streams, broken};
use super::table::{Table, signed};
use super::{Kind, MAGIC, MAGIC_LEN, STREAMS, command};
use crate::encoding::read_full;
use crate::error::{Error, IoContext, Result};
use crate::tardiff::{Flow, Limits, Op};

/// Reads a patch operation by operation, as the machine takes them.
pub struct OpReader<B> {
    streams: Streams<B>,
    table: Table,
    /// The patch's cursor in each of the table's holders.
    cursors: Vec<u64>,
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

impl<B> std::fmt::Debug for OpReader<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpReader").field("flows", &self.streams.flows).finish()
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
        let table = Table::read(&mut reader, limits)?;
        Ok(OpReader::of(FromPatch(reader), table, limits))
    }
}

impl<B: Blocks> OpReader<B> {
    /// Of blocks, and the table that they refer to.
    pub(super) fn of(blocks: B, table: Table, limits: &Limits) -> Self {
        let cursors = vec![0; table.holders.len()];
        let streams = Streams::new(blocks, limits);
        let (current, machine, next) = (None, 0, None);
        OpReader { streams, table, cursors, current, machine, next, payload: 0, from: Kind::Literals }
    }

    /// How far its streams were read.
    pub fn flows(&self) -> [Flow; STREAMS] {
        self.streams.flows
    }

    /// A complaint about the patch.
    pub fn broken(&self, what: &str) -> Error {
        broken(&format!("after {} bytes: {what}", self.streams.offset()))
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
        let kind = if code == command::MEMBER { code } else { code & !command::MOVE };
        let moves = kind != code;
        if kind > command::MEMBER || moves && !matches!(kind, command::COPY | command::ADD) {
            return Err(Error::misfit(format!("unknown command {code} in an extended patch"))
                .with_hint("the patch is damaged or of a newer format"));
        }
        let len = self.streams.number(Kind::Lengths)?;
        match kind {
            command::DATA => {
                // New bytes mostly stand in for as many old ones.
                if let Some(current) = self.current {
                    self.cursors[current] = self.cursors[current].saturating_add(len);
                }
                Ok(Op::Data(len))
            }
            command::HOLDER => {
                let at = self.row(len, self.table.holders.len())?;
                (self.current, self.machine) = (Some(at), 0);
                Ok(Op::Holder(self.table.holders[at].clone()))
            }
            command::MEMBER => {
                let at = self.row(len, self.table.members.len())?;
                Ok(Op::Member(self.table.members[at].clone()))
            }
            _ => {
                let by = if moves { signed(self.streams.number(Kind::Moves)?) } else { 0 };
                let op = if kind == command::COPY { Op::Copy(len) } else { Op::Add(len) };
                self.at_cursor(by, len, op)
            }
        }
    }

    /// A row of the table, which has so many of its kind.
    fn row(&self, named: u64, rows: usize) -> Result<usize> {
        let found = usize::try_from(named).ok().filter(|at| *at < rows);
        found.ok_or_else(|| self.broken(&format!("row {named} of its table, which has {rows}")))
    }

    /// `op`, which takes `len` bytes, after the machine's cursor was set `by` bytes from the patch's.
    fn at_cursor(&mut self, by: i64, len: u64, op: Op) -> Result<Op> {
        let current = self.current.ok_or_else(|| self.broken("no layer is open"))?;
        let at = self.cursors[current].checked_add_signed(by);
        let span = at.and_then(|at| Some((at, at.checked_add(len)?)));
        let Some((at, end)) = span else {
            return Err(self.broken("it moves out of a layer"));
        };
        self.cursors[current] = end;
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
