//! A flag that stops all work soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by everyone who works and whoever may want them to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    /// Stops this work as well.
    parent: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// For a part of the work: stopped with the whole, or alone.
    #[must_use]
    pub fn part(&self) -> Self {
        Cancel { flag: Arc::default(), parent: Some(self.flag.clone()) }
    }

    /// Raises the flag.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Is it raised?
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.parent.as_ref().is_some_and(|p| p.load(Ordering::Relaxed))
    }
}
