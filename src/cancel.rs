//! The token that stops all work soon.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};

/// How often a thread that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Shared by everyone who works and whoever may want them to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    token: CancellationToken,
}

impl Cancel {
    /// For a part of the work: stopped with the whole, or alone.
    #[must_use]
    pub fn part(&self) -> Self {
        Cancel { token: self.token.child_token() }
    }

    /// Stops the work: wakes who waits for it, and is seen by who looks.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Is the work to stop?
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Ends when the work is to stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// For loops of threads.
    ///
    /// # Errors
    /// Interrupted, when the work is to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(interrupted()) } else { Ok(()) }
    }

    /// What `work` gives, unless it is to stop before.
    ///
    /// # Errors
    /// Interrupted; those of `work`.
    pub async fn until<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(interrupted()),
            result = work => result,
        }
    }

    /// Lets a thread wait.
    ///
    /// # Errors
    /// Interrupted, soon after the work is to stop.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// A reader or writer that fails when the work is to stop.
    pub fn watch<T>(&self, inner: T) -> Watched<T> {
        Watched { inner, cancel: self.clone() }
    }
}

/// The error of work that was stopped.
pub(crate) fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted")
}

/// Passes everything on, until the work is to stop.
#[derive(Debug)]
pub struct Watched<T> {
    inner: T,
    cancel: Cancel,
}

impl<T> Watched<T> {
    /// The reader or writer itself.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let n = self.inner.read(buf)?;
        if n == 0 {
            // What feeds the reader may have ended because it was stopped.
            self.cancel.check()?;
        }
        Ok(n)
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.cancel.check()?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stops_with_the_whole_but_not_the_whole_with_it() {
        let whole = Cancel::default();
        let (one, other) = (whole.part(), whole.part());
        one.cancel();
        assert!(one.is_cancelled() && !whole.is_cancelled() && !other.is_cancelled());
        whole.cancel();
        assert!(other.is_cancelled() && whole.part().is_cancelled());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let cancel = Cancel::default();
        let part = cancel.part();
        let never = part.until(std::future::pending::<Result<()>>());
        let stop = async { cancel.cancel() };
        let (ended, ()) = tokio::join!(never, stop);
        assert_eq!(ended.unwrap_err().kind(), Kind::Interrupted);
        let started = Instant::now();
        assert!(part.sleep(Duration::from_secs(1000)).is_err());
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn readers_and_writers_fail_when_stopped() {
        let cancel = Cancel::default();
        let mut reader = cancel.watch(&b"abc"[..]);
        let mut writer = cancel.watch(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        cancel.cancel();
        for e in [reader.read(&mut [0]).unwrap_err(), writer.write_all(b"d").unwrap_err()] {
            assert_eq!(Error::from_io(e, "").kind(), Kind::Interrupted);
        }
        assert_eq!(writer.into_inner(), b"abc");
    }
}
