//! What a storage holds: the records of its images and layers, in two JSON files for each directory of it.
//!
//! They are read as Go reads them, record by record: one that makes no sense is passed over, whoever needs it finds
//! nothing. Names out of them become paths only when they are hex digits.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Map, Value};

use super::{Driver, lock};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, parse_digest};
use crate::document::{self, field};
use crate::error::{Error, IoContext as _, Result};

/// Largest `images.json` or `layers.json` in bytes: some 100,000 records.
const MAX_RECORDS: u64 = 64 << 20;

/// Hex digits of an id.
const ID: usize = 64;

/// The document that podman shows as the image's manifest.
const MANIFEST: &str = "manifest";

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageRecord {
    /// As podman shows it; of images that were pulled it is the hex digest of the config.
    pub id: String,
    pub names: Vec<String>,
    /// Digests of its manifests, that which counts first.
    pub manifests: Vec<Digest>,
    /// Id of the top layer.
    layer: Option<String>,
}

/// A layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerRecord {
    pub diff_id: DiffId,
    /// Bytes of its plain tar, where that is noted.
    pub size: Option<u64>,
    /// The blob that it came as.
    pub blob: Option<Descriptor>,
    pub(super) parent: Option<String>,
    /// What of its tar is no content of a file.
    pub(super) tar_split: PathBuf,
    /// The contents.
    pub(super) files: PathBuf,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub images: Vec<ImageRecord>,
    /// By id.
    layers: HashMap<String, Arc<LayerRecord>>,
    by_diff_id: HashMap<DiffId, Arc<LayerRecord>>,
    /// Files of manifests and configs.
    documents: HashMap<Digest, PathBuf>,
}

impl Known {
    /// A layer by the digest of its tar.
    pub(crate) fn layer(&self, diff_id: &DiffId) -> Option<&Arc<LayerRecord>> {
        self.by_diff_id.get(diff_id)
    }

    /// All layers, each tar once.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Arc<LayerRecord>> {
        self.by_diff_id.values()
    }

    /// The layers of an image, bottom to top; `None` when one is not here.
    pub(crate) fn layers_of(&self, image: &ImageRecord) -> Option<Vec<&Arc<LayerRecord>>> {
        let mut chain = Vec::new();
        let mut next = image.layer.as_deref();
        while let Some(id) = next {
            let layer = self.layers.get(id)?;
            chain.push(layer);
            if chain.len() > self.layers.len() {
                return None; // a circle
            }
            next = layer.parent.as_deref();
        }
        chain.reverse();
        Some(chain)
    }

    pub(super) fn document(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        match self.documents.get(digest) {
            Some(path) => read_file(path, max),
            None => Ok(None),
        }
    }
}

/// Reads what the storage in these directories holds; the first one that knows something counts.
///
/// # Errors
/// Verification when a file is no list of records; local I/O errors; those of the locks.
pub(super) fn read(roots: &[PathBuf], driver: Driver, cancel: &Cancel) -> Result<Known> {
    let mut known = Known::default();
    for root in roots {
        // Images first: those that are added meanwhile are not seen, of those that are removed the layers are gone.
        let dir = driver.images(root);
        for record in records(&dir, "images", cancel)? {
            known.add_image(&record, &dir);
        }
        let dir = driver.layers(root);
        for record in records(&dir, "layers", cancel)? {
            known.add_layer(&record, &dir, |id| driver.files(root, id));
        }
    }
    Ok(known)
}

impl Known {
    fn add_image(&mut self, record: &Map<String, Value>, dir: &Path) {
        let Some(id) = hex(text(record, "id")) else { return };
        let names = list(record, "names").filter_map(Value::as_str).map(str::to_owned).collect();
        let mut manifests = Vec::new();
        let dir = dir.join(id);
        let of_manifest = text(record, "digest").and_then(|digest| parse_digest(digest, MANIFEST).ok());
        for key in list(record, "big-data-names").filter_map(Value::as_str) {
            let digest = match key.strip_prefix("manifest-") {
                None if key == MANIFEST => of_manifest.clone(),
                stated => parse_digest(stated.unwrap_or(key), MANIFEST).ok(),
            };
            let Some(digest) = digest else { continue };
            if key.starts_with(MANIFEST) && !manifests.contains(&digest) {
                let at = if Some(&digest) == of_manifest.as_ref() { 0 } else { manifests.len() };
                manifests.insert(at, digest.clone());
            }
            self.documents.entry(digest).or_insert_with(|| dir.join(file_of(key)));
        }
        let layer = hex(text(record, "layer")).map(str::to_owned);
        self.images.push(ImageRecord { id: id.to_owned(), names, manifests, layer });
    }

