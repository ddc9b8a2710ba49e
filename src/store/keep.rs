//! What of a layout stays: for gc every blob that the index leads to, and of the entries without a name those
//! that belong to something that stays: signatures, SBOMs, deltas.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::Value;

use super::inventory::{notes_of, recipes_of};
use crate::cancel::Cancel;
use crate::document::{self, DocumentKind, Odd};
use crate::error::Result;
use crate::layout::{Layout, full_name, ref_name};
use crate::trust::{SIMPLE_SIGNING, signed_manifest};

/// The payload in which cosign names the image of an attestation; [`SIMPLE_SIGNING`] is that of a signature.
const ATTESTATION: &str = "application/vnd.dsse.envelope.v1+json";

/// The entries of the top-level index, those too of which only the digest is known.
fn entries(layout: &Layout) -> Result<Vec<Descriptor>> {
    let bare =
        |odd: Odd| odd.digest.map(|digest| Descriptor::new(MediaType::Other(String::new()), 0, digest));
    let entries = layout.index()?.entries.into_iter();
    Ok(entries.filter_map(|entry| entry.map_or_else(bare, Some)).filter(has_sha256).collect())
}

/// Others are kept by other algorithms; those blobs are left alone.
fn has_sha256(descriptor: &Descriptor) -> bool {
    descriptor.as_digest_sha256().is_some()
}

/// Hex digests of all blobs that the index leads to.
///
/// # Errors
/// When an index or manifest that is there cannot be read; Interrupted.
pub(super) fn reachable(layout: &Layout, cancel: &Cancel) -> Result<HashSet<String>> {
    let mut keep = HashSet::new();
    let entries = entries(layout)?;
    let notes = entries.iter().flat_map(|entry| notes_of(entry).chain(recipes_of(entry)));
    keep.extend(notes.map(|digest| digest.digest().to_owned()));
    walk(layout, entries, cancel, |part| keep.extend([part.digest().digest().to_owned()]))?;
    Ok(keep)
}

/// Visits what `documents` and the indexes among them lead to: the documents, and the parts of each.
fn walk(
    layout: &Layout,
    documents: Vec<Descriptor>,
    cancel: &Cancel,
    mut visit: impl FnMut(&Descriptor),
) -> Result<()> {
    let mut seen = HashSet::new();
    let mut queue = documents;
    while let Some(document) = queue.pop() {
        cancel.check()?;
        if !seen.insert(document.digest().clone()) {
            continue;
        }
        visit(&document);
        let parts = layout.children(&document)?.into_iter().filter(has_sha256);
        if layout.kind(&document)? == DocumentKind::Index {
            queue.extend(parts);
        } else {
            parts.for_each(|part| visit(&part));
        }
    }
    Ok(())
}

/// Digests of the entries without a name that belong to an image or artifact that stays.
///
/// # Errors
/// As [`reachable`].
pub(super) fn attached(layout: &Layout, cancel: &Cancel) -> Result<HashSet<String>> {
    let is_named = |entry: &Descriptor| ref_name(entry).or_else(|| full_name(entry)).is_some();
    let (named, unnamed): (Vec<_>, Vec<_>) = entries(layout)?.into_iter().partition(is_named);
    let mut stays = HashSet::new();
    stay(layout, named, cancel, &mut stays)?;
    let mut waiting = Vec::new();
    for entry in unnamed {
        waiting.push((subjects(layout, &entry)?, entry));
    }
    let mut attached = HashSet::new();
    loop {
        let (now, later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(subjects, _)| subjects.iter().any(|s| stays.contains(s)));
        if now.is_empty() {
            return Ok(attached);
        }
        let now: Vec<Descriptor> = now.into_iter().map(|(_, entry)| entry).collect();
        attached.extend(now.iter().map(|entry| entry.digest().to_string()));
        stay(layout, now, cancel, &mut stays)?;
        waiting = later;
    }
}

/// Adds what entries lead to, and the other digests that their images are known by.
fn stay(
    layout: &Layout,
    entries: Vec<Descriptor>,
    cancel: &Cancel,
    stays: &mut HashSet<Digest>,
) -> Result<()> {
    stays.extend(entries.iter().flat_map(notes_of));
    walk(layout, entries, cancel, |part| stays.extend([part.digest().clone()]))
}

/// What a document is about: its subject, or the images that cosign's payloads in it name.
fn subjects(layout: &Layout, entry: &Descriptor) -> Result<Vec<Digest>> {
    let bytes = layout.peek(entry)?;
    let mut subjects: Vec<Digest> = document::subject(&bytes).into_iter().collect();
    for part in document::parts(&bytes) {
        match part.media_type().to_string().as_str() {
            SIMPLE_SIGNING => subjects.extend(signed_manifest(&layout.peek(&part)?)),
            ATTESTATION => subjects.extend(attested(&layout.peek(&part)?)),
            _ => {}
        }
    }
    Ok(subjects)
}

/// Of an in-toto statement in its envelope.
fn attested(envelope: &[u8]) -> Vec<Digest> {
    let statement = || -> Option<Value> {
        let envelope: Value = serde_json::from_slice(envelope).ok()?;
        serde_json::from_slice(&STANDARD.decode(envelope.get("payload")?.as_str()?).ok()?).ok()
    };
    let digest =
        |subject: &Value| format!("sha256:{}", subject.pointer("/digest/sha256")?.as_str()?).parse().ok();
    let subjects =
        |statement: Value| Some(statement.get("subject")?.as_array()?.iter().filter_map(digest).collect());
    statement().and_then(subjects).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use serde_json::json;

    #[test]
    fn cosign_names_its_images() {
        let digest = digest_of(b"image");
        let payload = json!({"critical": {"image": {"docker-manifest-digest": digest.to_string()}}});
        assert_eq!(signed_manifest(payload.to_string().as_bytes()), Some(digest.clone()));
        let statement = json!({"subject": [{"name": "x"}, {"digest": {"sha256": digest.digest()}}]});
        let envelope = json!({"payload": STANDARD.encode(statement.to_string())});
        assert_eq!(attested(envelope.to_string().as_bytes()), [digest]);
        for odd in ["", "{}", "[]", r#"{"payload":"e30="}"#, r#"{"critical":3,"payload":3}"#] {
            assert_eq!(
                (signed_manifest(odd.as_bytes()), attested(odd.as_bytes())),
                (None, Vec::new()),
                "{odd}"
            );
        }
    }
}
