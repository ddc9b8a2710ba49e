//! Writes patches: the mirror of the reader, with a clean stream of operations.

use std::io::{self, Write};

use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use super::{ADD, COPY, DATA, DICTIONARY, OPEN, SEEK, Version};
use crate::base::SourcePath;

/// ADD is split at this size: 16 MiB, so that appliers which buffer an ADD need little.
const ADD_SPLIT: usize = 16 << 20;

/// DATA is collected up to this size before it is written.
const DATA_BUFFER: usize = 4 << 20;

/// How far back a job sees without long-distance matching: 2^-(9 - 8) of the window.
const OVERLAP_LOG: u32 = 8;

/// For `far_match`: entries of the table (8 bytes each) as a power of two, and one position of 2^4 is in it.
const FAR_TABLE_LOG: u32 = 21;
const FAR_RATE_LOG: u32 = 4;

/// How the outer stream is compressed. The `None`s are for the level to decide.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Window as a power of two; every applier accepts up to 27.
    pub window_log: u32,
    /// Entries of the hash table as a power of two.
    pub hash_log: Option<u32>,
    /// Entries of the chains or trees of matches as a power of two.
    pub chain_log: Option<u32>,
    /// Match length in bytes that is taken without looking for a better one.
    pub target_length: Option<u32>,
    /// Shortest match in bytes that is looked for in the whole window, beyond the reach of the tables.
    pub far_match: Option<u32>,
    /// Threads that compress; 0 compresses in the writing thread. The bytes
    /// are the same for any number but 0.
    pub threads: u32,
    /// Bytes that such a thread takes at once, at most 2^30 - 1: with smaller jobs
    /// threads share a layer better, but each seam costs.
    pub job: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            level: 12,
            window_log: 27,
            hash_log: None,
            chain_log: None,
            target_length: None,
            far_match: None,
            threads: 0,
            job: 16 << 20,
        }
    }
}

impl WriterOptions {
    /// A stream with these settings, in `writer`.
    ///
    /// # Errors
    /// Bad options.
    pub(crate) fn encoder<W: Write>(&self, writer: W) -> io::Result<Encoder<'static, W>> {
        let mut stream = Encoder::new(writer, self.level)?;
        stream.set_parameter(CParameter::WindowLog(self.window_log))?;
        stream.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        if let Some(log) = self.hash_log {
            stream.set_parameter(CParameter::HashLog(log))?;
        }
        if let Some(log) = self.chain_log {
            stream.set_parameter(CParameter::ChainLog(log))?;
        }
        if let Some(length) = self.target_length {
            stream.set_parameter(CParameter::TargetLength(length))?;
        }
        if let Some(length) = self.far_match {
            stream.set_parameter(CParameter::LdmMinMatch(length))?;
            stream.set_parameter(CParameter::LdmHashLog(FAR_TABLE_LOG))?;
            stream.set_parameter(CParameter::LdmHashRateLog(FAR_RATE_LOG))?;
        }
        if self.threads > 0 {
            stream.set_parameter(CParameter::NbWorkers(self.threads))?;
            stream.set_parameter(CParameter::JobSize(self.job as u32))?;
            stream.set_parameter(CParameter::OverlapSizeLog(OVERLAP_LOG))?;
        }
        Ok(stream)
    }
}

/// Writes operations; those without effect are left out, neighbours are joined.
pub struct OpWriter<W: Write> {
    stream: Encoder<'static, W>,
    version: Version,
    data: Vec<u8>,
    /// Bytes of a COPY not yet written.
    copy: u64,
    open: Option<SourcePath>,
    /// Where the applier's cursor is, pending COPY included.
    cursor: u64,
    /// Where it should be; a SEEK is written only when it matters.
    wanted: u64,
}

impl<W: Write> std::fmt::Debug for OpWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpWriter").field("open", &self.open).field("cursor", &self.cursor).finish()
    }
}

