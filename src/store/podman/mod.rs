//! Podman's storage as a repository: read natively, written by skopeo alone.
//!
//! New layers are made in a [layout of our own](stage) beside it. To publish is to lay out what changed as skopeo's
//! `dir:`, with the image's manifest, and to [say](Handover) where skopeo takes it to: what the storage has already,
//! skopeo does not ask for. Images are removed with podman.

mod stage;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::{Descriptor, MediaType};

use super::{
    BlobSink, Fidelity, Handover, ImageTarget, Inventory, LayerSink, Published, Repository, StoredImage,
    Swept, Verified,
};
use crate::artifact::{self, Image};
use crate::base::{BaseLayer, LayerBlob, TarLayer, Unpacking};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, LayerHasher, digest_of};
use crate::encoding::Encoding;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::exact::{Recipes, Remake};
use crate::layout::Layout;
use crate::podman::{ImageRecord, Known, LayerRecord, Storage, is_out_of_reach};
use crate::reference::{PodmanPlace, Reference};
use crate::region::Region;
use crate::session::Session;
use stage::Stage;

/// Between two looks at an image that podman may be changing: longer than it is without its manifest.
const PAUSE: Duration = Duration::from_millis(300);

/// So many times it may be seen to change.
const LOOKS: usize = 10;

/// Podman's storage.
#[derive(Debug)]
pub(super) struct PodmanStore {
    storage: Arc<Storage>,
    layout: Arc<Layout>,
    /// Where images are only looked at, it is what a run that broke has left.
    stage: Option<Stage>,
    spool: PathBuf,
    cancel: Cancel,
}

