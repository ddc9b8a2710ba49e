//! Reads operations from a stream that may be hostile: nothing is allocated by a size it states.

use std::io::{self, BufRead, BufReader, Read};

use zstd::zstd_safe::DParameter;

use super::{ADD, COPY, DATA, DICTIONARY, Limits, MAGIC_LEN, OPEN, SEEK, Version};
use crate::base::path::MAX_PATH;
use crate::base::{Holder, SourcePath};
use crate::error::{Error, Result};
use crate::member::Packing;

/// Bytes decompressed at once.
const CHUNK: usize = 16 << 10;

/// An operation; the payload of `Data`, `Add` and `Dictionary` is read with [`OpReader::payload`].
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Append this many payload bytes.
    Data(u64),
    /// Make this the current base file.
    Open(SourcePath),
    /// Make this tar of a layer of the base, or what is in a stretch of one, the current file. (Of extended patches.)
    Holder(Holder),
    /// What follows goes into a compressed member of the layer, until all is there that is in one. (Of extended patches.)
    Member(Packing),
    /// Append this many bytes of the base file.
    Copy(u64),
    /// Append this many sums of base and payload bytes.
    Add(u64),
    /// Set the cursor.
    Seek(u64),
    /// A zstd frame of this many payload bytes, with the base file as dictionary.
    Dictionary(u64),
}

/// How far a stream of a patch was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Compressed bytes that were taken in.
    pub packed: u64,
    /// Decompressed bytes that were given out.
    pub plain: u64,
}

type Stream<R> = BufReader<zstd::stream::read::Decoder<'static, BufReader<Counted<R>>>>;

/// Reads a patch operation by operation.
pub struct OpReader<R: Read> {
    stream: Stream<R>,
    version: Version,
    /// Position in the decompressed stream, for messages.
    offset: u64,
    /// Payload bytes of the present operation not yet read.
    payload: u64,
    /// Room for a path.
    path: Vec<u8>,
}

impl<R: Read> std::fmt::Debug for OpReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpReader").field("version", &self.version).field("offset", &self.offset).finish()
    }
}

impl<R: Read> OpReader<R> {
    /// Reads the magic and begins the stream.
    ///
    /// # Errors
    /// Misfit for an unknown magic, Verification when the patch is too short.
    pub fn new(mut reader: R, limits: &Limits) -> Result<Self> {
        let mut magic = [0; MAGIC_LEN];
        let n =
            crate::encoding::read_full(&mut reader, &mut magic).map_err(|e| Error::from_io(e, "patch"))?;
        let version = match magic {
            _ if n < MAGIC_LEN => return Err(Error::verification(format!("patch ends after {n} bytes"))),
            super::MAGIC_V1 => Version::V1,
            super::MAGIC_V2 => Version::V2,
            other => {
                return Err(Error::misfit(format!(
                    "unknown patch format {:?}, known are tardf1 and tardf2",
                    other.escape_ascii().to_string()
                ))
                .with_hint("a newer oci-delta-fetch may know it; otherwise fetch the full image"));
            }
        };
        let broken = |e| stream_error(e, 0);
        let mut decoder = zstd::stream::read::Decoder::new(Counted::new(reader)).map_err(broken)?;
        decoder.window_log_max(limits.window_log).map_err(broken)?;
        // The blob's digest and the layer's diff_id say more than the frame's own checksum.
        decoder.set_parameter(DParameter::ForceIgnoreChecksum(true)).map_err(broken)?;
        let stream = BufReader::with_capacity(CHUNK, decoder);
        Ok(OpReader { stream, version, offset: 0, payload: 0, path: Vec::new() })
    }

    /// The version that the magic names.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How far its stream was read.
    pub fn flow(&self) -> Flow {
        let packed = self.stream.get_ref().get_ref().get_ref().bytes;
        Flow { packed, plain: self.offset }
    }

    /// The next operation; `None` at the proper end. Payload left unread is an error.
    ///
    /// # Errors
    /// Verification for a broken stream, Misfit for an unknown operation, and
    /// whatever the inner reader reports.
    pub fn next_op(&mut self) -> Result<Option<Op>> {
        if self.payload > 0 {
            return Err(self.broken("payload was left unread"));
        }
        let (code, size) = match head(self.stream.buffer()) {
            Some((code, size, len)) => {
                self.stream.consume(len);
                self.offset += len as u64;
                (code, size)
            }
            None => {
                let Some(code) = self.byte()? else { return Ok(None) };
                if code > DICTIONARY {
                    let message =
                        format!("unknown operation {code} at byte {} of the patch", self.offset - 1);
                    return Err(Error::misfit(message).with_hint("the patch is damaged or of a newer format"));
                }
                (code, self.size()?)
            }
        };
        Ok(Some(match code {
            DATA => Op::Data(self.begin_payload(size)),
            OPEN => Op::Open(self.path(size)?),
            COPY => Op::Copy(size),
            ADD => Op::Add(self.begin_payload(size)),
            SEEK => Op::Seek(size),
            _ if self.version == Version::V1 => return Err(self.broken("a dictionary frame needs tardf2")),
            _ => Op::Dictionary(self.begin_payload(size)),
        }))
    }

