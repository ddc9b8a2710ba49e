//! Puts a document with its blobs, an artifact or an image, into an OCI layout: a directory or an archive.

use std::io::Read;
use std::path::Path;

use oci_spec::image::Descriptor;

use super::edit::IndexEdit;
use super::tar::Archive;
use super::write::{LayoutWriter, MARKER};
use crate::cancel::Cancel;
use crate::digest::{Digest, digest_of};
use crate::document::IMAGE_MANIFEST;
use crate::error::Result;
use crate::region::Region;

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    Region(Region),
}

impl Content {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Region(region) => region.len(),
        }
    }

    /// The bytes from the start.
    pub fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Content::Bytes(bytes) => Box::new(&bytes[..]),
            Content::Region(region) => Box::new(region.reader()),
        }
    }
}

/// Blobs in the order of writing.
pub type Blobs = Vec<(Digest, Content)>;

/// A manifest and the blobs that go with it.
#[derive(Debug)]
pub struct Parcel<'a> {
    /// The manifest.
    pub manifest: &'a [u8],
    /// Each blob once, in the order of writing.
    pub blobs: Vec<(&'a Digest, &'a Content)>,
    /// What the entry in the index says of it, where it is no image.
    pub artifact_type: Option<&'static str>,
    /// Which older manifests of its name it replaces in a directory.
    pub replaces: fn(&[u8]) -> bool,
}

impl Parcel<'_> {
    /// Writes an `oci-archive`, replacing what is at `path` only when it is complete.
    ///
    /// # Errors
    /// Local I/O errors; Usage for standard output.
    pub fn write_archive(&self, path: &Path, name: Option<&str>) -> Result<()> {
        let mut archive = Archive::create(path)?;
        archive.append("oci-layout", MARKER.len() as u64, MARKER)?;
        for dir in ["blobs/", "blobs/sha256/"] {
            archive.dir(dir)?;
        }
        for (digest, content) in &self.blobs {
            let name = format!("blobs/sha256/{}", digest.digest());
            archive.append(&name, content.size(), content.reader())?;
        }
        let manifest = format!("blobs/sha256/{}", digest_of(self.manifest).digest());
        archive.append(&manifest, self.manifest.len() as u64, self.manifest)?;
        let mut index = IndexEdit::default();
        index.put(&self.entry(), name, &[])?;
        let index = index.to_bytes()?;
        archive.append("index.json", index.len() as u64, &index[..])?;
        archive.finish().map(drop)
    }

    /// Adds it to the OCI layout directory `dir`, which is made if it is not there. Waits for others who write there.
    /// An older one of the same name, or without one if this has none, is replaced; what else has the name stays,
    /// without it.
    ///
    /// # Errors
    /// Local I/O errors; Verification when the layout's index cannot be parsed; Interrupted.
    pub fn write_dir(&self, dir: &Path, name: Option<&str>, cancel: &Cancel) -> Result<()> {
        let writer = LayoutWriter::open_or_create(dir, cancel)?;
        for (digest, content) in &self.blobs {
            writer.blob(digest, content.reader())?;
        }
        let entry = self.entry();
        writer.blob(entry.digest(), self.manifest)?;
        writer.edit(|index| {
            let mut replaced = Vec::new();
            for digest in index.named(name) {
                if (self.replaces)(&writer.small_blob(digest)?) {
                    replaced.push(digest.to_owned());
                }
            }
            index.remove(|digest, other| other == name && replaced.iter().any(|r| r == digest))?;
            index.put(&entry, name, &[])
        })
    }

    /// What names it in an index.
    fn entry(&self) -> Descriptor {
        let size = self.manifest.len() as u64;
        let mut entry = Descriptor::new(IMAGE_MANIFEST.into(), size, digest_of(self.manifest));
        entry.set_artifact_type(self.artifact_type.map(Into::into));
        entry
    }
}
