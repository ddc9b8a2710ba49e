//! Finds the base image of a delta and opens its files.

use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::base_image::BaseImage;
use super::opened::Opened;
use super::request::{BaseChoice, OstreeChoice, PlaceOptions};
use crate::artifact::Image;
use crate::base::{BaseLayer, LayerBlob, LayeredFiles, RootfsFiles, SourceFiles, TarLayer, Unpacking};
use crate::digest::{DiffId, Digest};
use crate::error::{Advice, Error, Result};
use crate::fetch::Place;
use crate::layout::Layout;
use crate::ostree::OstreeRepository;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::session::Session;
use crate::spool::Spool;
use crate::store::{Inventory, Repository};

/// Where bases are found by their config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Homes<'a> {
    /// The repository that takes the image, and what it holds.
    pub repository: Option<(&'a Arc<dyn Repository>, &'a Inventory)>,
    /// Those beside it.
    pub elsewhere: &'a Elsewhere,
}

/// Places of base images beside the repository that takes the image.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// Another repository, and what it holds.
    repository: Option<(Arc<dyn Repository>, Inventory)>,
    /// That of ostree.
    ostree: Option<Arc<OstreeRepository>>,
}

impl Homes<'_> {
    /// Is an image with this config in one of them?
    pub fn have(&self, config: &Digest) -> bool {
        let Elsewhere { repository, ostree } = self.elsewhere;
        let inventories = self.repository.map(|(_, inventory)| inventory).into_iter();
        let mut inventories = inventories.chain(repository.iter().map(|(_, inventory)| inventory));
        inventories.any(|inventory| inventory.by_config(config).is_some())
            || ostree.as_ref().is_some_and(|ostree| ostree.has(config))
    }

    /// Has an image with this config lost its layers, where it is?
    pub fn has_only_files(&self, config: &Digest) -> bool {
        let Elsewhere { repository, ostree } = self.elsewhere;
        let inventories = self.repository.map(|(_, inventory)| inventory).into_iter();
        let mut inventories = inventories.chain(repository.iter().map(|(_, inventory)| inventory));
        inventories.all(|inventory| inventory.by_config(config).is_none())
            && ostree.as_ref().is_some_and(|ostree| ostree.has(config))
    }

    /// Is no image in any of them?
    pub fn are_empty(&self) -> bool {
        let Elsewhere { repository, ostree } = self.elsewhere;
        self.repository.is_none_or(|(_, inventory)| inventory.images.is_empty())
            && repository.as_ref().is_none_or(|(_, inventory)| inventory.images.is_empty())
            && ostree.as_ref().is_none_or(|ostree| ostree.is_empty())
    }
}

impl Elsewhere {
    /// Opens what was chosen.
    ///
    /// # Errors
    /// When the other repository cannot be read; when the one of ostree was named, and is not there or none that can be
    /// read.
    pub fn open(choice: &BaseChoice, session: &Session) -> Result<Self> {
        let repository = choice.repository.as_ref().filter(|repository| repository.exists());
        let repository = repository.map(|repository| {
            let repository = repository.open(session)?;
            let inventory = repository.inventory()?;
            Ok((repository, inventory))
        });
        Ok(Elsewhere { repository: repository.transpose()?, ostree: open_ostree(&choice.ostree, session)? })
    }
}

fn open_ostree(choice: &OstreeChoice, session: &Session) -> Result<Option<Arc<OstreeRepository>>> {
    let opened = match choice {
        OstreeChoice::None => return Ok(None),
        OstreeChoice::IfThere(path) if !path.exists() => return Ok(None),
        OstreeChoice::IfThere(path) | OstreeChoice::At(path) => OstreeRepository::open(path),
    };
    match (opened, choice) {
        (Ok(ostree), _) => Ok(Some(Arc::new(ostree))),
        (Err(e), OstreeChoice::At(_)) => Err(e),
        (Err(e), _) => {
            session.say(&format!("no base is taken from ostree: {e}"));
            Ok(None)
        }
    }
}

/// Finds the base with the config digest that a delta names.
///
/// # Errors
/// Misfit when it is not there.
pub(crate) fn find(
    wanted: &Digest,
    choice: &BaseChoice,
    platform: Option<&Platform>,
    homes: Homes<'_>,
    spool: &Path,
) -> Result<Arc<dyn BaseImage>> {
    if let Some(opened) = &choice.opened {
        return match opened.config() {
            Some(config) if config != wanted => Err(wrong_base(wanted, "the one that was named", config)),
            _ => Ok(opened.clone()),
        };
    }
    if let Some(dir) = &choice.rootfs {
        return Ok(Arc::new(Rootfs(Arc::new(RootfsFiles::open_dir(dir)?))));
    }
    if let Some(reference) = &choice.image
        && let Some(layout) = Layout::open(reference, spool)?
    {
        let image = named_image(&layout, reference, platform)?;
        if image.config_digest != *wanted {
            return Err(wrong_base(wanted, &reference.to_string(), &image.config_digest));
        }
        return Ok(Arc::new(InLayout { layout: Arc::new(layout), image }));
    }
    // Podman's storage first: its layers are unpacked, which others have to do before a patch can begin.
    let elsewhere =
        homes.elsewhere.repository.as_ref().map(|(repository, inventory)| (repository, inventory));
    for (repository, inventory) in elsewhere.into_iter().chain(homes.repository) {
        if let Some(stored) = inventory.by_config(wanted) {
            return Ok(Arc::new(InRepository {
                repository: repository.clone(),
                image: stored.image.clone(),
            }));
        }
    }
    if let Some(ostree) = &homes.elsewhere.ostree
        && ostree.has(wanted)
    {
        return Ok(Arc::new(InOstree { ostree: ostree.clone(), config: wanted.clone() }));
    }
    let nor = homes
        .elsewhere
        .ostree
        .as_ref()
        .map(|ostree| format!(", nor in the {}", ostree.describe()))
        .unwrap_or_default();
    let absent = Error::misfit(format!(
        "the delta is for a base image with config {wanted}, which is not in the repository{nor}"
    ));
    Err(match &choice.image {
        Some(remote) => absent.with_hint(format!("fetch the base image first: oci-delta-fetch {remote}")),
        None => absent.with_hint(Advice::NameBase),
    })
}

