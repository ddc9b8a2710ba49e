//! Reads images where they lie: `oci:` directories, `oci-archive:` files, `dir:` folders, podman's storage.
//!
//! A blob is a [`Region`] of a file: nothing is unpacked, and nothing copied but an archive that is compressed
//! or comes through a pipe. Our own repository is read through here too. What skopeo copies is taken, however
//! odd; what one entry of an index gets wrong concerns that entry alone.

mod archive;
pub(crate) mod bundle;
mod choose;
mod dir;
mod edit;
mod file;
pub(crate) mod lock;
mod output;
mod podman;
mod tar;
mod write;

use std::fmt::Debug;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::{Descriptor, MediaType};

pub use self::tar::Archive;
use crate::artifact::{self, Image, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};
use crate::bundle::{TABLE, Table};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, VerifyReader, require_sha256};
use crate::document::{self, DocumentKind, Index};
use crate::error::{Error, IoContext, Kind, Result};
use crate::platform::Platform;
use crate::podman::Storage as PodmanStorage;
use crate::reference::Reference;
use crate::region::Region;
pub use choose::{FULL_NAME, REF_NAME, full_name, ref_name};
pub(crate) use dir::write_folder;
pub use edit::IndexEdit;
pub use output::{Blobs, Content, Parcel};
pub use write::{LayoutWriter, MARKER, STATE};
pub(crate) use write::{edit_index, open_lock, persist, sync_dir, write_durably};

/// Largest `index.json` in bytes. 16 MiB hold some 50,000 images, more than one layout is good for.
pub const MAX_INDEX_SIZE: u64 = 16 << 20;

/// Deepest nesting of image indexes that is followed. Real ones have one level below `index.json`.
pub const MAX_INDEX_DEPTH: usize = 4;

/// Most bytes that are read of something that is neither index nor manifest, to see what it refers to.
const MAX_UNKNOWN_SIZE: u64 = MAX_MANIFEST_SIZE;

/// Where the parts of a layout are found.
trait Storage: Send + Sync + Debug {
    /// The top-level index, or a single manifest made to look like one.
    fn index(&self) -> Result<Index>;
    /// A blob, if it is there.
    fn blob(&self, digest: &Digest) -> Result<Option<Region>>;
    /// The manifest that is meant, where the place has ways of its own to name one.
    fn named(&self, _name: &str) -> Result<Option<Descriptor>> {
        Ok(None)
    }
    /// Bytes of a blob.
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.blob(digest)?.map(|blob| blob.len()))
    }
    /// A small file beside the index.
    fn file(&self, _name: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
    /// A stretch of a blob that is cut, by where it begins.
    fn range(&self, _digest: &Digest, _offset: u64) -> Result<Option<Region>> {
        Ok(None)
    }
}

/// A set of images on this machine that can be read without skopeo.
#[derive(Debug)]
pub struct Layout {
    shown: String,
    storage: Box<dyn Storage>,
}

impl Layout {
    /// Opens what `reference` names; `None` for a registry reference.
    ///
    /// `spool_dir` holds the unlinked copy of a compressed archive.
    ///
    /// # Errors
    /// When it is not there or is no layout.
    pub fn open(reference: &Reference, spool_dir: &Path) -> Result<Option<Self>> {
        let storage: Box<dyn Storage> = match reference {
            Reference::Docker { .. } => return Ok(None),
            Reference::Oci { dir, .. } => match parts(dir, spool_dir)? {
                Some(parts) => Box::new(parts),
                None => Box::new(dir::OciDir::open(dir)?),
            },
            Reference::OciArchive { file, .. } => Box::new(archive::OciArchive::open(file, spool_dir)?),
            Reference::Dir { dir } => Box::new(dir::PlainDir::open(dir)?),
            Reference::ContainersStorage { place, .. } => {
                let storage = PodmanStorage::open(place, spool_dir, &Cancel::default())?;
                return Ok(Some(Layout::of_podman(Arc::new(storage))));
            }
        };
        Ok(Some(Layout { shown: reference.to_string(), storage }))
    }

    /// Podman's storage, which is open already.
    pub(crate) fn of_podman(storage: Arc<PodmanStorage>) -> Self {
        let shown = storage.place().to_string();
        Layout { shown, storage: Box::new(podman::InPodman::new(storage)) }
    }

    /// Opens the OCI layout in directory `dir`.
    ///
    /// # Errors
    /// When it is no layout.
    pub fn open_dir(dir: &Path) -> Result<Self> {
        Ok(Layout { shown: format!("oci:{}", dir.display()), storage: Box::new(dir::OciDir::open(dir)?) })
    }