    fn add_layer(&mut self, record: &Map<String, Value>, dir: &Path, files: impl Fn(&str) -> PathBuf) {
        let digest = |name: &str| text(record, name).and_then(|digest| parse_digest(digest, name).ok());
        let (Some(id), Some(diff_id)) = (hex(text(record, "id")), digest("diff-digest")) else { return };
        // One that is being unpacked, or was when podman died.
        let flags = field(record, "flags").and_then(Value::as_object);
        if flags.is_some_and(|flags| flags.contains_key("incomplete")) {
            return;
        }
        let number = |name: &str| field(record, name).and_then(Value::as_u64).filter(|number| *number > 0);
        let media_type = match number("compression") {
            None => MediaType::ImageLayer,
            // The numbers are those of the kinds of archives in containers/storage.
            Some(2) => MediaType::ImageLayerGzip,
            Some(4) => MediaType::ImageLayerZstd,
            Some(_) => MediaType::Other(String::new()),
        };
        let blob = digest("compressed-diff-digest")
            .map(|digest| Descriptor::new(media_type, number("compressed-size").unwrap_or(0), digest));
        let layer = Arc::new(LayerRecord {
            diff_id: DiffId::new(diff_id.clone()),
            size: number("diff-size"),
            blob,
            parent: text(record, "parent").filter(|parent| !parent.is_empty()).map(str::to_owned),
            tar_split: dir.join(format!("{id}.tar-split.gz")),
            files: files(id),
        });
        self.by_diff_id.entry(layer.diff_id.clone()).or_insert_with(|| layer.clone());
        self.layers.entry(id.to_owned()).or_insert(layer);
    }
}

/// The records in `NAME.json`, read while nobody writes them.
fn records(dir: &Path, name: &str, cancel: &Cancel) -> Result<Vec<Map<String, Value>>> {
    let path = dir.join(format!("{name}.json"));
    let read = || read_file(&path, MAX_RECORDS);
    let Some(bytes) = lock::while_shared(&dir.join(format!("{name}.lock")), cancel, read)? else {
        return Ok(Vec::new());
    };
    let broken = |why: String| {
        Error::verification(format!("{}: not a list of podman's {name}: {why}", path.display()))
            .with_hint("podman cannot read it either; see podman system check, or podman system reset")
    };
    match document::parse(&bytes).map_err(broken)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(records) => {
            let object = |record| if let Value::Object(record) = record { Some(record) } else { None };
            Ok(records.into_iter().filter_map(object).collect())
        }
        _ => Err(broken("a list is expected".into())),
    }
}

/// A file of at most `max` bytes; `None` when there is none.
fn read_file(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(Error::from_io(e, path.display()).with_hint("run as the user whose storage it is"));
        }
        Err(e) => return Err(Error::from_io(e, path.display())),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).at(path.display())?;
    if bytes.len() as u64 > max {
        return Err(Error::verification(format!("{}: larger than {max} bytes", path.display())));
    }
    Ok(Some(bytes))
}

fn text<'a>(record: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(record, name)?.as_str()
}

fn list<'a>(record: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    field(record, name).and_then(Value::as_array).into_iter().flatten()
}

fn hex(id: Option<&str>) -> Option<&str> {
    id.filter(|id| id.len() == ID && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// The file that a storage keeps a document in: named as it is where that is harmless, else in base64.
fn file_of(key: &str) -> String {
    let is_harmless = |b: u8| b == b'.' || b.is_ascii_digit() || b.is_ascii_lowercase();
    if key.bytes().all(is_harmless) { key.to_owned() } else { format!("={}", STANDARD.encode(key)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_that_make_no_sense_are_passed_over() {
        let (id, other) = ("a".repeat(ID), "b".repeat(ID));
        let digest = |c: &str| format!("sha256:{}", c.repeat(ID));
        let mut known = Known::default();
        let image = |id: &str| {
            json!({"ID": id, "names": ["n", 7, null], "digest": digest("1"), "layer": other, "unknown": {},
                "big-data-names": ["manifest", format!("manifest-{}", digest("2")), digest("3"), "../x", null]})
        };
        for odd in [image("../../etc"), image(""), json!({"id": 3}), image(&id)] {
            known.add_image(odd.as_object().unwrap(), Path::new("/i"));
        }
        assert_eq!(known.images.len(), 1);
        let found = &known.images[0];
        assert_eq!(found.names, ["n"]);
        assert_eq!(
            found.manifests.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [digest("1"), digest("2")]
        );
        let file = &known.documents[&parse_digest(&digest("3"), "").unwrap()];
        assert!(
            file.starts_with(format!("/i/{id}")) && file.to_str().unwrap().contains("/=c2hhMjU2O"),
            "{file:?}"
        );
        assert!(known.layers_of(found).is_none(), "its layer is not here");
        let layer = |id: &str, parent: &str, more: &[(&str, Value)]| {
            let mut record = json!({"id": id, "parent": parent, "diff-digest": digest("4"), "diff-size": 10});
            more.iter().for_each(|(name, value)| record[name] = value.clone());
            record
        };
        for record in [
            layer("x", "", &[]),
            layer(&other, "", &[("diff-digest", json!("sha512:00"))]),
            layer(&other, "", &[("flags", json!({"incomplete": true}))]),
        ] {
            known.add_layer(record.as_object().unwrap(), Path::new("/l"), |id| Path::new("/f").join(id));
        }
        assert!(known.layers.is_empty());
        let circle = layer(&other, &other, &[("diff-size", json!(-3)), ("compression", json!("x"))]);
        known.add_layer(circle.as_object().unwrap(), Path::new("/l"), |id| Path::new("/f").join(id));
        assert!(known.layers_of(&known.images[0]).is_none(), "its layers are a circle");
        assert_eq!(known.layers[&other].size, None);
    }
}
