//! The delta artifact and the target image inside it: parsed and checked. Bytes in, structs out.
//!
//! Raw bytes are kept beside the parsed form and never written anew, since digests and
//! signatures are over them.

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use serde_json::Value;

use crate::digest::{DiffId, Digest, digest_of, parse_digest, require_sha256};
use crate::document::{
    self, DOCKER_CONFIG, DOCKER_MANIFEST, IMAGE_CONFIG, IMAGE_MANIFEST, field, field_mut, set,
};
use crate::error::{Error, Result};
use crate::exact::Recipes;
use crate::platform::Platform;

/// The artifactType of today's deltas.
pub const ARTIFACT_TYPE: &str = "application/vnd.io.github.containers.oci-delta.v1";

/// The artifactType up to May 2026, and the config type of the first ones.
const OLD_TYPES: [&str; 2] =
    ["application/vnd.redhat.oci-delta.v1", "application/vnd.redhat.oci-delta.config.v1+json"];

/// Media type of a tar-diff patch, of either version.
pub const TAR_DIFF: &str = "application/vnd.tar-diff";

/// Largest manifest in bytes: registries refuse more than 4 MiB.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Largest config in bytes. Real ones have some KiB; 16 MiB leaves room for
/// images whose history and labels are generated.
pub const MAX_CONFIG_SIZE: u64 = 16 << 20;

/// Most layers of an image. Container engines stop at 128 or 500.
const MAX_LAYERS: usize = 4096;

/// Deflate cannot expand more than this (zlib's technical notes: 1032 to 1).
const MAX_GZIP_RATIO: u64 = 1032;

/// Added to the gzip bound, for members that hold next to nothing.
const GZIP_SLACK: u64 = 64 << 10;

// Annotations of descriptors and of the manifest, by the reference tool.
pub(crate) const CONTENT: &str = "io.github.containers.delta.content";
pub(crate) const TO: &str = "io.github.containers.delta.to";
pub(crate) const SOURCE: &str = "io.github.containers.delta.source";
pub(crate) const SOURCE_CONFIG: &str = "io.github.containers.delta.source-config";
pub(crate) const TARGET: &str = "io.github.containers.delta.target";
pub(crate) const REUSED: &str = "io.github.containers.delta.reused";
pub(crate) const REUSED_DIFF_ID: &str = "io.github.containers.delta.reused-diff-id";

/// Ours: the bytes of all blobs of a delta. A list repeats it, so that what a delta costs is known
/// before its manifest is read.
pub(crate) const BYTES: &str = "io.github.oci-delta-fetch.bytes";

/// Ours: how the target's layers become the blobs that were published; see [`Recipes`].
pub(crate) const EXACT: &str = "io.github.oci-delta-fetch.exact";

/// Ours: the content and the media type of a blob with corrections for a recipe.
pub(crate) const EXACT_FIX: &str = "exact-fix";
pub(crate) const EXACT_FIX_TYPE: &str = "application/vnd.io.github.oci-delta-fetch.exact-fix.v1";

/// Ours: the content and the media type of an extended patch.
pub(crate) const EXTENDED: &str = "extended-patch";
pub(crate) const EXTENDED_TYPE: &str = "application/vnd.io.github.oci-delta-fetch.patch.v1";

/// The manifest of a delta, by itself.
#[derive(Debug, Clone)]
pub struct DeltaManifest {
    /// Config digest of the base image.
    pub source_config: Digest,
    /// Manifest digest of the base image, where it is told: leads to deltas for the base.
    pub source: Option<Digest>,
    /// The target's manifest, embedded as a blob.
    pub target_manifest: Descriptor,
    /// The target's config, embedded as a blob.
    pub target_config: Descriptor,
    /// Blobs that rebuild layers, by the digest of the layer in the target manifest.
    pub layers: HashMap<Digest, Descriptor>,
    /// Extended patches beside these, likewise.
    pub extended: HashMap<Digest, Descriptor>,
    /// Embedded signature manifests.
    pub signatures: Vec<Descriptor>,
    /// How the target's layers become the blobs that were published.
    pub recipes: Recipes,
    /// Blobs with corrections for that, by digest.
    pub fixes: HashMap<Digest, Descriptor>,
}

/// A delta whose target was read and found to belong to it.
#[derive(Debug, Clone)]
pub struct Delta {
    /// The artifact's manifest.
    pub manifest: DeltaManifest,
    /// The image it rebuilds.
    pub target: Image,
}

