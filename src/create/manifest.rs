//! The artifact: its manifest, field for field as the reference tool writes it, and its blobs.

use std::io::{self, Read};

use oci_spec::image::Descriptor;
use serde_json::{Map, Value, json};

use crate::artifact::{
    self, ARTIFACT_TYPE, BYTES, CONTENT, EXACT, EXACT_FIX, EXACT_FIX_TYPE, EXTENDED, EXTENDED_TYPE, Image,
    REUSED, REUSED_DIFF_ID, SOURCE, SOURCE_CONFIG, TAR_DIFF, TARGET, TO,
};
use crate::digest::{DiffId, Digest, Hasher, digest_of};
use crate::document::{EMPTY, IMAGE_CONFIG, IMAGE_MANIFEST};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::exact::Recipes;
use crate::gunzip::Gunzip;
use crate::layout::{Content, Parcel};
use crate::region::Region;

/// A finished delta: everything that belongs into a layout or registry.
#[derive(Debug)]
pub struct Artifact {
    /// The artifact's manifest.
    pub manifest: Vec<u8>,
    /// Its blobs in the order of writing, the config last.
    pub blobs: Vec<Blob>,
    /// Bytes of those that whoever can takes: of two for one layer the smaller.
    pub bytes: u64,
}

/// A blob of the artifact.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Media type in the manifest.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// The bytes.
    pub content: Content,
}

impl Artifact {
    /// The same as it goes into a layout, in place of an older delta.
    pub fn parcel(&self) -> Parcel<'_> {
        Parcel {
            manifest: &self.manifest,
            blobs: self.blobs.iter().map(|blob| (&blob.digest, &blob.content)).collect(),
            // As the reference tool writes it.
            artifact_type: None,
            replaces: |manifest| artifact::is_delta(manifest).unwrap_or(false),
        }
    }
}

impl Blob {
    fn bytes(media_type: &str, bytes: &[u8]) -> Self {
        Blob {
            media_type: media_type.into(),
            digest: digest_of(bytes),
            content: Content::Bytes(bytes.to_vec()),
        }
    }

    pub(super) fn patch(digest: Digest, content: Region) -> Self {
        Blob { media_type: TAR_DIFF.into(), digest, content: Content::Region(content) }
    }

    pub(super) fn extended(digest: Digest, content: Region) -> Self {
        Blob { media_type: EXTENDED_TYPE.into(), digest, content: Content::Region(content) }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.content.size()
    }

    fn descriptor(&self, annotations: Value) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.size(),
            "annotations": annotations,
        })
    }
}

/// The whole blob of a layer for the artifact, or `None` when some applier could
/// not read it: other compressions than gzip, or gzip of several members.
///
/// # Errors
/// Verification when the blob does not have its digest.
pub(super) fn whole_layer(stored: &Descriptor, blob: &Region) -> Result<Option<Blob>> {
    let mut head = [0; encoding::HEAD];
    let n = blob.read_at(&mut head, 0).at("layer")?;
    let media_type = encoding::media_type_of(&head[..n]).to_string();
    let readable = match media_type.rsplit_once(['.', '+']) {
        Some((_, "tar")) => true,
        Some((_, "gzip")) => is_single_member(blob).at("layer")?,
        _ => false,
    };
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; 256 << 10];
    let mut reader = blob.reader();
    loop {
        match reader.read(&mut chunk).at("layer")? {
            0 => break,
            n => hasher.update(&chunk[..n]),
        }
    }
    let found = hasher.finish();
    if found != *stored.digest() {
        return Err(Error::verification(format!(
            "layer digest mismatch: expected {}, found {found}",
            stored.digest()
        )));
    }
    Ok(readable.then(|| Blob { media_type, digest: found, content: Content::Region(blob.clone()) }))
}

fn is_single_member(blob: &Region) -> io::Result<bool> {
    let mut gunzip = Gunzip::new(io::BufReader::new(blob.reader()));
    io::copy(&mut gunzip, &mut io::sink())?;
    Ok(gunzip.is_single_member())
}

/// Collects the parts of an artifact.
#[derive(Debug)]
pub(super) struct Builder {
    blobs: Vec<Blob>,
    layers: Vec<Value>,
    subject: Value,
    reused: Vec<String>,
    reused_diff_ids: Vec<String>,
    source: String,
    source_config: String,
    target: String,
    recipes: Recipes,
    /// Bytes of blobs that stay away from whoever takes the smaller ones beside them.
    spare: u64,
}

