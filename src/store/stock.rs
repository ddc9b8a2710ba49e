//! Takes stock of an OCI layout: its images, those in indexes too, their layers, and what else others put there.
//! An entry that cannot be read is passed over; `verify` tells of it.

use std::collections::HashSet;

use oci_spec::image::{Descriptor, ImageManifest};

use super::inventory::{Inventory, OtherKind, StoredImage, StoredOther};
use crate::artifact::{self, Image};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest};
use crate::document::{self, DocumentKind};
use crate::error::{Kind, Result};
use crate::layout::{Layout, MAX_INDEX_DEPTH, full_name, ref_name};
use crate::trust::SIMPLE_SIGNING;

/// What is in `layout`. `is_verified` tells of a manifest whether the layers of its image were read here, and
/// `finished` has layers that were.
///
/// # Errors
/// When the index cannot be read; local I/O errors; Interrupted.
pub(super) fn take(
    layout: &Layout,
    is_verified: &dyn Fn(&Digest) -> bool,
    finished: Vec<(DiffId, Descriptor)>,
    cancel: &Cancel,
) -> Result<Inventory> {
    let mut stock = Stock {
        layout,
        is_verified,
        cancel,
        nested: HashSet::new(),
        inside: Vec::new(),
        inventory: Inventory::default(),
    };
    for entry in layout.index()?.manifests() {
        let name = ref_name(entry).or_else(|| full_name(entry)).map(str::to_owned);
        let found = stock.entry(entry, name);
        passed_over(found)?;
    }
    let Stock { mut inventory, inside, .. } = stock;
    // Whoever looks for an image prefers the later ones: those with an entry.
    inventory.images.splice(0..0, inside);
    for (diff_id, layer) in finished {
        inventory.add_verified(&diff_id, &layer);
    }
    Ok(inventory)
}

/// What one entry gets wrong concerns that entry alone; what is wrong with the disk, all.
fn passed_over(found: Result<()>) -> Result<()> {
    match found {
        Err(e) if matches!(e.kind(), Kind::Misfit | Kind::Verification) => Ok(()),
        found => found,
    }
}

struct Stock<'a> {
    layout: &'a Layout,
    is_verified: &'a dyn Fn(&Digest) -> bool,
    cancel: &'a Cancel,
    /// Manifests in indexes, each of which is read once.
    nested: HashSet<Digest>,
    inside: Vec<StoredImage>,
    inventory: Inventory,
}

impl Stock<'_> {
    fn entry(&mut self, entry: &Descriptor, name: Option<String>) -> Result<()> {
        let kind = match self.layout.kind(entry)? {
            DocumentKind::Other => OtherKind::Unknown,
            DocumentKind::Index => {
                self.images_in(entry, entry.digest(), MAX_INDEX_DEPTH)?;
                OtherKind::Index
            }
            DocumentKind::Manifest => match self.complete_image(entry)? {
                Some((descriptor, image)) => {
                    self.layers_of(&image);
                    self.inventory.images.push(StoredImage { name, descriptor, image, inside: None });
                    return Ok(());
                }
                None => match self.artifact_type(entry)? {
                    Some(artifact_type) => OtherKind::Artifact(artifact_type),
                    None => return Ok(()),
                },
            },
        };
        let Some(blob) = self.layout.blob(entry.digest())? else { return Ok(()) };
        let parts = document::parts(&self.layout.peek(entry)?);
        let mut bytes = blob.len();
        for part in &parts {
            let size = self.layout.blob(part.digest()).ok().flatten().map_or(0, |part| part.len());
            bytes = bytes.saturating_add(size);
        }
        let mut descriptor = entry.clone();
        descriptor.set_size(blob.len());
        let parts = parts.len();
        self.inventory.others.push(StoredOther { name, descriptor, kind, bytes, parts });
        Ok(())
    }

    fn images_in(&mut self, index: &Descriptor, inside: &Digest, depth: usize) -> Result<()> {
        for entry in self.layout.nested(index)?.manifests() {
            if !self.nested.insert(entry.digest().clone()) {
                continue;
            }
            let found = match self.layout.kind(entry)? {
                DocumentKind::Index if depth > 1 => self.images_in(entry, inside, depth - 1),
                DocumentKind::Manifest => self.image_in(entry, inside),
                _ => Ok(()),
            };
            passed_over(found)?;
        }
        Ok(())
    }

    fn image_in(&mut self, entry: &Descriptor, inside: &Digest) -> Result<()> {
        let Some((descriptor, image)) = self.complete_image(entry)? else { return Ok(()) };
        self.layers_of(&image);
        self.inside.push(StoredImage { name: None, descriptor, image, inside: Some(inside.clone()) });
        Ok(())
    }

    /// The image behind a manifest, if it is an image and complete. The descriptor has the manifest's size then.
    fn complete_image(&self, entry: &Descriptor) -> Result<Option<(Descriptor, Image)>> {
        self.cancel.check()?;
        let Some(image) = self.layout.image(entry)? else { return Ok(None) };
        if is_signature(&image.manifest) {
            return Ok(None);
        }
        for layer in &image.layers {
            if self.layout.size(layer.digest())? != Some(layer.size()) {
                return Ok(None);
            }
        }
        let mut descriptor = entry.clone();
        descriptor.set_size(image.manifest_raw.len() as u64);
        Ok(Some((descriptor, image)))
    }

    fn layers_of(&mut self, image: &Image) {
        let verified = (self.is_verified)(&image.manifest_digest);
        for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
            if artifact::unreadable(layer).is_some() {
                continue;
            }
            if verified {
                self.inventory.add_verified(diff_id, layer);
            } else if !self.inventory.layers.contains_key(diff_id) {
                self.inventory.unverified.insert(diff_id.clone());
                self.inventory.layers.insert(diff_id.clone(), layer.clone());
            }
        }
    }

    /// The type of an artifact; the outer `None` for an image, which is not complete.
    fn artifact_type(&self, entry: &Descriptor) -> Result<Option<Option<String>>> {
        let bytes = self.layout.peek(entry)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let manifest = artifact::parse_manifest(&bytes)?;
        if is_signature(&manifest) {
            return Ok(Some(Some(SIMPLE_SIGNING.to_owned())));
        }
        if artifact::image_config(&bytes)?.is_some() && !artifact::is_delta(&bytes)? {
            return Ok(None);
        }
        let own = manifest.artifact_type().as_ref().map(ToString::to_string);
        let config = manifest.config().media_type().to_string();
        Ok(Some(own.or_else(|| (!config.is_empty() && config != document::EMPTY).then_some(config))))
    }
}

/// Signatures of cosign's look like an image, whose layers are their payloads.
fn is_signature(manifest: &ImageManifest) -> bool {
    let layers = manifest.layers();
    !layers.is_empty() && layers.iter().all(|layer| layer.media_type().to_string() == SIMPLE_SIGNING)
}