impl DeltaManifest {
    /// The blobs that make a layer of the target, the smallest first. Extended patches are among them where the
    /// base has its layers.
    pub fn blobs_for(&self, layer: &Digest, layered_base: bool) -> Vec<&Descriptor> {
        let extended = self.extended.get(layer).filter(|_| layered_base);
        let mut blobs: Vec<_> = extended.into_iter().chain(self.layers.get(layer)).collect();
        blobs.sort_by_key(|blob| blob.size());
        blobs
    }

    /// Has it a blob that makes this layer of the target?
    pub fn changes(&self, layer: &Digest) -> bool {
        self.layers.contains_key(layer) || self.extended.contains_key(layer)
    }

    /// Bytes of the blobs that rebuild layers, of two for one the smaller.
    pub fn layer_bytes(&self) -> u64 {
        let least = |to: &Digest| self.blobs_for(to, true).first().map_or(0, |blob| blob.size());
        let only_extended = self.extended.keys().filter(|to| !self.layers.contains_key(*to));
        self.layers.keys().chain(only_extended).map(least).fold(0, u64::saturating_add)
    }

    /// Bytes of those that nobody needs who takes the smaller one.
    pub fn spare_bytes(&self) -> u64 {
        let both = self.extended.iter().filter_map(|(to, blob)| Some((blob, self.layers.get(to)?)));
        both.map(|(a, b)| a.size().max(b.size())).fold(0, u64::saturating_add)
    }
}

impl Delta {
    /// Config digest of the base image.
    pub fn source_config(&self) -> &Digest {
        &self.manifest.source_config
    }
}

/// An image's manifest and config, which belong together.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest as published.
    pub manifest_raw: Vec<u8>,
    /// The manifest parsed.
    pub manifest: ImageManifest,
    /// Digest of `manifest_raw`.
    pub manifest_digest: Digest,
    /// Digest in the registry, where `manifest_raw` is what skopeo made of a Docker manifest of schema version 1.
    pub converted_from: Option<Digest>,
    /// Digest of the config that skopeo makes of a Docker one: deltas made from its copies name that.
    pub converted_config: Option<Digest>,
    /// The config as published.
    pub config_raw: Vec<u8>,
    /// Digest of `config_raw`.
    pub config_digest: Digest,
    /// What the config says it runs on.
    pub platform: Platform,
    /// Labels in the config.
    pub labels: HashMap<String, String>,
    /// Digests of the plain layer tars, bottom to top.
    pub diff_ids: Vec<DiffId>,
    /// The layers as the manifest lists them, bottom to top.
    pub layers: Vec<Descriptor>,
}

/// Parses any OCI manifest, within bounds.
///
/// # Errors
/// Verification; Misfit for Docker's schema version 1.
pub fn parse_manifest(bytes: &[u8]) -> Result<ImageManifest> {
    if bytes.len() as u64 > MAX_MANIFEST_SIZE {
        return Err(Error::verification(format!(
            "manifest has {} bytes, at most {MAX_MANIFEST_SIZE} are allowed",
            bytes.len()
        )));
    }
    document::manifest(bytes)
}

/// Is this artifactType that of a delta?
pub fn is_delta_type(artifact_type: &str) -> bool {
    artifact_type == ARTIFACT_TYPE || OLD_TYPES.contains(&artifact_type)
}

/// Does this manifest belong to a delta, old or new?
///
/// # Errors
/// Verification when it is no manifest at all.
pub fn is_delta(manifest: &[u8]) -> Result<bool> {
    let manifest = parse_manifest(manifest)?;
    let types = [manifest.artifact_type().clone(), Some(manifest.config().media_type().clone())];
    Ok(types.into_iter().flatten().map(|t| t.to_string()).any(|t| is_delta_type(&t)))
}

/// The config descriptor, if this manifest is that of an image.
///
/// # Errors
/// Verification when it is no manifest at all.
pub fn image_config(manifest: &[u8]) -> Result<Option<Descriptor>> {
    let manifest = parse_manifest(manifest)?;
    let config = manifest.config().clone();
    let is_image = match config.media_type().to_string().as_str() {
        IMAGE_CONFIG | DOCKER_CONFIG => true,
        // Left out, as skopeo takes it; an artifact says what it is.
        "" => manifest.artifact_type().is_none(),
        _ => false,
    };
    Ok(is_image.then_some(config))
}

/// Is this the manifest of an image with layers? Signatures are kept as if they were images.
pub fn is_runnable(manifest: &[u8]) -> bool {
    let is_layer = |layer: &Descriptor| layer.media_type().to_string().contains("tar");
    let layers =
        |manifest: ImageManifest| manifest.subject().is_none() && manifest.layers().iter().all(is_layer);
    matches!(image_config(manifest), Ok(Some(_))) && parse_manifest(manifest).is_ok_and(layers)
}

