//! What a store holds: its images, and its layers by diff_id.

use std::collections::HashMap;
use std::str::FromStr;

use oci_spec::image::Descriptor;

use super::index::{CONVERTED_CONFIG, CONVERTED_FROM, TARGET_MANIFEST};
use crate::artifact::TargetImage;
use crate::digest::{DiffId, Digest};
use crate::layout::ref_name;

/// An image in the store.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// Its name, if it has one; an image with two names is listed twice.
    pub name: Option<String>,
    /// Its entry in the index.
    pub descriptor: Descriptor,
    /// Manifest and config.
    pub image: TargetImage,
}

impl StoredImage {
    /// Digest of the manifest as its publisher made it, also when ours was rewritten.
    pub fn target_manifest(&self) -> Digest {
        self.note(TARGET_MANIFEST).unwrap_or_else(|| self.descriptor.digest().clone())
    }

    /// Digest in the registry of the Docker manifest that this one was converted from.
    pub fn converted_from(&self) -> Option<Digest> {
        self.note(CONVERTED_FROM)
    }

    /// Digest of the config that skopeo makes of this Docker image's.
    pub fn converted_config(&self) -> Option<Digest> {
        self.note(CONVERTED_CONFIG)
    }

    fn note(&self, key: &str) -> Option<Digest> {
        Digest::from_str(self.descriptor.annotations().as_ref()?.get(key)?).ok()
    }

    /// The name as in the index entry.
    pub(super) fn name_of(descriptor: &Descriptor) -> Option<String> {
        ref_name(descriptor).map(str::to_owned)
    }
}

/// Images and layers of a store, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Images in the order of the index.
    pub images: Vec<StoredImage>,
    /// Blob of each layer that is here, by diff_id.
    pub layers: HashMap<DiffId, Descriptor>,
}

impl Inventory {
    /// The image with this config digest; config, unlike manifest, survives re-encoding.
    pub fn by_config(&self, config: &Digest) -> Option<&StoredImage> {
        let known = |i: &&StoredImage| {
            i.image.config_digest == *config || i.converted_config().as_ref() == Some(config)
        };
        self.images.iter().rev().find(known)
    }

    /// The image made from this target manifest, or from this Docker one.
    pub fn by_manifest(&self, manifest: &Digest) -> Option<&StoredImage> {
        self.images.iter().rev().find(|i| {
            i.target_manifest() == *manifest
                || i.descriptor.digest() == manifest
                || i.converted_from().as_ref() == Some(manifest)
        })
    }
}
