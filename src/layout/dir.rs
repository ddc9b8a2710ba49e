//! Layouts that are directories: OCI (`oci:`) and skopeo's `dir:`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType};

use super::{MAX_INDEX_SIZE, Storage, parse_index};
use crate::descriptors;
use crate::digest::{Digest, digest_of};
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// An OCI image layout directory.
#[derive(Debug)]
pub(super) struct OciDir {
    root: PathBuf,
}

impl OciDir {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let marker = root.join("oci-layout");
        if !marker.is_file() {
            return Err(Error::misfit(format!(
                "{}: not an OCI layout, it has no oci-layout file",
                root.display()
            )));
        }
        Ok(OciDir { root: root.to_owned() })
    }
}

impl Storage for OciDir {
    fn index(&self) -> Result<ImageIndex> {
        let path = self.root.join("index.json");
        parse_index(&read_bounded(&path)?, &path.display().to_string())
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        open_blob(&self.root.join("blobs").join("sha256").join(digest.digest()))
    }
}

/// A `dir:` folder: `manifest.json` and blobs named by their hex digest.
#[derive(Debug)]
pub(super) struct PlainDir {
    root: PathBuf,
}

impl PlainDir {
    pub(super) fn open(root: &Path) -> Result<Self> {
        if !root.join("manifest.json").is_file() {
            return Err(Error::misfit(format!(
                "{}: not a dir: image, it has no manifest.json",
                root.display()
            )));
        }
        Ok(PlainDir { root: root.to_owned() })
    }
}

impl Storage for PlainDir {
    /// `dir:` has no index; its manifest's descriptor is computed from the bytes.
    fn index(&self) -> Result<ImageIndex> {
        let path = self.root.join("manifest.json");
        let bytes = read_bounded(&path)?;
        let stated: Option<String> = serde_json::from_slice::<serde_json::Value>(&bytes)
            .map_err(|e| Error::verification(format!("{}: {e}", path.display())).with_source(e))?
            .get("mediaType")
            .and_then(|m| m.as_str().map(str::to_owned));
        let media_type = stated.map_or(MediaType::ImageManifest, |m| MediaType::from(m.as_str()));
        let descriptor = Descriptor::new(media_type, bytes.len() as u64, digest_of(&bytes));
        ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests(vec![descriptor])
            .build()
            .map_err(|e| Error::local(format!("{}: {e}", path.display())))
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        if let Some(region) = open_blob(&self.root.join(digest.digest()))? {
            return Ok(Some(region));
        }
        // The top manifest, and the instances of a multi-arch image, have names of their own.
        for name in ["manifest.json".to_owned(), format!("{}.manifest.json", digest.digest())] {
            let path = self.root.join(name);
            if path.is_file() && digest_of(&read_bounded(&path)?) == *digest {
                return open_blob(&path);
            }
        }
        Ok(None)
    }
}

fn open_blob(path: &Path) -> Result<Option<Region>> {
    let again = path.to_owned();
    let open = move || {
        let file = File::open(&again)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(Error::verification(format!("{}: not a regular file", again.display())).into()),
        }
    };
    match descriptors::reopened(open) {
        Ok(region) => Ok(Some(region)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::from_io(e, path.display())),
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).at(path.display())?;
    file.take(MAX_INDEX_SIZE + 1).read_to_end(&mut bytes).at(path.display())?;
    if bytes.len() as u64 > MAX_INDEX_SIZE {
        return Err(Error::verification(format!("{}: larger than {MAX_INDEX_SIZE} bytes", path.display())));
    }
    Ok(bytes)
}