/// Is this a Docker manifest of schema version 1? It has neither a config nor a digest of its own bytes.
pub fn is_schema1(manifest: &[u8]) -> bool {
    document::object(manifest).and_then(|m| field(&m, "schemaVersion")?.as_u64()) == Some(1)
}

/// Has this manifest Docker's media type?
///
/// # Errors
/// Verification when it is no manifest at all.
pub fn is_docker(manifest: &[u8]) -> Result<bool> {
    let manifest = parse_manifest(manifest)?;
    let named = [manifest.media_type().as_ref(), Some(manifest.config().media_type())];
    let is_docker = |name: String| DOCKER_TYPES.iter().any(|(docker, _)| name == *docker);
    Ok(named.into_iter().flatten().map(ToString::to_string).any(is_docker))
}

/// May this manifest be what skopeo makes of a Docker one? That has nothing but a config and layers,
/// as Docker's have; so no delta passes for one.
///
/// # Errors
/// Verification when it is no manifest at all.
pub fn may_be_converted(manifest: &[u8]) -> Result<bool> {
    let manifest = parse_manifest(manifest)?;
    Ok(matches!(manifest.config().media_type(), MediaType::ImageConfig)
        && manifest.artifact_type().is_none()
        && manifest.subject().is_none()
        && manifest.annotations().is_none()
        && manifest.layers().iter().all(|layer| layer.annotations().is_none()))
}

impl DeltaManifest {
    /// Parses the manifest of a delta and checks it as far as it goes alone.
    ///
    /// # Errors
    /// Verification when something is missing, double or malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest = parse_manifest(bytes)?;
        let annotation = |key: &str| manifest.annotations().as_ref().and_then(|a| a.get(key));
        let source_config = annotation(SOURCE_CONFIG).ok_or_else(|| {
            Error::verification(format!("delta names no base: annotation {SOURCE_CONFIG} is missing"))
        })?;
        let source_config = parse_digest(source_config, SOURCE_CONFIG)?;
        let mut parts = Parts::default();
        for layer in manifest.layers() {
            parts.sort_in(layer)?;
        }
        let delta = DeltaManifest {
            source_config,
            source: annotation(SOURCE).and_then(|text| parse_digest(text, SOURCE).ok()),
            target_manifest: require(parts.manifest, "image-manifest")?,
            target_config: require(parts.config, "image-config")?,
            layers: parts.layers,
            extended: parts.extended,
            signatures: parts.signatures,
            fixes: parts.fixes,
            recipes: annotation(EXACT).map(|text| Recipes::parse(text)).unwrap_or_default(),
        };
        let embedded = delta.target_manifest.digest();
        if let Some(target) = annotation(TARGET) {
            agree(&parse_digest(target, TARGET)?, embedded, TARGET)?;
        }
        if let Some(subject) = manifest.subject() {
            agree(subject.digest(), embedded, "subject")?;
        }
        Ok(delta)
    }

    /// Joins the delta with its target image.
    ///
    /// # Errors
    /// Verification when the two do not belong together.
    pub fn with_target(self, target: Image) -> Result<Delta> {
        agree(&target.config_digest, self.target_config.digest(), "embedded config")?;
        agree(&target.manifest_digest, self.target_manifest.digest(), "embedded manifest")?;
        let mut named = self.layers.keys().chain(self.extended.keys());
        if let Some(foreign) = named.find(|to| !target.layers.iter().any(|l| l.digest() == *to)) {
            return Err(Error::verification(format!(
                "delta has a blob for layer {foreign}, which is not in the target image"
            )));
        }
        Ok(Delta { manifest: self, target })
    }
}

#[derive(Default)]
struct Parts {
    manifest: Option<Descriptor>,
    config: Option<Descriptor>,
    layers: HashMap<Digest, Descriptor>,
    extended: HashMap<Digest, Descriptor>,
    fixes: HashMap<Digest, Descriptor>,
    signatures: Vec<Descriptor>,
}

