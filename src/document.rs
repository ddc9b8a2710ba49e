//! OCI's JSON documents, as Go's decoder takes them: that wrote most of them, and skopeo reads by it.
//!
//! Names of fields in any case, the last one of several; `null` is as good as nothing; unknown fields are passed
//! over; a missing field has the zero value of its type, but for digests, which have none. A value of another
//! type is refused with the path of the field, in an index for that entry alone.

mod shape;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use shape::{CONFIG, MANIFEST, descriptor, kind, read, take};
pub(crate) use shape::{field, field_mut, set};

/// The media type of an image's manifest, and of an artifact's.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an image index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an image's config.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's name for a manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's name for an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's name for a config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The media type of the config of an artifact that has none.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// Of an image, or of an artifact.
    Manifest,
    /// A list of manifests.
    Index,
    /// Something else.
    Other,
}

impl DocumentKind {
    /// What a media type says.
    pub fn of(media_type: &MediaType) -> Self {
        match media_type.to_string().as_str() {
            IMAGE_MANIFEST | DOCKER_MANIFEST => DocumentKind::Manifest,
            IMAGE_INDEX | DOCKER_LIST => DocumentKind::Index,
            _ => DocumentKind::Other,
        }
    }

    /// What a document is by the media type that was given with it, else by what it says itself.
    pub fn of_document(media_type: &MediaType, bytes: &[u8]) -> Self {
        match Self::of(media_type) {
            DocumentKind::Other => Self::sniff(bytes),
            known => known,
        }
    }

    /// What a document itself says, where nothing else tells: its media type, or the fields that it has.
    pub fn sniff(bytes: &[u8]) -> Self {
        let Some(document) = object(bytes) else { return DocumentKind::Other };
        let named = field(&document, "mediaType").and_then(Value::as_str);
        match named.map(|named| Self::of(&MediaType::from(named))) {
            Some(kind) if kind != DocumentKind::Other => kind,
            _ if field(&document, "config").is_some_and(Value::is_object) => DocumentKind::Manifest,
            _ if field(&document, "manifests").is_some_and(Value::is_array) => DocumentKind::Index,
            _ => DocumentKind::Other,
        }
    }
}

/// An entry of an index that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// Its digest, where that can be read.
    pub digest: Option<Digest>,
    /// The field, and what is wrong with it.
    pub why: String,
}

/// The entries of an index, each by itself.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// In their order.
    pub entries: Vec<Result<Descriptor, Odd>>,
}

impl Index {
    /// Those that can be used.
    pub fn manifests(&self) -> impl Iterator<Item = &Descriptor> + Clone {
        self.entries.iter().filter_map(|entry| entry.as_ref().ok())
    }
}

/// What is needed of an image's config.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
    pub rootfs: RootFs,
    #[serde(default)]
    pub config: Runtime,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Runtime {
    #[serde(default, rename = "Labels")]
    pub labels: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    pub diff_ids: Vec<String>,
}

/// Reads a manifest of an image or artifact.
///
/// # Errors
/// Verification, naming the field; Misfit for Docker's schema version 1.
pub fn manifest(bytes: &[u8]) -> Result<ImageManifest> {
    let document = parse(bytes).map_err(|why| broken("not an image manifest", &why))?;
    if let Some(document) = document.as_object() {
        let has = |name: &str| field(document, name).is_some_and(|value| !value.is_null());
        if field(document, "schemaVersion").and_then(Value::as_u64) == Some(1) && has("fsLayers") {
            return Err(Error::misfit(
                "a Docker manifest of schema version 1, which says little of its layers",
            )
            .with_hint("skopeo copy --format oci makes an OCI image of it"));
        }
        // Readers that go by other fields would see another document (CVE-2021-41190).
        if let Some(name) = ["manifests", "fsLayers"].into_iter().find(|name| has(name)) {
            return Err(broken("not an image manifest", &format!("{name}: no manifest has this field")));
        }
    }
    read(document, MANIFEST).map_err(|why| broken("not an image manifest", &why))
}

/// Reads the config of an image.
///
/// # Errors
/// Verification, naming the field.
pub(crate) fn config(bytes: &[u8], what: impl fmt::Display) -> Result<Config> {
    parse(bytes)
        .and_then(|document| read(document, CONFIG))
        .map_err(|why| broken(&format!("not an image config: {what}"), &why))
}

/// Reads an index, entry by entry.
///
/// # Errors
/// Verification when it is none.
pub fn index(bytes: &[u8], what: impl fmt::Display) -> Result<Index> {
    let broken = |why: &str| broken(&format!("{what}: not an image index"), why);
    let document = parse(bytes).map_err(|why| broken(&why))?;
    let Value::Object(mut document) = document else {
        return Err(broken(&format!("{}, an object is expected", kind(&document))));
    };
    let entries = match take(&mut document, "manifests") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(broken(&format!("manifests: {}, a list is expected", kind(&other)))),
    };
    let entry = |(at, value): (usize, Value)| {
        let digest = digest_in(&value);
        descriptor(value, &format!("manifests[{at}]")).map_err(|why| Odd { digest, why })
    };
    Ok(Index { entries: entries.into_iter().enumerate().map(entry).collect() })
}

