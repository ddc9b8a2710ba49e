//! A part of a file, as a file of its own.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// The bytes between two positions of a file.
pub(super) struct Section<R> {
    inner: R,
    range: Range<u64>,
    at: u64,
}

impl<R: Read + Seek> Section<R> {
    /// At the beginning of these bytes.
    pub(super) fn new(mut inner: R, range: Range<u64>) -> io::Result<Self> {
        inner.seek(SeekFrom::Start(range.start))?;
        Ok(Self { inner, at: range.start, range })
    }
}

impl<R: Read> Read for Section<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.inner.read(&mut buffer[..most])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Section<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => self.range.start.checked_add(at),
            SeekFrom::End(by) => self.range.end.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let at = at.filter(|at| *at >= self.range.start);
        let at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.inner.seek(SeekFrom::Start(at))?;
        self.at = at;
        Ok(at - self.range.start)
    }
}
