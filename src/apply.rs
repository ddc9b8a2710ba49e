//! The applier: one patch and the base files give one layer tar.
//!
//! Streaming, with fixed buffers: what a patch says never decides how much memory
//! is used. Only a dictionary (version 2) that cannot be mapped is held whole, up to its limit.

use std::io::{self, Read};
use std::sync::Arc;

use crate::base::{Blocks, Held, Holder, SourceFile, SourcePath, View};
use crate::error::{IoContext, Result};
use crate::layer_write::{LayerWrite, read_base};
use crate::member::Packing;
use crate::patch::members::Members;
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
    let mut applier = Applier::new(files, limits, out);
    // Who takes the layer knows how long it may be.
    patch::run(patch, limits, u64::MAX, &mut applier)?;
    applier.finish()
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
    let mut applier = Applier::new(files, limits, out);
    patch::run_operations(ops, limits, u64::MAX, &mut applier)?;
    applier.finish()
}

struct Applier<'a, W> {
    files: &'a View<'a>,
    out: &'a mut W,
    stats: ApplyStats,
    blocks: Blocks,
    members: Members,
    /// Bytes on their way into a member.
    piece: Vec<u8>,
}

/// Bytes made at once for a member.
const PIECE: usize = 64 << 10;

/// Bytes that do not wait behind members that are not finished: those are waited for, and the bytes go the straight way.
const STRAIGHT: u64 = 256 << 10;

impl<'a, W: LayerWrite> Applier<'a, W> {
    fn new(files: &'a View<'a>, limits: &Limits, out: &'a mut W) -> Self {
        let (stats, blocks, members) = (ApplyStats::default(), Blocks::default(), Members::new(limits));
        Applier { files, out, stats, blocks, members, piece: Vec::new() }
    }

    fn finish(mut self) -> Result<ApplyStats> {
        self.members.finish(&mut Plain(self.out))?;
        Ok(self.stats)
    }

    /// Do `len` bytes go to the layer at once, not through members?
    fn goes_straight(&mut self, len: u64) -> Result<bool> {
        if !self.members.is_open() && len >= STRAIGHT {
            self.members.finish(&mut Plain(self.out))?;
        }
        Ok(self.members.is_idle())
    }

    /// `len` bytes that `make` makes in pieces, for members or behind them.
    fn through_members(
        &mut self,
        len: u64,
        mut make: impl FnMut(&mut Blocks, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        in_pieces(len, |most| {
            self.piece.resize(most.min(PIECE), 0);
            make(&mut self.blocks, &mut self.piece)?;
            self.members.write(&self.piece, &mut Plain(self.out))?;
            Ok(self.piece.len())
        })
    }
}

/// What takes bytes of members.
struct Plain<'a, W>(&'a mut W);

impl<W: LayerWrite> io::Write for Plain<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: LayerWrite> Visitor for Applier<'_, W> {
    type File = Arc<SourceFile>;

    fn open(&mut self, path: &SourcePath) -> Result<(Arc<SourceFile>, Option<u64>)> {
        let file = self.files.open(path)?;
        let size = file.size();
        Ok((file, Some(size)))
    }

    fn open_holder(&mut self, holder: &Holder) -> Result<(Arc<SourceFile>, Option<u64>)> {
        let file = self.files.holder(holder)?;
        let size = file.size();
        Ok((file, Some(size)))
    }

    fn begin_member(&mut self, packing: &Packing) -> Result<()> {
        self.members.begin(packing, &mut Plain(self.out))
    }

    fn end_member(&mut self) -> Result<()> {
        self.members.end(&mut Plain(self.out))
    }

    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        self.stats.literal += len;
        if !self.goes_straight(len)? {
            return self.through_members(len, |_, to| payload.read_exact(to).at("patch"));
        }
        in_pieces(len, |most| self.out.fill(most, &mut |to| payload.read_exact(to).at("patch")))
    }

    fn copied(&mut self, file: &mut Arc<SourceFile>, mut at: u64, len: u64) -> Result<()> {
        self.stats.copied += len;
        if !self.goes_straight(len)? {
            return self.through_members(len, |blocks, to| {
                read_base(blocks, file, at, false, to)?;
                at += to.len() as u64;
                Ok(())
            });
        }
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
        if !self.goes_straight(len)? {
            return self.through_members(len, |blocks, to| {
                payload.read_exact(to).at("patch")?;
                read_base(blocks, file, at, true, to)?;
                at += to.len() as u64;
                Ok(())
            });
        }
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

    fn done(&mut self, _read: &impl Operations) -> Result<()> {
        self.stats.ops += 1;
        Ok(())
    }
}
