//! Locks of a repository, which other processes may hold.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, IoContext, Result};

/// How often a lock that others hold is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// Longest wait for one: more than a `gc` of a large repository takes. Publishing takes a moment.
const LONGEST: Duration = Duration::from_secs(600);

/// Shared by all who are at work; a `gc` keeps them out.
pub(crate) fn share(lock: impl AsFd, what: impl Display, cancel: &Cancel) -> Result<()> {
    wait(lock, FlockOperation::NonBlockingLockShared, what, cancel)
}

/// For one alone.
pub(crate) fn take(lock: impl AsFd, what: impl Display, cancel: &Cancel) -> Result<()> {
    wait(lock, FlockOperation::NonBlockingLockExclusive, what, cancel)
}

fn wait(lock: impl AsFd, how: FlockOperation, what: impl Display, cancel: &Cancel) -> Result<()> {
    let started = Instant::now();
    loop {
        match flock(&lock, how) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            done => return done.map_err(io::Error::from).at(what),
        }
        if started.elapsed() >= LONGEST {
            return Err(Error::local(format!(
                "{what}: another process has locked it for {} seconds",
                LONGEST.as_secs()
            ))
            .with_hint("run again when that is done"));
        }
        cancel.sleep(AGAIN)?;
    }
}

/// A shared lock made exclusive, if nobody shares it, and shared again when this is dropped.
#[derive(Debug)]
pub(crate) struct Alone<L: AsFd>(L);

impl<L: AsFd> Alone<L> {
    /// # Errors
    /// Local, when others are at work.
    pub(crate) fn at(lock: L, what: impl Display) -> Result<Self> {
        // Dropped on failure too: a conversion that fails loses the shared lock.
        let lock = Alone(lock);
        flock(&lock.0, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            Error::local(format!("{what}: another process is using the repository"))
                .with_hint("run gc again when it is done")
                .with_source(io::Error::from(e))
        })?;
        Ok(lock)
    }
}

impl<L: AsFd> Drop for Alone<L> {
    fn drop(&mut self) {
        // Without a wait: a `gc` that came between has the repository for itself, and this one is at its end.
        let _ = flock(&self.0, FlockOperation::NonBlockingLockShared);
    }
}
