//! The lists of registries, read entry by entry: others write into them as well, and what one entry gets
//! wrong concerns that entry alone. JSON as Go's decoder takes it, by which most registries read and write.

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Map, Value};

use super::{IMAGE_INDEX, IMAGE_MANIFEST};
use crate::digest::parse_digest;
use crate::document::DOCKER_LIST;

/// The entries of a list, each with what is wrong with it; `None` for what is no list.
pub(super) fn entries(bytes: &[u8]) -> Option<Vec<Result<Descriptor, String>>> {
    let list: Value = serde_json::from_slice(bytes).ok()?;
    let list = list.as_object()?;
    match field(list, "manifests") {
        Some(Value::Array(entries)) => Some(entries.iter().map(entry).collect()),
        // A list of Go's without entries.
        Some(Value::Null) => Some(Vec::new()),
        None if is_index(list) => Some(Vec::new()),
        _ => None,
    }
}

/// Does it call itself an index?
fn is_index(list: &Map<String, Value>) -> bool {
    matches!(text(list, "mediaType"), Some(IMAGE_INDEX | DOCKER_LIST))
}

/// The list as it stands, with an array of entries in it, for changing it; `None` for what is no list.
pub(super) fn to_change(bytes: &[u8]) -> Option<Value> {
    entries(bytes)?;
    let Value::Object(list) = serde_json::from_slice(bytes).ok()? else { return None };
    let mut changed = Map::new();
    for (name, value) in list {
        match name.eq_ignore_ascii_case("manifests") {
            true if value.is_null() => changed.insert("manifests".to_owned(), Value::Array(Vec::new())),
            true => changed.insert("manifests".to_owned(), value),
            false => changed.insert(name, value),
        };
    }
    changed.entry("manifests").or_insert_with(|| Value::Array(Vec::new()));
    Some(Value::Object(changed))
}

/// A field by its name in any case; of several the last one counts.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next_back()
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(object, name)?.as_str()
}

/// Digest and size are needed; what else is not as it should be counts as absent.
fn entry(value: &Value) -> Result<Descriptor, String> {
    let object = value.as_object().ok_or("is no object")?;
    let digest = text(object, "digest").ok_or("has no digest")?;
    let digest = parse_digest(digest, "digest").map_err(|e| e.to_string())?;
    let size =
        field(object, "size").and_then(Value::as_u64).ok_or_else(|| format!("{digest} has no size"))?;
    let media_type = text(object, "mediaType").filter(|t| !t.is_empty()).unwrap_or(IMAGE_MANIFEST);
    let mut entry = Descriptor::new(MediaType::from(media_type), size, digest);
    entry.set_artifact_type(text(object, "artifactType").map(MediaType::from));
    entry.set_data(text(object, "data").map(str::to_owned));
    if let Some(Value::Object(annotations)) = field(object, "annotations") {
        let texts =
            annotations.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        entry.set_annotations(Some(texts.collect()));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use serde_json::json;

    #[test]
    fn what_one_entry_gets_wrong_concerns_it_alone() {
        let digest = digest_of(b"x").to_string();
        let good = json!({"mediaType": IMAGE_MANIFEST, "digest": digest, "size": 3, "artifactType": "a/b"});
        let with = |name: &str, value: Value| {
            let mut entry = good.clone();
            entry[name] = value;
            entry
        };
        for (odd, taken) in [
            (json!(null), false),
            (json!(7), false),
            (json!({}), false),
            (with("digest", json!("x")), false),
            (with("digest", json!(null)), false),
            (with("size", json!(-1)), false),
            (with("size", json!("3")), false),
            (with("mediaType", json!(null)), true),
            (with("platform", json!({})), true),
            (with("platform", json!(3)), true),
            (with("annotations", json!({"a": null, "b": 1, "c": "d"})), true),
            (with("annotations", json!([])), true),
            (with("artifactType", json!(1)), true),
            (with("data", json!(1)), true),
            (with("urls", json!("x")), true),
        ] {
            let list = json!({"manifests": [odd, good, odd]}).to_string();
            let found = entries(list.as_bytes()).unwrap();
            assert_eq!([0, 1, 2].map(|at| found[at].is_ok()), [taken, true, taken], "{odd}");
        }
        let odd =
            entries(json!({"MANIFESTS": [{"Digest": digest, "SIZE": 3}]}).to_string().as_bytes()).unwrap();
        assert_eq!(odd[0].as_ref().unwrap().size(), 3);
    }

    #[test]
    fn what_is_no_list_is_none() {
        for (text, entry_count) in [
            (r#"{"manifests": []}"#, Some(0)),
            (r#"{"manifests": null}"#, Some(0)),
            (r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}"#, Some(0)),
            (r#"{"schemaVersion":2,"config":{},"layers":[]}"#, None),
            (r#"{"manifests": {}}"#, None),
            (r#"{"manifests": "x"}"#, None),
            ("[]", None),
            ("null", None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(entries(text.as_bytes()).map(|e| e.len()), entry_count, "{text}");
            let changed = to_change(text.as_bytes());
            assert_eq!(
                changed.is_some_and(|list| list["manifests"].is_array()),
                entry_count.is_some(),
                "{text}"
            );
        }
    }
}
