//! Rebuilt blobs for others to take, by digest: no images, and none stays longer than there is room.
//!
//! `DIR/blobs/HEX` are verified, `DIR/tmp/` holds what is unfinished, and is emptied by the one who opens it.

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use oci_spec::image::Descriptor;
use rustix::fs::{FlockOperation, flock};

use super::oci_layout::{require_room, sweep};
use super::sink::{BlobSink, Files, Growth, TarSink};
use super::{ImageTarget, LayerSink, Published};
use crate::artifact::Image;
use crate::digest::{DiffId, Digest};
use crate::encoding::Encoding;
use crate::error::{Advice, Error, IoContext, Result};
use crate::exact::{Recipes, Remake};
use crate::layout::open_lock;

/// Blobs that stay for a while; one process uses a directory.
#[derive(Debug)]
pub struct BlobCache {
    root: PathBuf,
    most: u64,
    _lock: File,
    /// One at a time makes room.
    tidying: Mutex<()>,
}

impl BlobCache {
    /// Opens the cache, making it if it is not there; it keeps at most about `most` bytes.
    ///
    /// # Errors
    /// Local, also when another process uses it.
    pub fn open(root: &Path, most: u64) -> Result<Self> {
        for dir in [root.join("blobs"), root.join("tmp")] {
            fs::create_dir_all(&dir).at(dir.display())?;
        }
        let lock = open_lock(&root.join("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::local(format!("{}: another process uses this cache", root.display()))
                .with_hint(Advice::OtherCache));
        }
        sweep(&root.join("tmp"), |_| true)?;
        let cache = BlobCache { root: root.to_owned(), most, _lock: lock, tidying: Mutex::default() };
        cache.tidy(0)?;
        Ok(cache)
    }

    /// Where files without a name may be spooled.
    pub fn spool(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A blob that is here; it stays longer than others for having been wanted.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn get(&self, digest: &Digest, size: u64) -> Result<Option<File>> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::from_io(e, path.display())),
        };
        // One of another size is none of ours.
        if file.metadata().at(path.display())?.len() != size {
            return Ok(None);
        }
        // Without the note it only goes sooner.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Ok(Some(file))
    }

    /// Size in bytes of a blob that is here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|meta| meta.len())
    }

    /// Where one blob is written to; `growth` is told how.
    pub fn taking(self: &Arc<Self>, growth: Arc<dyn Growth>) -> Arc<dyn ImageTarget> {
        Arc::new(Taking { cache: self.clone(), growth })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.digest())
    }

    /// Makes room for so many bytes: what was not wanted for the longest time goes first.
    ///
    /// # Errors
    /// Local I/O errors.
    fn tidy(&self, room: u64) -> Result<()> {
        let _turn = self.tidying.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.root.join("blobs");
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&dir).at(dir.display())? {
            let entry = entry.at(dir.display())?;
            let meta = entry.metadata().at(entry.path().display())?;
            blobs.push((meta.modified().at(dir.display())?, meta.len(), entry.path()));
        }
        blobs.sort();
        let mut bytes: u64 = blobs.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in blobs {
            if bytes.saturating_add(room) <= self.most {
                break;
            }
            fs::remove_file(&path).at(path.display())?;
            bytes -= len;
        }
        Ok(())
    }
}

/// The cache, as a place that one blob is written to.
#[derive(Debug)]
struct Taking {
    cache: Arc<BlobCache>,
    growth: Arc<dyn Growth>,
}

impl Taking {
    fn files(&self) -> Files {
        let root = &self.cache.root;
        Files { tmp: root.join("tmp"), blobs: root.join("blobs"), growth: Some(self.growth.clone()) }
    }
}

impl ImageTarget for Taking {
    fn spool(&self) -> PathBuf {
        self.cache.spool()
    }

    fn prepare(&self, _image: &Image, _encoding: Encoding, needed: u64) -> Result<()> {
        self.cache.tidy(needed)?;
        require_room(&self.cache.root, needed)
    }

    fn begin_layer(&self, encoding: Encoding) -> Result<Box<dyn LayerSink>> {
        Ok(Box::new(TarSink::new(&self.files(), encoding)?))
    }

    fn begin_exact(&self, published: &Descriptor, remake: Remake<'_>) -> Result<Box<dyn LayerSink>> {
        Ok(Box::new(TarSink::exact(&self.files(), published, remake)?))
    }

    fn begin_verbatim(&self) -> Result<Option<BlobSink>> {
        BlobSink::new(&self.files()).map(Some)
    }

    fn note_finished(&self, _diff_id: &DiffId, _layer: &Descriptor) -> Result<()> {
        Ok(())
    }

    fn publish(&self, _: &Image, _: &[Descriptor], _: Option<&str>, _: &Recipes) -> Result<Published> {
        Err(Error::local("a cache of blobs holds no images"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use std::time::Duration;

    fn put(cache: &BlobCache, bytes: &[u8], age: u64) -> Digest {
        let digest = digest_of(bytes);
        let path = cache.path(&digest);
        fs::write(&path, bytes).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
        digest
    }

    #[test]
    fn what_was_wanted_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path(), 10).unwrap();
        let old = put(&cache, b"old!", 30);
        let used = put(&cache, b"used", 20);
        let new = put(&cache, b"new!", 10);
        assert!(cache.get(&used, 4).unwrap().is_some());
        assert!(cache.get(&used, 5).unwrap().is_none());
        cache.tidy(4).unwrap();
        assert_eq!([old, new, used].map(|d| cache.size(&d)), [None, None, Some(4)]);
    }

    #[test]
    fn one_process_uses_it_and_finds_nothing_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path(), 10).unwrap();
        fs::write(cache.spool().join("half"), "x").unwrap();
        assert!(BlobCache::open(dir.path(), 10).is_err());
        drop(cache);
        let cache = BlobCache::open(dir.path(), 10).unwrap();
        assert_eq!(fs::read_dir(cache.spool()).unwrap().count(), 0);
    }
}