impl PodmanStore {
    /// Opens the storage for reading.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub(super) fn open(place: &PodmanPlace, session: &Session) -> Result<Self> {
        let store = Self::of(Storage::open(place, &session.spool, &session.cancel)?, session);
        Ok(PodmanStore { stage: Stage::open(store.storage.root(), session)?, ..store })
    }

    fn of(storage: Storage, session: &Session) -> Self {
        let storage = Arc::new(storage);
        let layout = Arc::new(Layout::of_podman(storage.clone()));
        let (spool, cancel) = (session.spool.clone(), session.cancel.clone());
        PodmanStore { storage, layout, stage: None, spool, cancel }
    }

    /// The same, with room for new images.
    ///
    /// # Errors
    /// As [`open`](Self::open); local I/O errors.
    pub(super) fn open_to_add(place: &PodmanPlace, session: &Session) -> Result<Self> {
        let store = Self::of(Storage::open_to_add(place, &session.spool, &session.cancel)?, session);
        Ok(PodmanStore { stage: Some(Stage::open_or_create(store.storage.root(), session)?), ..store })
    }

    fn stage(&self) -> Result<&Stage> {
        self.stage
            .as_ref()
            .ok_or_else(|| Error::local(format!("{}: opened to be read", self.storage.place())))
    }

    /// The images of a record that are complete here: one for each of its manifests, the first one under its names.
    fn images(&self, known: &Known, record: &ImageRecord) -> Result<Vec<StoredImage>> {
        let Some(layers) = known.layers_of(record) else { return Ok(Vec::new()) };
        let mut images = Vec::new();
        for digest in &record.manifests {
            let descriptor = Descriptor::new(MediaType::ImageManifest, 0, digest.clone());
            let image = match self.layout.image(&descriptor) {
                Err(e) if matches!(e.kind(), Kind::Misfit | Kind::Verification) => continue,
                image => image?,
            };
            let Some(image) = image.filter(|image| has_layers(image, &layers)) else { continue };
            let descriptor =
                Descriptor::new(MediaType::ImageManifest, image.manifest_raw.len() as u64, digest.clone());
            let names: Vec<Option<String>> = match images.is_empty() && !record.names.is_empty() {
                true => record.names.iter().cloned().map(Some).collect(),
                false => vec![None],
            };
            let stored = |name| StoredImage {
                name,
                descriptor: descriptor.clone(),
                image: image.clone(),
                inside: None,
            };
            images.extend(names.into_iter().map(stored));
        }
        Ok(images)
    }

    /// Lays out `image` with this manifest for skopeo: config, manifest, and of the layers what was made here.
    fn hand_over(&self, image: &Image, manifest: &[u8], name: Option<&str>) -> Result<Handover> {
        let folder = self.stage()?.lay_out(image, manifest)?;
        let place = self.storage.place();
        let id = format!("@{}", image.config_digest.digest());
        Ok(Handover {
            from: format!("dir:{}", folder.display()),
            to: format!("{place}{}", name.unwrap_or(&id)),
        })
    }

    /// Reads an image that podman may be adding or removing: what fails then is no damage.
    fn verify_while_it_changes(&self, reading: &mut Reading, record: &ImageRecord) -> Result<()> {
        let mut before = record.clone();
        for _ in 0..LOOKS {
            let Err(e) = self.verify_record(reading, &before) else { return Ok(()) };
            self.cancel.sleep(PAUSE)?;
            reading.known = self.storage.read()?;
            match reading.known.images.iter().find(|image| image.id == before.id) {
                None => {
                    reading.verified.images -= 1;
                    return Ok(());
                }
                Some(same) if *same == before => return Err(e),
                Some(changed) => before = changed.clone(),
            }
        }
        self.verify_record(reading, &before)
    }

    fn verify_record(&self, reading: &mut Reading, record: &ImageRecord) -> Result<()> {
        let Reading { known, seen, verified } = reading;
        let mut count = |bytes: u64| {
            verified.blobs += 1;
            verified.bytes += bytes;
        };
        let digest = record.manifests.first().ok_or_else(|| Error::verification("it has no manifest"))?;
        let descriptor = Descriptor::new(MediaType::ImageManifest, 0, digest.clone());
        let incomplete = || Error::verification("the image is not complete");
        let image = self.layout.image(&descriptor)?.ok_or_else(incomplete)?;
        let layers = known.layers_of(record).ok_or_else(incomplete)?;
        if !has_layers(&image, &layers) {
            return Err(Error::verification("its layers are not those of its config"));
        }
        for diff_id in &image.diff_ids {
            if seen.contains(diff_id) {
                continue;
            }
            let tar = self.storage.tar(diff_id)?.ok_or_else(incomplete)?;
            let mut hasher = LayerHasher::new(self.cancel.watch(std::io::sink()), u64::MAX);
            std::io::copy(&mut tar.reader(), &mut hasher).at(format_args!("layer {diff_id}"))?;
            hasher.finish(diff_id)?;
            count(tar.len());
            seen.push(diff_id.clone());
        }
        count(image.manifest_raw.len() as u64);
        count(image.config_raw.len() as u64);
        Ok(())
    }
}

/// What [`Repository::verify`] has read so far.
struct Reading {
    known: Arc<Known>,
    seen: Vec<DiffId>,
    verified: Verified,
}

fn has_layers(image: &Image, layers: &[&Arc<LayerRecord>]) -> bool {
    image.diff_ids.iter().eq(layers.iter().map(|layer| &layer.diff_id))
}

fn plain(diff_id: &DiffId, size: u64) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, size, diff_id.as_digest().clone())
}

/// The name that podman shows for an image that is to be called `name`. skopeo refuses a tag beside a digest.
fn podmans_name(name: &str) -> Result<String> {
    match name.parse() {
        Ok(reference @ Reference::Docker { .. }) => {
            Ok(reference.skopeo().trim_start_matches("docker://").to_owned())
        }
        _ => Err(Error::usage(format!("{name:?} is no name for an image in podman's storage"))
            .with_hint("name it like HOST/REPO:TAG")),
    }
}

impl ImageTarget for PodmanStore {
    fn spool(&self) -> PathBuf {
        self.spool.clone()
    }