/// The files of an image with these layers, bottom to top; see [`BaseImage::files`].
pub(super) fn files_of(
    diff_ids: &[DiffId],
    layers: Vec<Box<dyn BaseLayer>>,
    target: &Image,
    threads: usize,
    spool: &Spool,
) -> Result<Arc<dyn SourceFiles>> {
    let files = LayeredFiles::of_layers(layers, spool);
    files.preload(lowest_changed(diff_ids, target)..diff_ids.len(), threads)?;
    Ok(Arc::new(files))
}

/// The first of these layers that `target` does not share; it and all above are read for patches.
pub(super) fn lowest_changed(diff_ids: &[DiffId], target: &Image) -> usize {
    diff_ids.iter().position(|d| !target.diff_ids.contains(d)).unwrap_or(diff_ids.len())
}

/// A root file system, from which only files can be had.
#[derive(Debug)]
struct Rootfs(Arc<RootfsFiles>);

impl BaseImage for Rootfs {
    fn files(&self, _: &Image, _: usize, _: &Unpacking) -> Result<Arc<dyn SourceFiles>> {
        Ok(self.0.clone())
    }

    fn has_layers(&self) -> bool {
        false
    }
}

/// An image in an ostree repository, which has lost the layers.
#[derive(Debug)]
struct InOstree {
    ostree: Arc<OstreeRepository>,
    config: Digest,
}

impl BaseImage for InOstree {
    fn files(&self, _: &Image, _: usize, unpacking: &Unpacking) -> Result<Arc<dyn SourceFiles>> {
        match self.ostree.files(&self.config, unpacking) {
            Some(files) => Ok(Arc::new(files)),
            None => Err(Error::misfit(format!("image {} is not in ostree", self.config))),
        }
    }

    fn has_layers(&self) -> bool {
        false
    }
}

/// An image in the repository.
#[derive(Debug)]
struct InRepository {
    repository: Arc<dyn Repository>,
    image: Image,
}

impl BaseImage for InRepository {
    fn files(&self, target: &Image, threads: usize, unpacking: &Unpacking) -> Result<Arc<dyn SourceFiles>> {
        let Image { diff_ids, layers, .. } = &self.image;
        let layers = diff_ids
            .iter()
            .zip(layers)
            .map(|(diff_id, layer)| self.repository.base_layer(diff_id, layer, unpacking));
        files_of(diff_ids, layers.collect::<Result<_>>()?, target, threads, &unpacking.spool)
    }

    fn layer(&self, diff_id: &DiffId, unpacking: &Unpacking) -> Result<Option<Box<dyn BaseLayer>>> {
        let layer = blob_of(&self.image, diff_id);
        layer.map(|layer| self.repository.base_layer(diff_id, &layer, unpacking)).transpose()
    }
}

/// An image in a layout that was named.
#[derive(Debug)]
struct InLayout {
    layout: Arc<Layout>,
    image: Image,
}

impl InLayout {
    fn tar(&self, diff_id: &DiffId, layer: &Descriptor, unpacking: &Unpacking) -> Result<Box<dyn BaseLayer>> {
        let (_, blob) = self.layout.layer(diff_id, layer)?;
        let layer = LayerBlob { diff_id: diff_id.clone(), blob };
        Ok(Box::new(TarLayer::new(layer, unpacking)))
    }
}

impl BaseImage for InLayout {
    fn files(&self, target: &Image, threads: usize, unpacking: &Unpacking) -> Result<Arc<dyn SourceFiles>> {
        let Image { diff_ids, layers, .. } = &self.image;
        let layers = diff_ids.iter().zip(layers).map(|(diff_id, layer)| self.tar(diff_id, layer, unpacking));
        files_of(diff_ids, layers.collect::<Result<_>>()?, target, threads, &unpacking.spool)
    }

    fn layer(&self, diff_id: &DiffId, unpacking: &Unpacking) -> Result<Option<Box<dyn BaseLayer>>> {
        blob_of(&self.image, diff_id).map(|layer| self.tar(diff_id, &layer, unpacking)).transpose()
    }

    fn place(&self) -> Option<Place> {
        Some(Place::Local(self.layout.clone()))
    }

    fn blob(&self, diff_id: &DiffId) -> Option<Descriptor> {
        let layer = blob_of(&self.image, diff_id)?;
        // One that is not there is named by the error of who reads it.
        Some(self.layout.layer(diff_id, &layer).map_or(layer, |(kept, _)| kept))
    }
}

pub(super) fn blob_of(image: &Image, diff_id: &DiffId) -> Option<Descriptor> {
    let position = image.diff_ids.iter().position(|d| d == diff_id)?;
    image.layers.get(position).cloned()
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
