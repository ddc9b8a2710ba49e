//! The applier: one patch and the base files give one layer tar.
//!
//! Streaming, with fixed buffers: what a patch says never decides how much memory
//! is used. Only a dictionary (version 2) that cannot be mapped is held whole, up to its limit.

use std::io::Read;
use std::sync::Arc;

use crate::base::{Blocks, Held, SourceFile, SourcePath, View};
use crate::digest::DiffId;
use crate::error::{IoContext, Result};
use crate::layer_write::LayerWrite;
use crate::patch::{self, Operations, Unpack, Visitor, in_pieces};
use crate::tardiff::Limits;

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
    let mut applier = Applier { files, out, stats: ApplyStats::default(), blocks: Blocks::default() };
    // Who takes the layer knows how long it may be.
    patch::run(patch, limits, u64::MAX, &mut applier)?;
    Ok(applier.stats)
}

/// The same for operations that are read somehow.
///
/// # Errors
/// As [`apply_patch`].
pub(crate) fn apply_operations(
    ops: impl Operations,
    files: &View<'_>,
    limits: &Limits,
    out: &mut impl LayerWrite,
) -> Result<ApplyStats> {
    let mut applier = Applier { files, out, stats: ApplyStats::default(), blocks: Blocks::default() };
    patch::run_operations(ops, limits, u64::MAX, &mut applier)?;
    Ok(applier.stats)
}

struct Applier<'a, W> {
    files: &'a View<'a>,
    out: &'a mut W,
    stats: ApplyStats,
    blocks: Blocks,
}

impl<W: LayerWrite> Visitor for Applier<'_, W> {
    type File = Arc<SourceFile>;

    fn open(&mut self, path: &SourcePath) -> Result<(Arc<SourceFile>, Option<u64>)> {
        let file = self.files.open(path)?;
        let size = file.size();
        Ok((file, Some(size)))
    }

    fn open_layer(&mut self, diff_id: &DiffId) -> Result<(Arc<SourceFile>, Option<u64>)> {
        let tar = self.files.layer(diff_id)?;
        let size = tar.size();
        Ok((tar, Some(size)))
    }

    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        self.stats.literal += len;
        in_pieces(len, |most| self.out.fill(most, &mut |to| payload.read_exact(to).at("patch")))
    }

    fn copied(&mut self, file: &mut Arc<SourceFile>, mut at: u64, len: u64) -> Result<()> {
        self.stats.copied += len;
        if let Some(object) = file.object()
            && at == 0
            && len == file.size()
        {
            self.out.repeats(object, len);
        }
        in_pieces(len, |most| {
            let n = self.out.fill_from(most, file, at, &mut self.blocks, None)?;
            at += n as u64;
            Ok(n)
        })
    }

    fn summed(
        &mut self,
        file: &mut Arc<SourceFile>,
        mut at: u64,
        payload: &mut impl Read,
        len: u64,
    ) -> Result<()> {
        self.stats.added += len;
        let mut sums = |to: &mut [u8]| payload.read_exact(to).at("patch");
        in_pieces(len, |most| {
            let n = self.out.fill_from(most, file, at, &mut self.blocks, Some(&mut sums))?;
            at += n as u64;
            Ok(n)
        })
    }

    fn held(&mut self, file: &Arc<SourceFile>) -> Result<Held> {
        file.held()
    }

    fn unpacked(&mut self, unpack: &mut Unpack<'_>) -> Result<u64> {
        let made = unpack(self.out)?;
        self.stats.dictionary += made;
        Ok(made)
    }

    fn done(&mut self, _offset: u64, _made: u64) -> Result<()> {
        self.stats.ops += 1;
        Ok(())
    }
}