    /// The rest of the present operation's payload.
    pub fn payload(&mut self) -> Payload<'_, R> {
        Payload { ops: self }
    }

    fn begin_payload(&mut self, size: u64) -> u64 {
        self.payload = size;
        size
    }

    fn path(&mut self, size: u64) -> Result<SourcePath> {
        if size > MAX_PATH as u64 {
            return Err(self.broken(&format!("a path of {size} bytes, at most {MAX_PATH} are allowed")));
        }
        let mut path = std::mem::take(&mut self.path);
        path.resize(size as usize, 0);
        self.begin_payload(size);
        self.payload().read_exact(&mut path).map_err(|e| Error::from_io(e, "patch"))?;
        self.path = path;
        SourcePath::clean(&self.path).map_err(|e| e.context(format!("byte {} of the patch", self.offset)))
    }

    fn size(&mut self) -> Result<u64> {
        let size = varint(|| self.byte()?.ok_or_else(|| self.broken("truncated inside an operation")))?;
        size.ok_or_else(|| self.broken("a size of 2^63 or more"))
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        let byte = match self.stream.buffer().first() {
            Some(byte) => Some(*byte),
            None => self.fill()?.first().copied(),
        };
        if byte.is_some() {
            self.stream.consume(1);
            self.offset += 1;
        }
        Ok(byte)
    }

    /// What is decompressed and not yet read; nothing at the end of the stream.
    fn fill(&mut self) -> Result<&[u8]> {
        while let Err(e) = self.stream.fill_buf() {
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(stream_error(e, self.offset));
            }
        }
        Ok(self.stream.buffer())
    }

    /// A complaint about the stream at its present position.
    pub fn broken(&self, what: &str) -> Error {
        Error::verification(format!("broken patch at byte {}: {what}", self.offset))
    }
}

/// Code, size and length of the head of an operation that stands whole in `bytes`. Whatever is unusual
/// gives `None`: byte by byte it is told apart what is wrong.
fn head(bytes: &[u8]) -> Option<(u8, u64, usize)> {
    let (code, rest) = bytes.split_first().filter(|(code, _)| **code <= DICTIONARY)?;
    let mut rest = rest.iter();
    let size = varint(|| rest.next().copied().ok_or(())).ok()??;
    Some((*code, size, bytes.len() - rest.len()))
}

/// At most ten groups of seven bits; `None` from 2^63 on, as no file is that long.
pub(crate) fn varint<E>(mut byte: impl FnMut() -> Result<u8, E>) -> Result<Option<u64>, E> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let group = byte()?;
        value |= u64::from(group & 0x7f) << shift;
        if group & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    // The tenth group would hold bit 63; it may be there, but must be zero.
    Ok((byte()? == 0).then_some(value))
}

/// Errors of the decompressor are about the content; those of the source pass through.
fn stream_error(e: io::Error, offset: u64) -> Error {
    if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return Error::from_io(e, "patch");
    }
    Error::verification(format!("broken patch at byte {offset}: {e}")).with_source(e)
}

/// Payload bytes of one operation; ends before the next one.
pub struct Payload<'a, R: Read> {
    ops: &'a mut OpReader<R>,
}

impl<R: Read> std::fmt::Debug for Payload<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("left", &self.ops.payload).finish()
    }
}

impl<R: Read> Payload<'_, R> {
    fn passed(&mut self, n: usize) {
        self.ops.payload -= n as u64;
        self.ops.offset += n as u64;
    }
}

impl<R: Read> Read for Payload<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.ops.payload).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = match self.ops.stream.read(&mut buf[..want]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => return Err(stream_error(e, self.ops.offset).into()),
            Ok(n) => n,
        };
        if n == 0 {
            return Err(self.ops.broken("truncated inside an operation").into());
        }
        self.passed(n);
        Ok(n)
    }
}

/// Counts what is read.
pub(crate) struct Counted<R> {
    inner: R,
    /// So many bytes.
    pub bytes: u64,
}

impl<R> Counted<R> {
    /// From here on.
    pub fn new(inner: R) -> Self {
        Counted { inner, bytes: 0 }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }
}
