//! The files of an image that is not here, but that a chain of deltas leads to: its
//! layers are looked into through the patches that would make them.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::base_image::BaseImage;
use crate::artifact::{DeltaManifest, Image, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, layer_size_bound};
use crate::base::{BaseLayer, LayerBlob, LayeredFiles, SourceFiles, TarLayer, Unpacking, View};
use crate::digest::{DiffId, Digest, LayerHasher};
use crate::discover::Candidate;
use crate::error::{Error, IoContext, Result};
use crate::fetch::{self, Concurrency, Download, Job, Place, Received, Worked, Worker};
use crate::fuse::fuse;
use crate::patch;
use crate::region::Region;
use crate::store::{Inventory, Repository};
use crate::tardiff;

/// A delta on the way, and the image it leads to.
#[derive(Debug)]
pub(crate) struct Link {
    pub digest: Digest,
    base_config: Digest,
    /// What came of its blobs so far.
    pub received: Received,
    image: Image,
    /// The layers that are neither here nor brought by a link before: position, and the blob that makes each.
    needed: Vec<(usize, Descriptor)>,
    place: Place,
}

impl Link {
    /// Reads what image a delta leads to. `layered_base` says whether the image before it has layers, `have` tells
    /// which layers are there before it.
    pub(super) async fn read(
        candidate: &Candidate,
        place: Place,
        layered_base: bool,
        have: impl Fn(&DiffId) -> bool,
    ) -> Result<Self> {
        let delta: &DeltaManifest = &candidate.manifest;
        let manifest = place.read_blob(&delta.target_manifest, MAX_MANIFEST_SIZE).await?;
        let config = place.read_blob(&delta.target_config, MAX_CONFIG_SIZE).await?;
        let image = Image::parse(manifest, delta.target_manifest.digest(), config)?;
        let mut needed = Vec::new();
        for (at, (diff_id, layer)) in image.diff_ids.iter().zip(&image.layers).enumerate() {
            if have(diff_id) || image.diff_ids[..at].contains(diff_id) {
                continue;
            }
            let blob = delta.blobs_for(layer.digest(), layered_base).first().copied().cloned();
            let blob = blob.ok_or_else(|| {
                Error::misfit(format!("delta {} does not bring layer {diff_id}", candidate.digest))
            })?;
            needed.push((at, blob));
        }
        Ok(Link {
            digest: candidate.digest.clone(),
            base_config: delta.source_config.clone(),
            received: Received::default(),
            image,
            needed,
            place,
        })
    }

    /// Config digest of the image that it begins at.
    pub(super) fn base_config(&self) -> &Digest {
        &self.base_config
    }

    /// The layers that are there after it.
    pub(super) fn diff_ids(&self) -> &[DiffId] {
        &self.image.diff_ids
    }

    /// Bytes of the manifest and config of its image.
    pub(super) fn metadata_bytes(&self) -> u64 {
        (self.image.manifest_raw.len() + self.image.config_raw.len()) as u64
    }

    /// Bytes of the blobs that are read for it.
    pub(super) fn bytes(&self) -> u64 {
        self.needed.iter().map(|(_, blob)| blob.size()).sum()
    }
}

/// What following a chain needs.
pub(super) struct Chain<'a> {
    pub repository: Option<&'a dyn Repository>,
    pub inventory: &'a Inventory,
    /// Of the largest zstd window, the power of two.
    pub window_log: u32,
    pub concurrency: Concurrency,
    pub unpacking: Unpacking,
}

impl Chain<'_> {
    /// The files of the image that the last link leads to, over those of `base`.
    ///
    /// # Errors
    /// As for rebuilding a layer.
    pub(super) async fn files(
        &self,
        base: &dyn BaseImage,
        first: Arc<dyn SourceFiles>,
        links: &[Link],
    ) -> Result<Arc<dyn SourceFiles>> {
        let mut files = first;
        let mut made: HashMap<DiffId, Region> = HashMap::new();
        for link in links {
            let downloads = link.needed.iter().map(|(index, blob)| Download {
                received: link.received.clone(),
                ..Download::new(*index, blob.clone(), link.place.clone())
            });
            let worker = Fuser {
                files: files.clone(),
                image: link.image.clone(),
                limits: tardiff::Limits {
                    window_log: self.window_log,
                    spool: Some(self.unpacking.spool.dir().to_owned()),
                    ..Default::default()
                },
                unpacking: self.unpacking.clone(),
            };
            let (cancel, worker) = (&self.unpacking.cancel, Arc::new(worker));
            let regions = fetch::run(downloads.collect(), self.concurrency, cancel, worker).await?;
            for ((index, _), region) in link.needed.iter().zip(regions) {
                made.insert(link.image.diff_ids[*index].clone(), region);
            }
            let layers = link.diff_ids().iter().map(|diff_id| self.layer(base, &made, diff_id));
            files = Arc::new(LayeredFiles::of_layers(layers.collect::<Result<_>>()?, &self.unpacking.spool));
        }
        Ok(files)
    }

    /// A layer that was made readable, or is in the repository or the base.
    fn layer(
        &self,
        base: &dyn BaseImage,
        made: &HashMap<DiffId, Region>,
        diff_id: &DiffId,
    ) -> Result<Box<dyn BaseLayer>> {
        if let (Some(repository), Some(stored)) = (self.repository, self.inventory.layers.get(diff_id)) {
            return repository.base_layer(diff_id, stored, &self.unpacking);
        }
        if let Some(blob) = made.get(diff_id) {
            let layer = LayerBlob { diff_id: diff_id.clone(), blob: blob.clone() };
            return Ok(Box::new(TarLayer::new(layer, &self.unpacking)));
        }
        base.layer(diff_id, &self.unpacking)?
            .ok_or_else(|| Error::misfit(format!("no delta of the chain brings layer {diff_id}")))
    }
}

/// Makes the layers of a link readable.
struct Fuser {
    files: Arc<dyn SourceFiles>,
    image: Image,
    limits: tardiff::Limits,
    unpacking: Unpacking,
}

impl Worker<Region> for Fuser {
    fn work(&self, job: Job) -> Result<Worked<Region>> {
        let diff_id = &self.image.diff_ids[job.index];
        let Unpacking { spool, max_layer, cancel } = &self.unpacking;
        let max = layer_size_bound(&self.image.layers[job.index], *max_layer);
        let (is_patch, mut blob) = patch::sniff(job.blob).at("blob")?;
        let view = View::new(&*self.files, job.round);
        let region = if is_patch {
            self.fuse(blob, &view, diff_id, max)
        } else {
            let mut whole = spool.begin().at(spool.dir().display())?;
            std::io::copy(&mut blob, &mut whole).at("blob")?;
            let blob = whole.into_region();
            LayerBlob { diff_id: diff_id.clone(), blob }.unpack(spool, max, cancel)
        };
        match region {
            Ok(region) => Ok(Worked::Done(region)),
            Err(e) if view.has_another_chance(&e) => Ok(Worked::Again),
            Err(e) => Err(e.context(format!("layer {diff_id} on the way"))),
        }
    }
}

impl Fuser {
    fn fuse(&self, blob: impl Read, files: &View<'_>, diff_id: &DiffId, max: u64) -> Result<Region> {
        let region = fuse(blob, files, &self.limits, max, &self.unpacking.spool)?;
        if files.is_ambiguous() {
            // The one thing that tells which candidates were meant.
            let mut hasher = LayerHasher::new(std::io::sink(), max);
            std::io::copy(&mut self.unpacking.cancel.watch(region.reader()), &mut hasher).at("layer")?;
            hasher.finish(diff_id)?;
        }
        Ok(region)
    }
}
