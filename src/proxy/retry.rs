//! Trying again, a bounded number of times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::notice;
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Reporter, Silent};

/// Wait before the first retry; each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(400);
/// No single wait is longer than this.
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// Longest wait that the other side may ask for. One that wants more is not asked again: somebody waits for us.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The tries that one piece of work may take, however it goes about each of them.
#[derive(Debug)]
pub struct Attempts {
    retries: u32,
    reporter: Arc<dyn Reporter>,
    so_far: Mutex<SoFar>,
}

#[derive(Debug)]
struct SoFar {
    tried: u32,
    /// When the latest one began.
    began: Instant,
}

impl Attempts {
    /// One, and as many `retries`.
    pub fn new(retries: u32) -> Self {
        Self::told_to(Arc::new(Silent), retries)
    }

    /// The same, and `reporter` is told of long waits.
    pub fn told_to(reporter: Arc<dyn Reporter>, retries: u32) -> Self {
        Attempts { retries, reporter, so_far: Mutex::new(SoFar { tried: 0, began: Instant::now() }) }
    }

    /// Runs `attempt` until it succeeds, fails for good, or nothing is left.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn run<T, F: Future<Output = Result<T>>>(&self, mut attempt: impl FnMut() -> F) -> Result<T> {
        loop {
            match attempt().await {
                Err(e) if e.kind() == Kind::Transient && self.next(&e).await => {}
                result => {
                    let tried = self.so_far().tried;
                    return result.map_err(|e| match tried {
                        0 => e,
                        _ => e.context(format!("tried {} times", tried + 1)),
                    });
                }
            }
        }
    }

    /// Waits until the next attempt after `failure` is due; false when none is left, or when it would be too
    /// long until then.
    pub async fn next(&self, failure: &Error) -> bool {
        let Some(wait) = self.wait_after(failure) else { return false };
        tokio::time::sleep(wait).await;
        self.so_far().began = Instant::now();
        true
    }

    /// How long to wait after `failure`.
    fn wait_after(&self, failure: &Error) -> Option<Duration> {
        let mut so_far = self.so_far();
        let (tried, asked) = (so_far.tried, failure.retry_after().unwrap_or_default());
        if tried >= self.retries || asked > LONGEST_RETRY_AFTER {
            return None;
        }
        so_far.tried += 1;
        // A little more than what was asked for, for others were told the same.
        let wait = asked + delay(tried, noise());
        if wait + so_far.began.elapsed() >= notice::LONG {
            let (now, all) = (tried + 2, self.retries.saturating_add(1));
            let wait = wait.as_secs_f64();
            let text = format!("{failure}; trying again in {wait:.0} s, {now} of {all}");
            self.reporter.event(Event::Message(&text));
        }
        Some(wait)
    }

    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last attempt does not count: it only found out that there is no such way.
    pub fn take_back(&self) {
        let mut so_far = self.so_far();
        so_far.tried = so_far.tried.saturating_sub(1);
    }
}

/// The wait after `tried` retries: between half and all of an exponentially growing
/// time, so that many machines that failed together do not come back together.
fn delay(tried: u32, noise: u32) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << tried.min(16)).min(LONGEST_DELAY);
    full / 2 + (full / 2).mul_f64(f64::from(noise) / f64::from(u32::MAX))
}

/// Something that differs between machines and moments; needs no quality.
fn noise() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now.subsec_nanos() ^ std::process::id()).wrapping_mul(0x9E37_79B9)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::error::Error;

    #[test]
    fn delays_grow_and_are_bounded() {
        for noise in [0, u32::MAX] {
            assert!(delay(0, noise) >= FIRST_DELAY / 2);
            assert!(delay(1, noise) > delay(0, noise));
            assert!(delay(u32::MAX, noise) <= LONGEST_DELAY);
        }
    }

    #[tokio::test]
    async fn only_transient_faults_are_tried_again() {
        for (error, retries, calls) in
            [(Error::transient("x"), 1, 2), (Error::transient("x"), 0, 1), (Error::local("x"), 3, 1)]
        {
            let kind = error.kind();
            let mut seen = 0;
            let result: Result<()> = Attempts::new(retries)
                .run(|| {
                    seen += 1;
                    ready(Err(Error::new(kind, "x")))
                })
                .await;
            assert_eq!((result.unwrap_err().kind(), seen), (kind, calls));
        }
    }

    #[tokio::test]
    async fn a_second_try_may_succeed() {
        let mut seen = 0;
        let result = Attempts::new(3)
            .run(|| {
                seen += 1;
                ready(if seen < 2 { Err(Error::transient("x")) } else { Ok(seen) })
            })
            .await;
        assert_eq!(result.unwrap(), 2);
    }
}