    /// Is this a bundle? Its deltas have those of their blobs alone that are wanted.
    pub fn is_bundle(&self) -> bool {
        matches!(self.storage.file(TABLE), Ok(Some(_)))
    }

    /// The table of a bundle; `None` when this is none.
    ///
    /// # Errors
    /// Verification when it is damaged; local I/O errors.
    pub fn table(&self) -> Result<Option<Table>> {
        let table = self.storage.file(TABLE)?;
        table.map(|table| Table::parse(&table, &format!("{}: {TABLE}", self.shown))).transpose()
    }

    /// The top-level index as it is now.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn index(&self) -> Result<Index> {
        self.storage.index()
    }

    /// The blob with this digest, unverified; `None` when it is absent.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        require_sha256(digest, &self.shown)?;
        self.storage.blob(digest)
    }

    /// Bytes of the blob with this digest; `None` when it is absent. Looks, but does not open it.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        require_sha256(digest, &self.shown)?;
        self.storage.size(digest)
    }

    /// A layer of an image here: its blob, or where that is not kept, its plain tar. The descriptor is that of the bytes.
    ///
    /// # Errors
    /// As [`require_blob`](Self::require_blob).
    pub fn layer(&self, diff_id: &DiffId, layer: &Descriptor) -> Result<(Descriptor, Region)> {
        if self.blob(layer.digest())?.is_none()
            && let Some(tar) = self.blob(diff_id.as_digest())?
        {
            let plain = Descriptor::new(MediaType::ImageLayer, tar.len(), diff_id.as_digest().clone());
            return Ok((plain, tar));
        }
        Ok((layer.clone(), self.require_blob(layer)?))
    }

    /// The blob of `descriptor`, which must be there with the right size.
    ///
    /// # Errors
    /// Misfit when it is absent or encrypted, Verification when its size differs.
    pub fn require_blob(&self, descriptor: &Descriptor) -> Result<Region> {
        if let Some(e) = artifact::unreadable(descriptor) {
            return Err(e.context(&self.shown));
        }
        let region = self.find(descriptor)?;
        if region.len() != descriptor.size() {
            return Err(Error::verification(format!(
                "{}: blob {} has {} bytes, its descriptor states {}",
                self.shown,
                descriptor.digest(),
                region.len(),
                descriptor.size()
            )));
        }
        Ok(region)
    }

    fn find(&self, descriptor: &Descriptor) -> Result<Region> {
        self.blob(descriptor.digest())?.ok_or_else(|| self.absent(descriptor))
    }

    fn absent(&self, descriptor: &Descriptor) -> Error {
        match artifact::is_elsewhere(descriptor) {
            Some(elsewhere) => elsewhere.context(&self.shown),
            None => Error::misfit(format!("{}: blob {} is not there", self.shown, descriptor.digest())),
        }
    }

    /// Reads a small blob whole and checks its digest, which says all: a size beside it is often wrong or missing.
    ///
    /// # Errors
    /// Misfit when it is absent; Verification above `max` bytes or on a mismatch.
    pub fn read_blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        let bytes = self.read_if_there(descriptor, max)?;
        bytes.ok_or_else(|| check_size(descriptor, max).err().unwrap_or_else(|| self.absent(descriptor)))
    }

    /// The same; `None` when it is absent.
    ///
    /// # Errors
    /// As [`read_blob`](Self::read_blob).
    fn read_if_there(&self, descriptor: &Descriptor, max: u64) -> Result<Option<Vec<u8>>> {
        let Some(region) = self.blob(descriptor.digest())? else { return Ok(None) };
        let found =
            Descriptor::new(descriptor.media_type().clone(), region.len(), descriptor.digest().clone());
        check_size(&found, max)?;
        read_verified(region.reader(), &found).map(Some)
    }

    /// Finds the manifest for a name and platform, going down into image indexes. Its size is that of the blob.
    ///
    /// # Errors
    /// Misfit when nothing matches; Usage when the choice is open.
    pub fn resolve(&self, name: Option<&str>, platform: &Platform) -> Result<Descriptor> {
        let own = name.map_or(Ok(None), |name| self.storage.named(name))?;
        let mut chosen = match own {
            Some(named) => named,
            None => choose::choose(&self.shown, &self.index()?, name, platform)?.clone(),
        };
        for _ in 0..MAX_INDEX_DEPTH {
            if self.kind(&chosen)? != DocumentKind::Index {
                if let Some(blob) = self.blob(chosen.digest())? {
                    chosen.set_size(blob.len());
                }
                return Ok(chosen);
            }
            let nested = document::index(&self.read_blob(&chosen, MAX_INDEX_SIZE)?, chosen.digest())?;
            chosen = platform.choose(nested.manifests())?.clone();
        }
        Err(Error::verification(format!("{}: image indexes are nested too deep", self.shown)))
    }

    /// What a blob that an index names is: by its media type, and where that says nothing, by what is in it.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn kind(&self, descriptor: &Descriptor) -> Result<DocumentKind> {
        match DocumentKind::of(descriptor.media_type()) {
            DocumentKind::Other => Ok(DocumentKind::sniff(&self.peek(descriptor)?)),
            known => Ok(known),
        }
    }

    /// The content of a small blob, unverified; nothing when it is absent or large.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn peek(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(blob) = self.blob(descriptor.digest())?.filter(|blob| blob.len() <= MAX_UNKNOWN_SIZE) {
            blob.reader().read_to_end(&mut bytes).at(descriptor.digest())?;
        }
        Ok(bytes)
    }

    /// The image behind a manifest descriptor; `None` when it is something
    /// else (an artifact, an index) or its manifest or config is not there.
    ///
    /// # Errors
    /// Verification when manifest and config do not hold together.
    pub fn image(&self, descriptor: &Descriptor) -> Result<Option<Image>> {
        if self.kind(descriptor)? != DocumentKind::Manifest {
            return Ok(None);
        }
        let Some(manifest) = self.read_if_there(descriptor, MAX_MANIFEST_SIZE)? else { return Ok(None) };
        if artifact::is_delta(&manifest)? {
            return Ok(None);
        }
        let Some(config) = artifact::image_config(&manifest)? else { return Ok(None) };
        let Some(config) = self.read_if_there(&config, MAX_CONFIG_SIZE)? else { return Ok(None) };
        Image::parse(manifest, descriptor.digest(), config).map(Some)
    }

    /// Gives the layers of an image in this layout the sizes that their blobs have, where the manifest states
    /// others: the digest decides, and skopeo does not look at the size. A blob that is damaged has the wrong one.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn correct_sizes(&self, image: &mut Image) -> Result<()> {
        for layer in &mut image.layers {
            let blob = self.blob(layer.digest())?.filter(|blob| blob.len() != layer.size());
            let Some(blob) = blob else { continue };
            let mut content = VerifyReader::new(blob.reader(), layer.digest().clone(), blob.len());
            match content.drain().at(layer.digest()) {
                Ok(()) => drop(layer.set_size(blob.len())),
                Err(e) if e.kind() == Kind::Verification => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The entries of an index that is a blob here.
    ///
    /// # Errors
    /// As [`read_blob`](Self::read_blob); Verification when it is none.
    pub fn nested(&self, descriptor: &Descriptor) -> Result<Index> {
        document::index(&self.read_blob(descriptor, MAX_INDEX_SIZE)?, descriptor.digest())
    }

    /// What a blob that an index names is made of: the entries of an index, config and layers of a manifest, and
    /// whatever a document of another sort refers to in the same way.
    ///
    /// # Errors
    /// When an index or manifest that is there cannot be read.
    pub fn children(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        if self.blob(descriptor.digest())?.is_none() {
            return Ok(Vec::new());
        }
        match DocumentKind::of(descriptor.media_type()) {
            DocumentKind::Index => {
                self.nested(descriptor)?;
                Ok(document::parts(&self.read_blob(descriptor, MAX_INDEX_SIZE)?))
            }
            DocumentKind::Manifest => {
                let manifest = self.read_blob(descriptor, MAX_MANIFEST_SIZE)?;
                artifact::parse_manifest(&manifest).map_err(|e| e.context(descriptor.digest()))?;
                Ok(document::parts(&manifest))
            }
            DocumentKind::Other => Ok(document::parts(&self.peek(descriptor)?)),
        }
    }
}

/// The parts of a bundle, where the folder holds those instead of a layout.
fn parts(dir: &Path, spool: &Path) -> Result<Option<bundle::Parts>> {
    if dir.is_dir() && !dir.join("index.json").exists() { bundle::Parts::open(dir, spool) } else { Ok(None) }
}

/// Refuses a descriptor that promises more than `max` bytes.
///
/// # Errors
/// Verification.
pub fn check_size(descriptor: &Descriptor, max: u64) -> Result<()> {
    if descriptor.size() <= max {
        return Ok(());
    }
    Err(Error::verification(format!(
        "blob {} ({}) has {} bytes, at most {max} are allowed",
        descriptor.digest(),
        descriptor.media_type(),
        descriptor.size()
    )))
}

/// Reads the whole of a bounded blob, checking digest and size.
///
/// # Errors
/// Verification, or what the reader says.
pub fn read_verified(reader: impl Read, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    VerifyReader::new(reader, descriptor.digest().clone(), descriptor.size())
        .read_to_end(&mut bytes)
        .at(descriptor.digest())?;
    Ok(bytes)
}
