//! A flag that stops all work soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by everyone who works and whoever may want them to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Raises the flag.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Is it raised?
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
