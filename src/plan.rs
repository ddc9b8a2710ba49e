//! What is to be done for each layer: pure, from what the image needs and what is here.

use std::collections::HashSet;

use oci_spec::image::Descriptor;

use crate::artifact::{Delta, TAR_DIFF, TargetImage, layer_size_bound};
use crate::digest::DiffId;

/// How a layer comes to be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerAction {
    /// It is here already, or an equal layer of the same image brings it.
    Present,
    /// This patch rebuilds it.
    Patch(Descriptor),
    /// This blob of the artifact carries it whole.
    Original(Descriptor),
    /// It is read whole, by its digest in the target manifest.
    Fetch,
}

impl LayerAction {
    /// The word for it in reports.
    pub fn name(&self) -> &'static str {
        match self {
            LayerAction::Present => "reused",
            LayerAction::Patch(_) => "patched",
            LayerAction::Original(_) => "copied",
            LayerAction::Fetch => "fetched",
        }
    }

    /// Does it need base files?
    pub fn is_patch(&self) -> bool {
        matches!(self, LayerAction::Patch(_))
    }
}

/// A layer of the target image and what is done for it.
#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// Digest of its plain tar.
    pub diff_id: DiffId,
    /// Its descriptor in the target manifest.
    pub target: Descriptor,
    /// What is done.
    pub action: LayerAction,
    /// Most bytes that its tar may have.
    pub limit: u64,
}

impl PlannedLayer {
    /// The blob that is read for it.
    pub fn blob(&self) -> &Descriptor {
        match &self.action {
            LayerAction::Patch(blob) | LayerAction::Original(blob) => blob,
            LayerAction::Present | LayerAction::Fetch => &self.target,
        }
    }

    /// Bytes that are read for it.
    pub fn download_bytes(&self) -> u64 {
        if self.action == LayerAction::Present { 0 } else { self.blob().size() }
    }
}

/// The plan for an image.
#[derive(Debug, Clone)]
pub struct RebuildPlan {
    /// Its layers, bottom to top.
    pub layers: Vec<PlannedLayer>,
    /// Bytes of all layer blobs to read.
    pub download_bytes: u64,
}

impl RebuildPlan {
    fn new(layers: Vec<PlannedLayer>) -> Self {
        let download_bytes = layers.iter().fold(0u64, |sum, l| sum.saturating_add(l.download_bytes()));
        RebuildPlan { layers, download_bytes }
    }

    /// The least that the plan writes: whole blobs as they are, and for a
    /// rebuilt layer the size it has in the registry, since its tar is no smaller.
    pub fn stored_bytes(&self) -> u64 {
        self.layers.iter().fold(0u64, |sum, layer| {
            sum.saturating_add(match &layer.action {
                LayerAction::Present => 0,
                LayerAction::Patch(_) | LayerAction::Fetch => layer.target.size(),
                LayerAction::Original(blob) => blob.size(),
            })
        })
    }

    /// Position of the first layer with this diff_id, the one that is worked on.
    pub fn first_with(&self, diff_id: &DiffId) -> Option<usize> {
        self.layers.iter().position(|l| l.diff_id == *diff_id)
    }
}

/// Plans an image out of a delta. `have` tells which layers are here.
pub fn plan_delta(delta: &Delta, have: impl Fn(&DiffId) -> bool, max_layer: u64) -> RebuildPlan {
    plan(&delta.target, have, max_layer, |layer| match delta.manifest.layers.get(layer.digest()) {
        Some(blob) if blob.media_type().to_string() == TAR_DIFF => LayerAction::Patch(blob.clone()),
        Some(blob) => LayerAction::Original(blob.clone()),
        None => LayerAction::Fetch,
    })
}

/// Plans a whole image.
pub fn plan_image(image: &TargetImage, have: impl Fn(&DiffId) -> bool, max_layer: u64) -> RebuildPlan {
    plan(image, have, max_layer, |_| LayerAction::Fetch)
}

fn plan(
    image: &TargetImage,
    have: impl Fn(&DiffId) -> bool,
    max_layer: u64,
    absent: impl Fn(&Descriptor) -> LayerAction,
) -> RebuildPlan {
    let mut coming = HashSet::new();
    let layers = image.diff_ids.iter().zip(&image.layers).map(|(diff_id, target)| {
        let first = coming.insert(diff_id);
        PlannedLayer {
            diff_id: diff_id.clone(),
            target: target.clone(),
            action: if have(diff_id) || !first { LayerAction::Present } else { absent(target) },
            limit: layer_size_bound(target, max_layer),
        }
    });
    RebuildPlan::new(layers.collect())
}
