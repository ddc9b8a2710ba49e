//! Writers for layers on their way into the store: a temporary file that gets a
//! name only with a [`VerifiedLayer`] in hand.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use oci_spec::image::{Descriptor, MediaType};
use tempfile::NamedTempFile;

use super::LayerSink;
use crate::digest::{Digest, Hasher, VerifiedLayer};
use crate::encoding::{Encoding, EncodingWriter};
use crate::error::{Error, IoContext, Result};
use crate::pipeline::LayerWrite;

/// Size of the pieces that go to the encoder thread and to the disk.
const CHUNK: usize = 256 << 10;

/// Pieces waiting for the encoder: 2 MiB, enough to even out short stalls.
const QUEUE: usize = 8;

/// Takes a plain layer tar and keeps it in the store's encoding.
#[derive(Debug)]
pub(super) struct TarSink {
    kind: Option<Kind>,
    blobs: PathBuf,
    encoding: Encoding,
}

#[derive(Debug)]
enum Kind {
    /// The plain tar itself; its digest is the diff_id.
    Plain(BufWriter<NamedTempFile>),
    /// Compressed on a thread of its own, the slowest stage by far.
    Encoded { pending: Vec<u8>, queue: SyncSender<Vec<u8>>, encoder: JoinHandle<Result<Encoded>> },
}

#[derive(Debug)]
struct Encoded {
    file: NamedTempFile,
    digest: Digest,
    size: u64,
}

impl TarSink {
    pub(super) fn new(tmp: &Path, blobs: &Path, encoding: Encoding) -> Result<Self> {
        let file = NamedTempFile::new_in(tmp).at(tmp.display())?;
        let kind = match encoding {
            Encoding::Plain => Kind::Plain(BufWriter::with_capacity(CHUNK, file)),
            _ => {
                let (queue, pieces) = sync_channel(QUEUE);
                let encoder = std::thread::spawn(move || encode(file, encoding, &pieces));
                Kind::Encoded { pending: Vec::with_capacity(CHUNK), queue, encoder }
            }
        };
        Ok(TarSink { kind: Some(kind), blobs: blobs.to_owned(), encoding })
    }
}

impl LayerWrite for TarSink {}

impl LayerSink for TarSink {
    fn finish(mut self: Box<Self>, layer: &VerifiedLayer) -> Result<Descriptor> {
        let (file, digest, size) = match self.kind.take() {
            Some(Kind::Plain(writer)) => {
                let file = writer.into_inner().map_err(|e| Error::from_io(e.into_error(), "layer"))?;
                (file, layer.diff_id().as_digest().clone(), layer.size())
            }
            Some(Kind::Encoded { pending, queue, encoder }) => {
                // A send fails only when the encoder has stopped; its own error comes from the join.
                let _ = queue.send(pending);
                drop(queue);
                let encoded = encoder.join().map_err(|_| Error::local("the encoder thread died"))??;
                (encoded.file, encoded.digest, encoded.size)
            }
            None => return Err(Error::local("layer was finished twice")),
        };
        persist(file, &self.blobs.join(digest.digest()))?;
        Ok(Descriptor::new(self.encoding.media_type(), size, digest))
    }
}

impl Write for TarSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Some(Kind::Plain(file)) => file.write(buf),
            Some(Kind::Encoded { pending, queue, .. }) => {
                pending.extend_from_slice(buf);
                if pending.len() >= CHUNK {
                    let full = std::mem::replace(pending, Vec::with_capacity(CHUNK));
                    if queue.send(full).is_err() {
                        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
                    }
                }
                Ok(buf.len())
            }
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Some(Kind::Plain(file)) => file.flush(),
            _ => Ok(()),
        }
    }
}

fn encode(file: NamedTempFile, encoding: Encoding, pieces: &Receiver<Vec<u8>>) -> Result<Encoded> {
    let path = file.path().display().to_string();
    let mut writer = EncodingWriter::new(Counted { file, hasher: Hasher::default() }, encoding).at(&path)?;
    for piece in pieces {
        writer.write_all(&piece).at(&path)?;
    }
    let Counted { file, hasher } = writer.finish().at(&path)?;
    let size = hasher.bytes();
    Ok(Encoded { file, digest: hasher.finish(), size })
}

/// Hashes the stored bytes on their way to the file.
struct Counted {
    file: NamedTempFile,
    hasher: Hasher,
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Takes a blob that is kept exactly as it came.
#[derive(Debug)]
pub struct BlobSink {
    file: NamedTempFile,
    blobs: PathBuf,
}

impl BlobSink {
    pub(super) fn new(tmp: &Path, blobs: &Path) -> Result<Self> {
        Ok(BlobSink { file: NamedTempFile::new_in(tmp).at(tmp.display())?, blobs: blobs.to_owned() })
    }

    /// Makes the blob, whose digest was checked while it was read, a blob of the store.
    /// The layer inside was checked too: `_layer` proves it.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn finish(
        self,
        _layer: &VerifiedLayer,
        media_type: MediaType,
        digest: &Digest,
        size: u64,
    ) -> Result<Descriptor> {
        persist(self.file, &self.blobs.join(digest.digest()))?;
        Ok(Descriptor::new(media_type, size, digest.clone()))
    }
}

impl Write for BlobSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives a finished file its name: fsync, then rename. The directory is
/// fsynced by the caller, once for all blobs of an image.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).at(path.display())?;
    file.as_file().sync_all().at(path.display())?;
    file.persist(path).map_err(|e| Error::from_io(e.error, path.display()))?;
    Ok(())
}
