//! The report of a fetch: one object, as JSON or as text (`docs/cli.md`).

use serde::Serialize;

use crate::engine::outcome::{Bytes, Durations, Kept, LayerOutcome, Outcome, Reason, Status};
use crate::reference::Reference;
use crate::store::Fidelity;
use crate::terminal::human_bytes;
use crate::trust::Signer;

/// Version of the report's form; grows when a field changes its meaning.
pub(super) const VERSION: u32 = 1;

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
    /// Who signed the image, where that was demanded.
    pub signatures: Vec<SignatureReport>,
    /// Signatures that went along to the registry of `--to`; null without one.
    pub carried_signatures: Option<usize>,
    pub layers: Vec<LayerReport>,
    pub bytes: ByteReport,
    pub durations: Durations,
    pub seconds: f64,
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

/// A signature that was verified.
#[derive(Debug, Serialize)]
pub(super) struct SignatureReport {
    /// The key's file.
    pub key: String,
    /// The name that was signed.
    pub reference: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    pub diff_id: String,
    /// `reused`, `patched`, `copied` (whole, from the delta), `fetched` (whole), `base` (from `--base`) or `omitted`.
    pub action: &'static str,
    /// Bytes that are read for it, failed tries included; 0 for a reused layer.
    pub bytes: u64,
    /// Bytes of the layer in the target image, as its registry has it.
    pub target_bytes: u64,
    /// `verbatim`, `exact` (made as it was published) or `rewritten`; null for an image that was here, and in a
    /// composefs repository.
    pub kept: Option<&'static str>,
    /// By which encoder it is exact.
    pub encoder: Option<String>,
    /// Why it is not.
    pub inexact: Option<String>,
}

impl SignatureReport {
    fn new(signer: &Signer) -> Self {
        SignatureReport { key: signer.key.clone(), reference: signer.reference.clone() }
    }

    fn text(&self) -> String {
        format!("signed by {} as {}\n", self.key, self.reference.escape_default())
    }
}

/// Did the manifest stay as it was published?
pub(super) fn fidelity(fidelity: Fidelity) -> &'static str {
    match fidelity {
        Fidelity::Verbatim => "verbatim",
        Fidelity::Rewritten => "rewritten",
    }
}

/// What became of a layer's blob: the word, the encoder, the reason.
pub(super) fn kept(kept: Option<&Kept>) -> (Option<&'static str>, Option<String>, Option<String>) {
    match kept {
        None => (None, None, None),
        Some(Kept::Verbatim) => (Some("verbatim"), None, None),
        Some(Kept::Exact(maker)) => (Some("exact"), maker.as_ref().map(ToString::to_string), None),
        Some(Kept::Rewritten(reason)) => (Some("rewritten"), None, reason.clone()),
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

impl Report {
    /// What became of the image behind `reference`.
    pub(super) fn new(reference: &Reference, outcome: &Outcome) -> Self {
        let layer = |layer: &LayerOutcome| {
            let (kept, encoder, inexact) = kept(layer.kept.as_ref());
            LayerReport {
                diff_id: layer.diff_id.to_string(),
                action: layer.origin.name(),
                bytes: layer.bytes,
                target_bytes: layer.published_bytes,
                kept,
                encoder,
                inexact,
            }
        };
        let Bytes { downloaded, plain_pull, full_pull } = outcome.bytes;
        Report {
            version: VERSION,
            reference: reference.to_string(),
            resolved: outcome.resolved.to_string(),
            kind: if outcome.is_delta { "delta" } else { "image" },
            status: match outcome.status {
                Status::Planned => "planned",
                Status::Fetched => "fetched",
                Status::AlreadyPresent => "already-present",
            },
            deltas: outcome.deltas.iter().map(ToString::to_string).collect(),
            fallback_reason: outcome.fallback,
            image: ImageReport {
                name: outcome.name.clone(),
                manifest: outcome.manifest.as_ref().map(ToString::to_string),
                target_manifest: outcome.published_manifest.to_string(),
                config: outcome.config.to_string(),
                fidelity: outcome.fidelity.map(fidelity),
                base_config: outcome.base_config.as_ref().map(ToString::to_string),
            },
            signatures: outcome.signers.iter().map(SignatureReport::new).collect(),
            carried_signatures: None,
            layers: outcome.layers.iter().map(layer).collect(),
            bytes: ByteReport {
                downloaded,
                plain_pull,
                full_pull,
                saved: full_pull.saturating_sub(downloaded),
            },
            durations: outcome.durations,
            seconds: outcome.durations.total,
        }
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
            ("omitted", "left out"),
        ] {
            if count(action) > 0 {
                parts.push(format!("{} {words}", count(action)));
            }
        }
        let layers = parts.join(", ");
        let bytes = &self.bytes;
        let signed: String = self.signatures.iter().map(SignatureReport::text).collect();
        let text = match self.status {
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
        };
        text + &signed
    }
}
