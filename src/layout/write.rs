//! Writes OCI layouts: blobs first, the index last. The one place that does, for our repository and for what
//! `create` makes, so that all who write into one directory wait for each other.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::edit::IndexEdit;
use super::lock;
use crate::artifact::MAX_MANIFEST_SIZE;
use crate::cancel::Cancel;
use crate::digest::{Digest, parse_digest};
use crate::error::{Error, IoContext, Result};

/// The directory in a repository that is ours, and no part of the layout.
pub const STATE: &str = ".oci-delta-fetch";

/// The content of `oci-layout` (OCI image-spec, image-layout.md).
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout that is written into.
#[derive(Debug)]
pub struct LayoutWriter {
    root: PathBuf,
    /// Where unfinished files are, on the same file system.
    tmp: PathBuf,
    /// In a repository: held against its gc.
    _at_work: Option<File>,
    cancel: Cancel,
}

impl LayoutWriter {
    /// Opens the layout in `root`, or makes one. Waits for others who hold it; `cancel` ends that.
    ///
    /// # Errors
    /// Local I/O errors; Interrupted.
    pub fn open_or_create(root: &Path, cancel: &Cancel) -> Result<Self> {
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).at(blobs.display())?;
        let state = root.join(STATE);
        let (tmp, at_work) = if state.is_dir() {
            let tmp = state.join("tmp");
            fs::create_dir_all(&tmp).at(tmp.display())?;
            let lock = open_lock(&state.join("lock"))?;
            lock::share(&lock, root.display(), cancel)?;
            (tmp, Some(lock))
        } else {
            (blobs, None)
        };
        let writer = LayoutWriter { root: root.to_owned(), tmp, _at_work: at_work, cancel: cancel.clone() };
        if !root.join("oci-layout").exists() {
            write_durably(&root.join("oci-layout"), MARKER, &writer.tmp)?;
        }
        Ok(writer)
    }

    /// Puts a blob there, whose content has this digest.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn blob(&self, digest: &Digest, mut content: impl Read) -> Result<()> {
        let path = self.root.join("blobs/sha256").join(digest.digest());
        let mut file = NamedTempFile::new_in(&self.tmp).at(self.tmp.display())?;
        std::io::copy(&mut content, &mut file).at(path.display())?;
        persist(file, &path)
    }

    /// The content of a blob that may be a manifest; nothing when it is absent or large.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn small_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Ok(digest) = parse_digest(digest, "index.json") else { return Ok(bytes) };
        let blob = super::file::region(&self.root.join("blobs/sha256").join(digest.digest()))?;
        if let Some(blob) = blob.filter(|blob| blob.len() <= MAX_MANIFEST_SIZE) {
            blob.reader().read_to_end(&mut bytes).at(&digest)?;
        }
        Ok(bytes)
    }

    /// Changes the index, after what it is to name is on disk.
    ///
    /// # Errors
    /// Local I/O errors; Verification when the index there is none; those of `change`.
    pub fn edit<T>(&self, change: impl FnOnce(&mut IndexEdit) -> Result<T>) -> Result<T> {
        sync_dir(&self.root.join("blobs/sha256"))?;
        edit_index(&self.root, &self.tmp, &self.cancel, change)
    }
}

/// Changes the index of the layout in `root` while no other publisher does; waits for those.
///
/// # Errors
/// Local I/O errors; Verification when the index there is none; those of `change`.
pub(crate) fn edit_index<T>(
    root: &Path,
    tmp: &Path,
    cancel: &Cancel,
    change: impl FnOnce(&mut IndexEdit) -> Result<T>,
) -> Result<T> {
    let state = root.join(STATE);
    // A layout that is no repository gets no file of ours: its directory is the lock.
    let lock = match state.is_dir() {
        true => open_lock(&state.join("publish.lock"))?,
        false => File::open(root).at(root.display())?,
    };
    lock::take(&lock, root.display(), cancel)?;
    let path = root.join("index.json");
    let mut index = match super::file::open(&path)? {
        Some(_) => IndexEdit::parse(&super::file::read(&path)?, path.display())?,
        None => IndexEdit::default(),
    };
    let done = change(&mut index)?;
    write_durably(&path, &index.to_bytes()?, tmp)?;
    sync_dir(root)?;
    Ok(done)
}

pub(crate) fn open_lock(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path).at(path.display())
}

/// Writes a small file by temp file, fsync and rename.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], tmp: &Path) -> Result<()> {
    let mut file = NamedTempFile::new_in(tmp).at(tmp.display())?;
    file.write_all(bytes).at(path.display())?;
    persist(file, path)
}

/// Gives a finished file its name: fsync, then rename. The directory is
/// fsynced by the caller, once for all blobs of an image.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).at(path.display())?;
    file.as_file().sync_all().at(path.display())?;
    file.persist(path).map_err(|e| Error::from_io(e.error, path.display()))?;
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).at(dir.display())
}
