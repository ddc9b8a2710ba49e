//! Files that are read now and then, of which only so many are open at a time.
//!
//! A base may have a hundred thousand files, and any of them may be wanted again. So each knows how it was
//! opened: it is closed when too many others were used since, and opened again when it is read.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::process::{Resource, getrlimit};

use crate::region::{ReadAt, Region};

/// Most files that are kept open here, by the whole process. Where it may have fewer than twice as many, it is half
/// of what it may have. Those being read come on top: one a thread.
const MOST: u64 = 256;

/// Opens the same file once more.
type Open = dyn Fn() -> io::Result<File> + Send + Sync;

/// The whole of a file that is kept open no longer than there is room for it; `open` opens it, as often as is wanted.
///
/// # Errors
/// Those of `open`; when the file's size cannot be read.
pub(crate) fn reopened(open: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> io::Result<Region> {
    let file = Reopened::open(open)?;
    let len = file.seen.0;
    Ok(Region::of(Arc::new(file), len))
}

/// A file that is opened when it is read.
struct Reopened {
    open: Box<Open>,
    /// Size in bytes and time of the last change when it was opened first.
    seen: (u64, i64, i64),
    slot: Arc<Slot>,
}

/// Where it is while it is open.
#[derive(Debug, Default)]
struct Slot {
    file: Mutex<Option<Arc<File>>>,
    /// Since it was last thought of closing it.
    used: AtomicBool,
}

/// What is open, in the order in which closing is thought of.
static OPEN: Mutex<VecDeque<Weak<Slot>>> = Mutex::new(VecDeque::new());

impl fmt::Debug for Reopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Reopened {
    /// Opens a file for the first time.
    fn open(open: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> io::Result<Self> {
        let file = opened(&open)?;
        let seen = stamp(&file)?;
        let reopened = Reopened { open: Box::new(open), seen, slot: Arc::default() };
        reopened.slot.keep(file);
        Ok(reopened)
    }

    fn file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = &*lock(&self.slot.file) {
            self.slot.used.store(true, Ordering::Relaxed);
            return Ok(file.clone());
        }
        let file = opened(&*self.open)?;
        if stamp(&file)? != self.seen {
            return Err(io::Error::other("it was changed while it was in use"));
        }
        Ok(self.slot.keep(file))
    }
}

impl ReadAt for Reopened {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file()?.read_at(buf, offset)
    }

    fn file(&self) -> Option<io::Result<Arc<File>>> {
        Some(self.file())
    }
}

impl Slot {
    /// Takes the file, unless another thread was first; others are closed for it.
    fn keep(self: &Arc<Self>, file: File) -> Arc<File> {
        let mut open = lock(&OPEN);
        let mut mine = lock(&self.file);
        if let Some(first) = &*mine {
            return first.clone();
        }
        let file = Arc::new(file);
        *mine = Some(file.clone());
        drop(mine);
        make_room(&mut open, most());
        open.push_back(Arc::downgrade(self));
        file
    }
}

/// Closes files until there are fewer than `most`: those that were not used for longest, as well as can be told.
fn make_room(open: &mut VecDeque<Weak<Slot>>, most: usize) {
    while open.len() >= most {
        let Some(slot) = open.pop_front() else { break };
        let Some(slot) = slot.upgrade() else { continue };
        if slot.used.swap(false, Ordering::Relaxed) {
            open.push_back(Arc::downgrade(&slot));
        } else {
            *lock(&slot.file) = None;
        }
    }
}

/// As many files as may be open here.
fn most() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let half = getrlimit(Resource::Nofile).current.map_or(MOST, |limit| limit / 2);
        half.clamp(1, MOST) as usize
    })
}

/// Opens a file; where that is one too many, those that are kept are closed before.
fn opened(open: &Open) -> io::Result<File> {
    match open() {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            lock(&OPEN).drain(..).filter_map(|slot| slot.upgrade()).for_each(|slot| *lock(&slot.file) = None);
            open()
        }
        result => result,
    }
}

fn stamp(file: &File) -> io::Result<(u64, i64, i64)> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// A poisoned lock only means that another thread died.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(dir: &tempfile::TempDir, number: usize) -> (PathBuf, Reopened) {
        let path = dir.path().join(number.to_string());
        std::fs::write(&path, number.to_string()).unwrap();
        let again = path.clone();
        let file = Reopened::open(move || File::open(&again)).unwrap();
        (path, file)
    }

    fn read(file: &Reopened) -> io::Result<String> {
        let mut buf = [0; 16];
        let n = file.read_at(&mut buf, 0)?;
        Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
    }

    #[test]
    fn any_number_of_files_is_read_with_few_open() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..3 * MOST as usize).map(|n| file(&dir, n).1).collect();
        for round in 0..3 {
            for at in 0..files.len() {
                // One that is wanted again and again, and all the others.
                assert_eq!(read(&files[7]).unwrap(), "7");
                let at = (at * 31 + round) % files.len();
                assert_eq!(read(&files[at]).unwrap(), at.to_string());
            }
            let open = files.iter().filter(|file| lock(&file.slot.file).is_some()).count();
            assert!(open <= most(), "{open}");
        }
        drop(files);
        assert!(lock(&OPEN).len() <= most(), "what is gone counts no more than what is there");
    }

    #[test]
    fn a_file_that_was_changed_meanwhile_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = file(&dir, 1);
        *lock(&file.slot.file) = None;
        std::fs::write(&path, "another").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("changed"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
