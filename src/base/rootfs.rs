//! Base files out of an unpacked or running root file system.
//!
//! Every path is opened by one `openat2` call that resolves all links inside
//! the root, so neither `..`, an absolute link nor a race leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::layered::etc_twin;
use super::{Doubt, OpenedFile, SourceFile, SourceFiles, SourcePath};
use crate::descriptors;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// A directory that is the root of the base image.
#[derive(Debug)]
pub struct RootfsFiles {
    root: Arc<OwnedFd>,
}

impl RootfsFiles {
    /// Opens the directory.
    ///
    /// # Errors
    /// Local when it is not there.
    pub fn open_dir(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(std::io::Error::from)
            .at(path.display())?;
        Ok(RootfsFiles { root: Arc::new(root) })
    }

    fn content(&self, path: &SourcePath) -> Result<Option<Region>> {
        let (root, name) = (self.root.clone(), path.clone());
        match descriptors::reopened(move || open_beneath(&root, &name)) {
            Ok(content) => Ok(Some(content)),
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
                Some(Errno::NOSYS) => {
                    Err(Error::local("to read a root file system takes the openat2 system call (Linux 5.6)"))
                }
                _ => Err(Error::from_io(e, format!("base file {path}"))),
            },
        }
    }
}

fn open_beneath(root: &OwnedFd, path: &SourcePath) -> io::Result<File> {
    // NONBLOCK: a FIFO must not hang us before it is seen to be none of a regular file.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(root, path.as_bytes(), flags, Mode::empty(), resolve)?);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(Error::misfit(format!("base file {path} is not a regular file")).into())
}

impl SourceFiles for RootfsFiles {
    fn open(&self, path: &SourcePath, _attempt: u32) -> Result<OpenedFile> {
        let mut content = self.content(path)?;
        if let (None, Some(twin)) = (&content, etc_twin(path)) {
            content = self.content(&twin)?;
        }
        let content = content.ok_or_else(|| {
            Error::misfit(format!("the root file system has no file {path}"))
                .with_hint("fetch the full image")
        })?;
        Ok(OpenedFile { file: Arc::new(SourceFile::new(path.clone(), content)), doubt: Doubt::None })
    }
}
