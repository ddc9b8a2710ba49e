//! A base image that stays in its registry: what patches read of it is brought here, layer by layer.

use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::base::{blob_of, files_of, lowest_changed};
use super::base_image::BaseImage;
use super::opened::Opened;
use crate::artifact::{Image, MAX_MANIFEST_SIZE};
use crate::base::{BaseLayer, LayerBlob, LoadedLayer, SourceFiles, TarLayer, Unpacking};
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::fetch::{Errand, Place, Received};
use crate::reference::Reference;
use crate::registry::{Blobs, RemoteRepository};

/// The image, opened.
#[derive(Debug)]
pub(crate) struct InRegistry {
    place: Place,
    errand: Errand,
    pub image: Image,
    received: Received,
}

impl InRegistry {
    /// Opens the image with this manifest, without skopeo; `reference` names it.
    ///
    /// # Errors
    /// What the registry says.
    pub(crate) async fn open(
        repository: Arc<RemoteRepository>,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Self> {
        let manifest = repository.manifest(digest, MAX_MANIFEST_SIZE).await?;
        let place = Place::Remote(Arc::new(Blobs::direct(repository)));
        let opened = Opened::seen(reference, place, digest, manifest)?;
        let image = opened.image().await?;
        Ok(InRegistry { place: opened.place, errand: Errand::here(), image, received: Received::default() })
    }

    /// Bytes of the layers that patches for `target` read in any case; of others they may need files as well.
    pub(crate) fn read_in_any_case(&self, target: &Image) -> u64 {
        let Image { diff_ids, layers, .. } = &self.image;
        layers.iter().skip(lowest_changed(diff_ids, target)).map(Descriptor::size).sum()
    }

    /// Bytes of layers that came so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.bytes()
    }

    fn tar(&self, diff_id: &DiffId, blob: &Descriptor, unpacking: &Unpacking) -> Box<dyn BaseLayer> {
        Box::new(FarLayer {
            diff_id: diff_id.clone(),
            blob: blob.clone(),
            place: self.place.clone(),
            errand: self.errand.clone(),
            received: self.received.clone(),
            unpacking: unpacking.clone(),
        })
    }
}

impl BaseImage for InRegistry {
    fn files(&self, target: &Image, threads: usize, unpacking: &Unpacking) -> Result<Arc<dyn SourceFiles>> {
        let Image { diff_ids, layers, .. } = &self.image;
        let layers = diff_ids.iter().zip(layers).map(|(diff_id, layer)| self.tar(diff_id, layer, unpacking));
        files_of(diff_ids, layers.collect(), target, threads, &unpacking.spool)
    }

    fn layer(&self, diff_id: &DiffId, unpacking: &Unpacking) -> Result<Option<Box<dyn BaseLayer>>> {
        Ok(blob_of(&self.image, diff_id).map(|blob| self.tar(diff_id, &blob, unpacking)))
    }

    fn config(&self) -> Option<&Digest> {
        Some(&self.image.config_digest)
    }

    fn place(&self) -> Option<Place> {
        Some(self.place.clone())
    }

    fn blob(&self, diff_id: &DiffId) -> Option<Descriptor> {
        blob_of(&self.image, diff_id)
    }
}

/// A layer that comes when its table of contents is wanted.
#[derive(Debug)]
struct FarLayer {
    diff_id: DiffId,
    blob: Descriptor,
    place: Place,
    errand: Errand,
    received: Received,
    unpacking: Unpacking,
}

impl BaseLayer for FarLayer {
    fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    fn load(&self) -> Result<Box<dyn LoadedLayer>> {
        let blob = self.errand.bring(&self.place, &self.blob, &self.unpacking.spool)?;
        self.received.add(usize::try_from(blob.len()).unwrap_or(usize::MAX));
        TarLayer::new(LayerBlob { diff_id: self.diff_id.clone(), blob }, &self.unpacking).load()
    }
}
