//! The report of a fetch: one object, as JSON or as text (`docs/cli.md`).

use oci_spec::image::Descriptor;
use serde::Serialize;

use crate::plan::Origin;
use crate::progress::human_bytes;

/// Version of the report's form; grows when a field changes its meaning.
pub(super) const VERSION: u32 = 1;

/// Why no delta was used, or not for everything. The names are part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// `--delta-policy never`.
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

/// What was asked, what was done, what it cost.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub version: u32,
    pub reference: String,
    /// Digest of the manifest that the reference led to.
    pub resolved: String,
    /// `delta` or `image`.
    pub kind: &'static str,
    /// `fetched`, `already-present` or `planned` (a dry run).
    pub status: &'static str,
    /// Digests of the deltas that were applied, in order.
    pub deltas: Vec<String>,
    /// Why there was no delta, or not for all layers; null when all went as planned.
    pub fallback_reason: Option<Reason>,
    pub image: ImageReport,
    pub layers: Vec<LayerReport>,
    pub bytes: ByteReport,
    pub durations: Durations,
    pub seconds: f64,
}

/// Where the time went, in seconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Durations {
    /// Resolving the reference, searching deltas, choosing.
    pub plan: f64,
    /// Downloading and rebuilding layers.
    pub rebuild: f64,
    pub publish: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct ImageReport {
    pub name: Option<String>,
    /// Digest of the manifest in the repository; absent in a dry run.
    pub manifest: Option<String>,
    pub target_manifest: String,
    pub config: String,
    /// `verbatim` or `rewritten`; absent in a dry run.
    pub fidelity: Option<&'static str>,
    /// Config digest of the base image that the delta was made for.
    pub base_config: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    pub diff_id: String,
    /// `reused`, `patched`, `copied` (whole, from the delta), `fetched` (whole) or `base` (from `--base`).
    pub action: &'static str,
    /// Bytes that are read for it, failed tries included; 0 for a reused layer.
    pub bytes: u64,
    /// Bytes of the layer in the target image, as its registry has it.
    pub target_bytes: u64,
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
    /// Bytes read for it, failed tries included.
    pub bytes: u64,
}

impl LayerEnd {
    /// Did a delta not give what was expected of it?
    fn fell_back(&self) -> bool {
        self.planned.is_of_delta() && !self.origin.is_of_delta()
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct ByteReport {
    /// Read from the source: lists, manifests, configs and blobs, failed tries included.
    pub downloaded: u64,
    /// What a pull without deltas would have read here, where some layers may be present.
    pub plain_pull: u64,
    /// What a pull of the target image, whole, would have read.
    pub full_pull: u64,
    /// `full_pull` less `downloaded`, 0 when there is nothing.
    pub saved: u64,
}

impl ByteReport {
    pub(super) fn new(downloaded: u64, plain_pull: u64, full_pull: u64) -> Self {
        ByteReport { downloaded, plain_pull, full_pull, saved: full_pull.saturating_sub(downloaded) }
    }
}

impl Report {
    /// Puts what happened in place of what was planned: the ends of the `layers`, and the other bytes read.
    pub(super) fn count(&mut self, layers: &[LayerEnd], others: u64) {
        let mut downloaded = others;
        for (entry, end) in self.layers.iter_mut().zip(layers) {
            entry.action = end.origin.name();
            entry.bytes = end.bytes;
            downloaded += end.bytes;
        }
        if layers.iter().any(LayerEnd::fell_back) {
            self.fallback_reason = Some(Reason::PatchFailed);
        }
        let ByteReport { plain_pull, full_pull, .. } = self.bytes;
        self.bytes = ByteReport::new(downloaded, plain_pull, full_pull);
    }

    pub(super) fn text(&self) -> String {
        let name = self.image.name.as_deref().unwrap_or("(no name)");
        let manifest = self.image.manifest.as_deref().unwrap_or(&self.image.target_manifest);
        let count = |action| self.layers.iter().filter(|l| l.action == action).count();
        let mut parts = Vec::new();
        for (action, words) in [
            ("reused", "reused"),
            ("patched", "rebuilt from patches"),
            ("copied", "carried whole in the delta"),
            ("fetched", "fetched whole"),
            ("base", "copied from the base"),
        ] {
            if count(action) > 0 {
                parts.push(format!("{} {words}", count(action)));
            }
        }
        let layers = parts.join(", ");
        let bytes = &self.bytes;
        match self.status {
            "already-present" => format!("{name} is already here\n{manifest}\n"),
            "planned" => format!(
                "{name}: would download {} bytes ({}); a full pull is {} bytes ({})\nlayers: {layers}\n",
                bytes.downloaded,
                human_bytes(bytes.downloaded),
                bytes.full_pull,
                human_bytes(bytes.full_pull)
            ),
            _ => format!(
                "{name}\n{manifest}\nlayers: {layers}\nread {} in {:.1} s, {} less than a full pull\n",
                human_bytes(bytes.downloaded),
                self.seconds,
                human_bytes(bytes.saved)
            ),
        }
    }
}
