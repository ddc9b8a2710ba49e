//! The images of a repository: manifests are streams, names are links to them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::str::FromStr;

use composefs::fsverity::FsVerityHashValue;
use composefs_oci::oci_image::{OciImage, list_refs, manifest_identifier, untag_image};
use composefs_oci::{LAYER_CONTENT_TYPE, OciDigest, layer_content_id};
use oci_spec::image::{Descriptor, MediaType};
use rustix::fs::{AtFlags, unlinkat};

use super::Shared;
use crate::artifact::Image;
use crate::digest::{DiffId, Digest};
use crate::error::{Error, IoContext, Result};
use crate::store::{Inventory, StoredImage};

/// All images and layers that are complete.
pub(super) fn inventory<H: FsVerityHashValue>(shared: &Shared<H>) -> Result<Inventory> {
    let streams = Streams::read(shared)?;
    let names = names(shared)?;
    let mut inventory = Inventory::default();
    for digest in &streams.manifests {
        let Some(image) = image(shared, digest) else { continue };
        if !image.diff_ids.iter().all(|d| streams.layers.contains(d.as_digest())) {
            continue;
        }
        for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
            inventory.layers.insert(diff_id.clone(), layer.clone());
        }
        let media_type = image.manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
        let descriptor = Descriptor::new(media_type, image.manifest_raw.len() as u64, digest.clone());
        let unnamed = vec![None];
        for name in names.get(digest).unwrap_or(&unnamed) {
            let (name, descriptor, image) = (name.clone(), descriptor.clone(), image.clone());
            inventory.images.push(StoredImage { name, descriptor, image, inside: None });
        }
    }
    inventory.images.sort_by(|a, b| a.name.cmp(&b.name));
    for digest in streams.layers {
        let diff_id = DiffId::new(digest.clone());
        if let Entry::Vacant(layer) = inventory.layers.entry(diff_id) {
            let name = layer_content_id(&digest);
            let Ok(stream) = shared.repo.open_stream(&name, None, Some(LAYER_CONTENT_TYPE)) else { continue };
            layer.insert(Descriptor::new(MediaType::ImageLayer, stream.total_size, digest));
        }
    }
    Ok(inventory)
}

/// Names of each manifest.
pub(super) fn names<H: FsVerityHashValue>(
    shared: &Shared<H>,
) -> Result<HashMap<Digest, Vec<Option<String>>>> {
    let mut names: HashMap<_, Vec<_>> = HashMap::new();
    for (name, digest) in list_refs(&shared.repo).map_err(|e| shared.failed(e))? {
        names.entry(digest).or_default().push(Some(name));
    }
    Ok(names)
}

/// The image with this manifest; what is none, or is damaged, is for `verify` to tell.
pub(super) fn image<H: FsVerityHashValue>(shared: &Shared<H>, digest: &OciDigest) -> Option<Image> {
    let opened = OciImage::open(&shared.repo, digest, None).ok()?;
    opened.config()?;
    let manifest = opened.read_manifest_json(&shared.repo).ok()?;
    let config = opened.read_config_json(&shared.repo).ok()?;
    Image::parse(manifest, digest, config).ok()
}

/// Layers and manifests by the names of their streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub manifests: Vec<Digest>,
    pub layers: HashSet<Digest>,
}

impl Streams {
    /// Reads the directory; a link whose object is gone does not count.
    pub(super) fn read<H: FsVerityHashValue>(shared: &Shared<H>) -> Result<Self> {
        let dir = shared.path.join("streams");
        let mut streams = Streams::default();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(streams),
            Err(e) => return Err(Error::from_io(e, dir.display())),
        };
        for entry in entries {
            let entry = entry.at(dir.display())?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let digest = |prefix| name.strip_prefix(prefix).and_then(|d| Digest::from_str(d).ok());
            if !entry.path().exists() {
                continue;
            }
            if let Some(digest) = digest("oci-manifest-") {
                streams.manifests.push(digest);
            } else if let Some(digest) = digest("oci-layer-") {
                streams.layers.insert(digest);
            }
        }
        streams.manifests.sort_by_key(ToString::to_string);
        Ok(streams)
    }
}

/// Streams of the images that have no name; gc keeps them.
pub(super) fn unnamed_streams<H: FsVerityHashValue>(shared: &Shared<H>) -> Result<Vec<String>> {
    let images = inventory(shared)?.images;
    let unnamed = images.iter().filter(|i| i.name.is_none());
    Ok(unnamed.map(|i| manifest_identifier(i.descriptor.digest())).collect())
}

/// Takes the names of all images that `goes` picks by digest and name, and the
/// manifest of each that has no name then; the rest is left to gc.
pub(super) fn remove<H: FsVerityHashValue>(
    shared: &Shared<H>,
    goes: impl Fn(&str, Option<&str>) -> bool,
) -> Result<usize> {
    let mut names = names(shared)?;
    let mut removed = 0;
    for digest in Streams::read(shared)?.manifests {
        let text = digest.to_string();
        let mut left = false;
        let before = removed;
        for name in names.remove(&digest).unwrap_or_else(|| vec![None]) {
            if !goes(&text, name.as_deref()) {
                left = true;
                continue;
            }
            removed += 1;
            if let Some(name) = name {
                untag_image(&shared.repo, &name).map_err(|e| shared.failed(e))?;
            }
        }
        if removed > before && !left {
            let stream = format!("streams/{}", manifest_identifier(&digest));
            unlinkat(shared.repo.repo_fd(), &stream, AtFlags::empty())
                .map_err(std::io::Error::from)
                .at(&stream)?;
        }
    }
    Ok(removed)
}
