//! Dictionary frames (tar-diff version 2): a new file compressed with an old one as dictionary.

use std::io::{self, Write};

use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use crate::tardiff::Limits;

/// Smaller files are better off in the outer stream, which knows their neighbours.
const SMALLEST: usize = 4 << 10;

/// A frame hides its content from the outer stream; it must save at least a fiftieth.
const WORTH: usize = 50;

/// Makes frames where they are cheaper than operations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frames {
    /// zstd level of the frames, and of the trial of what they replace.
    pub level: i32,
}

impl Frames {
    /// The frame for `content` with `dictionary`, if it is smaller than the
    /// operations it replaces, which take `cost` bytes.
    ///
    /// # Errors
    /// When libzstd has no memory.
    pub fn beating(self, cost: usize, content: &[u8], dictionary: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if content.len() < SMALLEST || dictionary.len() as u64 > Limits::default().dictionary {
            return Ok(None);
        }
        let frame = self.frame(content, dictionary)?;
        Ok(Some(frame).filter(|frame| frame.len() + cost / WORTH < cost))
    }

    /// One frame whose window reaches over all of both, so that every decoder finds all of the dictionary.
    fn frame(self, content: &[u8], dictionary: &[u8]) -> io::Result<Vec<u8>> {
        let both = (content.len() + dictionary.len()) as u64;
        let window = both.next_power_of_two().ilog2().clamp(10, Limits::default().dictionary_window_log);
        let mut frame = Vec::new();
        let mut encoder = Encoder::with_ref_prefix(&mut frame, self.level, dictionary)?;
        encoder.set_parameter(CParameter::WindowLog(window))?;
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(content.len() as u64))?;
        encoder.write_all(content)?;
        encoder.finish()?;
        Ok(frame)
    }
}
