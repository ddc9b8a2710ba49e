//! Puts a finished artifact into an OCI layout, directory or archive.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::manifest::{Artifact, Blob};
use crate::digest::digest_of;
use crate::error::{Error, IoContext, Result};
use crate::layout::REF_NAME;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Artifact {
    /// Writes an `oci-archive`, replacing what is at `path` only when it is complete.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn write_archive(&self, path: &Path, name: Option<&str>) -> Result<()> {
        let parent = parent(path);
        let file = NamedTempFile::new_in(parent).at(parent.display())?;
        let mut tar = tar::Builder::new(BufWriter::new(file));
        append(&mut tar, "oci-layout", LAYOUT.len() as u64, LAYOUT).at(path.display())?;
        for dir in ["blobs/", "blobs/sha256/"] {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, dir, std::io::empty()).at(path.display())?;
        }
        for blob in &self.blobs {
            let name = format!("blobs/sha256/{}", blob.digest.digest());
            append(&mut tar, &name, blob.size(), blob.reader()).at(path.display())?;
        }
        let manifest = format!("blobs/sha256/{}", digest_of(&self.manifest).digest());
        append(&mut tar, &manifest, self.manifest.len() as u64, &self.manifest[..]).at(path.display())?;
        let index = index(None, self.entry(name));
        append(&mut tar, "index.json", index.len() as u64, &index[..]).at(path.display())?;
        let file =
            tar.into_inner().and_then(|w| w.into_inner().map_err(|e| e.into_error())).at(path.display())?;
        publish(file, path)
    }

    /// Adds the artifact to the OCI layout directory `dir`, which is made if it
    /// is not there. An entry of the same name, or without one if this has none, is replaced.
    ///
    /// # Errors
    /// Local I/O errors; Verification when the layout's index cannot be parsed.
    pub fn write_dir(&self, dir: &Path, name: Option<&str>) -> Result<()> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).at(blobs.display())?;
        for blob in &self.blobs {
            write_blob(&blobs, blob)?;
        }
        write(&blobs.join(digest_of(&self.manifest).digest()), &self.manifest)?;
        write(&dir.join("oci-layout"), LAYOUT)?;
        let path = dir.join("index.json");
        let present = match fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| {
                Error::verification(format!("{}: not an image index: {e}", path.display())).with_source(e)
            })?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::from_io(e, path.display())),
        };
        write(&path, &index(present, self.entry(name)))
    }

    fn entry(&self, name: Option<&str>) -> Value {
        let mut entry = json!({
            "mediaType": IMAGE_MANIFEST,
            "digest": digest_of(&self.manifest).to_string(),
            "size": self.manifest.len(),
        });
        if let Some(name) = name {
            entry["annotations"] = json!({REF_NAME: name});
        }
        entry
    }
}

/// The index with one more entry; an older one of that name goes.
fn index(present: Option<Value>, entry: Value) -> Vec<u8> {
    let mut index =
        present.unwrap_or_else(|| json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": []}));
    let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
    match index["manifests"].as_array_mut() {
        Some(entries) => {
            entries.retain(|other| name(other) != name(&entry));
            entries.push(entry);
        }
        None => index["manifests"] = json!([entry]),
    }
    index.to_string().into_bytes()
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

fn write_blob(blobs: &Path, blob: &Blob) -> Result<()> {
    let path = blobs.join(blob.digest.digest());
    let mut file = NamedTempFile::new_in(blobs).at(blobs.display())?;
    std::io::copy(&mut blob.reader(), &mut file).at(path.display())?;
    publish(file, &path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = parent(path);
    let mut file = NamedTempFile::new_in(parent).at(parent.display())?;
    file.write_all(bytes).at(path.display())?;
    publish(file, path)
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
