//! Programs that are started: they die with this process, and get the limits that it was started with.
//!
//! The kernel lets a program die with the *thread* that started it, and threads of a runtime come and go. So all
//! programs are started by one thread that lives as long as the process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::pin::Pin;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::{Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{self, Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{Error, IoContext as _, Result};

/// Tells programs how they come to be started by us: that may be us again, under skopeo's name.
pub(crate) const HELPER: &str = "OCI_DELTA_FETCH_HELPER";

/// What [`HELPER`] is for those that do work for us.
pub(crate) const OURS: &str = "ours";

/// What the thread that lasts is given to do.
type Errand = Box<dyn FnOnce() + Send>;

/// The thread that lasts, once there is one.
static STARTER: Mutex<Option<mpsc::Sender<Errand>>> = Mutex::new(None);

/// The limit on open files before it was raised.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// As many open files as this user may have at all, where the shell gives fewer; what is kept open does not grow with
/// an image. Programs that are started get the old limit.
pub fn allow_open_files() {
    let limit = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    // Refused, it stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What a program gets when it starts.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    /// It finds them under the numbers that they have here.
    pub files: Vec<OwnedFd>,
    /// Its pid is written there.
    pub pid: Option<OwnedFd>,
}

/// A task that was begun elsewhere.
enum Begun<F: Future> {
    Ended(F::Output),
    GoesOn(Pin<Box<F>>),
}

/// Runs `task`, which starts a program before it first waits: up to there on the thread that lasts, then here. Dropped, it
/// is dropped wherever it is.
///
/// # Errors
/// Local when there is no such thread.
pub(crate) async fn started<F>(task: F) -> Result<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let (give, take) = oneshot::channel();
    let runtime = Handle::current();
    let errand = move || {
        let _runtime = runtime.enter();
        let mut task = Box::pin(task);
        // Whoever goes on with it polls it again, so nobody need be woken.
        let begun = match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Begun::Ended(output),
            Poll::Pending => Begun::GoesOn(task),
        };
        // Nobody takes it if the work was given up meanwhile.
        let _ = give.send(begun);
    };
    send(Box::new(errand))?;
    match take.await {
        Ok(Begun::Ended(output)) => Ok(output),
        Ok(Begun::GoesOn(task)) => Ok(task.await),
        Err(_) => Err(Error::local("the thread that starts programs is gone")),
    }
}

fn send(errand: Errand) -> Result<()> {
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    let unsent = match &*starter {
        Some(sender) => match sender.send(errand) {
            Ok(()) => return Ok(()),
            Err(mpsc::SendError(errand)) => errand,
        },
        None => errand,
    };
    let (sender, errands) = mpsc::channel::<Errand>();
    let work = move || errands.into_iter().for_each(|errand| errand());
    thread::Builder::new().name("starter".into()).spawn(work).at("cannot start a thread")?;
    // Its first errand: it is there to take it.
    let _ = sender.send(unsent);
    *starter = Some(sender);
    Ok(())
}

/// Sees to it that the program does not outlive the thread that starts it ([`started`]), and has its `gifts`.
pub(crate) fn bind(command: &mut Command, gifts: Gifts) {
    command.env(HELPER, OURS);
    let parent = process::getpid();
    let given = GIVEN.get().copied();
    let before_exec = move || {
        process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if process::getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH)); // we were gone before the signal was set
        }
        if let Some(limit) = given {
            setrlimit(Resource::Nofile, limit)?;
        }
        for file in &gifts.files {
            fcntl_setfd(file.as_fd(), FdFlags::empty())?;
        }
        if let Some(pid) = &gifts.pid {
            rustix::io::write(pid, &process::getpid().as_raw_nonzero().get().to_ne_bytes())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only plain system calls are made; nothing allocates or locks.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_program_outlives_the_thread_that_wanted_it() {
        let start = async {
            let mut command = Command::new("sleep");
            bind(command.arg("1000"), Gifts::default());
            command.spawn()
        };
        let wanted = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(started(start)).unwrap().unwrap()
        });
        let mut child = wanted.join().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(child.try_wait().unwrap(), None, "it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_task_goes_on_where_it_is_awaited() {
        let here = thread::current().id();
        let (before, after) = started(async {
            let before = thread::current().id();
            tokio::task::yield_now().await;
            (before, thread::current().id())
        })
        .await
        .unwrap();
        assert_ne!(before, here);
        assert_eq!(after, here);
    }
}
