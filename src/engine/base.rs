//! Finds the base image of a delta and opens its files.

use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::opened::Opened;
use super::request::{BaseChoice, Limits, PlaceOptions};
use crate::artifact::Image;
use crate::base::{LayerBlob, LayerRef, LayeredFiles, RootfsFiles, SourceFiles};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest};
use crate::error::{Advice, Error, Result};
use crate::fetch::Place;
use crate::layout::Layout;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Inventory, Store};

/// Where old files come from, and layers that the delta reuses.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// An image in the repository.
    Stored { store: Arc<dyn Store>, image: Box<Image> },
    /// An image in a layout named by `--base`.
    Image { layout: Arc<Layout>, image: Box<Image> },
    /// A root file system, from which only files can be had.
    Rootfs(Arc<RootfsFiles>),
}

impl Base {
    /// Finds the base with the config digest that a delta names.
    ///
    /// # Errors
    /// Misfit when it is not there.
    pub(crate) fn find(
        wanted: &Digest,
        choice: &BaseChoice,
        platform: Option<&Platform>,
        repository: Option<(&Arc<dyn Store>, &Inventory)>,
        spool: &Path,
    ) -> Result<Self> {
        if let Some(dir) = &choice.rootfs {
            return RootfsFiles::open_dir(dir).map(|files| Base::Rootfs(Arc::new(files)));
        }
        if let Some(reference) = &choice.image
            && let Some(layout) = Layout::open(reference, spool)?
        {
            let image = named_image(&layout, reference, platform)?;
            if image.config_digest != *wanted {
                return Err(wrong_base(wanted, &reference.to_string(), &image.config_digest));
            }
            return Ok(Base::Image { layout: Arc::new(layout), image: Box::new(image) });
        }
        let found = repository.and_then(|(store, inventory)| {
            let image = Box::new(inventory.by_config(wanted)?.image.clone());
            Some(Base::Stored { store: store.clone(), image })
        });
        found.ok_or_else(|| {
            let absent = Error::misfit(format!(
                "the delta is for a base image with config {wanted}, which is not in the repository"
            ));
            match &choice.image {
                Some(remote) => {
                    absent.with_hint(format!("fetch the base image first: oci-delta-fetch {remote}"))
                }
                None => absent.with_hint(Advice::NameBase),
            }
        })
    }

    /// Where layers can be read that the target shares with a base outside the repository.
    pub(crate) fn place(&self) -> Option<Place> {
        let Base::Image { layout, .. } = self else { return None };
        Some(Place::Local(layout.clone()))
    }

    /// The blob of such a layer.
    pub(crate) fn layer(&self, diff_id: &DiffId) -> Option<Descriptor> {
        let Base::Image { image, .. } = self else { return None };
        let position = image.diff_ids.iter().position(|d| d == diff_id)?;
        image.layers.get(position).cloned()
    }

    /// Opens the files. Layers that the target does not share are indexed at
    /// once, in parallel: patches read from them. The others only when needed.
    pub(crate) fn files(
        &self,
        target: &Image,
        limits: &Limits,
        spool: &Path,
        threads: usize,
        cancel: &Cancel,
    ) -> Result<Arc<dyn SourceFiles>> {
        let (files, image) = match self {
            Base::Rootfs(files) => return Ok(files.clone()),
            Base::Stored { store, image } => {
                let part = |(diff_id, layer): (&DiffId, &Descriptor)| LayerRef::Stored {
                    diff_id: diff_id.clone(),
                    layer: Box::new(layer.clone()),
                };
                let layers = image.diff_ids.iter().zip(&image.layers).map(part).collect();
                (store.files(layers, limits.max_layer_size)?, image)
            }
            Base::Image { layout, image } => {
                let mut layers = Vec::new();
                for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
                    layers.push(LayerBlob { diff_id: diff_id.clone(), blob: layout.require_blob(layer)? });
                }
                (LayeredFiles::stoppable(layers, spool, limits.max_layer_size, cancel), image)
            }
        };
        let lowest_changed = image.diff_ids.iter().position(|d| !target.diff_ids.contains(d));
        let first = lowest_changed.unwrap_or(image.diff_ids.len());
        files.preload(first..image.diff_ids.len(), threads)?;
        Ok(Arc::new(files))
    }
}

/// A base that `--base` names in a registry. Reads its metadata only, so a wrong one costs no download.
///
/// # Errors
/// Misfit when it is not the image that is `wanted`; what the registry says.
pub(crate) async fn check_remote<'a>(
    choice: &'a BaseChoice,
    place: &PlaceOptions,
    wanted: &Digest,
    spool: &Path,
) -> Result<Option<&'a Reference>> {
    let Some(reference @ Reference::Docker { .. }) = &choice.image else { return Ok(None) };
    let image = Opened::open(reference, place, spool).await?.image().await?;
    if image.config_digest != *wanted {
        return Err(wrong_base(wanted, &reference.to_string(), &image.config_digest));
    }
    Ok(Some(reference))
}

pub(crate) fn named_image(
    layout: &Layout,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Image> {
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let descriptor = layout.resolve(reference.image_name(), &platform)?;
    layout
        .image(&descriptor)?
        .ok_or_else(|| Error::misfit(format!("{reference}: not a complete image, so it cannot be a base")))
}

fn wrong_base(wanted: &Digest, reference: &str, found: &Digest) -> Error {
    Error::misfit(format!(
        "the delta is for a base image with config {wanted}, but {reference} has config {found}"
    ))
    .with_hint(Advice::NameRightBase)
}
