//! Writes archives of layouts: complete, or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, IoContext, Result};
use crate::scratch;

/// An archive under work, which has not its name yet.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    tar: Tar,
}

struct Tar(tar::Builder<BufWriter<NamedTempFile>>);

impl std::fmt::Debug for Tar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tar")
    }
}

impl Archive {
    /// Begins one that gets the name `path` when it is complete, and replaces what is there then.
    ///
    /// # Errors
    /// Local I/O errors; Usage for standard output.
    pub fn create(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Err(Error::usage("an archive is not written to standard output")
                .with_hint("oci-archive:FILE, or oci-archive:./- for a file of this name"));
        }
        let file = scratch::file_for(path).at(parent(path).display())?;
        Ok(Archive { path: path.to_owned(), tar: Tar(tar::Builder::new(BufWriter::new(file))) })
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn dir(&mut self, name: &str) -> Result<()> {
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        self.tar.0.append_data(&mut header, name, std::io::empty()).at(self.path.display())
    }

    /// Adds a file of `size` bytes.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn append(&mut self, name: &str, size: u64, data: impl Read) -> Result<()> {
        self.tar.0.append_data(&mut header(size, 0o644), name, data).at(self.path.display())
    }

    /// Gives the complete file its name, and makes that last.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn finish(self) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let Archive { path, tar } = self;
        let file =
            tar.0.into_inner().and_then(|w| w.into_inner().map_err(|e| e.into_error())).at(path.display())?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).at(path.display())?;
        file.as_file().sync_all().at(path.display())?;
        file.persist(&path).map_err(|e| Error::from_io(e.error, path.display()))?;
        File::open(parent(&path)).and_then(|dir| dir.sync_all()).at(path.display())?;
        Ok(path)
    }
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
