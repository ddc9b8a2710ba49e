//! Writers for layers on their way into the store: a temporary file that gets a
//! name only with a [`VerifiedLayer`] in hand.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use exact_encoders::recipe::{Rebuild, RebuildError};
use oci_spec::image::{Descriptor, MediaType};
use tempfile::NamedTempFile;

use super::LayerSink;
use crate::digest::{Digest, Hasher, VerifiedLayer};
use crate::encoding::{Encoding, EncodingWriter};
use crate::error::{Error, IoContext, Result};
use crate::exact::{Remake, inexact};
use crate::layer_write::LayerWrite;
use crate::layout::persist;

/// Size of the pieces that go to the disk.
const CHUNK: usize = 256 << 10;

/// Takes a plain layer tar and keeps it in the store's encoding.
#[derive(Debug)]
pub(super) struct TarSink {
    kind: Kind,
    blobs: PathBuf,
    media_type: MediaType,
}

#[derive(Debug)]
enum Kind {
    /// The plain tar itself; its digest is the diff_id.
    Plain(BufWriter<NamedTempFile>),
    Encoded(Box<EncodingWriter<Counted>>),
    /// As published.
    Exact(Box<Rebuild<Counted>>, Box<Descriptor>),
}

impl TarSink {
    pub(super) fn new(tmp: &Path, blobs: &Path, encoding: Encoding) -> Result<Self> {
        let file = NamedTempFile::new_in(tmp).at(tmp.display())?;
        let kind = match encoding {
            Encoding::Plain => Kind::Plain(BufWriter::with_capacity(CHUNK, file)),
            _ => Kind::Encoded(Box::new(EncodingWriter::new(Counted::new(file), encoding).at("layer")?)),
        };
        Ok(TarSink { kind, blobs: blobs.to_owned(), media_type: encoding.media_type() })
    }

    /// Makes what was `published`, and nothing else.
    pub(super) fn exact(
        tmp: &Path,
        blobs: &Path,
        published: &Descriptor,
        remake: Remake<'_>,
    ) -> Result<Self> {
        let Remake { recipe, fix, threads } = remake;
        if recipe.size() != published.size() {
            let (size, expected) = (recipe.size(), published.size());
            return Err(inexact(format!("its recipe is for {size} bytes, published are {expected}")));
        }
        let file = NamedTempFile::new_in(tmp).at(tmp.display())?;
        let rebuild = Rebuild::new(recipe, fix, threads, Counted::new(file)).map_err(inexact)?;
        let kind = Kind::Exact(Box::new(rebuild), Box::new(published.clone()));
        Ok(TarSink { kind, blobs: blobs.to_owned(), media_type: published.media_type().clone() })
    }
}

/// Makes the blob that was `published` by its recipe, or from nothing but the tar, as a file of its hex digest in `dir`.
///
/// # Errors
/// Local I/O errors; a recipe for a blob of another size.
pub(crate) fn exact_sink(
    dir: &Path,
    published: &Descriptor,
    remake: Option<Remake<'_>>,
) -> Result<Box<dyn LayerSink>> {
    Ok(Box::new(match remake {
        Some(remake) => TarSink::exact(dir, dir, published, remake)?,
        None => TarSink::new(dir, dir, Encoding::Plain)?,
    }))
}

impl LayerWrite for TarSink {}

impl LayerSink for TarSink {
    fn finish(self: Box<Self>, layer: &VerifiedLayer) -> Result<Descriptor> {
        let (file, digest, size) = match self.kind {
            Kind::Plain(writer) => {
                let file = writer.into_inner().map_err(|e| Error::from_io(e.into_error(), "layer"))?;
                (file, layer.diff_id().as_digest().clone(), layer.size())
            }
            Kind::Encoded(writer) => {
                let Counted { file, hasher } = writer.finish().at("layer")?;
                let size = hasher.bytes();
                (file, hasher.finish(), size)
            }
            Kind::Exact(rebuild, published) => {
                let Counted { file, hasher } = rebuild.finish().map_err(encoder_fault).at("layer")?;
                let (size, found, expected) = (hasher.bytes(), hasher.finish(), published.digest());
                if found != *expected {
                    return Err(inexact(format!("its recipe makes blob {found}, published is {expected}")));
                }
                (file, found, size)
            }
        };
        persist(file, &self.blobs.join(digest.digest()))?;
        Ok(Descriptor::new(self.media_type, size, digest))
    }
}

impl Write for TarSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Plain(file) => file.write(buf),
            Kind::Encoded(writer) => writer.write(buf),
            Kind::Exact(rebuild, _) => rebuild.write(buf).map_err(encoder_fault),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Plain(file) => file.flush(),
            Kind::Encoded(writer) => writer.flush(),
            Kind::Exact(rebuild, _) => rebuild.flush(),
        }
    }
}

/// Tells an encoder that does not do what its recipe says from a disk that is full.
fn encoder_fault(e: io::Error) -> io::Error {
    if e.get_ref().is_some_and(|inner| inner.is::<RebuildError>()) { inexact(e).into() } else { e }
}

/// Hashes the stored bytes on their way to the file.
#[derive(Debug)]
struct Counted {
    file: NamedTempFile,
    hasher: Hasher,
}

impl Counted {
    fn new(file: NamedTempFile) -> Self {
        Counted { file, hasher: Hasher::default() }
    }
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
