//! `inspect`: what a delta or image holds, what it would cost here, and whether it fits.

use std::fmt::Write as _;

use serde::Serialize;

use super::Context;
use super::files::PatchAccount;
use super::report::{VERSION, kept};
use crate::cli::InspectArgs;
use crate::engine::inspect::{Inspection, inspect};
use crate::engine::outcome::{Kept, Reason};
use crate::engine::request::FetchRequest;
use crate::error::Result;
use crate::reference::Reference;
use crate::terminal::human_bytes;

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    reference: String,
    resolved: String,
    kind: &'static str,
    target_manifest: String,
    config: String,
    base_config: Option<String>,
    signatures: usize,
    /// Of an image: the deltas that a fetch would apply, in order.
    deltas: Vec<String>,
    /// Of an image: why there is none.
    fallback_reason: Option<Reason>,
    /// Can it be brought here now? An image always can.
    fits: bool,
    /// Why it does not fit.
    misfit: Option<String>,
    present: bool,
    /// Bytes that a fetch would read now, metadata included.
    download_bytes: u64,
    full_pull_bytes: u64,
    layers: Vec<InspectedLayer>,
    /// With `--files`: where the bytes of each patch go.
    #[serde(skip_serializing_if = "Option::is_none")]
    patches: Option<Vec<PatchAccount>>,
}

#[derive(Debug, Serialize)]
struct InspectedLayer {
    diff_id: String,
    target: String,
    media_type: String,
    target_bytes: u64,
    action: &'static str,
    bytes: u64,
    /// What a fetch would keep; as in its report.
    kept: Option<&'static str>,
    encoder: Option<String>,
    inexact: Option<String>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, args: &InspectArgs) -> Result<()> {
    let request = FetchRequest {
        deltas: args.delta.deltas(),
        base: args.base.choice(),
        place: args.place.options()?,
        limits: args.limits.limits(),
        ..FetchRequest::new(args.reference.clone(), context.repo.clone())
    };
    let found = inspect(&context.session, &request, args.files).await?;
    let report = Report::new(&args.reference, found);
    context.print(&report, || report.text())
}

impl Report {
    fn new(reference: &Reference, found: Inspection) -> Self {
        let layers = found.plan.layers.iter().map(|layer| {
            let (kept, encoder, inexact) = kept(found.keeps_blobs.then(|| Kept::planned(layer)).as_ref());
            InspectedLayer {
                diff_id: layer.diff_id.to_string(),
                target: layer.published.digest().to_string(),
                media_type: layer.published.media_type().to_string(),
                target_bytes: layer.published.size(),
                action: layer.origin().name(),
                bytes: layer.download_bytes(),
                kept,
                encoder,
                inexact,
            }
        });
        Report {
            version: VERSION,
            reference: reference.to_string(),
            resolved: found.resolved.to_string(),
            kind: if found.is_delta { "delta" } else { "image" },
            target_manifest: found.image.manifest_digest.to_string(),
            config: found.image.config_digest.to_string(),
            base_config: found.base_config.map(|config| config.to_string()),
            signatures: found.signatures,
            deltas: found.deltas.iter().map(ToString::to_string).collect(),
            fallback_reason: found.fallback,
            fits: found.present || found.misfit.is_none(),
            misfit: found.misfit.map(|e| e.to_string()),
            present: found.present,
            download_bytes: found.download_bytes,
            full_pull_bytes: found.image.full_bytes(),
            layers: layers.collect(),
            patches: found.accounts.map(|accounts| accounts.into_iter().map(PatchAccount::new).collect()),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "{name:<16} {value}");
        };
        line(self.kind, &self.resolved);
        line("target manifest", &self.target_manifest);
        line("config", &self.config);
        if let Some(base) = &self.base_config {
            line("base config", base);
        }
        for delta in &self.deltas {
            line("by delta", delta);
        }
        let fits = match (&self.misfit, self.present) {
            (_, true) => "already here".to_owned(),
            (Some(reason), _) => format!("no: {reason}"),
            (None, _) => "yes".to_owned(),
        };
        line("fits", &fits);
        let cost = format!(
            "{} ({} of {})",
            human_bytes(self.download_bytes),
            percent(self.download_bytes, self.full_pull_bytes),
            human_bytes(self.full_pull_bytes)
        );
        line("download", &cost);
        for layer in &self.layers {
            let digest = layer.diff_id.trim_start_matches("sha256:");
            let value = format!(
                "{:<8} {:>12} of {:>12}",
                layer.action,
                human_bytes(layer.bytes),
                human_bytes(layer.target_bytes)
            );
            let value = match (&layer.encoder, &layer.inexact) {
                (Some(encoder), _) => format!("{value}, exact by {encoder}"),
                (None, Some(reason)) => format!("{value}, not exact: {reason}"),
                (None, None) => value,
            };
            line(&format!("layer {}", &digest[..10]), &value);
        }
        for patch in self.patches.iter().flatten() {
            out.push_str(&patch.text());
        }
        out
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}
