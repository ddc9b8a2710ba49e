//! The plain tar of a layer, read at any place out of its split stream: what stands in that is kept
//! in an unlinked file, the rest is in objects.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use composefs::fsverity::FsVerityHashValue;
use composefs::repository::Repository;
use composefs::splitstream::{SplitStreamData, SplitStreamReader};
use rustix::fs::{Mode, OFlags, openat};

use super::foreign;
use crate::descriptors;
use crate::error::{Error, IoContext, Kind, Result};
use crate::region::{ReadAt, Region};
use crate::spool::{Spool, Spooled};

/// Where the bytes of a piece are.
#[derive(Debug)]
enum Content<H> {
    /// In the unlinked file, from there on.
    Inline(u64),
    /// All of an object, opened when it is first wanted.
    Object(H, OnceLock<Region>),
}

#[derive(Debug)]
struct Piece<H> {
    /// First byte in the tar.
    start: u64,
    content: Content<H>,
}

#[derive(Debug)]
struct VirtualTar<H: FsVerityHashValue> {
    repo: Arc<Repository<H>>,
    pieces: Vec<Piece<H>>,
    len: u64,
    inline: Spooled,
}

/// The tar that `stream` makes, whose objects have these sizes in its order.
///
/// # Errors
/// Verification when the stream is damaged; local I/O errors.
pub(super) fn open<H: FsVerityHashValue>(
    repo: &Arc<Repository<H>>,
    mut stream: SplitStreamReader<H>,
    sizes: &[u64],
    spool: &Spool,
) -> Result<Region> {
    let inline = spool.begin().at(spool.dir().display())?;
    let mut tar = VirtualTar { repo: repo.clone(), pieces: Vec::new(), len: 0, inline };
    let mut sizes = sizes.iter();
    let walked = stream.for_each_chunk(|chunk| {
        let start = tar.len;
        let content = match chunk {
            SplitStreamData::Inline(bytes) => {
                let at = tar.inline.len();
                tar.inline.write_all(&bytes)?;
                tar.len += bytes.len() as u64;
                Content::Inline(at)
            }
            SplitStreamData::External(id) => {
                let size =
                    sizes.next().ok_or_else(|| Error::verification("it has more objects than files"))?;
                tar.len = tar.len.saturating_add(*size);
                Content::Object(id, OnceLock::new())
            }
        };
        tar.pieces.push(Piece { start, content });
        Ok(())
    });
    walked.map_err(broken)?;
    let len = tar.len;
    Ok(Region::of(Arc::new(tar), len))
}

impl<H: FsVerityHashValue> ReadAt for VirtualTar<H> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(at) = self.pieces.partition_point(|piece| piece.start <= offset).checked_sub(1) else {
            return Ok(0);
        };
        let end = self.pieces.get(at + 1).map_or(self.len, |next| next.start);
        let skip = offset - self.pieces[at].start;
        let room = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = buf.len().min(room);
        match &self.pieces[at].content {
            _ if want == 0 => return Ok(0),
            Content::Inline(from) => self.inline.read_exact_at(&mut buf[..want], from + skip)?,
            Content::Object(id, opened) => self.object(id, opened)?.read_exact_at(&mut buf[..want], skip)?,
        }
        Ok(want)
    }
}

impl<H: FsVerityHashValue> VirtualTar<H> {
    fn object<'a>(&self, id: &H, opened: &'a OnceLock<Region>) -> io::Result<&'a Region> {
        if opened.get().is_none() {
            let (repo, id) = (self.repo.clone(), id.clone());
            let name = id.to_object_pathname();
            let region = descriptors::reopened(move || open_object(&repo, &id))
                .map_err(|e| io::Error::from(Error::from_io(e, format!("object {name}"))))?;
            // Another thread may have been faster; it opened the same.
            let _ = opened.set(region);
        }
        opened.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// With fs-verity the kernel checks what is read; without, the layer's diff_id does.
pub(super) fn open_object<H: FsVerityHashValue>(repo: &Repository<H>, id: &H) -> io::Result<File> {
    if !repo.is_insecure() {
        let opened = repo.open_object(id);
        return Ok(opened.map_err(|e| foreign(Kind::Verification, id.to_object_pathname(), e))?.into());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(repo.objects_dir()?, id.to_object_pathname(), flags, Mode::empty())?.into())
}

pub(super) fn broken(e: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    foreign(Kind::Verification, "split stream", e)
}
