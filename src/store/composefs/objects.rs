//! How a file becomes an object: with fs-verity, where the kernel hashes, through composefs; without
//! it by ourselves, since composefs hashes one block after the other.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use composefs::fsverity::FsVerityHashValue;
use rustix::fs::{AtFlags, CWD, Mode, linkat, mkdirat, statat, unlinkat};
use rustix::io::Errno;

use super::Shared;
use super::buffers::Filled;
use super::verity::{BLOCK, FileDigest, of_small_files};
use crate::error::{IoContext, Result};

/// Stores files, given by their sizes, of which each begins a block of `bytes` (see
/// [`of_small_files`]); gives the id of each or why it could not be stored. One that is there already
/// is not written.
pub(super) fn store_small<H: FsVerityHashValue>(
    shared: &Shared<H>,
    bytes: &[u8],
    sizes: &[usize],
) -> impl Iterator<Item = Result<H>> {
    let mut ids = shared.repo.is_insecure().then(|| of_small_files(bytes, sizes).into_iter());
    let files = sizes.iter().scan(bytes, |rest, size| {
        let (blocks, behind) = rest.split_at(size.next_multiple_of(BLOCK));
        *rest = behind;
        Some(&blocks[..*size])
    });
    files.map(move |file| match ids.as_mut().and_then(Iterator::next) {
        Some(id) => store(shared, file, id),
        None => shared.repo.ensure_object(file).map_err(|e| shared.failed(e)),
    })
}

/// Stores a file of `size` bytes, which come in pieces of whole blocks, but at its end; gives its id.
pub(super) fn store_large<H: FsVerityHashValue>(
    shared: &Shared<H>,
    size: u64,
    pieces: &mut dyn Iterator<Item = Result<Filled>>,
) -> Result<H> {
    let Some(mut file) = own_file(shared)? else {
        let content = Pieces { pieces, piece: None };
        return shared.repo.ensure_object_from_reader(content, size).map_err(|e| shared.failed(e));
    };
    let mut digest = FileDigest::new();
    for piece in pieces {
        let piece = piece?;
        digest.update(piece.as_ref());
        file.write_all(piece.as_ref()).at(shared.path.display())?;
    }
    let id: H = digest.finish();
    let path = id.to_object_pathname();
    if !is_there(shared, size, &path)? {
        link(shared, &file, &path)?;
    }
    Ok(id)
}

fn store<H: FsVerityHashValue>(shared: &Shared<H>, content: &[u8], id: H) -> Result<H> {
    let path = id.to_object_pathname();
    if is_there(shared, content.len() as u64, &path)? {
        return Ok(id);
    }
    let Some(mut file) = own_file(shared)? else {
        return shared.repo.ensure_object(content).map_err(|e| shared.failed(e));
    };
    file.write_all(content).at(shared.path.display())?;
    link(shared, &file, &path)?;
    Ok(id)
}

/// A file without a name, to be linked as an object. `None` where the kernel is to hash it, or where
/// the file system has no such files: composefs knows a way.
fn own_file<H: FsVerityHashValue>(shared: &Shared<H>) -> Result<Option<File>> {
    if !shared.repo.is_insecure() {
        return Ok(None);
    }
    match shared.repo.create_object_tmpfile() {
        Ok(file) => Ok(Some(file.into())),
        Err(e) if e.downcast_ref() == Some(&Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(shared.failed(e)),
    }
}

/// Gives a file the name of its object, `path` below the objects. It is on disk when the layer gets a
/// name, see [`Shared::commit`].
fn link<H: FsVerityHashValue>(shared: &Shared<H>, file: &File, path: &str) -> Result<()> {
    let objects = objects(shared)?;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let dir = path.split('/').next().unwrap_or_default();
    let link = || linkat(CWD, &source, objects, path, AtFlags::SYMLINK_FOLLOW);
    let linked = match link() {
        Err(Errno::NOENT) => match mkdirat(objects, dir, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => link(),
            Err(e) => Err(e),
        },
        linked => linked,
    };
    match linked {
        // Another process was faster.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(io::Error::from(e)).at(shared.path.display()),
    }
}

/// Whether the object exists. One of another size, as a power failure leaves it, is removed.
fn is_there<H: FsVerityHashValue>(shared: &Shared<H>, size: u64, path: &str) -> Result<bool> {
    let objects = objects(shared)?;
    let found = match statat(objects, path, AtFlags::empty()) {
        Ok(stat) if stat.st_size as u64 == size => Ok(true),
        Ok(_) => unlinkat(objects, path, AtFlags::empty()).map(|()| false),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    };
    found.map_err(io::Error::from).at(shared.path.display())
}

fn objects<H: FsVerityHashValue>(shared: &Shared<H>) -> Result<&OwnedFd> {
    shared.repo.objects_dir().map_err(io::Error::from).at(shared.path.display())
}

/// Reads pieces one after the other.
struct Pieces<'a> {
    pieces: &'a mut dyn Iterator<Item = Result<Filled>>,
    piece: Option<Cursor<Filled>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.as_mut().map_or(Ok(0), |piece| piece.read(buf))?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(piece) = self.pieces.next() else { return Ok(0) };
            self.piece = Some(Cursor::new(piece?));
        }
    }
}
