//! What a store holds: its images, and its layers by diff_id.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use oci_spec::image::Descriptor;

use super::StoreRef;
use crate::artifact::Image;
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};

/// An image in the store.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// Its name, if it has one; an image with two names is listed twice.
    pub name: Option<String>,
    /// Its entry in the index.
    pub descriptor: Descriptor,
    /// Manifest and config.
    pub image: Image,
    /// The entry of the index of images that it is in; it has no entry of its own then.
    pub inside: Option<Digest>,
}

/// Something in the store that is no image.
#[derive(Debug, Clone)]
pub struct StoredOther {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its entry.
    pub descriptor: Descriptor,
    /// What it is.
    pub kind: OtherKind,
    /// Bytes of it and its parts, those that are here.
    pub bytes: u64,
    /// Manifests or layers in it.
    pub parts: usize,
}

/// What that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherKind {
    /// An index of images, such as one for several platforms.
    Index,
    /// An artifact: a delta, a signature, an SBOM; its type, where it says one.
    Artifact(Option<String>),
    /// Of a media type that is unknown here.
    Unknown,
}

/// Annotation of an index entry whose manifest was rewritten: digest of the
/// manifest as its publisher made it, kept as a blob beside it.
pub(super) const PUBLISHED_MANIFEST: &str = "io.github.oci-delta-fetch.target-manifest";

/// Annotation of an index entry whose manifest skopeo made of a Docker one:
/// digest of that in its registry, by which the image is known again.
pub(super) const CONVERTED_FROM: &str = "io.github.oci-delta-fetch.converted-from";

/// Annotation of an index entry of a Docker image: digest of the config that skopeo makes of its own.
pub(super) const CONVERTED_CONFIG: &str = "io.github.oci-delta-fetch.converted-config";

/// Annotation of an index entry whose manifest was rewritten: digest of a blob with the recipes by which its layers
/// become what was published.
pub(super) const RECIPES: &str = "io.github.oci-delta-fetch.recipes";

/// The digest of the recipes of an entry.
pub(super) fn recipes_of(entry: &Descriptor) -> Option<Digest> {
    note(entry, RECIPES)
}

/// The other digests by which the manifest of an entry is known.
pub(super) fn notes_of(entry: &Descriptor) -> impl Iterator<Item = Digest> {
    [PUBLISHED_MANIFEST, CONVERTED_FROM].into_iter().filter_map(|key| note(entry, key))
}

fn note(entry: &Descriptor, key: &str) -> Option<Digest> {
    Digest::from_str(entry.annotations().as_ref()?.get(key)?).ok()
}

impl StoredImage {
    /// Digest of the manifest as its publisher made it, also when ours was rewritten.
    pub fn published_manifest(&self) -> Digest {
        self.note(PUBLISHED_MANIFEST).unwrap_or_else(|| self.descriptor.digest().clone())
    }

    /// Digest of its recipes.
    pub(super) fn recipes(&self) -> Option<Digest> {
        recipes_of(&self.descriptor)
    }

    /// Is its manifest the publisher's?
    pub fn is_verbatim(&self) -> bool {
        self.published_manifest() == *self.descriptor.digest()
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
        note(&self.descriptor, key)
    }
}

/// Images and layers of a store, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Images in the order of the index.
    pub images: Vec<StoredImage>,
    /// Blob of each layer that is here, by diff_id.
    pub layers: HashMap<DiffId, Descriptor>,
    /// The same by diff_id and digest, for layers that are here in several encodings, each seen to have its diff_id.
    pub encodings: HashMap<(DiffId, Digest), Descriptor>,
    /// Those of them that others put here: that they have this diff_id was not seen yet.
    pub unverified: HashSet<DiffId>,
    /// Those that a run which broke has left beside the images.
    pub staged: Vec<DiffId>,
    /// Indexes, artifacts, and what is unknown.
    pub others: Vec<StoredOther>,
}

impl Inventory {
    /// The image that is meant, in the form that was published where it is here in several.
    ///
    /// # Errors
    /// Usage when several images are meant; `repository` is named then.
    pub fn the_one(
        &self,
        repository: &StoreRef,
        is_meant: impl Fn(&StoredImage) -> bool,
    ) -> Result<Option<&StoredImage>> {
        let meant = || self.images.iter().filter(|image| is_meant(image));
        let Some(first) = meant().next() else { return Ok(None) };
        match meant().find(|other| other.published_manifest() != first.published_manifest()) {
            None => Ok(meant().find(|image| image.is_verbatim()).or(Some(first))),
            Some(other) => {
                let (first, other) = (first.descriptor.digest(), other.descriptor.digest());
                Err(Error::usage(format!("more than one image in {repository} has this name"))
                    .with_hint(format!("name one by its digest: {first}, {other}")))
            }
        }
    }

    /// The blob of a layer: the published one, if that is here, else any with its diff_id.
    pub fn layer(&self, diff_id: &DiffId, published: &Descriptor) -> Option<&Descriptor> {
        let exact = self.encodings.get(&(diff_id.clone(), published.digest().clone()));
        exact.or_else(|| self.layers.get(diff_id))
    }

    /// Notes a layer whose diff_id was seen.
    pub(super) fn add_verified(&mut self, diff_id: &DiffId, layer: &Descriptor) {
        self.unverified.remove(diff_id);
        self.layers.insert(diff_id.clone(), layer.clone());
        self.encodings.insert((diff_id.clone(), layer.digest().clone()), layer.clone());
    }

    /// Without what a run that broke has left.
    pub(crate) fn without_staged(mut self) -> Self {
        for diff_id in std::mem::take(&mut self.staged) {
            self.layers.remove(&diff_id);
            self.encodings.retain(|(of, _), _| *of != diff_id);
        }
        self
    }

    /// The image with this config digest; config, unlike manifest, survives re-encoding.
    pub fn by_config(&self, config: &Digest) -> Option<&StoredImage> {
        let known = |i: &&StoredImage| {
            i.image.config_digest == *config || i.converted_config().as_ref() == Some(config)
        };
        self.images.iter().rev().find(known)
    }

    /// The image made from this published manifest, or from this Docker one.
    pub fn by_manifest(&self, manifest: &Digest) -> Option<&StoredImage> {
        self.images.iter().rev().find(|i| {
            i.published_manifest() == *manifest
                || i.descriptor.digest() == manifest
                || i.converted_from().as_ref() == Some(manifest)
        })
    }
}
