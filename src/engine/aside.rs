//! Layers of an image that deltas give, for those who hand them on: made as they were published, without the image.

use std::path::PathBuf;

use oci_spec::image::Descriptor;

use super::base::{Elsewhere, Homes};
use super::bring::Bring;
use super::decision::{Decision, Purpose};
use super::outcome::Outcome;
use super::request::FetchRequest;
use super::{Decided, Plan};
use crate::digest::Digest;
use crate::error::Result;
use crate::plan::{Keep, PlannedLayer};
use crate::session::Session;

/// Is there any image here that deltas could start from? Nothing is asked of anybody.
///
/// # Errors
/// When a place of bases cannot be read.
pub fn has_bases(session: &Session, request: &FetchRequest) -> Result<bool> {
    let elsewhere = Elsewhere::open(&request.base, session)?;
    let repository = Some(&request.repository).filter(|repository| repository.exists());
    let repository = repository.map(|repository| repository.open(session)).transpose()?;
    let inventory = repository.as_ref().map(|repository| repository.inventory()).transpose()?;
    let homes = Homes { repository: repository.as_ref().zip(inventory.as_ref()), elsewhere: &elsewhere };
    Ok(!homes.are_empty())
}

/// What deltas give of an image.
pub struct Aside<'a>(Plan<'a>);

/// A layer of it.
#[derive(Debug, Clone)]
pub struct AsideLayer {
    /// As it was published.
    pub published: Descriptor,
    /// Bytes that are read for it.
    pub download_bytes: u64,
    /// The file that it is in as soon as it is made, and right.
    pub place: PathBuf,
}

impl<'a> Aside<'a> {
    /// Looks what deltas give of the image that `request` names, over the bases that are here; `None` when that is no
    /// layer. The repository is a layout that takes the layers, and no image.
    ///
    /// # Errors
    /// As [`fetch`](super::fetch).
    pub async fn look(session: &'a Session, request: &FetchRequest) -> Result<Option<Self>> {
        let mut plan = Box::pin(Plan::make(session, request, Purpose::Fetch)).await?;
        let Decided::Bring(decision) = &mut plan.decided else { return Ok(None) };
        let layers = std::mem::take(&mut decision.plan.layers);
        decision.plan.layers = layers.into_iter().filter_map(by_delta_alone).collect();
        let gives = !decision.plan.layers.is_empty();
        Ok(gives.then_some(Aside(plan)))
    }

    /// The layers.
    pub fn layers(&self) -> Vec<AsideLayer> {
        let blobs = self.0.store.as_ref().map(|store| store.path().join("blobs/sha256")).unwrap_or_default();
        let layer = |layer: &PlannedLayer| AsideLayer {
            published: layer.published.clone(),
            download_bytes: layer.download_bytes(),
            place: blobs.join(layer.published.digest().digest()),
        };
        self.decision().map(|decision| decision.plan.layers.iter().map(layer).collect()).unwrap_or_default()
    }

    /// The deltas, in the order of application.
    pub fn deltas(&self) -> Vec<Digest> {
        self.decision().map(Decision::deltas).unwrap_or_default()
    }

    /// Makes the layers.
    ///
    /// # Errors
    /// When one cannot be made; others may be there.
    pub async fn make(&self) -> Result<()> {
        let Plan { session, request, inventory, checked, .. } = &self.0;
        let (Some(decision), Some(store)) = (self.decision(), &self.0.store) else { return Ok(()) };
        let bring = Bring::new(session, request, store, inventory, decision);
        bring.layers(decision, checked.verified(), None).await.map(drop)
    }

    fn decision(&self) -> Option<&Decision> {
        match &self.0.decided {
            Decided::Bring(decision) => Some(decision),
            Decided::Here(_) => None,
        }
    }
}

impl std::fmt::Debug for Aside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Aside").field(&self.decision()).finish_non_exhaustive()
    }
}

/// The layer without those ways that lead past deltas; `None` if it is not made as it was published then.
fn by_delta_alone(mut layer: PlannedLayer) -> Option<PlannedLayer> {
    let first = layer.ways.first().filter(|way| way.origin.is_of_delta())?;
    let is_exact =
        first.blob.digest() == layer.published.digest() || !matches!(layer.keep, Keep::Rewritten(_));
    let serves = is_exact && layer.same_as.is_none();
    layer.ways.retain(|way| way.origin.is_of_delta());
    serves.then_some(layer)
}

/// An image that deltas help to bring into a repository.
pub struct ByDelta<'a>(Plan<'a>);

impl<'a> ByDelta<'a> {
    /// Looks whether deltas help with the image that `request` names; `None` when none does.
    ///
    /// # Errors
    /// As [`fetch`](super::fetch).
    pub async fn look(session: &'a Session, request: &FetchRequest) -> Result<Option<Self>> {
        let plan = Box::pin(Plan::make(session, request, Purpose::Fetch)).await?;
        let helps = matches!(&plan.decided, Decided::Bring(decision) if decision.plan.uses_delta());
        Ok(helps.then_some(ByDelta(plan)))
    }

    /// Fetches it.
    ///
    /// # Errors
    /// As [`fetch`](super::fetch).
    pub async fn fetch(self) -> Result<Outcome> {
        Box::pin(self.0.run()).await
    }
}

impl std::fmt::Debug for ByDelta<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ByDelta").finish_non_exhaustive()
    }
}
