//! A layer that a patch would make, readable at any place without being made.
//!
//! In a chain of deltas the layers between the first base and the target are only
//! looked into: a patch needs some files of them, seldom all. So a patch in the
//! middle is turned into a table of its pieces. What it carries goes, unpacked, into an
//! unlinked file; what it copies stays where it is, in the image before. Nothing here
//! is checked by a digest; the layer of the target that comes out in the end is.

mod pieces;

use std::io::Read;

use crate::base::{Held, Holder, SourcePath, View};
use crate::error::{IoContext, Result};
use crate::member::Packing;
use crate::patch::members::Members;
use crate::patch::{self, Operations, Unpack, Visitor, in_pieces};
use crate::region::Region;
use crate::spool::Spool;
use crate::tardiff::Limits;
pub(crate) use pieces::{Pieces, Source};

/// Bytes made at once for a member.
const PIECE: usize = 64 << 10;

/// Reads a patch to its end and gives the plain tar that it would make of `files`, of at most `max` bytes.
/// What it carries is kept in `spool`.
///
/// # Errors
/// As for [`apply_patch`](crate::apply::apply_patch); Misfit for a patch with too many pieces.
pub fn fuse(patch: impl Read, files: &View<'_>, limits: &Limits, max: u64, spool: &Spool) -> Result<Region> {
    let (pieces, members) = (Pieces::in_spool(spool)?, Members::new(limits));
    let mut fuser = Fuser { files, pieces, members, member: (0, 0), piece: vec![0; PIECE] };
    patch::run(patch, limits, max, &mut fuser)?;
    Ok(fuser.pieces.into_region())
}

struct Fuser<'a> {
    files: &'a View<'a>,
    pieces: Pieces,
    members: Members,
    /// Where that which was begun last in the layer is among what is carried, and how many bytes it has.
    member: (u64, u64),
    /// Bytes on their way into a member.
    piece: Vec<u8>,
}

impl Fuser<'_> {
    /// `len` bytes that `make` makes in pieces go into the open member.
    fn feed(&mut self, len: u64, mut make: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        in_pieces(len, |most| {
            let piece = &mut self.piece[..most.min(PIECE)];
            make(piece)?;
            self.members.write(piece, self.pieces.carried())?;
            Ok(piece.len())
        })
    }
}

impl Visitor for Fuser<'_> {
    type File = Source;

    fn open(&mut self, path: &SourcePath) -> Result<(Source, Option<u64>)> {
        let file = self.files.open(path)?;
        let size = file.size();
        Ok((Source::new(path.clone(), file), Some(size)))
    }

    fn open_holder(&mut self, holder: &Holder) -> Result<(Source, Option<u64>)> {
        let file = self.files.holder(holder)?;
        let size = file.size();
        // A patch that reads holders reads no files, so no file has this path.
        Ok((Source::new(holder.path()?, file), Some(size)))
    }

    /// Members are made at once, and kept among what is carried.
    fn begin_member(&mut self, packing: &Packing) -> Result<()> {
        if !self.members.is_open() {
            self.member = (self.pieces.carried().len(), packing.sizes.packed);
        }
        self.members.begin(packing, self.pieces.carried())
    }

    fn end_member(&mut self) -> Result<()> {
        self.members.end(self.pieces.carried())?;
        if self.members.is_open() {
            return Ok(());
        }
        self.members.finish(self.pieces.carried())?;
        let (at, len) = self.member;
        self.pieces.written(at, len)
    }

    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        if self.members.is_open() {
            return self.feed(len, |piece| payload.read_exact(piece).at("patch"));
        }
        self.pieces.carry(payload, len)
    }

    fn copied(&mut self, source: &mut Source, mut at: u64, len: u64) -> Result<()> {
        if self.members.is_open() {
            return self.feed(len, |piece| {
                source.file.read_exact_at(piece, at)?;
                at += piece.len() as u64;
                Ok(())
            });
        }
        self.pieces.copy(source, at, len)
    }

    fn summed(&mut self, source: &mut Source, mut at: u64, payload: &mut impl Read, len: u64) -> Result<()> {
        if self.members.is_open() {
            let mut old = vec![0; len.min(PIECE as u64) as usize];
            return self.feed(len, |piece| {
                let old = &mut old[..piece.len()];
                source.file.read_exact_at(old, at)?;
                payload.read_exact(piece).at("patch")?;
                piece.iter_mut().zip(old.iter()).for_each(|(sum, old)| *sum = sum.wrapping_add(*old));
                at += piece.len() as u64;
                Ok(())
            });
        }
        self.pieces.sum(source, at, payload, len)
    }

    fn held(&mut self, source: &Source) -> Result<Held> {
        source.file.held()
    }

    fn unpacked(&mut self, unpack: &mut Unpack<'_>) -> Result<u64> {
        self.pieces.unpack(unpack)
    }

    fn done(&mut self, _read: &impl Operations) -> Result<()> {
        Ok(())
    }
}
