//! What a signature is over: cosign's payload ("simple signing").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;

/// What cosign writes into a payload, and sigstore's other tools.
const TYPE: &str = "cosign container image signature";

/// Longest signature in base64: RSA of 8192 bits has 1368 characters.
const MAX_SIGNATURE: usize = 4096;

#[derive(Debug, Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Debug, Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Debug, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference", default)]
    reference: String,
}

/// The manifest that a payload is about, whoever signed it, and whatever else is in it.
pub fn signed_manifest(payload: &[u8]) -> Option<Digest> {
    let payload: Value = serde_json::from_slice(payload).ok()?;
    payload.pointer("/critical/image/docker-manifest-digest")?.as_str()?.parse().ok()
}

/// The bytes of a signature.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > MAX_SIGNATURE {
        return Err(format!("it has more than {MAX_SIGNATURE} characters"));
    }
    STANDARD.decode(text).map_err(|e| format!("it is not base64: {e}"))
}

/// The name that a payload for this manifest gives the image.
pub(super) fn of(payload: &[u8], manifest: &Digest) -> Result<String, String> {
    let Payload { critical } =
        serde_json::from_slice(payload).map_err(|e| format!("its payload is none of cosign's: {e}"))?;
    if critical.kind != TYPE {
        let kind: String = critical.kind.chars().take(80).collect();
        return Err(format!("its payload is of type {kind:?}, not {TYPE:?}"));
    }
    if critical.image.digest != manifest.as_ref() {
        let other: String = critical.image.digest.chars().take(80).collect();
        return Err(format!("it is for manifest {other:?}"));
    }
    Ok(critical.identity.reference.chars().filter(|c| !c.is_control()).take(512).collect())
}
