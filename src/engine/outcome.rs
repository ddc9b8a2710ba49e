//! What a fetch would do, or did.

use oci_spec::image::Descriptor;

use crate::digest::{DiffId, Digest};
use crate::exact::{Maker, Recipes};
use crate::plan::{Keep, Origin, PlannedLayer};
use crate::store::Fidelity;
use crate::trust::Signer;

/// Why no delta was used, or not for everything. The names are part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The policy allows none.
    Policy,
    /// No delta is listed for the image.
    NoDelta,
    /// Deltas exist, but none from an image that is here.
    NoBase,
    /// A delta fits, but would not save anything.
    NotSmaller,
    /// The list of deltas could not be read.
    LookupFailed,
    /// A delta failed to rebuild layers: it or the base is damaged, or they do not belong together.
    PatchFailed,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing was done yet.
    Planned,
    /// The image is in the repository now.
    Fetched,
    /// It was there before.
    AlreadyPresent,
}

/// What was asked, what was done, what it cost.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Digest of the manifest that the reference led to.
    pub resolved: Digest,
    /// Is that a delta? Else an image.
    pub is_delta: bool,
    /// How far it came.
    pub status: Status,
    /// Digests of the deltas, in the order of application.
    pub deltas: Vec<Digest>,
    /// Why there was no delta, or not for all layers.
    pub fallback: Option<Reason>,
    /// The image's name in the repository.
    pub name: Option<String>,
    /// Digest of the manifest in the repository, once it is there.
    pub manifest: Option<Digest>,
    /// Digest of the manifest as published.
    pub published_manifest: Digest,
    /// Digest of the config.
    pub config: Digest,
    /// Did the manifest stay as it was published? Known once it is there.
    pub fidelity: Option<Fidelity>,
    /// Config digest of the base image that the delta was made for.
    pub base_config: Option<Digest>,
    /// Who signed the image, where that was demanded.
    pub signers: Vec<Signer>,
    /// Bottom to top.
    pub layers: Vec<LayerOutcome>,
    /// Bytes read.
    pub bytes: Bytes,
    /// Where the time went.
    pub durations: Durations,
    /// What the image lacks where it is, for people.
    pub note: Option<String>,
    /// How layers become what was published, as far as a delta said so.
    pub recipes: Recipes,
}

/// What became of a layer.
#[derive(Debug, Clone)]
pub struct LayerOutcome {
    /// Digest of its plain tar.
    pub diff_id: DiffId,
    /// Where it came from.
    pub origin: Origin,
    /// Bytes that are read for it, failed tries included; 0 for a reused layer.
    pub bytes: u64,
    /// Bytes of the layer as its registry has it.
    pub published_bytes: u64,
    /// What became of its blob; `None` in a repository that keeps no blobs.
    pub kept: Option<Kept>,
}

/// How a layer is kept in a repository of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It came as it was published.
    Verbatim,
    /// It was made as it was published, by its recipe, or because its plain tar is what was published.
    Exact(Option<Maker>),
    /// As another blob; with the reason, where there is one.
    Rewritten(Option<String>),
}

impl Kept {
    /// What will become of a layer if its first way leads to it.
    pub(crate) fn planned(layer: &PlannedLayer) -> Self {
        let Some(way) = layer.ways.first() else { return Kept::Rewritten(None) };
        match &layer.keep {
            _ if way.blob.digest() == layer.published.digest() => Kept::Verbatim,
            Keep::Exact(making) => Kept::Exact(Some(making.maker())),
            Keep::Plain => Kept::Exact(None),
            Keep::Rewritten(reason) => Kept::Rewritten(reason.clone()),
        }
    }

    /// What became of a layer that is kept as the blob `stored`.
    pub(super) fn of(layer: &PlannedLayer, stored: &Descriptor, by_recipe: bool) -> Self {
        match &layer.keep {
            Keep::Exact(making) if by_recipe => Kept::Exact(Some(making.maker())),
            _ if stored.digest() == layer.published.digest() => Kept::Verbatim,
            Keep::Rewritten(reason) => Kept::Rewritten(reason.clone()),
            Keep::Plain | Keep::Exact(_) => Kept::Rewritten(None),
        }
    }
}

/// Bytes of a fetch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes {
    /// Read from the source: lists, manifests, configs and blobs, failed tries included.
    pub downloaded: u64,
    /// What a pull without deltas would have read here, where some layers may be present.
    pub plain_pull: u64,
    /// What a pull of the image, whole, would have read.
    pub full_pull: u64,
}

/// Where the time went, in seconds.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Durations {
    /// Resolving the reference, searching deltas, choosing.
    pub plan: f64,
    /// Downloading and rebuilding layers.
    pub rebuild: f64,
    /// Making the image visible.
    pub publish: f64,
    /// In all.
    #[serde(skip)]
    pub total: f64,
}

/// How a layer came to be in the repository.
#[derive(Debug)]
pub(super) struct LayerEnd {
    /// Its blob there.
    pub stored: Descriptor,
    /// What was to be tried first.
    pub planned: Origin,
    /// What led to it.
    pub origin: Origin,
    /// What became of it.
    pub kept: Kept,
    /// Bytes read for it, failed tries included.
    pub bytes: u64,
}

impl LayerEnd {
    /// Did a delta not give what was expected of it?
    fn fell_back(&self) -> bool {
        self.planned.is_of_delta() && !self.origin.is_of_delta()
    }
}

impl Outcome {
    /// Puts what happened in place of what was planned: the ends of the `layers`, and the other bytes read.
    pub(super) fn count(&mut self, layers: &[LayerEnd], others: u64) {
        for (entry, end) in self.layers.iter_mut().zip(layers) {
            entry.origin = end.origin;
            entry.bytes = end.bytes;
            entry.kept = entry.kept.as_ref().map(|_| end.kept.clone());
        }
        if layers.iter().any(LayerEnd::fell_back) {
            self.fallback = Some(Reason::PatchFailed);
        }
        self.bytes.downloaded = others + layers.iter().map(|end| end.bytes).sum::<u64>();
    }
}