/// What a document of any sort is made of: the descriptors in it, but for that of its subject. Of one that is
/// not sound the digest counts.
pub(crate) fn parts(bytes: &[u8]) -> Vec<Descriptor> {
    let Some(mut document) = object(bytes) else { return Vec::new() };
    let mut parts = Vec::new();
    for name in ["config", "layers", "blobs", "manifests"] {
        let values = match take(&mut document, name) {
            Some(Value::Array(values)) => values,
            Some(value @ Value::Object(_)) => vec![value],
            _ => continue,
        };
        for value in values {
            let digest = digest_in(&value);
            let bare = || Some(Descriptor::new(MediaType::Other(String::new()), 0, digest?));
            parts.extend(descriptor(value, name).ok().or_else(bare));
        }
    }
    parts
}

/// The digest of what a document is about.
pub(crate) fn subject(bytes: &[u8]) -> Option<Digest> {
    digest_in(field(&object(bytes)?, "subject")?)
}

/// The media type that a document gives itself.
pub(crate) fn named_type(bytes: &[u8]) -> Option<String> {
    Some(field(&object(bytes)?, "mediaType")?.as_str()?.to_owned())
}

/// What a list of referrers says of a document of any sort: its artifact type and its annotations.
pub(crate) fn listed(bytes: &[u8]) -> (Option<MediaType>, Option<HashMap<String, String>>) {
    let Some(document) = object(bytes) else { return (None, None) };
    let kind = field(&document, "artifactType").and_then(Value::as_str).filter(|kind| !kind.is_empty());
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let notes = field(&document, "annotations").and_then(Value::as_object);
    (kind.map(MediaType::from), notes.map(|notes| notes.iter().filter_map(text).collect()))
}

fn digest_in(descriptor: &Value) -> Option<Digest> {
    Digest::from_str(field(descriptor.as_object()?, "digest")?.as_str()?).ok()
}

/// The object in `bytes`.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match parse(bytes).ok()? {
        Value::Object(document) => Some(document),
        _ => None,
    }
}

/// Go puts U+FFFD for what is no UTF-8.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_str(&String::from_utf8_lossy(bytes)).map_err(|e| e.to_string())
}

