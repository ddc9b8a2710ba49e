//! What a piece of work runs with, handed in by whoever calls.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::Cancel;
use crate::error::{IoContext as _, Result};
use crate::progress::{Event, Reporter, Silent};
use crate::scratch::Scratch;

/// How to stop the work, whom to tell about it, and where it may put files. Nothing of it is taken from the
/// environment.
#[derive(Debug, Clone)]
pub struct Session {
    /// Stops all work soon.
    pub cancel: Cancel,
    /// Is told what happens.
    pub reporter: Arc<dyn Reporter>,
    /// Where files without a name may be spooled while there is no repository.
    pub spool: PathBuf,
    /// Where it is noted what registries can do, and which recipes were proven; `None`: nowhere.
    pub notes: Option<PathBuf>,
    scratch: Arc<Mutex<Vec<Scratch>>>,
}

impl Session {
    /// One that says nothing, and spools to `spool`.
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        Session {
            cancel: Cancel::default(),
            reporter: Arc::new(Silent),
            spool: spool.into(),
            notes: None,
            scratch: Arc::default(),
        }
    }

    /// A directory for large files, which is there as long as a clone of this session: threads that still work when
    /// a call is dropped find it.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        let dir = self.scratch_dir()?;
        let path = dir.path().to_owned();
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(dir);
        Ok(path)
    }

    /// The same, for as long as the value lives.
    pub(crate) fn scratch_dir(&self) -> Result<Scratch> {
        Scratch::in_dir(&self.spool).at(self.spool.display())
    }

    /// Tells people a line.
    pub(crate) fn say(&self, line: &str) {
        self.reporter.event(Event::Message(line));
    }

    /// # Errors
    /// Interrupted, when the work is to stop.
    pub(crate) fn check(&self) -> Result<()> {
        self.cancel.check()
    }
}
