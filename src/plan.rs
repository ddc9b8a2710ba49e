//! What is to be done for each layer: pure, from what the image needs and what is here.

use std::collections::{HashMap, HashSet};

use oci_spec::image::Descriptor;

use crate::artifact::{Delta, DeltaManifest, TAR_DIFF, TargetImage, layer_size_bound};
use crate::digest::{DiffId, Digest};

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

    /// Is it a blob of a delta, so that something else could take its place?
    pub fn is_of_delta(&self) -> bool {
        matches!(self, LayerAction::Patch(_) | LayerAction::Original(_))
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
    plan_with(&delta.manifest, &delta.target, have, max_layer)
}

/// The same where delta and image are known apart.
pub fn plan_with(
    delta: &DeltaManifest,
    image: &TargetImage,
    have: impl Fn(&DiffId) -> bool,
    max_layer: u64,
) -> RebuildPlan {
    plan(image, have, max_layer, |layer| match delta.layers.get(layer.digest()) {
        Some(blob) => of_delta(blob),
        None => LayerAction::Fetch,
    })
}

fn of_delta(blob: &Descriptor) -> LayerAction {
    match blob.media_type().to_string() == TAR_DIFF {
        true => LayerAction::Patch(blob.clone()),
        false => LayerAction::Original(blob.clone()),
    }
}

/// Plans an image out of a delta for it, where whole layers can be had as well: of each
/// layer what has fewer bytes, the whole one when they are equal, since it needs no base.
pub fn plan_cheapest(
    delta: &DeltaManifest,
    image: &TargetImage,
    have: impl Fn(&DiffId) -> bool,
    max_layer: u64,
) -> RebuildPlan {
    plan(image, have, max_layer, |layer| match delta.layers.get(layer.digest()) {
        Some(blob) if blob.size() < layer.size() => of_delta(blob),
        _ => LayerAction::Fetch,
    })
}

/// Plans a whole image.
pub fn plan_image(image: &TargetImage, have: impl Fn(&DiffId) -> bool, max_layer: u64) -> RebuildPlan {
    plan(image, have, max_layer, |_| LayerAction::Fetch)
}

/// A delta as the choice of a chain sees it. Images are known by config digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The base image.
    pub from: Digest,
    /// The image it rebuilds.
    pub to: Digest,
    /// Bytes to read for it.
    pub bytes: u64,
}

/// The chain of deltas that leads with the fewest bytes, then the fewest deltas, from an image that is
/// `here` to `target`: positions in `steps`, in the order of application. `None` when there is no
/// way, or none with fewer than `limit` bytes.
pub fn cheapest_chain(
    steps: &[Step],
    here: impl Fn(&Digest) -> bool,
    target: &Digest,
    limit: u64,
) -> Option<Vec<usize>> {
    // Best known way to each image: bytes, deltas, and the last delta of it.
    let mut ways: HashMap<&Digest, (u64, usize, usize)> = HashMap::new();
    // Each round makes ways one delta longer; no cheapest way visits an image twice.
    for _ in 0..steps.len() {
        let mut better = false;
        for (at, step) in steps.iter().enumerate() {
            let before = if here(&step.from) {
                Some((0, 0))
            } else {
                ways.get(&step.from).map(|(bytes, deltas, _)| (*bytes, *deltas))
            };
            let Some((bytes, deltas)) = before else { continue };
            let way = (bytes.saturating_add(step.bytes), deltas + 1, at);
            let known = ways.get(&step.to).map(|(bytes, deltas, _)| (*bytes, *deltas));
            if known.is_none_or(|known| (way.0, way.1) < known) {
                ways.insert(&step.to, way);
                better = true;
            }
        }
        if !better {
            break;
        }
    }
    let (bytes, deltas, _) = ways.get(target)?;
    if *bytes >= limit {
        return None;
    }
    let mut chain = Vec::with_capacity(*deltas);
    let mut image = target;
    while chain.is_empty() || !here(image) {
        let (.., at) = ways.get(image)?;
        if chain.len() > steps.len() {
            return None; // cannot be: each delta leads on from a cheaper way
        }
        chain.push(*at);
        image = &steps[*at].from;
    }
    chain.reverse();
    Some(chain)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;

    /// Numbers that look random, the same for the same seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// Tries every chain without a repeated delta.
    fn brute_force(steps: &[Step], here: &[Digest], target: &Digest) -> Option<(u64, usize)> {
        fn go(
            steps: &[Step],
            used: &mut Vec<usize>,
            at: &Digest,
            target: &Digest,
            bytes: u64,
        ) -> Option<(u64, usize)> {
            let mut best = (at == target && !used.is_empty()).then_some((bytes, used.len()));
            for (next, step) in steps.iter().enumerate() {
                if step.from == *at && !used.contains(&next) {
                    used.push(next);
                    best =
                        best.into_iter().chain(go(steps, used, &step.to, target, bytes + step.bytes)).min();
                    used.pop();
                }
            }
            best
        }
        here.iter().filter_map(|start| go(steps, &mut Vec::new(), start, target, 0)).min()
    }

    #[test]
    fn the_cheapest_chain_is_that_of_brute_force() {
        for seed in 0..10_000 {
            let mut random = Random(seed);
            let images: Vec<Digest> = (0..2 + random.below(5)).map(|n| digest_of(&n.to_le_bytes())).collect();
            let any = |random: &mut Random| images[random.below(images.len() as u64) as usize].clone();
            let steps: Vec<Step> = (0..random.below(9))
                .map(|_| Step { from: any(&mut random), to: any(&mut random), bytes: random.below(20) })
                .filter(|step| step.from != step.to)
                .collect();
            let target = images[0].clone();
            let here: Vec<Digest> = images[1..].iter().filter(|_| random.below(3) == 0).cloned().collect();
            let chain = cheapest_chain(&steps, |d| here.contains(d), &target, u64::MAX);
            let found = chain.as_ref().map(|chain| {
                assert!(here.contains(&steps[chain[0]].from), "it begins here");
                assert!(
                    chain.windows(2).all(|pair| steps[pair[0]].to == steps[pair[1]].from),
                    "it is a chain"
                );
                assert_eq!(steps[*chain.last().unwrap()].to, target);
                (chain.iter().map(|at| steps[*at].bytes).sum(), chain.len())
            });
            let expected = brute_force(&steps, &here, &target);
            assert_eq!(found, expected, "seed {seed}");
            if let Some((bytes, _)) = expected {
                assert_eq!(cheapest_chain(&steps, |d| here.contains(d), &target, bytes), None, "not cheaper");
            }
        }
    }
}
