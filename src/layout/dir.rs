//! Layouts that are directories: OCI (`oci:`) and skopeo's `dir:`.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, MediaType};

use super::bundle::RANGES;
use super::{Storage, file};
use crate::artifact::Image;
use crate::digest::{Digest, digest_of};
use crate::document::{
    self, DOCKER_CONFIG, DOCKER_MANIFEST, DocumentKind, IMAGE_INDEX, IMAGE_MANIFEST, Index,
};
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// An OCI image layout directory. As for skopeo, its index makes it one.
#[derive(Debug)]
pub(super) struct OciDir {
    root: PathBuf,
}

impl OciDir {
    pub(super) fn open(root: &Path) -> Result<Self> {
        require(root, "index.json", "an OCI layout")?;
        Ok(OciDir { root: root.to_owned() })
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join("sha256").join(digest.digest())
    }
}

/// Demands a directory with a file in it that makes it what it is to be.
fn require(root: &Path, name: &str, what: &str) -> Result<()> {
    let shown = root.display();
    match fs::metadata(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(file::absent(root)),
        Err(e) => return Err(Error::from_io(e, shown)),
        Ok(meta) if !meta.is_dir() => {
            return Err(Error::misfit(format!("{shown}: not {what}, it is no directory"))
                .with_hint(format!("oci-archive:{shown} for an archive of a layout")));
        }
        Ok(_) if root.join(name).is_file() => {}
        Ok(_) => return Err(Error::misfit(format!("{shown}: not {what}, it has no {name} file"))),
    }
    Ok(())
}

impl Storage for OciDir {
    fn index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        document::index(&file::read(&path)?, path.display())
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        file::region(&self.path_of(digest))
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        file::size(&self.path_of(digest))
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        if path.is_file() { file::read(&path).map(Some) } else { Ok(None) }
    }

    fn range(&self, digest: &Digest, offset: u64) -> Result<Option<Region>> {
        file::region(&self.root.join(RANGES).join(digest.digest()).join(offset.to_string()))
    }
}

/// What skopeo looks for in the folder of an image (containers/image, directory transport).
const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

/// Makes `dir`, which has the layers, what skopeo calls `dir:`: with the config of `image`, and this manifest.
///
/// # Errors
/// Local I/O errors.
pub(crate) fn write_folder(dir: &Path, image: &Image, manifest: &[u8]) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).at(dir.display());
    write(image.config_digest.digest(), &image.config_raw)?;
    write("manifest.json", manifest)?;
    write("version", VERSION)
}

/// A `dir:` folder: `manifest.json` and blobs named by their hex digest.
#[derive(Debug)]
pub(super) struct PlainDir {
    root: PathBuf,
}

impl PlainDir {
    pub(super) fn open(root: &Path) -> Result<Self> {
        require(root, "manifest.json", "a dir: image")?;
        Ok(PlainDir { root: root.to_owned() })
    }
}

/// The media type of a manifest that stands alone: what it says, else what it looks like.
pub(super) fn media_type(manifest: &[u8]) -> MediaType {
    let text = |field: Option<&serde_json::Value>| field.and_then(|v| v.as_str()).map(MediaType::from);
    let document = document::object(manifest).unwrap_or_default();
    let config = document::field(&document, "config").and_then(|config| config.as_object());
    match text(document::field(&document, "mediaType")) {
        Some(named) if DocumentKind::of(&named) != DocumentKind::Other => named,
        _ if DocumentKind::sniff(manifest) == DocumentKind::Index => IMAGE_INDEX.into(),
        _ if text(config.and_then(|c| document::field(c, "mediaType"))) == Some(DOCKER_CONFIG.into()) => {
            DOCKER_MANIFEST.into()
        }
        _ => IMAGE_MANIFEST.into(),
    }
}

impl Storage for PlainDir {
    /// `dir:` has no index; its manifest's descriptor is computed from the bytes.
    fn index(&self) -> Result<Index> {
        let bytes = file::read(&self.root.join("manifest.json"))?;
        let descriptor = Descriptor::new(media_type(&bytes), bytes.len() as u64, digest_of(&bytes));
        Ok(Index { entries: vec![Ok(descriptor)] })
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        if let Some(region) = file::region(&self.root.join(digest.digest()))? {
            return Ok(Some(region));
        }
        // The top manifest, and the instances of a multi-arch image, have names of their own.
        for name in ["manifest.json".to_owned(), format!("{}.manifest.json", digest.digest())] {
            let path = self.root.join(name);
            if path.is_file() && digest_of(&file::read(&path)?) == *digest {
                return file::region(&path);
            }
        }
        Ok(None)
    }
}
