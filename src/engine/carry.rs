//! Signatures go along with what they sign, to a registry: under its `.sig` tag, and those that point to it by `subject`
//! as referrers, where the registry lists such.

use serde_json::{Value, json};

use super::opened::Opened;
use super::request::PlaceOptions;
use super::signatures::{Found, REFERRER_TYPE, SignatureArtifact, signature_tag};
use crate::artifact::parse_manifest;
use crate::digest::{Digest, digest_of};
use crate::error::{Error, Kind, Result};
use crate::fetch::Place;
use crate::layout::{Blobs, Content, Parcel};
use crate::proxy::{ProxyOptions, push_layout};
use crate::reference::Reference;
use crate::registry::RemoteRepository;
use crate::session::Session;
use crate::trust::{MAX_SIGNATURES, SIGNATURE};

/// Copies what lies in a layout beside the manifest `signed`, which has just been copied to the registry `to`; gives
/// the number of signatures. Those that are there already are not sent again.
///
/// # Errors
/// What the registry says; Verification for more signatures than are looked at.
pub(super) async fn carry(
    session: &Session,
    from: &Place,
    signed: &Digest,
    to: &Reference,
    options: &ProxyOptions,
) -> Result<usize> {
    let Reference::Docker { name } = to else { return Ok(0) };
    let mut found = Found::default();
    found.in_layout(from, signed).await?;
    found.trouble()?;
    let (referrers, mut tagged): (Vec<_>, Vec<_>) =
        found.artifacts.into_iter().partition(SignatureArtifact::is_referrer);
    let mut carried = 0;
    if !referrers.is_empty() {
        let repository = RemoteRepository::new(name, options).remembered(session.notes.as_deref());
        if repository.referrers_by_api(signed, REFERRER_TYPE, u64::MAX).await?.is_some() {
            for artifact in &referrers {
                let parcel = artifact.parcel();
                push(session, &parcel, &to.pinned(&digest_of(parcel.manifest)), options).await?;
                carried += artifact.count();
            }
        } else {
            // Nobody would find them there.
            tagged.extend(referrers);
        }
    }
    if tagged.is_empty() {
        return Ok(carried);
    }
    let tag = signature_tag(name, signed);
    let there = there(session, &tag, options).await?;
    let mut all: Vec<&SignatureArtifact> = there.iter().collect();
    all.extend(&tagged);
    let count = tagged.iter().map(SignatureArtifact::count).sum::<usize>();
    match (&all[..], &there) {
        ([alone], None) => push(session, &alone.parcel(), &tag, options).await?,
        _ => {
            let (manifest, blobs) = joined(&all)?;
            if there.is_none_or(|there| there.parcel().manifest != manifest) {
                let blobs = blobs.iter().map(|(digest, content)| (digest, content)).collect();
                let parcel = Parcel { manifest: &manifest, blobs, artifact_type: None, replaces: |_| false };
                push(session, &parcel, &tag, options).await?;
            }
        }
    }
    Ok(carried + count)
}

async fn push(session: &Session, parcel: &Parcel<'_>, to: &Reference, options: &ProxyOptions) -> Result<()> {
    let dir = session.scratch()?;
    parcel.write_dir(&dir, None, &session.cancel)?;
    session.cancel.until(push_layout(&dir, &to.skopeo(), options)).await
}

/// The signatures under the tag in the registry.
async fn there(
    session: &Session,
    tag: &Reference,
    options: &ProxyOptions,
) -> Result<Option<SignatureArtifact>> {
    let proxy = ProxyOptions { insecure_policy: true, platform: None, ..options.clone() };
    let place = PlaceOptions { proxy, ..PlaceOptions::default() };
    match session.cancel.until(Opened::open(tag, &place, &session.spool)).await {
        Ok(opened) => SignatureArtifact::read(&opened.place, opened.manifest).await,
        Err(e) if e.kind() == Kind::Misfit => Ok(None),
        Err(e) => Err(e),
    }
}

/// One manifest with the payloads of all: the first one, and behind its layers those that it does not have.
fn joined(all: &[&SignatureArtifact]) -> Result<(Vec<u8>, Blobs)> {
    let broken = |e: serde_json::Error| Error::verification(format!("signatures: {e}"));
    let mut layers: Vec<Value> = Vec::new();
    let mut blobs = Blobs::new();
    let key = |layer: &Value| (layer["digest"].clone(), layer["annotations"][SIGNATURE].clone());
    for artifact in all {
        let manifest = parse_manifest(artifact.parcel().manifest)?;
        for layer in manifest.layers() {
            let layer = serde_json::to_value(layer).map_err(broken)?;
            if !layers.iter().any(|known| key(known) == key(&layer)) {
                layers.push(layer);
            }
        }
        for (digest, content) in artifact.parcel().blobs {
            if !blobs.iter().any(|(known, _)| known == digest) {
                blobs.push((digest.clone(), content.clone()));
            }
        }
    }
    if layers.len() > MAX_SIGNATURES {
        let what =
            format!("{} signatures would be under one tag, at most {MAX_SIGNATURES} are", layers.len());
        return Err(Error::verification(what));
    }
    let first = all.first().map_or(&b""[..], |first| first.parcel().manifest);
    let mut manifest: Value = serde_json::from_slice(first).map_err(broken)?;
    if manifest["layers"].as_array().is_some_and(|has| has.len() == layers.len()) {
        return Ok((first.to_vec(), blobs));
    }
    // As cosign has it: an image whose layers are the payloads.
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "", "config": {}, "created": "0001-01-01T00:00:00Z", "os": "",
        "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); layers.len()],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).map_err(broken)?;
    let digest = digest_of(&config);
    manifest["config"]["digest"] = digest.to_string().into();
    manifest["config"]["size"] = config.len().into();
    manifest["layers"] = layers.into();
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("subject");
    }
    blobs.push((digest, Content::Bytes(config)));
    Ok((serde_json::to_vec(&manifest).map_err(broken)?, blobs))
}