impl<W: Write> OpWriter<W> {
    /// Writes the magic and begins the stream.
    ///
    /// # Errors
    /// The inner writer's; bad options.
    pub fn new(mut writer: W, version: Version, options: WriterOptions) -> io::Result<Self> {
        writer.write_all(&version.magic())?;
        let mut stream = options.encoder(writer)?;
        stream.include_checksum(true)?;
        Ok(OpWriter { stream, version, data: Vec::new(), copy: 0, open: None, cursor: 0, wanted: 0 })
    }

    /// Appends literal bytes.
    ///
    /// # Errors
    /// The inner writer's.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.flush_copy()?;
        self.data.extend_from_slice(bytes);
        if self.data.len() >= DATA_BUFFER { self.flush_data() } else { Ok(()) }
    }

    /// Makes `path` the current file, its cursor at 0.
    ///
    /// # Errors
    /// The inner writer's.
    pub fn open(&mut self, path: &SourcePath) -> io::Result<()> {
        self.wanted = 0;
        if self.open.as_ref() == Some(path) {
            return Ok(());
        }
        self.flush()?;
        self.op(OPEN, path.as_bytes().len() as u64)?;
        self.stream.write_all(path.as_bytes())?;
        self.open = Some(path.clone());
        self.cursor = 0;
        Ok(())
    }

    /// Sets the cursor.
    pub fn seek(&mut self, position: u64) {
        self.wanted = position;
    }

    /// Copies from the current file.
    ///
    /// # Errors
    /// The inner writer's.
    pub fn copy(&mut self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.settle()?;
        self.flush_data()?;
        self.copy += len;
        self.advance(len);
        Ok(())
    }

    /// Adds `sums` to bytes of the current file.
    ///
    /// # Errors
    /// The inner writer's.
    pub fn add_data(&mut self, sums: &[u8]) -> io::Result<()> {
        if sums.is_empty() {
            return Ok(());
        }
        self.settle()?;
        self.flush()?;
        for piece in sums.chunks(ADD_SPLIT) {
            self.op(ADD, piece.len() as u64)?;
            self.stream.write_all(piece)?;
        }
        self.advance(sums.len() as u64);
        Ok(())
    }

    /// Appends the content of one zstd frame made with the whole current file,
    /// of `file_size` bytes, as raw dictionary.
    ///
    /// # Errors
    /// The inner writer's; InvalidInput in version 1 or with no file open.
    pub fn dictionary(&mut self, frame: &[u8], file_size: u64) -> io::Result<()> {
        if self.version == Version::V1 || self.open.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a dictionary frame needs tardf2 and an open file",
            ));
        }
        self.flush()?;
        self.op(DICTIONARY, frame.len() as u64)?;
        self.stream.write_all(frame)?;
        (self.cursor, self.wanted) = (file_size, file_size);
        Ok(())
    }

    /// Ends the patch.
    ///
    /// # Errors
    /// The inner writer's.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.stream.finish()
    }

    /// Brings the cursor where it is wanted, just before it is used.
    fn settle(&mut self) -> io::Result<()> {
        if self.cursor != self.wanted {
            self.flush()?;
            self.op(SEEK, self.wanted)?;
            self.cursor = self.wanted;
        }
        Ok(())
    }

    fn advance(&mut self, len: u64) {
        self.cursor += len;
        self.wanted = self.cursor;
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_copy()?;
        self.flush_data()
    }

    fn flush_copy(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.copy) {
            0 => Ok(()),
            len => self.op(COPY, len),
        }
    }

    fn flush_data(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        self.op(DATA, data.len() as u64)?;
        self.stream.write_all(&data)?;
        self.data = data;
        self.data.clear();
        Ok(())
    }

    fn op(&mut self, code: u8, mut size: u64) -> io::Result<()> {
        let mut bytes = [0; 11];
        bytes[0] = code;
        let mut len = 1;
        loop {
            bytes[len] = (size & 0x7f) as u8;
            size >>= 7;
            len += 1;
            if size == 0 {
                break;
            }
            bytes[len - 1] |= 0x80;
        }
        self.stream.write_all(&bytes[..len])
    }
}
