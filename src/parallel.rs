//! Runs independent tasks on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Calls `task` with `0..count` on up to `threads` threads. After a failure no new task is begun.
///
/// # Errors
/// The failure of the lowest task that failed.
pub fn for_each(count: usize, threads: usize, task: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(());
            }
            task(at).map_err(|e| {
                next.store(count, Ordering::Relaxed);
                (at, e)
            })?;
        }
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, count.max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut failed: Option<(usize, Error)> = None;
    for result in ended {
        match result {
            Ok(Ok(())) => {}
            Ok(Err((at, e))) if failed.as_ref().is_none_or(|(first, _)| at < *first) => {
                failed = Some((at, e))
            }
            Ok(Err(_)) => {}
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    failed.map_or(Ok(()), |(_, e)| Err(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_the_lowest_failure_wins() {
        let ran = AtomicUsize::new(0);
        for_each(100, 4, |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(ran.into_inner(), 100);
        let failed =
            for_each(100, 1, |at| if at >= 7 { Err(Error::misfit(format!("{at}"))) } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "7");
        for_each(0, 4, |_| Err(Error::misfit("never"))).unwrap();
    }
}
