//! Opens the files of a layout. They come from others: none may hang us, and none may fill the memory.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::MAX_INDEX_SIZE;
use crate::descriptors;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// What does not exist, in one wording for all sorts of sources.
pub(super) fn absent(path: &Path) -> Error {
    Error::misfit(format!("{}: No such file or directory", path.display()))
}

/// Opens a regular file; `None` when there is none.
///
/// # Errors
/// Verification when it is something else; local I/O errors.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    // NONBLOCK: a FIFO must not hang us before it is seen to be none of a regular file.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        // What a socket, or a device that is not there, answers.
        Err(Errno::NXIO) => return Err(not_regular(path)),
        Err(e) => return Err(Error::from_io(e.into(), path.display())),
    };
    if file.metadata().at(path.display())?.is_file() { Ok(Some(file)) } else { Err(not_regular(path)) }
}

fn not_regular(path: &Path) -> Error {
    Error::verification(format!("{}: not a regular file", path.display()))
}

/// Bytes of a regular file, which is not opened; `None` when there is none.
///
/// # Errors
/// As [`open`].
pub(super) fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
        Ok(_) => Err(not_regular(path)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::from_io(e, path.display())),
    }
}

/// The same as a region, which may be many at once.
pub(super) fn region(path: &Path) -> Result<Option<Region>> {
    let again = path.to_owned();
    let open = move || open(&again)?.ok_or_else(|| ErrorKind::NotFound.into());
    match descriptors::reopened(open) {
        Ok(region) => Ok(Some(region)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::from_io(e, path.display())),
    }
}

/// Reads an index or manifest.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let file = open(path)?.ok_or_else(|| Error::from_io(ErrorKind::NotFound.into(), path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_INDEX_SIZE + 1).read_to_end(&mut bytes).at(path.display())?;
    if bytes.len() as u64 > MAX_INDEX_SIZE {
        return Err(Error::verification(format!("{}: larger than {MAX_INDEX_SIZE} bytes", path.display())));
    }
    Ok(bytes)
}
