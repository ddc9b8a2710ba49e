//! Files and directories that are there only while somebody works. Who makes one takes away those that nobody works
//! with any more: their run was killed. A lock says that it is worked with, and no process leaves one behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::{Builder, NamedTempFile, TempDir};

/// How the names of directories begin.
const DIRECTORY: &str = "oci-delta-fetch-";

/// How the names of files end.
const PART: &str = ".part";

/// The name of what is inside such a directory.
const INNER: &str = "in";

/// Most bytes of a file's final name in the one that it has before, so that this is none too long.
const MAX_PREFIX: usize = 200;

/// How often another name is tried, where somebody else takes a new file for one that was left.
const ATTEMPTS: usize = 16;

/// A directory that goes with this value.
#[derive(Debug)]
pub struct Scratch {
    // The first field: it is removed before it is let go.
    _dir: TempDir,
    /// What is kept there may be locked by rules of its own, so it is no longer the directory that is locked here.
    inner: PathBuf,
    _held: File,
}

impl Scratch {
    /// One in `parent`.
    ///
    /// # Errors
    /// The system's.
    pub fn in_dir(parent: &Path) -> io::Result<Self> {
        sweep(parent, DIRECTORY.as_bytes(), b"", |path| fs::remove_dir_all(path));
        let make = || Builder::new().prefix(DIRECTORY).tempdir_in(parent);
        let (dir, held) = held(make, |dir| File::open(dir.path()), TempDir::path)?;
        let inner = dir.path().join(INNER);
        fs::create_dir(&inner)?;
        Ok(Scratch { _dir: dir, inner, _held: held })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner
    }
}

/// A file beside `path` that is to get this name when it is complete.
///
/// # Errors
/// The system's.
pub(crate) fn file_for(path: &Path) -> io::Result<NamedTempFile> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().as_bytes();
    let prefix = [b".", &name[..name.len().min(MAX_PREFIX)], b"."].concat();
    sweep(parent, &prefix, PART.as_bytes(), |path| fs::remove_file(path));
    let make = || Builder::new().prefix(OsStr::from_bytes(&prefix)).suffix(PART).tempfile_in(parent);
    // The lock stays with the file, whichever of its descriptors is closed first.
    held(make, |file| file.as_file().try_clone(), NamedTempFile::path).map(|(file, _)| file)
}

/// Makes something and locks it.
fn held<T>(
    make: impl Fn() -> io::Result<T>,
    open: impl Fn(&T) -> io::Result<File>,
    path: impl Fn(&T) -> &Path,
) -> io::Result<(T, File)> {
    for _ in 0..ATTEMPTS {
        let made = make()?;
        let Ok(file) = open(&made) else { continue };
        // Where there are no locks, nobody takes it away either.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            continue;
        }
        let inode = |meta: io::Result<fs::Metadata>| meta.ok().map(|meta| (meta.dev(), meta.ino()));
        if inode(fs::symlink_metadata(path(&made))) == inode(file.metadata()) {
            return Ok((made, file));
        }
    }
    Err(io::Error::other("somebody takes away whatever is made here"))
}

/// Takes away what is ours, has a name that begins and ends so, and is held by nobody. What cannot be taken away stays.
fn sweep(parent: &Path, begin: &[u8], end: &[u8], remove: impl Fn(&Path) -> io::Result<()>) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_so = name.as_bytes().starts_with(begin) && name.as_bytes().ends_with(end);
        let is_ours =
            || entry.metadata().is_ok_and(|meta| meta.uid() == geteuid().as_raw() && !meta.is_symlink());
        if is_so
            && is_ours()
            && let Ok(file) = File::open(entry.path())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_is_worked_with_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at_work = Scratch::in_dir(dir.path()).unwrap();
        let killed = Scratch::in_dir(dir.path()).unwrap();
        fs::write(killed.path().join("layer"), "half").unwrap();
        let Scratch { _dir: left, _held, .. } = killed;
        let left = left.keep();
        drop(_held);
        for other in ["other", "oci-delta-other"] {
            fs::create_dir(dir.path().join(other)).unwrap();
        }
        std::os::unix::fs::symlink("other", dir.path().join("oci-delta-fetch-link")).unwrap();
        let next = Scratch::in_dir(dir.path()).unwrap();
        assert!(at_work.path().is_dir() && next.path().is_dir() && !left.exists());
        drop((at_work, next));
        assert_eq!(names(dir.path()), ["oci-delta-fetch-link", "oci-delta-other", "other"]);
    }

    /// As libraries of others do with a folder that they are given.
    #[test]
    fn what_is_inside_can_be_locked_by_whom_it_is_given_to() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::in_dir(parent.path()).unwrap();
        let inside = File::open(scratch.path()).unwrap();
        flock(&inside, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(scratch);
        assert_eq!(names(parent.path()), [""; 0]);
    }

    #[test]
    fn files_are_told_apart_by_the_names_that_they_are_to_get() {
        let dir = tempfile::tempdir().unwrap();
        let to = |name: &str| file_for(&dir.path().join(name)).unwrap();
        let (at_work, other) = (to("x.tar"), to("x.tar.gz"));
        drop(to("x.tar").into_temp_path().keep().unwrap());
        drop(to("y.tar").into_temp_path().keep().unwrap());
        assert_eq!(names(dir.path()).len(), 4);
        let next = to("x.tar");
        assert_eq!(names(dir.path()).len(), 4, "{:?}", names(dir.path()));
        for (file, name) in [(at_work, "x.tar"), (other, "x.tar.gz"), (next, "x.tar")] {
            file.persist(dir.path().join(name)).unwrap();
        }
        assert_eq!(to(&"n".repeat(255)).path().parent(), Some(dir.path()));
        assert_eq!(names(dir.path()).len(), 3, "{:?}", names(dir.path()));
    }
}
