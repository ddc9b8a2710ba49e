//! Base files out of an unpacked or running root file system.
//!
//! Every path is opened by one `openat2` call that resolves all links inside
//! the root, so neither `..`, an absolute link nor a race leads out of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::layered::etc_twin;
use super::{Doubt, OpenedFile, SourceFile, SourceFiles, SourcePath};
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// A directory that is the root of the base image.
#[derive(Debug)]
pub struct RootfsFiles {
    root: OwnedFd,
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
        Ok(RootfsFiles { root })
    }

    fn open_beneath(&self, path: &SourcePath) -> Result<Option<OwnedFd>> {
        // NONBLOCK: a FIFO must not hang us before it is seen to be none of a regular file.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.root, path.as_bytes(), flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(Errno::NOSYS) => Err(Error::local("--rootfs needs the openat2 system call (Linux 5.6)")),
            Err(e) => Err(Error::from_io(e.into(), format!("base file {path}"))),
        }
    }
}

impl SourceFiles for RootfsFiles {
    fn open(&self, path: &SourcePath, _attempt: u32) -> Result<OpenedFile> {
        let mut fd = self.open_beneath(path)?;
        if let (None, Some(twin)) = (&fd, etc_twin(path)) {
            fd = self.open_beneath(&twin)?;
        }
        let file = File::from(fd.ok_or_else(|| {
            Error::misfit(format!("the root file system has no file {path}"))
                .with_hint("fetch the full image")
        })?);
        let meta = file.metadata().at(path)?;
        if !meta.is_file() {
            return Err(Error::misfit(format!("base file {path} is not a regular file")));
        }
        let content = Region::whole(file).at(path)?;
        Ok(OpenedFile {
            file: Arc::new(SourceFile { path: path.clone(), content, object: None }),
            doubt: Doubt::None,
        })
    }
}
