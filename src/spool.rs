//! What is unpacked to be read at any place: one unlinked file, which several write into side by side.
//!
//! An image may have a hundred compressed layers, and a chain a hundred for each image on the way; with a
//! file for each of them a process would run out of descriptors.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::region::{ReadAt, Region};

/// Bytes of the file that a writer takes at a time; what it leaves of them takes no room on the disk.
const EXTENT: u64 = 16 << 20;

/// The file, made when the first one writes. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    file: Mutex<Option<Arc<File>>>,
    /// Where the next extent begins.
    end: AtomicU64,
}

impl Spool {
    /// One in `dir`.
    pub fn in_dir(dir: &Path) -> Self {
        Spool(Arc::new(Shared { dir: dir.to_owned(), file: Mutex::default(), end: AtomicU64::new(0) }))
    }

    /// The directory, for messages and for other files.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Begins something new in it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(&self) -> io::Result<Spooled> {
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &*file {
            Some(file) => file.clone(),
            None => file.insert(Arc::new(tempfile::tempfile_in(&self.0.dir)?)).clone(),
        };
        Ok(Spooled { file, spool: self.clone(), extents: Vec::new(), len: 0 })
    }
}

/// Something in the file: written from its start to its end, read anywhere.
#[derive(Debug)]
pub struct Spooled {
    file: Arc<File>,
    spool: Spool,
    /// Where in the file each of its extents is.
    extents: Vec<u64>,
    len: u64,
}

impl Spooled {
    /// Bytes written so far.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// UnexpectedEof when it ends first; the system's.
    pub(crate) fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match ReadAt::read_at(self, buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// All of it, to be read.
    pub fn into_region(self) -> Region {
        let len = self.len;
        Region::of(Arc::new(self), len)
    }

    /// Where a position is in the file, and how many bytes of its extent are from there on.
    fn place(&self, position: u64) -> Option<(u64, usize)> {
        let extent = self.extents.get(usize::try_from(position / EXTENT).ok()?)?;
        let inside = position % EXTENT;
        Some((extent + inside, (EXTENT - inside) as usize))
    }
}

impl Write for Spooled {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.len == self.extents.len() as u64 * EXTENT && !buf.is_empty() {
            self.extents.push(self.spool.0.end.fetch_add(EXTENT, Ordering::Relaxed));
        }
        let Some((at, room)) = self.place(self.len) else { return Ok(0) };
        let n = self.file.write_at(&buf[..buf.len().min(room)], at)?;
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadAt for Spooled {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        match self.place(offset) {
            Some((at, room)) if want > 0 => ReadAt::read_at(&*self.file, &mut buf[..want.min(room)], at),
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_take_turns_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_dir(dir.path());
        let mut both = [spool.begin().unwrap(), spool.begin().unwrap()];
        let bytes = |of: usize| (0..2 * EXTENT as usize + 77).map(move |n| (n * (3 + of) / 7) as u8);
        let contents: [Vec<u8>; 2] = [bytes(0).collect(), bytes(1).collect()];
        for at in (0..contents[0].len()).step_by(3_000_001) {
            for (out, content) in both.iter_mut().zip(&contents) {
                out.write_all(&content[at..content.len().min(at + 3_000_001)]).unwrap();
            }
        }
        for (out, content) in both.into_iter().zip(&contents) {
            let region = out.into_region();
            assert_eq!(region.len(), content.len() as u64);
            let mut found = vec![0; content.len()];
            region.read_exact_at(&mut found, 0).unwrap();
            assert!(found == *content);
            let over = EXTENT as usize - 5;
            region.read_exact_at(&mut found[..10], over as u64).unwrap();
            assert_eq!(found[..10], content[over..over + 10]);
            assert!(region.read_exact_at(&mut found[..10], region.len() - 5).is_err());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
    }
}