    fn name_for(&self, name: &str) -> Result<String> {
        podmans_name(name)
    }

    fn prepare(&self, image: &Image, encoding: Encoding, needed: u64) -> Result<()> {
        self.stage()?.layers.prepare(image, encoding, needed)
    }

    fn begin_layer(&self, encoding: Encoding) -> Result<Box<dyn LayerSink>> {
        self.stage()?.layers.begin_layer(encoding)
    }

    fn begin_exact(&self, published: &Descriptor, remake: Remake<'_>) -> Result<Box<dyn LayerSink>> {
        self.stage()?.layers.begin_exact(published, remake)
    }

    fn begin_verbatim(&self) -> Result<Option<BlobSink>> {
        self.stage()?.layers.begin_verbatim()
    }

    fn note_finished(&self, diff_id: &DiffId, layer: &Descriptor) -> Result<()> {
        self.stage()?.layers.note_finished(diff_id, layer)
    }

    fn publish(
        &self,
        image: &Image,
        layers: &[Descriptor],
        name: Option<&str>,
        recipes: &Recipes,
    ) -> Result<Published> {
        // Sizes are only noted in the storage; the digest says all.
        let change = |(target, stored): (&Descriptor, &Descriptor)| {
            (target.digest() != stored.digest())
                .then(|| (stored.media_type().clone(), stored.digest().clone(), stored.size()))
        };
        let changes: Vec<_> = image.manifest.layers().iter().zip(layers).map(change).collect();
        let verbatim = changes.iter().all(Option::is_none);
        let manifest = match verbatim {
            true => image.manifest_raw.clone(),
            false => artifact::rewrite_manifest(&image.manifest_raw, &changes)?,
        };
        let digest = digest_of(&manifest);
        if verbatim && !recipes.says_nothing() {
            self.stage()?.keep_recipes(&digest, recipes)?;
        }
        // A name by the publisher's digest would be a lie for another manifest.
        let is_true = |name: &&str| name.split_once('@').is_none_or(|(_, named)| named == digest.as_ref());
        let kept = name.filter(is_true);
        let note =
            (kept != name).then(|| "the image has no name: its own is by the publisher's digest".to_owned());
        let handover = Some(self.hand_over(image, &manifest, kept)?);
        let fidelity = if verbatim { Fidelity::Verbatim } else { Fidelity::Rewritten };
        Ok(Published { manifest: digest, fidelity, note, handover })
    }
}

impl Repository for PodmanStore {
    fn path(&self) -> &Path {
        self.storage.root()
    }

    fn blobs(&self) -> Option<Arc<Layout>> {
        Some(self.layout.clone())
    }

    fn inventory(&self) -> Result<Inventory> {
        let known = self.storage.read()?;
        let mut inventory = Inventory::default();
        for record in &known.images {
            self.cancel.check()?;
            inventory.images.extend(self.images(&known, record)?);
        }
        for layer in known.layers() {
            // Podman has read them when it unpacked them.
            if let Some(blob) = layer.blob.as_ref() {
                inventory.add_verified(&layer.diff_id, blob);
            }
            let size = match layer.size {
                Some(size) => size,
                None => self.storage.tar(&layer.diff_id)?.map_or(0, |tar| tar.len()),
            };
            inventory.add_verified(&layer.diff_id, &plain(&layer.diff_id, size));
        }
        let staged = self.stage.as_ref().map_or(Ok(Vec::new()), Stage::finished)?;
        for (diff_id, layer) in staged.into_iter().filter(|(diff_id, _)| known.layer(diff_id).is_none()) {
            inventory.add_verified(&diff_id, &layer);
            inventory.staged.push(diff_id);
        }
        Ok(inventory)
    }

    fn base_layer(
        &self,
        diff_id: &DiffId,
        stored: &Descriptor,
        unpacking: &Unpacking,
    ) -> Result<Box<dyn BaseLayer>> {
        let (_, blob) = self.layer(diff_id, stored, &self.spool)?;
        Ok(Box::new(TarLayer::new(LayerBlob { diff_id: diff_id.clone(), blob }, unpacking)))
    }

