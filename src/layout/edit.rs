//! Changes to `index.json`, the only file that makes an image visible.
//!
//! Entries are edited as JSON values, so that what other tools wrote stays.

use oci_spec::image::Descriptor;
use serde_json::{Map, Value, json};

use super::choose::{FULL_NAME, REF_NAME};
use crate::digest::Digest;
use crate::document::{self, IMAGE_INDEX, field, field_mut};
use crate::error::{Error, Result};

/// An index under change.
#[derive(Debug, Clone)]
pub struct IndexEdit(Map<String, Value>);

impl Default for IndexEdit {
    /// Without an entry.
    fn default() -> Self {
        let mut index = Map::new();
        index.insert("schemaVersion".into(), 2.into());
        index.insert("mediaType".into(), IMAGE_INDEX.into());
        index.insert("manifests".into(), json!([]));
        IndexEdit(index)
    }
}

impl IndexEdit {
    /// The index in `bytes`; `what` is its name.
    ///
    /// # Errors
    /// Verification when it is none.
    pub(super) fn parse(bytes: &[u8], what: impl std::fmt::Display) -> Result<Self> {
        document::index(bytes, &what)?;
        let mut index = document::object(bytes)
            .ok_or_else(|| Error::verification(format!("{what}: not an image index")))?;
        match field_mut(&mut index, "manifests") {
            Some(list @ Value::Null) => *list = json!([]),
            Some(_) => {}
            None => drop(index.insert("manifests".into(), json!([]))),
        }
        Ok(IndexEdit(index))
    }

    /// As it is written.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.0).map_err(|e| Error::local(format!("index.json: {e}")).with_source(e))
    }

    fn entries(&self) -> &[Value] {
        field(&self.0, "manifests").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn entries_mut(&mut self) -> Result<&mut Vec<Value>> {
        field_mut(&mut self.0, "manifests")
            .and_then(Value::as_array_mut)
            .ok_or_else(|| Error::verification("index.json: \"manifests\" is no list"))
    }

    /// Adds an image with annotations of ours, or gives it a name. A name moves from the image that had
    /// it; that image stays, without a name, since it may be a base.
    ///
    /// # Errors
    /// Verification when this is no index.
    pub fn put(
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
        let entries = self.entries_mut()?;
        if name.is_some() {
            let goes = |e: &Value| digest_of(e) == digest && (name_of(e).is_none() || ref_name(e) == name);
            entries.retain(|entry| !goes(entry));
            entries.iter_mut().filter(|entry| ref_name(entry) == name).for_each(unname);
        } else if entries.iter().any(|entry| digest_of(entry) == digest) {
            return Ok(());
        }
        entries.push(entry);
        Ok(())
    }

    /// Drops all entries that `goes` picks by digest and name; returns how many.
    ///
    /// # Errors
    /// Verification when this is no index.
    pub fn remove(&mut self, goes: impl Fn(&str, Option<&str>) -> bool) -> Result<usize> {
        let entries = self.entries_mut()?;
        let before = entries.len();
        entries.retain(|entry| !goes(digest_of(entry), name_of(entry)));
        Ok(before - entries.len())
    }

    /// The digests of the entries that have this name, or none, each once.
    pub fn named(&self, name: Option<&str>) -> Vec<&str> {
        let named = self.entries().iter().filter(|entry| name_of(entry) == name);
        let mut digests: Vec<&str> = named.map(digest_of).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }
}

fn digest_of(entry: &Value) -> &str {
    entry.as_object().and_then(|entry| field(entry, "digest")?.as_str()).unwrap_or_default()
}

fn note<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    field(entry.as_object()?, "annotations")?.get(key)?.as_str().filter(|text| !text.is_empty())
}

fn ref_name(entry: &Value) -> Option<&str> {
    note(entry, REF_NAME)
}

/// The name, or where there is none, the one that containerd gives.
fn name_of(entry: &Value) -> Option<&str> {
    ref_name(entry).or_else(|| note(entry, FULL_NAME))
}

fn unname(entry: &mut Value) {
    let Some(entry) = entry.as_object_mut() else { return };
    let Some(annotations) = field_mut(entry, "annotations").and_then(Value::as_object_mut) else { return };
    annotations.shift_remove(REF_NAME);
    if annotations.is_empty() {
        entry.shift_remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of as hash;

    fn descriptor(content: &[u8]) -> Descriptor {
        Descriptor::new(document::IMAGE_MANIFEST.into(), 3, hash(content))
    }

    #[test]
    fn what_others_wrote_stays() {
        let text = json!({
            "schemaVersion": 2, "other": [1],
            "Manifests": [3, {"digest": "x"}, {"Digest": hash(b"a").to_string(), "odd": null,
                "annotations": {REF_NAME: "v", "kept": "k"}}],
        });
        let mut index = IndexEdit::parse(text.to_string().as_bytes(), "t").unwrap();
        index.put(&descriptor(b"b"), Some("v"), &[("ours", Some(&hash(b"n"))), ("none", None)]).unwrap();
        let now: Value = serde_json::from_slice(&index.to_bytes().unwrap()).unwrap();
        assert_eq!(now["other"], json!([1]));
        assert_eq!(now["Manifests"][0], 3);
        assert_eq!(now["Manifests"][2]["annotations"], json!({"kept": "k"}));
        assert_eq!(
            now["Manifests"][3]["annotations"],
            json!({REF_NAME: "v", "ours": hash(b"n").to_string()})
        );
        assert_eq!(index.named(Some("v")), [hash(b"b").to_string()]);
        let empty = IndexEdit::parse(br#"{"manifests":null}"#, "t").unwrap();
        assert!(empty.entries().is_empty());
        assert!(IndexEdit::parse(br#"{"manifests":{}}"#, "t").is_err());
    }

    #[test]
    fn a_name_is_of_one_image() {
        let mut index = IndexEdit::default();
        index.put(&descriptor(b"a"), Some("v"), &[]).unwrap();
        index.put(&descriptor(b"a"), None, &[]).unwrap();
        index.put(&descriptor(b"b"), Some("v"), &[]).unwrap();
        assert_eq!(index.entries().len(), 2);
        assert_eq!(index.named(Some("v")), [hash(b"b").to_string()]);
        assert_eq!(index.remove(|_, name| name.is_none()).unwrap(), 1);
    }
}
