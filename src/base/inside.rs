//! What is in compressed stretches of a base, for patches that read it there.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{SourceFile, SourcePath};
use crate::digest::DiffId;
use crate::error::{Error, IoContext as _, Result};
use crate::member::{self, Coding};
use crate::spool::Spool;

/// Bytes that a patch reads at any place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The plain tar of a layer.
    Layer(DiffId),
    /// What is in a compressed stretch of another holder.
    Inside(Arc<Inside>),
}

/// A compressed stretch, and how much is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Inside {
    /// Whose bytes it is a stretch of.
    pub holder: Holder,
    /// Where it is there, in bytes.
    pub range: Range<u64>,
    /// How it is compressed.
    pub coding: Coding,
    /// Bytes of what is in it.
    pub plain: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Layer(diff_id) => diff_id.fmt(f),
            Holder::Inside(inside) => {
                let Inside { holder, range, coding, .. } = &**inside;
                write!(f, "{holder}, {coding} at {} to {}", range.start, range.end)
            }
        }
    }
}

impl Holder {
    /// What messages call it, and maps by path.
    ///
    /// # Errors
    /// None in truth: no name is as long as a path may be.
    pub(crate) fn path(&self) -> Result<SourcePath> {
        SourcePath::clean(self.to_string().as_bytes())
    }
}

/// What was opened of a base, each stretch once, in an unlinked file.
#[derive(Debug)]
pub(super) struct Insides {
    spool: Spool,
    opened: Mutex<HashMap<Arc<Inside>, Slot>>,
}

/// Those who want one stretch wait for whoever opens it.
type Slot = Arc<Mutex<Option<Arc<SourceFile>>>>;

impl Insides {
    pub(super) fn new(spool: Spool) -> Self {
        Insides { spool, opened: Mutex::default() }
    }

    /// What is in a stretch of `holder`.
    ///
    /// # Errors
    /// Misfit when the holder has no such stretch; Verification when what it has is broken; the disk's.
    pub(super) fn open(
        &self,
        inside: &Arc<Inside>,
        holder: impl FnOnce() -> Result<Arc<SourceFile>>,
    ) -> Result<Arc<SourceFile>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = opened.entry(inside.clone()).or_default().clone();
        drop(opened);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*slot {
            return Ok(file.clone());
        }
        let file = Arc::new(self.unpack(inside, &*holder()?)?);
        Ok(slot.insert(file).clone())
    }

    fn unpack(&self, inside: &Arc<Inside>, holder: &SourceFile) -> Result<SourceFile> {
        let Inside { range, coding, plain, .. } = &**inside;
        let name = Holder::Inside(inside.clone());
        if range.start > range.end || range.end > holder.size() {
            let size = holder.size();
            return Err(Error::misfit(format!("the base has no {name}: there are {size} bytes")));
        }
        let stretch = holder.content().slice(range.start, range.end - range.start);
        let dir = self.spool.dir().display();
        let mut out = BufWriter::new(self.spool.begin().at(&dir)?);
        let found = member::open(&stretch, *coding, &mut out, *plain).map_err(|e| e.context(&name))?;
        if found != *plain {
            return Err(Error::misfit(format!("{name} holds {found} bytes, the patch knows of {plain}")));
        }
        out.flush().at(&dir)?;
        let spooled = out.into_inner().map_err(|e| Error::from_io(e.into_error(), &dir))?;
        Ok(SourceFile::new(name.path()?, spooled.into_region()))
    }
}
