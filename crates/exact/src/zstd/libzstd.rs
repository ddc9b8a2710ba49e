//! Facebook's libzstd, as it is linked here: release 1.5.7.
//!
//! Its frames are those of the command `zstd` and of whatever else links the library. Another release may have
//! other frames at the same level.

use std::io;
use std::num::NonZeroUsize;

use zstd::stream::raw::{CParameter, InBuffer, Operation, OutBuffer};

use crate::Encoder;

/// The release whose frames these are.
pub const RELEASE: &str = "1.5.7";

/// What the library was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The level, 1 to 22, or below 0 for the fast ones.
    pub level: i32,
    /// The plain bytes, exactly, if it was told how many they are: parameters depend on it.
    pub size: Option<u64>,
    /// Whether a size that is known is in the header.
    pub size_field: SizeField,
    /// What the frame ends with.
    pub checksum: Checksum,
    /// The logarithm of the window's size in bytes, 10 to [`MAX_WINDOW_LOG`]; else that of the level.
    pub window_log: Option<u32>,
    /// How the plain bytes are cut for threads; else they are not.
    pub jobs: Option<Jobs>,
}

/// What each thread of the library is given at once. The frame depends on it, and not on how many threads there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jobs {
    size: u32,
    overlap_log: u8,
}

impl Jobs {
    /// The least plain bytes of a job.
    pub const MIN: u32 = 512 << 10;
    /// The most: what level 19 takes.
    pub const MAX: u32 = 32 << 20;
    /// The most of [`overlap_log`](Self::overlap_log): a whole window.
    pub const MAX_OVERLAP: u8 = 9;

    /// Jobs of so many plain bytes, each begun with so much of the one before; `None` beyond the limits.
    pub const fn new(size: u32, overlap_log: u8) -> Option<Self> {
        if size < Self::MIN || size > Self::MAX || overlap_log == 0 || overlap_log > Self::MAX_OVERLAP {
            return None;
        }
        Some(Self { size, overlap_log })
    }

    /// The plain bytes of a job.
    pub const fn size(self) -> u32 {
        self.size
    }

    /// How much of the window a job begins with: 9 stands for all, each one less for half of it, 1 for nothing.
    pub const fn overlap_log(self) -> u8 {
        self.overlap_log
    }
}

/// The most plain bytes in the jobs of all threads together.
const MOST_IN_JOBS: usize = 32 << 20;

impl Settings {
    /// The library without settings, given bytes in pieces.
    pub const fn stream(level: i32) -> Self {
        Self {
            level,
            size: None,
            size_field: SizeField::Written,
            checksum: Checksum::Absent,
            window_log: None,
            jobs: None,
        }
    }

    /// The command `zstd --single-thread` that reads a pipe.
    pub const fn command(level: i32) -> Self {
        Self { checksum: Checksum::Present, ..Self::stream(level) }
    }
}

/// Whether the size of the plain bytes is in the header, if it is known when that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeField {
    /// As of the library without settings, and of the command `zstd`.
    Written,
    /// Left out, also from the frame of nothing.
    Omitted,
}

/// Whether a frame ends with a checksum of the plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// As of the library without settings.
    Absent,
    /// As of the command `zstd`.
    Present,
}

/// The largest window taken: 128 MiB, as decoders take without being asked.
pub const MAX_WINDOW_LOG: u32 = 27;

/// An encoder for one frame. Threads are of use to [`Jobs`] only; there are fewer if these are large.
///
/// It holds what the library needs for the level: up to several windows, and a few jobs for each thread. Should the library fail, the frame ends
/// there: compare its digest.
///
/// # Errors
///
/// The window is too large, or the library refuses a setting.
pub fn encoder(settings: Settings, threads: NonZeroUsize) -> io::Result<Box<dyn Encoder>> {
    let mut raw = Raw::new(settings.level)?;
    if let Some(log) = settings.window_log {
        if log > MAX_WINDOW_LOG {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a window of zstd is at most 128 MiB"));
        }
        raw.set_parameter(CParameter::WindowLog(log))?;
    }
    raw.set_parameter(CParameter::ChecksumFlag(settings.checksum == Checksum::Present))?;
    raw.set_parameter(CParameter::ContentSizeFlag(settings.size_field == SizeField::Written))?;
    if let Some(Jobs { size, overlap_log }) = settings.jobs {
        let most = (MOST_IN_JOBS / size as usize).max(1);
        raw.set_parameter(CParameter::NbWorkers(threads.get().min(most) as u32))?;
        raw.set_parameter(CParameter::JobSize(size))?;
        raw.set_parameter(CParameter::OverlapSizeLog(overlap_log.into()))?;
    }
    raw.set_pledged_src_size(settings.size)?;
    Ok(Box::new(Frame { raw: Some(raw), buffer: vec![0; OUT_SIZE] }))
}

/// As [`encoder`], but if the library refuses, the frame ends before it begins.
pub(crate) fn encoder_that_may_fail(settings: Settings, threads: NonZeroUsize) -> Box<dyn Encoder> {
    encoder(settings, threads).unwrap_or_else(|_| Box::new(Frame { raw: None, buffer: Vec::new() }))
}

/// Bytes taken from the library at once.
const OUT_SIZE: usize = 128 << 10;

type Raw = zstd::stream::raw::Encoder<'static>;

struct Frame {
    /// Nothing after it failed.
    raw: Option<Raw>,
    buffer: Vec<u8>,
}

impl Frame {
    /// Appends what comes, as long as there is more.
    fn drain(
        &mut self,
        out: &mut Vec<u8>,
        mut next: impl FnMut(&mut Raw, &mut OutBuffer<'_, [u8]>) -> io::Result<usize>,
    ) {
        while let Some(raw) = &mut self.raw {
            let mut output = OutBuffer::around(&mut self.buffer[..]);
            let left = next(raw, &mut output);
            out.extend_from_slice(output.as_slice());
            if !left.is_ok_and(|left| left > 0) {
                return;
            }
        }
    }
}

impl Encoder for Frame {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let mut input = InBuffer::around(plain);
        while let Some(raw) = self.raw.as_mut().filter(|_| input.pos() < plain.len()) {
            let mut output = OutBuffer::around(&mut self.buffer[..]);
            if raw.run(&mut input, &mut output).is_err() {
                self.raw = None;
                return;
            }
            out.extend_from_slice(output.as_slice());
        }
    }

    fn settle(&mut self, out: &mut Vec<u8>) {
        self.drain(out, |raw, output| raw.flush(output));
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        self.drain(out, |raw, output| raw.finish(output, true));
    }
}
