//! Changes to `index.json`, the only file that makes an image visible.
//!
//! Entries are edited as JSON values, so that what other tools wrote stays.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use oci_spec::image::Descriptor;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::lock;
use super::sink::persist;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::layout::REF_NAME;

/// Annotation of an index entry whose manifest was rewritten: digest of the
/// target manifest as its publisher made it, kept as a blob beside it.
pub const TARGET_MANIFEST: &str = "io.github.oci-delta-fetch.target-manifest";

/// Annotation of an index entry whose manifest skopeo made of a Docker one:
/// digest of that in its registry, by which the image is known again.
pub const CONVERTED_FROM: &str = "io.github.oci-delta-fetch.converted-from";

/// Annotation of an index entry of a Docker image: digest of the config that skopeo makes of its own.
pub const CONVERTED_CONFIG: &str = "io.github.oci-delta-fetch.converted-config";

/// An `index.json` under change, locked against other publishers.
#[derive(Debug)]
pub(super) struct IndexEdit<'a> {
    root: &'a Path,
    _lock: File,
    index: Map<String, Value>,
}

impl<'a> IndexEdit<'a> {
    /// Locks and reads the index; waits while another process publishes.
    pub(super) fn begin(root: &'a Path, lock_path: &Path, cancel: &Cancel) -> Result<Self> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock_path)
            .at(lock_path.display())?;
        lock::take(&lock, lock_path.display(), cancel)?;
        let path = root.join("index.json");
        let index = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::verification(format!("{}: {e}", path.display())).with_source(e))?,
            Err(e) if e.kind() == ErrorKind::NotFound => empty(),
            Err(e) => return Err(Error::from_io(e, path.display())),
        };
        Ok(IndexEdit { root, _lock: lock, index })
    }

    fn manifests(&mut self) -> Result<&mut Vec<Value>> {
        self.index
            .entry("manifests")
            .or_insert_with(|| json!([]))
            .as_array_mut()
            .ok_or_else(|| Error::verification("index.json: \"manifests\" is no list"))
    }

    /// Adds an image with our annotations, or gives it a name. A name moves from the image that had
    /// it; that image stays, without a name, since it may be a base.
    pub(super) fn put(
        &mut self,
        descriptor: &Descriptor,
        name: Option<&str>,
        notes: &[(&str, Option<&Digest>)],
    ) -> Result<()> {
        let mut entry = serde_json::to_value(descriptor)
            .map_err(|e| Error::local(format!("index.json: {e}")).with_source(e))?;
        let mut annotations = Map::new();
        if let Some(name) = name {
            annotations.insert(REF_NAME.into(), name.into());
        }
        for (key, digest) in notes.iter().filter_map(|(key, digest)| Some((key, (*digest)?))) {
            annotations.insert((*key).into(), digest.to_string().into());
        }
        if !annotations.is_empty() {
            entry["annotations"] = Value::Object(annotations);
        }
        let digest = descriptor.digest().to_string();
        let manifests = self.manifests()?;
        if let Some(name) = name {
            manifests
                .retain(|m| !(digest_of(m) == digest && (name_of(m).is_none() || name_of(m) == Some(name))));
            for other in manifests.iter_mut().filter(|m| name_of(m) == Some(name)) {
                unname(other);
            }
        } else if manifests.iter().any(|m| digest_of(m) == digest) {
            return Ok(());
        }
        manifests.push(entry);
        Ok(())
    }

    /// Drops all entries that `goes` picks by digest and name; returns how many.
    pub(super) fn remove(&mut self, goes: impl Fn(&str, Option<&str>) -> bool) -> Result<usize> {
        let manifests = self.manifests()?;
        let before = manifests.len();
        manifests.retain(|m| !goes(digest_of(m), name_of(m)));
        Ok(before - manifests.len())
    }

    /// Makes the change visible and durable.
    pub(super) fn commit(self, tmp: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(&self.index)
            .map_err(|e| Error::local(format!("index.json: {e}")).with_source(e))?;
        write_durably(&self.root.join("index.json"), &bytes, tmp)?;
        sync_dir(self.root)
    }
}

/// Writes a small file by temp file, fsync and rename.
pub(super) fn write_durably(path: &Path, bytes: &[u8], tmp: &Path) -> Result<()> {
    let mut file = NamedTempFile::new_in(tmp).at(tmp.display())?;
    file.write_all(bytes).at(path.display())?;
    persist(file, path)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).at(dir.display())
}

fn empty() -> Map<String, Value> {
    let mut index = Map::new();
    index.insert("schemaVersion".into(), 2.into());
    index.insert("mediaType".into(), "application/vnd.oci.image.index.v1+json".into());
    index.insert("manifests".into(), json!([]));
    index
}

fn digest_of(entry: &Value) -> &str {
    entry["digest"].as_str().unwrap_or_default()
}

fn name_of(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

fn unname(entry: &mut Value) {
    if let Some(annotations) = entry.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(REF_NAME);
        if annotations.is_empty()
            && let Some(entry) = entry.as_object_mut()
        {
            entry.shift_remove("annotations");
        }
    }
}