fn broken(what: &str, why: &str) -> Error {
    Error::verification(format!("{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use crate::error::Kind;
    use serde_json::json;

    fn sound() -> Value {
        let part = |name: &str| json!({"mediaType": name, "digest": digest_of(name.as_bytes()).to_string(), "size": 3});
        json!({
            "schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": part(IMAGE_CONFIG),
            "layers": [part("a/tar"), part("b/tar")], "annotations": {"a": "b"},
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut document = sound();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = document.pointer_mut(parent).unwrap();
        match value {
            value if parent.is_array() => parent[name.parse::<usize>().unwrap()] = value,
            Value::String(s) if s == "REMOVE" => drop(parent.as_object_mut().unwrap().remove(name)),
            value => parent[name] = value,
        }
        document
    }

    /// `Ok`, or the path of the field that the error names.
    fn read_manifest(document: &Value) -> Result<ImageManifest, String> {
        manifest(document.to_string().as_bytes()).map_err(|e| {
            assert_eq!(e.kind(), Kind::Verification);
            e.to_string()
        })
    }

    #[test]
    fn what_go_takes_is_taken() {
        let plain = read_manifest(&sound()).unwrap();
        for (pointer, value) in [
            ("/schemaVersion", json!(null)),
            ("/schemaVersion", json!("REMOVE")),
            ("/mediaType", json!(null)),
            ("/mediaType", json!("")),
            ("/annotations", json!(null)),
            ("/annotations/c", json!(null)),
            ("/unknown", json!([1, {"digest": 3}])),
            ("/subject", json!({"digest": 3})),
            ("/subject", json!("x")),
            ("/artifactType", json!(1)),
            ("/config/platform", json!(null)),
            ("/config/platform", json!({})),
            ("/config/urls", json!(3)),
            ("/config/data", json!({})),
            ("/layers/0/annotations", json!(null)),
            ("/layers/0/mediaType", json!("REMOVE")),
            ("/config/size", json!(null)),
        ] {
            let read = read_manifest(&with(pointer, value.clone()));
            assert_eq!(read.map(|m| m.layers().len()), Ok(2), "{pointer} {value}");
        }
        let odd = sound().to_string().replace("mediaType", "MEDIATYPE").replace("config\"", "Config\"");
        let odd = odd.replace("\"layers", "\"layer\u{17f}").replace("\"digest", "\"x\":1,\"DIGEST");
        assert_eq!(manifest(odd.as_bytes()).unwrap(), plain);
        let doubled = sound().to_string().replacen("\"config\"", "\"config\":{},\"config\"", 1);
        assert_eq!(manifest(doubled.as_bytes()).unwrap(), plain);
        let mut latin1 = with("/annotations/a", json!("@")).to_string().into_bytes();
        let at = latin1.iter().position(|b| *b == b'@').unwrap();
        latin1[at] = 0xfc;
        assert_eq!(manifest(&latin1).unwrap().annotations().as_ref().unwrap()["a"], "\u{fffd}");
    }

    #[test]
    fn what_is_refused_is_named() {
        for (pointer, value, named) in [
            ("/layers", json!({}), "layers: an object, a list is expected"),
            ("/layers/1", json!(null), "layers[1].digest: missing"),
            ("/layers/1", json!([]), "layers[1]: a list, an object is expected"),
            ("/layers/1/digest", json!("REMOVE"), "layers[1].digest: missing"),
            ("/layers/1/digest", json!("x"), "layers[1].digest: \"x\" is no digest"),
            ("/layers/1/size", json!("3"), "layers[1].size: a string, a number is expected"),
            ("/layers/1/size", json!(-1), "layers[1].size: -1, a whole number is expected"),
            ("/layers/1/size", json!(1.5), "layers[1].size: 1.5,"),
            ("/layers/1/annotations", json!({"a": 1}), "layers[1].annotations.a: a number"),
            ("/config", json!("REMOVE"), "config.digest: missing"),
            ("/config", json!(null), "config.digest: missing"),
            ("/mediaType", json!(1), "mediaType: a number, a string is expected"),
            ("/annotations", json!([]), "annotations: a list, an object is expected"),
            ("/schemaVersion", json!("2"), "schemaVersion: a string"),
            ("/manifests", json!([]), "manifests: no manifest has this field"),
        ] {
            let e = read_manifest(&with(pointer, value.clone())).unwrap_err();
            assert!(e.contains(named), "{pointer} {value}: {e}");
        }
        for text in ["", "[]", "null", "{", "{} {}", "<html>"] {
            assert!(manifest(text.as_bytes()).is_err(), "{text}");
        }
        let v1 = manifest(br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#).unwrap_err();
        assert_eq!(v1.kind(), Kind::Misfit);
    }

    #[test]
    fn what_one_entry_gets_wrong_concerns_it_alone() {
        let digest = digest_of(b"x").to_string();
        let good = json!({"mediaType": IMAGE_MANIFEST, "digest": digest, "size": 3});
        let with = |name: &str, value: Value| {
            let mut entry = good.clone();
            entry[name] = value;
            entry
        };
        for (entry, taken) in [
            (json!(null), false),
            (json!(7), false),
            (json!({}), false),
            (with("digest", json!("x")), false),
            (with("digest", json!(null)), false),
            (with("size", json!("3")), false),
            (with("size", json!(null)), true),
            (with("mediaType", json!(null)), true),
            (with("mediaType", json!(1)), false),
            (with("platform", json!({})), true),
            (with("platform", json!({"os": null})), true),
            (with("platform", json!(3)), false),
            (with("annotations", json!({"a": null})), true),
            (with("annotations", json!({"a": 1})), false),
            (with("artifactType", json!(1)), true),
            (with("urls", json!("x")), true),
            (with("data", json!(1)), true),
        ] {
            let list = json!({"MANIFESTS": [entry, good, entry]}).to_string();
            let found = index(list.as_bytes(), "x").unwrap();
            let taken_now = [0, 1, 2].map(|at| found.entries[at].is_ok());
            assert_eq!(taken_now, [taken, true, taken], "{entry}");
            if !taken {
                let odd = found.entries[0].as_ref().unwrap_err();
                assert!(odd.why.starts_with("manifests[0]"), "{}", odd.why);
                assert_eq!(odd.digest.is_some(), entry["digest"] == good["digest"], "{entry}");
            }
        }
        for (text, entries) in
            [("{}", Some(0)), (r#"{"manifests":null}"#, Some(0)), (r#"{"manifests":{}}"#, None), ("[]", None)]
        {
            assert_eq!(index(text.as_bytes(), "x").ok().map(|i| i.entries.len()), entries, "{text}");
        }
    }

    #[test]
    fn a_config_needs_its_diff_ids_only() {
        let read =
            config(br#"{"RootFS":{"DIFF_IDS":["a"]},"created":3,"config":[],"os":null}"#, "x").unwrap();
        assert_eq!((read.rootfs.diff_ids, read.os), (vec!["a".to_owned()], String::new()));
        let e = config(br#"{"rootfs":{"diff_ids":["a",3]}}"#, "x").unwrap_err();
        assert!(e.to_string().contains("rootfs.diff_ids[1]: a number"), "{e}");
    }

    #[test]
    fn documents_are_told_by_what_they_have() {
        for (document, kind) in [
            (json!({"mediaType": DOCKER_LIST}), DocumentKind::Index),
            (json!({"mediaType": IMAGE_MANIFEST, "manifests": []}), DocumentKind::Manifest),
            (json!({"config": {}, "layers": []}), DocumentKind::Manifest),
            (json!({"Manifests": []}), DocumentKind::Index),
            (json!({"some": "thing"}), DocumentKind::Other),
            (json!([]), DocumentKind::Other),
        ] {
            assert_eq!(DocumentKind::sniff(document.to_string().as_bytes()), kind, "{document}");
        }
    }
}
