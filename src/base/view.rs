//! The base as one round of making a layer sees it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::path::Paths;
use super::{Doubt, Holder, SourceFile, SourceFiles, SourcePath};
use crate::error::{Error, Kind, Result};

/// Rounds in which all combinations of the two views were taken.
pub const ROUNDS: u32 = 4;

/// Files that are remembered; a patch names the same ones again and again.
const OPENED: usize = 256;

/// Base files where of those with several candidates the same one is taken throughout, and whether there
/// were such files. However a round ends that took the likelier ones, the others may have been meant.
#[derive(Debug)]
pub struct View<'a> {
    files: &'a dyn SourceFiles,
    round: u32,
    /// A path was opened whose likelier candidate is that of the merged view, and of the producer's.
    doubts: Cell<(bool, bool)>,
    opened: RefCell<Paths<Arc<SourceFile>>>,
}

impl<'a> View<'a> {
    /// The files of a round, counted from 0; as [`SourceFiles::open`] has them.
    pub fn new(files: &'a dyn SourceFiles, round: u32) -> Self {
        View { files, round, doubts: Cell::default(), opened: RefCell::default() }
    }

    /// Opens the regular file at `path`.
    ///
    /// # Errors
    /// As [`SourceFiles::open`].
    pub fn open(&self, path: &SourcePath) -> Result<Arc<SourceFile>> {
        let mut opened = self.opened.borrow_mut();
        if let Some(file) = opened.get(path) {
            return Ok(file.clone());
        }
        let found = self.files.open(path, self.round)?;
        if opened.len() >= OPENED {
            opened.clear();
        }
        opened.insert(path.clone(), found.file.clone());
        let (merged, producer) = self.doubts.get();
        self.doubts.set((
            merged || found.doubt == Doubt::MergedIsLikelier,
            producer || found.doubt == Doubt::ProducerIsLikelier,
        ));
        Ok(found.file)
    }

    /// The plain tar of a layer of the base, or what is in a compressed stretch of one.
    ///
    /// # Errors
    /// As [`SourceFiles::layer`] and [`SourceFiles::inside`].
    pub fn holder(&self, holder: &Holder) -> Result<Arc<SourceFile>> {
        match holder {
            Holder::Layer(diff_id) => self.files.layer(diff_id),
            Holder::Inside(inside) => self.files.inside(inside),
        }
    }

    /// Was a path opened that has another candidate?
    pub fn is_ambiguous(&self) -> bool {
        let (merged, producer) = self.doubts.get();
        merged || producer
    }

    /// Can the next round end otherwise than those up to this one did, the last with `error`? A file that is not
    /// the one meant shows by its length, as a dictionary that fits no frame, or only by the layer's diff_id.
    pub fn has_another_chance(&self, error: &Error) -> bool {
        let left = match (self.doubts.get(), self.round) {
            ((false, false), _) => false,
            ((true, true), round) => round + 1 < ROUNDS,
            // With doubts of one kind only, the third round would be as the first or the second.
            (_, round) => round == 0,
        };
        left && matches!(error.kind(), Kind::Misfit | Kind::Verification)
    }
}
