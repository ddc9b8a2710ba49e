//! How a file becomes an object: with fs-verity, where the kernel hashes, through composefs; without
//! it by ourselves, since composefs hashes one block after the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use composefs::fsverity::FsVerityHashValue;
use rustix::fs::{AtFlags, CWD, Mode, linkat, mkdirat, statat, unlinkat};
use rustix::io::Errno;

use super::Shared;
use super::verity::{BLOCK, FileDigest, of_small_files};
use crate::error::{IoContext, Result};
use crate::pool::Pooled;

/// After so many objects in a row that were not there, the next ones are written without asking first.
const ASKED: u32 = 64;

/// Stores files, given by their sizes, of which each begins a block of `bytes` (see
/// [`of_small_files`]); gives the id of each or why it could not be stored. One that is there already
/// is not written, as a rule.
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
    pieces: &mut dyn Iterator<Item = Result<Pooled<Vec<u8>>>>,
) -> Result<H> {
    let Some(mut file) = own_file(shared)? else {
        let content = Pieces { pieces, piece: None, position: 0 };
        return shared.repo.ensure_object_from_reader(content, size).map_err(|e| shared.failed(e));
    };
    let mut digest = FileDigest::new();
    for piece in pieces {
        let piece = piece?;
        digest.update(&piece);
        file.write_all(&piece).at(shared.path.display())?;
    }
    let id: H = digest.finish();
    link(shared, &file, size, &id.to_object_pathname())?;
    Ok(id)
}

fn store<H: FsVerityHashValue>(shared: &Shared<H>, content: &[u8], id: H) -> Result<H> {
    let path = id.to_object_pathname();
    let size = content.len() as u64;
    // Where object after object turns out to be new, the question costs more than it spares.
    if shared.new_in_a_row.load(Ordering::Relaxed) < ASKED {
        if is_there(shared, size, &path)? {
            shared.new_in_a_row.store(0, Ordering::Relaxed);
            return Ok(id);
        }
        shared.new_in_a_row.fetch_add(1, Ordering::Relaxed);
    }
    let Some(mut file) = own_file(shared)? else {
        // Asked at any rate: composefs would take one that was cut short.
        is_there(shared, size, &path)?;
        return shared.repo.ensure_object(content).map_err(|e| shared.failed(e));
    };
    file.write_all(content).at(shared.path.display())?;
    link(shared, &file, size, &path)?;
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

/// Gives a file of `size` bytes the name of its object, `path` below the objects, unless the object is
/// there. It is on disk when the layer gets a name, see [`Shared::commit`].
fn link<H: FsVerityHashValue>(shared: &Shared<H>, file: &File, size: u64, path: &str) -> Result<()> {
    let objects = objects(shared)?;
    let mut linked = link_once(file, objects, path);
    if linked == Err(Errno::EXIST) {
        // The next ones may be there, too.
        shared.new_in_a_row.store(0, Ordering::Relaxed);
        if !is_there(shared, size, path)? {
            linked = link_once(file, objects, path);
        }
    }
    match linked {
        // Also when another process was faster.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(io::Error::from(e)).at(shared.path.display()),
    }
}

fn link_once(file: &File, objects: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    // By its descriptor a file can be linked from Linux 6.10 on, or by root; else by its name in /proc,
    // where the kernel looks up three more directories. Both say so by the error of a missing directory.
    match linkat(file, "", objects, path, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT) => {}
        linked => return linked,
    }
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &source, objects, path, AtFlags::SYMLINK_FOLLOW);
    match link() {
        Err(Errno::NOENT) => {
            let dir = path.split('/').next().unwrap_or_default();
            match mkdirat(objects, dir, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => link(),
                Err(e) => Err(e),
            }
        }
        linked => linked,
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
    pieces: &'a mut dyn Iterator<Item = Result<Pooled<Vec<u8>>>>,
    piece: Option<Pooled<Vec<u8>>>,
    position: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.piece.as_ref().map_or(&[][..], |piece| &piece[self.position..]);
            if !left.is_empty() {
                let n = buf.len().min(left.len());
                buf[..n].copy_from_slice(&left[..n]);
                self.position += n;
                return Ok(n);
            }
            let Some(piece) = self.pieces.next() else { return Ok(0) };
            (self.piece, self.position) = (Some(piece?), 0);
        }
    }
}
