//! Where the bytes of a patch go: per file of the layer that it makes.
//!
//! The patch becomes a table of pieces ([`fuse`](crate::fuse)), and a walk over the tar headers in it finds the files.
//! A standard patch carries all headers, so it needs no base, and what it copies is a hole. An extended one copies
//! headers from the base's layers; what a member is encoded from is passed over, since no header is in one.

use std::io::{self, Read};
use std::sync::Arc;

use serde::Serialize;

mod shares;

use self::shares::{Made, Stretches};
use crate::base::{Held, Holder, SourceFile, SourcePath, members};
use crate::error::{Advice, Error, IoContext, Result};
use crate::fuse::{Pieces, Source};
use crate::member::Packing;
use crate::patch::{self, Operations, Unpack, Visitor};
use crate::spool::Spool;
use crate::tardiff::{Counted, Limits};

/// What part of a layer is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Bytes in the layer.
    pub bytes: u64,
    /// Copied from the base.
    pub copied: u64,
    /// Sums of base and patch bytes.
    pub added: u64,
    /// Literal bytes of the patch.
    pub literal: u64,
    /// Compressed again, out of what is in them.
    pub encoded: u64,
    /// Share of the compressed patch in bytes. Exact in sum, for a single file
    /// an estimate: a block of a stream is shared out by what was read of it.
    pub patch_bytes: u64,
}

impl Account {
    fn add(&mut self, other: &Account) {
        self.bytes += other.bytes;
        self.copied += other.copied;
        self.added += other.added;
        self.literal += other.literal;
        self.encoded += other.encoded;
        self.patch_bytes += other.patch_bytes;
    }
}

/// The account of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileAccount {
    /// Its path; bytes that are not UTF-8 are escaped.
    pub path: String,
    /// What it is made of.
    #[serde(flatten)]
    pub account: Account,
}

/// The account of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerAccount {
    /// All of it.
    pub total: Account,
    /// Headers, padding, and what is not in a regular file; of the patch also what is no operation.
    pub headers: Account,
    /// Regular files with content, in the order of the layer.
    pub files: Vec<FileAccount>,
}

/// Opens the holders of an extended patch.
pub type Holders<'a> = dyn Fn(&Holder) -> Result<Arc<SourceFile>> + 'a;

/// What is wrong where they cannot be opened.
pub const NEEDS_LAYERS: &str = "the files of an extended patch can be told only with the layers of its base";

/// The [`Holders`] where there is no base, or none with layers.
///
/// # Errors
/// Misfit.
pub fn no_base(_: &Holder) -> Result<Arc<SourceFile>> {
    Err(Error::misfit(NEEDS_LAYERS).with_hint(Advice::NameBase))
}

/// Reads a patch and accounts for its bytes. The layer may have up to
/// `max_layer` bytes; what the patch carries is kept in `spool`.
///
/// # Errors
/// As [`apply_patch`](crate::apply::apply_patch), but for the base of a standard patch; Misfit for
/// dictionary frames, whose output cannot be known without that.
pub fn account(
    patch: impl Read,
    holders: &Holders<'_>,
    limits: &Limits,
    max_layer: u64,
    spool: &Spool,
) -> Result<LayerAccount> {
    let mut patch = Counted::new(patch);
    let (pieces, stretches) = (Pieces::in_spool(spool)?, Stretches::default());
    let mut reader = Reader { holders, pieces, members: Vec::new(), stretches };
    patch::run(&mut patch, limits, max_layer, &mut reader)?;
    let layer = reader.pieces.into_region();
    let mut account = LayerAccount::default();
    let mut rest = reader.stretches.finish();
    for member in members(&layer)? {
        account.headers.add(&rest.take_to(member.offset));
        let taken = rest.take_to(member.offset + member.size);
        account.files.push(FileAccount { path: member.path.to_string(), account: taken });
    }
    account.headers.add(&rest.take_to(u64::MAX));
    account.headers.patch_bytes += patch.bytes - rest.packed;
    account.total = account.headers;
    for file in &account.files {
        account.total.add(&file.account);
    }
    Ok(account)
}