    fn published(&self, image: &StoredImage) -> Result<Image> {
        Ok(image.image.clone())
    }

    fn layer(&self, diff_id: &DiffId, stored: &Descriptor, spool: &Path) -> Result<(Descriptor, Region)> {
        let gone = || Error::misfit(format!("{}: layer {diff_id} is gone", self.storage.place()));
        match self.storage.tar(diff_id)? {
            Some(tar) => Ok((plain(diff_id, tar.len()), tar)),
            None => self.stage.as_ref().ok_or_else(gone)?.layers.layer(diff_id, stored, spool),
        }
    }

    fn blob_file(&self, digest: &Digest) -> Option<PathBuf> {
        self.stage.as_ref()?.layers.blob_file(digest)
    }

    fn recipes(&self, image: &StoredImage) -> Result<Recipes> {
        Ok(self.stage.as_ref().map(|stage| stage.recipes(image.descriptor.digest())).unwrap_or_default())
    }

    fn tidy(&self) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        let known = self.storage.read()?;
        let manifests: HashSet<&str> = known
            .images
            .iter()
            .flat_map(|image| &image.manifests)
            .map(|manifest| manifest.digest())
            .collect();
        stage.tidy(|diff_id| known.layer(diff_id).is_some(), |manifest| manifests.contains(manifest))
    }

    fn settle(&self, image: &StoredImage, name: Option<&str>) -> Result<Option<Handover>> {
        let name = name.filter(|_| image.name.as_deref() != name);
        name.map(|name| self.hand_over(&image.image, &image.image.manifest_raw, Some(name))).transpose()
    }

    fn verify(&self, wanted: Option<&str>, broken: &mut dyn FnMut(&str)) -> Result<Verified> {
        let known = self.storage.read()?;
        let mut reading = Reading { known: known.clone(), seen: Vec::new(), verified: Verified::default() };
        for record in &known.images {
            let digests: Vec<String> = record.manifests.iter().map(Digest::to_string).collect();
            let is_wanted = |wanted: &str| {
                record.names.iter().chain(&digests).chain([&record.id]).any(|has| has == wanted)
            };
            if wanted.is_some_and(|wanted| !is_wanted(wanted)) {
                continue;
            }
            reading.verified.images += 1;
            let name = record.names.first().unwrap_or(&record.id);
            match self.verify_while_it_changes(&mut reading, record) {
                // Whether it is damaged cannot be seen.
                Err(e) if is_out_of_reach(&e) => return Err(e.context(name)),
                Err(e) => {
                    self.cancel.check()?;
                    broken(&format!("{name}: {e}"));
                }
                Ok(()) => {}
            }
        }
        Ok(reading.verified)
    }

    fn remove(&self, _name_or_digest: &str) -> Result<usize> {
        Err(self.podmans("podman rmi removes an image from it"))
    }

    fn remove_unnamed(&self) -> Result<usize> {
        Err(self.podmans("podman image prune removes images without a name from it"))
    }

    fn gc(&self) -> Result<Swept> {
        Err(self.podmans("podman removes layers with the last image that needs them"))
    }
}

impl PodmanStore {
    fn podmans(&self, hint: &'static str) -> Error {
        Error::usage(format!("{}: what is in it is podman's to remove", self.storage.place())).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_podmans() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, podmans) in [
            ("app:1", "docker.io/library/app:1".to_owned()),
            ("h:5000/r", "h:5000/r:latest".to_owned()),
            (&format!("h.io/r:t@{digest}"), format!("h.io/r@{digest}")),
        ] {
            assert_eq!(podmans_name(name).unwrap(), podmans);
        }
        for bad in ["", "a b", "oci:x", "UPPER/x"] {
            assert_eq!(podmans_name(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
