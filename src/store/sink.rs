//! Writers for layers on their way into the store: a temporary file that gets a
//! name only with a [`VerifiedLayer`] in hand.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Is told how the file of a blob grows, by the thread that writes it, for those who read along.
pub trait Growth: Debug + Send + Sync {
    /// It is written into `file`, from the first byte on: anew, where it was told of another one before.
    fn begin(&self, file: File);

    /// So many bytes of it are there; whether they are right is not known.
    fn grow(&self, bytes: u64);

    /// All bytes are there, and they are right: those of the blob with this digest.
    fn verified(&self, digest: &Digest);
}

/// Where the file of a blob is written, under which name it is kept, and who is told.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// For unfinished files.
    pub tmp: PathBuf,
    pub blobs: PathBuf,
    pub growth: Option<Arc<dyn Growth>>,
}

impl Files {
    fn begin(&self) -> Result<Growing> {
        let file = NamedTempFile::new_in(&self.tmp).at(self.tmp.display())?;
        if let Some(growth) = &self.growth {
            growth.begin(file.as_file().try_clone().at(self.tmp.display())?);
        }
        Ok(Growing { file, written: 0, growth: self.growth.clone() })
    }

    /// Gives a blob its name, whose digest was checked.
    fn keep(&self, growing: Growing, digest: &Digest) -> Result<()> {
        if let Some(growth) = &growing.growth {
            growth.verified(digest);
        }
        persist(growing.file, &self.blobs.join(digest.digest()))
    }
}

/// The file of a blob on its way.
#[derive(Debug)]
struct Growing {
    file: NamedTempFile,
    written: u64,
    growth: Option<Arc<dyn Growth>>,
}

impl Write for Growing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.written += n as u64;
        if let Some(growth) = &self.growth {
            growth.grow(self.written);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Takes a plain layer tar and keeps it in the store's encoding.
#[derive(Debug)]
pub(super) struct TarSink {
    kind: Kind,
    files: Files,
    media_type: MediaType,
}

#[derive(Debug)]
enum Kind {
    /// The plain tar itself; its digest is the diff_id.
    Plain(BufWriter<Growing>),
    Encoded(Box<EncodingWriter<Counted>>),
    /// As published.
    Exact(Box<Rebuild<Counted>>, Box<Descriptor>),
}

impl TarSink {
    pub(super) fn new(files: &Files, encoding: Encoding) -> Result<Self> {
        let file = files.begin()?;
        let kind = match encoding {
            Encoding::Plain => Kind::Plain(BufWriter::with_capacity(CHUNK, file)),
            _ => Kind::Encoded(Box::new(EncodingWriter::new(Counted::new(file), encoding).at("layer")?)),
        };
        Ok(TarSink { kind, files: files.clone(), media_type: encoding.media_type() })
    }

    /// Makes what was `published`, and nothing else.
    pub(super) fn exact(files: &Files, published: &Descriptor, remake: Remake<'_>) -> Result<Self> {
        let Remake { recipe, fix, threads } = remake;
        if recipe.size() != published.size() {
            let (size, expected) = (recipe.size(), published.size());
            return Err(inexact(format!("its recipe is for {size} bytes, published are {expected}")));
        }
        let rebuild = Rebuild::new(recipe, fix, threads, Counted::new(files.begin()?)).map_err(inexact)?;
        let kind = Kind::Exact(Box::new(rebuild), Box::new(published.clone()));
        Ok(TarSink { kind, files: files.clone(), media_type: published.media_type().clone() })
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
    let files = Files { tmp: dir.to_owned(), blobs: dir.to_owned(), growth: None };
    Ok(Box::new(match remake {
        Some(remake) => TarSink::exact(&files, published, remake)?,
        None => TarSink::new(&files, Encoding::Plain)?,
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
        self.files.keep(file, &digest)?;
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
    file: Growing,
    hasher: Hasher,
}

impl Counted {
    fn new(file: Growing) -> Self {
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
    file: Growing,
    files: Files,
}

impl BlobSink {
    pub(super) fn new(files: &Files) -> Result<Self> {
        Ok(BlobSink { file: files.begin()?, files: files.clone() })
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
        self.files.keep(self.file, digest)?;
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
