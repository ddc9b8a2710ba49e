//! Puts a document with its blobs, an artifact or an image, into an OCI layout: a directory or an archive.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use oci_spec::image::Descriptor;
use tempfile::NamedTempFile;

use super::edit::IndexEdit;
use super::write::{LayoutWriter, MARKER};
use crate::cancel::Cancel;
use crate::digest::{Digest, digest_of};
use crate::document::IMAGE_MANIFEST;
use crate::error::{Error, IoContext, Result};
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
        if path == Path::new("-") {
            return Err(Error::usage("an archive is not written to standard output")
                .with_hint("oci-archive:FILE, or oci-archive:./- for a file of this name"));
        }
        let parent = parent(path);
        let file = NamedTempFile::new_in(parent).at(parent.display())?;
        let mut tar = tar::Builder::new(BufWriter::new(file));
        append(&mut tar, "oci-layout", MARKER.len() as u64, MARKER).at(path.display())?;
        for dir in ["blobs/", "blobs/sha256/"] {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, dir, std::io::empty()).at(path.display())?;
        }
        for (digest, content) in &self.blobs {
            let name = format!("blobs/sha256/{}", digest.digest());
            append(&mut tar, &name, content.size(), content.reader()).at(path.display())?;
        }
        let manifest = format!("blobs/sha256/{}", digest_of(self.manifest).digest());
        append(&mut tar, &manifest, self.manifest.len() as u64, self.manifest).at(path.display())?;
        let mut index = IndexEdit::default();
        index.put(&self.entry(), name, &[])?;
        let index = index.to_bytes()?;
        append(&mut tar, "index.json", index.len() as u64, &index[..]).at(path.display())?;
        let file =
            tar.into_inner().and_then(|w| w.into_inner().map_err(|e| e.into_error())).at(path.display())?;
        publish(file, path)
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

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    data: impl std::io::Read,
) -> std::io::Result<()> {
    tar.append_data(&mut header(size, 0o644), name, data)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Gives a complete file its name, and makes that last.
fn publish(file: NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).at(path.display())?;
    file.as_file().sync_all().at(path.display())?;
    file.persist(path).map_err(|e| Error::from_io(e.error, path.display()))?;
    File::open(parent(path)).and_then(|dir| dir.sync_all()).at(path.display())
}