impl Builder {
    pub fn new(old: &Image, new: &Image) -> Self {
        let manifest = Blob::bytes(IMAGE_MANIFEST, &new.manifest_raw);
        let config = Blob::bytes(IMAGE_CONFIG, &new.config_raw);
        Builder {
            layers: vec![
                manifest.descriptor(json!({CONTENT: "image-manifest"})),
                config.descriptor(json!({CONTENT: "image-config"})),
            ],
            subject: json!({
                "mediaType": IMAGE_MANIFEST,
                "digest": new.manifest_digest.to_string(),
                "size": new.manifest_raw.len(),
            }),
            blobs: vec![manifest, config],
            reused: Vec::new(),
            reused_diff_ids: Vec::new(),
            source: old.manifest_digest.to_string(),
            source_config: old.config_digest.to_string(),
            target: new.manifest_digest.to_string(),
            recipes: Recipes::default(),
            spare: 0,
        }
    }

    /// Carries a layer of the target.
    pub fn layer(&mut self, target: &Descriptor, blob: Blob) {
        let annotations = json!({CONTENT: "image-layer", TO: target.digest().to_string()});
        self.layers.push(blob.descriptor(annotations));
        self.blobs.push(blob);
    }

    /// Carries an extended patch for a layer of the target.
    pub fn extended(&mut self, target: &Descriptor, blob: Blob) {
        let annotations = json!({CONTENT: EXTENDED, TO: target.digest().to_string()});
        self.layers.push(blob.descriptor(annotations));
        self.blobs.push(blob);
    }

    /// Notes a blob that stays away from whoever takes the smaller one for its layer.
    pub fn spare(&mut self, blob: &Blob) {
        self.spare += blob.size();
    }

    /// Notes a layer that the base has.
    pub fn reused(&mut self, target: &Descriptor, diff_id: &DiffId) {
        self.reused.push(target.digest().to_string());
        self.reused_diff_ids.push(diff_id.to_string());
    }

    /// Takes the recipes of the target's layers along, and their corrections.
    pub fn recipes(&mut self, recipes: Recipes, fixes: &[Vec<u8>]) {
        self.recipes = recipes;
        for fix in fixes {
            let blob = Blob::bytes(EXACT_FIX_TYPE, fix);
            self.layers.push(blob.descriptor(json!({CONTENT: EXACT_FIX})));
            self.blobs.push(blob);
        }
    }

    /// Takes a signature along: its manifest, then what that refers to.
    pub fn signature(&mut self, parts: &[(Descriptor, Vec<u8>)]) {
        for (at, (descriptor, bytes)) in parts.iter().enumerate() {
            let content = if at == 0 { "cosign-signature" } else { "cosign-signature-content" };
            let blob = Blob::bytes(descriptor.media_type().as_ref(), bytes);
            self.layers.push(blob.descriptor(json!({CONTENT: content})));
            self.blobs.push(blob);
        }
    }

    pub fn finish(mut self) -> Result<Artifact> {
        let config = Blob::bytes(EMPTY, b"{}");
        let bytes = self.blobs.iter().map(Blob::size).sum::<u64>() - self.spare;
        let mut annotations = Map::new();
        annotations.insert(BYTES.into(), bytes.to_string().into());
        if !self.recipes.says_nothing() {
            annotations.insert(EXACT.into(), self.recipes.to_text().into());
        }
        if !self.reused.is_empty() {
            annotations.insert(REUSED.into(), Value::from(self.reused).to_string().into());
            annotations.insert(REUSED_DIFF_ID.into(), Value::from(self.reused_diff_ids).to_string().into());
        }
        annotations.insert(SOURCE.into(), self.source.into());
        annotations.insert(SOURCE_CONFIG.into(), self.source_config.into());
        annotations.insert(TARGET.into(), self.target.into());
        let manifest = json!({
            "schemaVersion": 2,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": EMPTY, "digest": config.digest.to_string(), "size": config.size()},
            "layers": self.layers,
            "subject": self.subject,
            "annotations": annotations,
        });
        self.blobs.push(config);
        let manifest = serde_json::to_vec(&manifest)
            .map_err(|e| Error::local(format!("delta manifest: {e}")).with_source(e))?;
        Ok(Artifact { manifest, blobs: self.blobs, bytes })
    }
}