impl Parts {
    /// Unknown contents are for later versions and are passed over.
    fn sort_in(&mut self, layer: &Descriptor) -> Result<()> {
        let annotation = |key: &str| layer.annotations().as_ref().and_then(|a| a.get(key));
        let once = |slot: &mut Option<Descriptor>, what: &str| {
            require_sha256(layer.digest(), what)?;
            match slot.replace(layer.clone()) {
                None => Ok(()),
                Some(_) => Err(Error::verification(format!("delta embeds more than one {what}"))),
            }
        };
        match annotation(CONTENT).map(String::as_str) {
            Some("image-manifest") => once(&mut self.manifest, "image-manifest"),
            Some("image-config") => once(&mut self.config, "image-config"),
            Some("cosign-signature") => {
                self.signatures.push(layer.clone());
                Ok(())
            }
            Some(EXACT_FIX) => {
                self.fixes.insert(layer.digest().clone(), layer.clone());
                Ok(())
            }
            Some(content @ ("image-layer" | EXTENDED)) => {
                let Some(to) = annotation(TO) else { return Ok(()) };
                let to = parse_digest(to, TO)?;
                require_sha256(layer.digest(), "delta layer")?;
                let of_kind = if content == EXTENDED { &mut self.extended } else { &mut self.layers };
                match of_kind.insert(to.clone(), layer.clone()) {
                    Some(other) if other.digest() != layer.digest() => {
                        Err(Error::verification(format!("delta has two blobs for layer {to}")))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn require(part: Option<Descriptor>, what: &str) -> Result<Descriptor> {
    part.ok_or_else(|| Error::verification(format!("delta embeds no {what}")))
}

fn agree(found: &Digest, expected: &Digest, what: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::verification(format!("delta contradicts itself: {what} is {found}, expected {expected}")))
}

impl Image {
    /// Parses manifest and config, which must have the stated digest and belong together.
    ///
    /// # Errors
    /// Verification when they do not.
    pub fn parse(manifest_raw: Vec<u8>, expected: &Digest, config_raw: Vec<u8>) -> Result<Self> {
        let manifest_digest = digest_of(&manifest_raw);
        agree_digest(&manifest_digest, expected, "image manifest")?;
        let manifest = parse_manifest(&manifest_raw)?;
        let config_digest = digest_of(&config_raw);
        agree_digest(&config_digest, manifest.config().digest(), "image config")?;
        let config = document::config(&config_raw, &config_digest)?;
        let diff_ids = config.rootfs.diff_ids;
        let platform = Platform { os: config.os, architecture: config.architecture, variant: config.variant };
        let layers = manifest.layers().clone();
        if diff_ids.len() != layers.len() {
            return Err(Error::verification(format!(
                "image has {} layers, but its config lists {} diff_ids",
                layers.len(),
                diff_ids.len()
            )));
        }
        if layers.len() > MAX_LAYERS {
            return Err(Error::verification(format!(
                "image has {} layers, at most {MAX_LAYERS} are allowed",
                layers.len()
            )));
        }
        for layer in &layers {
            require_sha256(layer.digest(), "layer")?;
        }
        let diff_ids = diff_ids
            .iter()
            .map(|d| parse_digest(d, "diff_id").map(DiffId::new))
            .collect::<Result<Vec<_>>>()?;
        Ok(Image {
            manifest_raw,
            manifest,
            manifest_digest,
            converted_from: None,
            converted_config: None,
            config_raw,
            config_digest,
            platform,
            labels: config.config.labels,
            diff_ids,
            layers,
        })
    }

    /// The image with OCI's names for media types in its manifest, where it has Docker's: another manifest
    /// digest then, the same config.
    ///
    /// # Errors
    /// Verification when the manifest cannot be rewritten.
    pub fn in_oci_terms(&self) -> Result<Self> {
        let unchanged = vec![None; self.layers.len()];
        let manifest = rewrite_manifest(&self.manifest_raw, &unchanged)?;
        if manifest == self.manifest_raw {
            return Ok(self.clone());
        }
        let digest = digest_of(&manifest);
        Image::parse(manifest, &digest, self.config_raw.clone())
    }

    /// Bytes of a pull of the whole image: manifest, config, and each distinct layer once.
    pub fn full_bytes(&self) -> u64 {
        let distinct: HashMap<&Digest, u64> = self.layers.iter().map(|l| (l.digest(), l.size())).collect();
        let layers = distinct.values().fold(0u64, |sum, size| sum.saturating_add(*size));
        layers.saturating_add((self.manifest_raw.len() + self.config_raw.len()) as u64)
    }
}

fn agree_digest(found: &Digest, expected: &Digest, what: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::verification(format!("{what} digest mismatch: expected {expected}, found {found}")))
}

/// The most bytes that a layer's tar may have, by its descriptor: gzip has a largest ratio, anything else
/// only `max`. What is called a plain tar may be gzip all the same; skopeo copies it so.
pub fn layer_size_bound(layer: &Descriptor, max: u64) -> u64 {
    let media_type = layer.media_type().to_string();
    let bound = if media_type.ends_with("tar") || media_type.ends_with("gzip") {
        layer.size().saturating_mul(MAX_GZIP_RATIO).saturating_add(GZIP_SLACK)
    } else {
        max
    };
    bound.min(max)
}

/// Is this blob of a delta a patch, as far as its media type tells? Its first bytes decide; a type that
/// is none of a layer says nothing, and then a patch is what a delta is for.
pub fn claims_patch(blob: &Descriptor) -> bool {
    let media_type = blob.media_type().to_string();
    let of_layers = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    !of_layers.iter().any(|prefix| media_type.starts_with(prefix))
}

/// What a layer's descriptor becomes: media type, digest, size.
pub type LayerChange = (MediaType, Digest, u64);

/// OCI's names for Docker's media types (image-spec, media types).
const DOCKER_TYPES: [(&str, &str); 7] = [
    (DOCKER_MANIFEST, IMAGE_MANIFEST),
    (DOCKER_CONFIG, IMAGE_CONFIG),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ),
];

/// Gives a media type its name in OCI; false when it has no other.
fn rename(media_type: &mut Value) -> bool {
    let found = DOCKER_TYPES.iter().find(|(docker, _)| media_type.as_str() == Some(docker));
    found.is_some_and(|(_, oci)| {
        *media_type = (*oci).into();
        true
    })
}

/// Changes the descriptors of some layers, and Docker's media types to OCI's, since
/// skopeo finds no Docker manifest in an OCI layout. Nothing else; without a
/// change the bytes stay as they are.
///
/// # Errors
/// Verification when `raw` does not have these layers.
pub fn rewrite_manifest(raw: &[u8], changes: &[Option<LayerChange>]) -> Result<Vec<u8>> {
    let broken = || Error::verification("image manifest does not list its layers");
    let mut manifest = document::object(raw).ok_or_else(broken)?;
    let named = field_mut(&mut manifest, "mediaType").is_some_and(rename);
    let config = field_mut(&mut manifest, "config").and_then(Value::as_object_mut);
    let docker = config.and_then(|config| field_mut(config, "mediaType")).is_some_and(rename) || named;
    if !docker && changes.iter().all(Option::is_none) {
        return Ok(raw.to_vec());
    }
    let mut none = Vec::new();
    let layers = match field_mut(&mut manifest, "layers") {
        Some(Value::Array(layers)) => layers,
        None | Some(Value::Null) => &mut none,
        Some(_) => return Err(broken()),
    };
    if layers.len() != changes.len() {
        return Err(broken());
    }
    for (layer, change) in layers.iter_mut().zip(changes) {
        let layer = layer.as_object_mut().ok_or_else(broken)?;
        if let Some((media_type, ..)) = change {
            set(layer, "mediaType", media_type.to_string());
        }
        if docker {
            field_mut(layer, "mediaType").map(rename);
        }
        let Some((_, digest, size)) = change else { continue };
        set(layer, "digest", digest.to_string());
        set(layer, "size", *size);
    }
    serde_json::to_vec(&manifest).map_err(|e| broken().with_source(e))
}

/// Why a layer cannot be read here whatever is done, if that is so.
pub fn unreadable(layer: &Descriptor) -> Option<Error> {
    let media_type = layer.media_type().to_string();
    media_type.ends_with("+encrypted").then(|| {
        Error::misfit(format!("blob {} is encrypted: its media type is {media_type}", layer.digest()))
            .with_hint("skopeo copy --decryption-key KEY docker://REF oci:DIR:NAME, then use oci:DIR:NAME")
    })
}

/// Why a blob is not where its image is, if its descriptor tells.
pub fn is_elsewhere(blob: &Descriptor) -> Option<Error> {
    const SHOWN: usize = 3;
    let urls = blob.urls().as_deref().unwrap_or_default();
    let media_type = blob.media_type().to_string();
    let foreign = media_type.contains(".nondistributable.") || media_type.contains(".foreign.");
    if urls.is_empty() && !foreign {
        return None;
    }
    let urls: Vec<&str> = urls.iter().take(SHOWN).map(String::as_str).collect();
    let urls = if urls.is_empty() { "none is given".to_owned() } else { urls.join(", ") };
    let what =
        format!("blob {} ({media_type}) is not kept with the image, only at its urls: {urls}", blob.digest());
    let hint = "layers that are elsewhere are not read; push the image with them: docker push \
                --allow-nondistributable-artifacts, podman push, or skopeo copy from where they are";
    Some(Error::misfit(what).with_hint(hint))
}
