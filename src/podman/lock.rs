//! Locks that podman respects: record locks, since `flock` is another thing to Linux, and podman does not see it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::cancel::Cancel;
use crate::error::{Error, IoContext as _, Result};

/// How often a lock that podman holds is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// Longest wait for one. Older podman holds it while it unpacks a layer.
const LONGEST: Duration = Duration::from_secs(120);

/// Runs `read` while nobody writes what the lock file at `path` is for. A storage that is read-only may have none.
///
/// # Errors
/// Those of `read`; Local when podman does not let go of it; Interrupted.
pub(super) fn while_shared<T>(path: &Path, cancel: &Cancel, read: impl FnOnce() -> Result<T>) -> Result<T> {
    match File::open(path) {
        // The lock ends with the file. It is that of this opening of it: unlike a lock of the process it is not lost
        // when another thread closes the same file.
        Ok(file) => {
            wait(&file, path, cancel)?;
            read()
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => read(),
        Err(e) => Err(Error::from_io(e, path.display())),
    }
}

fn wait(file: &File, path: &Path, cancel: &Cancel) -> Result<()> {
    let whole = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let started = Instant::now();
    loop {
        match fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&whole)) {
            Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
            done => return done.map(drop).map_err(io::Error::from).at(path.display()),
        }
        if started.elapsed() >= LONGEST {
            let seconds = LONGEST.as_secs();
            return Err(Error::local(format!(
                "{}: podman has locked it for {seconds} seconds",
                path.display()
            ))
            .with_hint("run again when podman is done"));
        }
        cancel.sleep(AGAIN)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(file: &File, kind: i32) -> nix::Result<i32> {
        let whole =
            libc::flock { l_type: kind as libc::c_short, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&whole))
    }

    #[test]
    fn readers_share_and_a_writer_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let writer = File::create(&path).unwrap();
        let cancel = Cancel::default();
        let busy = || while_shared(&path, &cancel, || Ok(lock(&writer, libc::F_WRLCK).is_err())).unwrap();
        assert!(busy(), "nobody writes meanwhile");
        lock(&writer, libc::F_WRLCK).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| while_shared(&path, &cancel, || Ok(())));
            std::thread::sleep(5 * AGAIN);
            assert!(!reader.is_finished());
            lock(&writer, libc::F_UNLCK).unwrap();
            reader.join().unwrap().unwrap();
        });
        lock(&writer, libc::F_WRLCK).unwrap();
        cancel.cancel();
        assert_eq!(
            while_shared(&path, &cancel, || Ok(())).unwrap_err().kind(),
            crate::error::Kind::Interrupted
        );
        assert!(while_shared(&dir.path().join("none"), &cancel, || Ok(())).is_ok());
    }
}
