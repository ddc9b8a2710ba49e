//! A bound on how fast bytes cross a network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may come at once, in seconds of the rate: what a pause saved is not made up for beyond that.
const BURST: f64 = 0.1;

/// So many bytes a second, shared by all clones.
#[derive(Debug, Clone)]
pub struct Rate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_per_second: u64,
    /// When the bytes that were spent so far are paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    /// A rate of at least one byte a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Rate(Arc::new(Shared { bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(Instant::now()) }))
    }

    /// Waits until so many bytes more may pass.
    pub async fn spend(&self, bytes: usize) {
        let wait = self.wait(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self, bytes: usize, now: Instant) -> Duration {
        let price = Duration::from_secs_f64(bytes as f64 / self.0.bytes_per_second as f64);
        let mut paid = self.0.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(Duration::from_secs_f64(BURST)).unwrap_or(now);
        *paid = (*paid).max(earliest) + price;
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_their_turn() {
        let rate = Rate::new(1000);
        let now = Instant::now() + Duration::from_secs(10);
        assert_eq!(rate.wait(100, now), Duration::ZERO);
        assert_eq!(rate.clone().wait(1000, now), Duration::from_secs(1));
        assert_eq!(rate.wait(1000, now), Duration::from_secs(2));
        assert_eq!(rate.wait(50, now + Duration::from_secs(60)), Duration::ZERO);
    }
}
