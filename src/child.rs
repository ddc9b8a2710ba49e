//! Programs that are started: they die with the thread that started them, and get the limits that this
//! process was started with.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{self, Resource, Rlimit, Signal, getrlimit, setrlimit};

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

/// Sees to it that the program does not outlive the thread that starts it, and has its `gifts`.
pub(crate) fn bind(command: &mut Command, gifts: Gifts) {
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
