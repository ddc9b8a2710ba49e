//! A stretch of a file: a blob in a layout, a member of an archive, a file inside a layer tar.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::fs::FallocateFlags;

/// Bytes that can be read at any place: a file, or what can be worked out on demand.
pub trait ReadAt: Send + Sync + Debug {
    /// Reads at `offset`; fewer bytes than asked for only at the end, or where it is easier.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The file, if it is one; it may have to be opened.
    fn file(&self) -> Option<io::Result<Arc<File>>> {
        None
    }
}

impl ReadAt for Arc<File> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(&**self, buf, offset)
    }

    fn file(&self) -> Option<io::Result<Arc<File>>> {
        Some(Ok(self.clone()))
    }
}

/// What is nowhere but in memory.
impl ReadAt for Box<[u8]> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        let n = buf.len().min(self.len() - from);
        buf[..n].copy_from_slice(&self[from..from + n]);
        Ok(n)
    }
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // Without the C library, which makes every such call a point where a thread may be cancelled.
        Ok(rustix::io::pread(self, buf, offset)?)
    }
}

/// Read-only bytes `offset..offset + len` of a shared file; all reads are positional.
#[derive(Debug, Clone)]
pub struct Region {
    file: Arc<dyn ReadAt>,
    /// Tells files apart, also after one was closed.
    id: u64,
    offset: u64,
    len: u64,
}

impl Region {
    /// The whole of `file`, as long as it is now.
    ///
    /// # Errors
    /// When the file's size cannot be read.
    pub fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self::of(Arc::new(Arc::new(file)), len))
    }

    /// The first `len` bytes of something readable.
    pub fn of(file: Arc<dyn ReadAt>, len: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Region { file, id, offset: 0, len }
    }

    /// A part of this region, clipped to it.
    #[must_use]
    pub fn slice(&self, offset: u64, len: u64) -> Self {
        let offset = offset.min(self.len);
        Region {
            file: self.file.clone(),
            id: self.id,
            offset: self.offset + offset,
            len: len.min(self.len - offset),
        }
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads at `offset` of the region, at most to its end.
    ///
    /// # Errors
    /// The system's.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        self.file.read_at(&mut buf[..want], self.offset + offset)
    }

    /// The file, by a number that tells open files apart, and where `offset` of the region is in it.
    pub fn place(&self, offset: u64) -> (u64, u64) {
        (self.id, self.offset + offset)
    }

    /// Reads at a position of the whole file, which may be outside the region.
    ///
    /// # Errors
    /// The system's.
    pub fn read_around(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    /// Fills `buf` from `offset` of the region.
    ///
    /// # Errors
    /// UnexpectedEof when the region ends first; the system's.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], self.offset + offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A reader from the region's start, with its own position.
    pub fn reader(&self) -> RegionReader {
        RegionReader { region: self.clone(), position: 0 }
    }
}

/// A region of a file that nobody changes or shortens any more. Only this crate can say so of one.
#[derive(Debug, Clone)]
pub struct Frozen(Region);

impl Frozen {
    /// Of an unlinked file of ours that is written, or an object of a store that never writes one twice.
    pub(crate) fn promised(region: Region) -> Self {
        Frozen(region)
    }

    /// Maps it.
    ///
    /// # Errors
    /// The system's; the region must not be empty.
    #[allow(unsafe_code)]
    pub fn map(&self) -> io::Result<Mmap> {
        let Region { file, offset, len, .. } = &self.0;
        let len = usize::try_from(*len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let file = file.file().ok_or(io::ErrorKind::Unsupported)??;
        // SAFETY: nobody changes or shortens the file while it is mapped: that is what the type is for. Who
        // breaks that rule of a store by force ends this process; it reads nothing else by it.
        unsafe { MmapOptions::new().offset(*offset).len(len).map(&*file) }
    }
}

/// Room of `len` bytes in an unlinked file in `dir`, mapped.
///
/// # Errors
/// When there is no room for it, or no memory to map it.
#[allow(unsafe_code)]
pub fn scratch(dir: &Path, len: usize) -> io::Result<MmapMut> {
    let file = tempfile::tempfile_in(dir)?;
    // Allocated now: a full disk is an error here, and would be a signal later.
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
    // SAFETY: the file has no name, so nobody else can change or shorten it.
    unsafe { MmapOptions::new().len(len).map_mut(&file) }
}

/// Reads a [`Region`] from start to end.
#[derive(Debug)]
pub struct RegionReader {
    region: Region,
    position: u64,
}

impl RegionReader {
    /// Bytes read or skipped so far.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl Read for RegionReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.region.read_at(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl io::Seek for RegionReader {
    fn seek(&mut self, pos: io::SeekFrom) -> io::Result<u64> {
        let target = match pos {
            io::SeekFrom::Start(n) => Some(n),
            io::SeekFrom::Current(n) => self.position.checked_add_signed(n),
            io::SeekFrom::End(n) => self.region.len.checked_add_signed(n),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_slice_never_leaves_its_region() {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(b"0123456789").unwrap();
        let whole = Region::whole(f).unwrap();
        let part = whole.slice(2, 5).slice(1, 100);
        let mut text = String::new();
        part.reader().read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
        assert_eq!(whole.slice(20, 5).len(), 0);
    }
}