/// Takes notes of the stretches, and the pieces that headers may be in.
struct Reader<'a> {
    holders: &'a Holders<'a>,
    pieces: Pieces,
    /// Bytes of the members that were begun and not ended, the innermost last.
    members: Vec<u64>,
    stretches: Stretches,
}

/// A holder, opened when bytes of the layer itself come from it: those in members are not made.
struct Old {
    holder: Holder,
    source: Option<Source>,
}

impl Visitor for Reader<'_> {
    /// A file that is known by its path has no headers to copy: nothing is wanted of it.
    type File = Option<Old>;

    fn open(&mut self, _path: &SourcePath) -> Result<(Option<Old>, Option<u64>)> {
        Ok((None, None))
    }

    fn open_holder(&mut self, holder: &Holder) -> Result<(Option<Old>, Option<u64>)> {
        let mut old = Old { holder: holder.clone(), source: None };
        // What is in a stretch may be wanted for members alone, and its size is known.
        let size = match holder {
            Holder::Inside(inside) => inside.plain,
            Holder::Layer(_) => self.opened(&mut old)?.file.size(),
        };
        Ok((Some(old), Some(size)))
    }

    fn begin_member(&mut self, packing: &Packing) -> Result<()> {
        self.members.push(packing.sizes.packed);
        Ok(())
    }

    fn end_member(&mut self) -> Result<()> {
        let packed = self.members.pop();
        let Some(packed) = packed.filter(|_| self.members.is_empty()) else { return Ok(()) };
        self.pieces.hole(packed)?;
        self.stretches.begin(Made::Encoded, packed);
        Ok(())
    }

    fn carried(&mut self, payload: &mut impl Read, len: u64) -> Result<()> {
        if self.is_inside() {
            return pass_over(payload);
        }
        self.pieces.carry(payload, len)?;
        self.stretches.made = Some((Made::Literal, len));
        Ok(())
    }

    fn copied(&mut self, old: &mut Option<Old>, at: u64, len: u64) -> Result<()> {
        if self.is_inside() {
            return Ok(());
        }
        match old {
            Some(old) => {
                let source = self.opened(old)?;
                self.pieces.copy(source, at, len)?;
            }
            None => self.pieces.hole(len)?,
        }
        self.stretches.made = Some((Made::Copied, len));
        Ok(())
    }

    fn summed(&mut self, old: &mut Option<Old>, at: u64, payload: &mut impl Read, len: u64) -> Result<()> {
        if self.is_inside() {
            return pass_over(payload);
        }
        match old {
            Some(old) => {
                let source = self.opened(old)?;
                self.pieces.sum(source, at, payload, len)?;
            }
            None => {
                pass_over(payload)?;
                self.pieces.hole(len)?;
            }
        }
        self.stretches.made = Some((Made::Added, len));
        Ok(())
    }

    fn held(&mut self, _old: &Option<Old>) -> Result<Held> {
        Err(Error::misfit("a patch with dictionary frames cannot be accounted for by file"))
    }

    fn unpacked(&mut self, unpack: &mut Unpack<'_>) -> Result<u64> {
        unpack(&mut io::sink())
    }

    fn done(&mut self, read: &impl Operations) -> Result<()> {
        self.stretches.read_to(read.flows())
    }
}

/// Reads the payload of what is not looked at.
fn pass_over(payload: &mut impl Read) -> Result<()> {
    io::copy(payload, &mut io::sink()).at("patch")?;
    Ok(())
}

impl Reader<'_> {
    fn is_inside(&self) -> bool {
        !self.members.is_empty()
    }

    fn opened<'o>(&self, old: &'o mut Old) -> Result<&'o mut Source> {
        match &mut old.source {
            Some(source) => Ok(source),
            none => Ok(none.insert(Source::new(old.holder.path()?, (self.holders)(&old.holder)?))),
        }
    }
}
