//! What a piece of work runs with, handed in by whoever calls.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use crate::cancel::Cancel;
use crate::error::{IoContext as _, Result};
use crate::progress::{Event, Reporter, Silent};

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
    scratch: Arc<Mutex<Vec<TempDir>>>,
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
        let dir = tempfile::tempdir_in(&self.spool).at(self.spool.display())?;
        let path = dir.path().to_owned();
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(dir);
        Ok(path)
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
