//! The applier: one patch and the base files give one layer tar.
//!
//! Streaming, with fixed buffers: what a patch says never decides how much memory
//! is used. Only a dictionary (version 2) that cannot be mapped is held whole, up to its limit.

use std::io::Read;
use std::sync::Arc;

use crate::base::path::Paths;
use crate::base::{Blocks, Held, SourceFile, SourcePath, View};
use crate::error::{Error, IoContext, Result};
use crate::layer_write::LayerWrite;
use crate::tardiff::{Limits, Op, OpReader, decode_frame};

/// Bytes moved at once; large enough that a system call a piece does not show.
const CHUNK: usize = 256 << 10;

/// Open base files that are remembered; a patch names the same ones again and again.
const OPEN_FILES: usize = 256;

/// What a patch was made of, in bytes of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyStats {
    /// Operations.
    pub ops: u64,
    /// Copied from base files.
    pub copied: u64,
    /// Sums of base and patch bytes.
    pub added: u64,
    /// Literal bytes of the patch.
    pub literal: u64,
    /// From dictionary frames.
    pub dictionary: u64,
}

/// Applies a patch. It is read to its end, so a verifying reader has checked it when this returns.
///
/// # Errors
/// Misfit when the base lacks a file or part of one; Verification when the
/// patch breaks its format; what reader, base and writer report.
pub fn apply_patch(
    patch: impl Read,
    files: &View<'_>,
    limits: &Limits,
    out: &mut impl LayerWrite,
) -> Result<ApplyStats> {
    let mut applier = Applier {
        ops: OpReader::new(patch, limits)?,
        files,
        limits,
        opened: Paths::default(),
        current: None,
        stats: ApplyStats::default(),
        blocks: Blocks::default(),
        dictionary: None,
    };
    applier.run(out)?;
    Ok(applier.stats)
}

/// The base file that is read at present.
struct Current {
    path: SourcePath,
    file: Arc<SourceFile>,
    cursor: u64,
}

impl Current {
    /// Are there `len` bytes at the cursor?
    fn check(&self, len: u64) -> Result<()> {
        let (size, cursor) = (self.file.size(), self.cursor);
        if cursor.checked_add(len).is_none_or(|end| end > size) && len > 0 {
            return Err(Error::misfit(format!(
                "base file {} has {size} bytes, the patch wants {len} at {cursor}",
                self.path
            )));
        }
        Ok(())
    }
}

struct Applier<'a, R: Read> {
    ops: OpReader<R>,
    files: &'a View<'a>,
    limits: &'a Limits,
    opened: Paths<Arc<SourceFile>>,
    current: Option<Current>,
    stats: ApplyStats,
    blocks: Blocks,
    /// The last file that served as dictionary; frames of one file follow each other.
    dictionary: Option<(SourcePath, Held)>,
}

impl<R: Read> Applier<'_, R> {
    fn run(&mut self, out: &mut impl LayerWrite) -> Result<()> {
        let mut idle = 0;
        while let Some(op) = self.ops.next_op()? {
            self.stats.ops += 1;
            let put_out = match op {
                Op::Data(len) => self.literal(len, out)?,
                Op::Open(path) => self.open(path)?,
                Op::Copy(len) => self.copy(len, out)?,
                Op::Add(len) => self.add(len, out)?,
                Op::Seek(position) => self.seek(position)?,
                Op::Dictionary(len) => self.dictionary(len, out)?,
            };
            idle = if put_out > 0 { 0 } else { idle + 1 };
            if idle > self.limits.idle_ops {
                return Err(self.ops.broken(&format!(
                    "more than {} operations in a row without effect",
                    self.limits.idle_ops
                )));
            }
        }
        Ok(())
    }

    fn open(&mut self, path: SourcePath) -> Result<u64> {
        let file = match self.opened.get(&path) {
            Some(file) => file.clone(),
            None => {
                let file = self.files.open(&path)?;
                if self.opened.len() >= OPEN_FILES {
                    self.opened.clear();
                }
                self.opened.insert(path.clone(), file.clone());
                file
            }
        };
        self.current = Some(Current { path, file, cursor: 0 });
        Ok(0)
    }

    fn seek(&mut self, position: u64) -> Result<u64> {
        current(&mut self.current, &self.ops)?.cursor = position;
        Ok(0)
    }

    fn literal(&mut self, len: u64, out: &mut impl LayerWrite) -> Result<u64> {
        let mut payload = self.ops.payload();
        let mut left = len;
        while left > 0 {
            let most = at_once(left);
            left -= out.fill(most, &mut |to| payload.read_exact(to).at("patch"))? as u64;
        }
        self.stats.literal += len;
        Ok(len)
    }

    fn copy(&mut self, len: u64, out: &mut impl LayerWrite) -> Result<u64> {
        let current = current(&mut self.current, &self.ops)?;
        current.check(len)?;
        let Current { file, cursor, .. } = current;
        if let Some(object) = &file.object
            && *cursor == 0
            && len == file.size()
        {
            out.repeats(object, len);
        }
        let mut left = len;
        while left > 0 {
            let n = out.fill_from(at_once(left), file, *cursor, &mut self.blocks, None)? as u64;
            *cursor += n;
            left -= n;
        }
        self.stats.copied += len;
        Ok(len)
    }

    fn add(&mut self, len: u64, out: &mut impl LayerWrite) -> Result<u64> {
        let current = current(&mut self.current, &self.ops)?;
        current.check(len)?;
        let Current { file, cursor, .. } = current;
        let mut payload = self.ops.payload();
        let mut difference = |to: &mut [u8]| payload.read_exact(to).at("patch");
        let mut left = len;
        while left > 0 {
            let most = at_once(left);
            let n = out.fill_from(most, file, *cursor, &mut self.blocks, Some(&mut difference))? as u64;
            *cursor += n;
            left -= n;
        }
        self.stats.added += len;
        Ok(len)
    }

    fn dictionary(&mut self, len: u64, out: &mut impl LayerWrite) -> Result<u64> {
        let current = current(&mut self.current, &self.ops)?;
        let size = current.file.size();
        if size > self.limits.dictionary {
            return Err(Error::verification(format!(
                "dictionary {} has {size} bytes, at most {} are allowed",
                current.path, self.limits.dictionary
            )));
        }
        current.cursor = size;
        if self.dictionary.as_ref().is_none_or(|(held, _)| *held != current.path) {
            // The old one goes first: there is never more than one in memory.
            self.dictionary = None;
            self.dictionary = Some((current.path.clone(), current.file.held()?));
        }
        let dictionary = self.dictionary.as_ref().map_or(&[][..], |(_, content)| &**content);
        let mut frame = self.ops.payload();
        let made = decode_frame(&mut frame, len, dictionary, self.limits, out)?;
        self.stats.dictionary += made;
        Ok(made)
    }
}

/// The current file; the applier's other parts can be used beside it.
fn current<'a, R: Read>(current: &'a mut Option<Current>, ops: &OpReader<R>) -> Result<&'a mut Current> {
    current.as_mut().ok_or_else(|| ops.broken("no base file is open"))
}

/// How much of `left` bytes is moved next.
fn at_once(left: u64) -> usize {
    usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))
}
