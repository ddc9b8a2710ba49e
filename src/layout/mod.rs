//! Reads images where they lie: `oci:` directories, `oci-archive:` files, `dir:` folders.
//!
//! Nothing is unpacked or copied; a blob is a [`Region`] of a file. Our own
//! repository is read through here too.

mod archive;
mod dir;

use std::fmt::Debug;
use std::io::Read;
use std::path::Path;

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use crate::artifact::{self, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, TargetImage};
use crate::digest::{Digest, VerifyReader, require_sha256};
use crate::error::{Error, IoContext, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::region::Region;

/// Largest `index.json` in bytes. 16 MiB hold some 50,000 images, more than one layout is good for.
pub const MAX_INDEX_SIZE: u64 = 16 << 20;

/// Deepest nesting of image indexes that is followed. Real ones have one level below `index.json`.
const MAX_INDEX_DEPTH: usize = 4;

/// The annotation that names an image in an index (OCI image-spec, annotations).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where the parts of a layout are found.
trait Storage: Send + Sync + Debug {
    /// The top-level index, or a single manifest made to look like one.
    fn index(&self) -> Result<ImageIndex>;
    /// A blob, if it is there.
    fn blob(&self, digest: &Digest) -> Result<Option<Region>>;
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
            Reference::Oci { dir, .. } => Box::new(dir::OciDir::open(dir)?),
            Reference::OciArchive { file, .. } => Box::new(archive::OciArchive::open(file, spool_dir)?),
            Reference::Dir { dir } => Box::new(dir::PlainDir::open(dir)?),
        };
        Ok(Some(Layout { shown: reference.to_string(), storage }))
    }

    /// Opens the OCI layout in directory `dir`.
    ///
    /// # Errors
    /// When it is no layout.
    pub fn open_dir(dir: &Path) -> Result<Self> {
        Ok(Layout { shown: format!("oci:{}", dir.display()), storage: Box::new(dir::OciDir::open(dir)?) })
    }

    /// The top-level index as it is now.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn index(&self) -> Result<ImageIndex> {
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

    /// The blob of `descriptor`, which must be there with the right size.
    ///
    /// # Errors
    /// Misfit when it is absent, Verification when its size differs.
    pub fn require_blob(&self, descriptor: &Descriptor) -> Result<Region> {
        let digest = descriptor.digest();
        let region = self
            .blob(digest)?
            .ok_or_else(|| Error::misfit(format!("{}: blob {digest} is not there", self.shown)))?;
        if region.len() != descriptor.size() {
            return Err(Error::verification(format!(
                "{}: blob {digest} has {} bytes, its descriptor states {}",
                self.shown,
                region.len(),
                descriptor.size()
            )));
        }
        Ok(region)
    }

    /// Reads a small blob whole and checks its digest.
    ///
    /// # Errors
    /// As [`Layout::require_blob`]; Verification above `max` bytes or on a mismatch.
    pub fn read_blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        check_size(descriptor, max)?;
        let region = self.require_blob(descriptor)?;
        read_verified(region.reader(), descriptor)
    }

    /// Finds the manifest for a name and platform, going down into image indexes.
    ///
    /// # Errors
    /// Misfit when nothing matches; Usage when the choice is open.
    pub fn resolve(&self, name: Option<&str>, platform: &Platform) -> Result<Descriptor> {
        let index = self.index()?;
        let mut chosen = self.choose(index.manifests(), name, platform)?.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            if !is_index(chosen.media_type()) {
                return Ok(chosen);
            }
            let nested = parse_index(&self.read_blob(&chosen, MAX_INDEX_SIZE)?, chosen.digest().as_ref())?;
            chosen = platform.choose(nested.manifests())?.clone();
        }
        Err(Error::verification(format!("{}: image indexes are nested too deep", self.shown)))
    }

    /// The image behind a manifest descriptor; `None` when it is something
    /// else (an artifact, an index) or its manifest or config is not there.
    ///
    /// # Errors
    /// Verification when manifest and config do not hold together.
    pub fn image(&self, descriptor: &Descriptor) -> Result<Option<TargetImage>> {
        if is_index(descriptor.media_type()) || self.blob(descriptor.digest())?.is_none() {
            return Ok(None);
        }
        let manifest = self.read_blob(descriptor, MAX_MANIFEST_SIZE)?;
        if artifact::is_delta(&manifest)? {
            return Ok(None);
        }
        let Some(config) = artifact::image_config(&manifest)? else { return Ok(None) };
        if self.blob(config.digest())?.is_none() {
            return Ok(None);
        }
        let config = self.read_blob(&config, MAX_CONFIG_SIZE)?;
        TargetImage::parse(manifest, descriptor.digest(), config).map(Some)
    }

    /// What a blob leads to: the entries of an index, config and layers of a manifest, nothing otherwise.
    ///
    /// # Errors
    /// When a manifest that is there cannot be read.
    pub fn children(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        if is_index(descriptor.media_type()) && self.blob(descriptor.digest())?.is_some() {
            let bytes = self.read_blob(descriptor, MAX_INDEX_SIZE)?;
            return Ok(parse_index(&bytes, descriptor.digest().as_ref())?.manifests().clone());
        }
        if !is_manifest(descriptor.media_type()) || self.blob(descriptor.digest())?.is_none() {
            return Ok(Vec::new());
        }
        let manifest = artifact::parse_manifest(&self.read_blob(descriptor, MAX_MANIFEST_SIZE)?)?;
        let mut children = manifest.layers().clone();
        children.push(manifest.config().clone());
        Ok(children)
    }

    fn choose<'a>(
        &self,
        manifests: &'a [Descriptor],
        name: Option<&str>,
        platform: &Platform,
    ) -> Result<&'a Descriptor> {
        let Some(name) = name else {
            return match manifests {
                [] => Err(Error::misfit(format!("{}: no image in the layout", self.shown))),
                [one] => Ok(one),
                many if many.iter().all(|d| d.platform().is_some() && ref_name(d).is_none()) => {
                    platform.choose(many)
                }
                many => Err(Error::usage(format!("{}: more than one image in the layout", self.shown))
                    .with_hint(format!("name one: {}", names(many)))),
            };
        };
        if let Some(position) = name.strip_prefix('@').and_then(|n| n.parse::<usize>().ok()) {
            return manifests
                .get(position)
                .ok_or_else(|| Error::misfit(format!("{}: no image at index {position}", self.shown)));
        }
        manifests.iter().find(|d| ref_name(d) == Some(name)).ok_or_else(|| {
            Error::misfit(format!("{}: no image named {name:?}", self.shown))
                .with_hint(format!("there is: {}", names(manifests)))
        })
    }
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

/// The name an index entry gives its image.
pub fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}

fn names(manifests: &[Descriptor]) -> String {
    const SHOWN: usize = 20;
    let mut all: Vec<String> =
        manifests.iter().filter_map(ref_name).take(SHOWN).map(|n| n.escape_default().to_string()).collect();
    if all.is_empty() {
        return format!("@0 to @{}", manifests.len().saturating_sub(1));
    }
    if manifests.len() > SHOWN {
        all.push("…".into());
    }
    all.join(", ")
}

fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex)
        || media_type.to_string() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

fn is_manifest(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageManifest)
        || media_type.to_string() == "application/vnd.docker.distribution.manifest.v2+json"
}

fn parse_index(bytes: &[u8], what: &str) -> Result<ImageIndex> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::verification(format!("{what}: not an image index: {e}")).with_source(e))
}
