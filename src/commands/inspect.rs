//! `inspect`: what a delta or image holds, what it would cost here, and whether it fits.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::{VERSION, kept};
use super::{Context, files};
use crate::cli::InspectArgs;
use crate::engine::base::{self, Base};
use crate::engine::decision::{Hand, Next, Purpose};
use crate::engine::opened::{Opened, is_patch};
use crate::engine::outcome::{Kept, Reason};
use crate::engine::request::FetchRequest;
use crate::error::{Error, Result};
use crate::exact::Exact;
use crate::plan::{Offer, Preference, RebuildPlan};
use crate::store::{Inventory, StoreRef};
use crate::terminal::human_bytes;

#[derive(Debug, Serialize)]
struct Inspection {
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
    patches: Option<Vec<files::PatchAccount>>,
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
    let store = context.repo.exists().then(|| context.repo.open(&context.cancel)).transpose()?;
    let inventory = store.as_ref().map(|store| store.inventory()).transpose()?.unwrap_or_default();
    let spool = super::spool_dir();
    let place = context.place(&args.place)?;
    let opened = Opened::open(&args.reference, &place, &spool).await?;
    let here = |diff_id: &_, published: &_| inventory.layer(diff_id, published).cloned();
    let limit = args.limits.max_layer_size;
    let keeps_blobs = matches!(context.repo, StoreRef::Layout(_));
    let exact = if keeps_blobs { Exact::Auto } else { Exact::Off };
    let mut inspection = match opened.delta()? {
        Some(manifest) => {
            let signatures = manifest.signatures;
            let delta = opened.target_of(manifest).await?;
            let offer = Offer {
                delta: Some(&delta.manifest),
                is_patch: &|blob| is_patch(&opened.place, blob),
                preference: Preference::Delta,
                exact,
                ..Offer::whole_layers(&here, limit)
            };
            let plan = offer.plan(&delta.target);
            let mut inspection = describe(args, keeps_blobs, &opened, &plan, &delta.target, &inventory);
            let here = store.as_ref().map(|store| (store, &inventory));
            let choice = args.base.choice();
            let base =
                base::check_remote(&choice, &place, delta.source_config(), &spool).await.and_then(|_| {
                    Base::find(delta.source_config(), &choice, place.platform.as_ref(), here, &spool)
                });
            inspection.misfit = base.err().map(|e| e.to_string());
            inspection.kind = "delta";
            inspection.signatures = signatures;
            inspection.base_config = Some(delta.source_config().to_string());
            if args.files {
                inspection.patches = Some(files::of_delta(context, args, &opened, &delta, &spool).await?);
            }
            inspection
        }
        None => {
            let request = FetchRequest {
                deltas: args.delta.deltas(),
                base: args.base.choice(),
                place,
                limits: args.limits.limits(),
                ..FetchRequest::new(args.reference.clone(), context.repo.clone())
            };
            let hand = Hand {
                session: &context.session(),
                request: &request,
                purpose: Purpose::Look,
                store: store.as_ref(),
                inventory: &inventory,
                spool: &spool,
            };
            let decision = match hand.decide(&opened).await? {
                Next::Decided(decision) => decision,
                Next::FetchBase(base) => return Err(Error::misfit(format!("the base {base} is not here"))),
            };
            let mut inspection =
                describe(args, keeps_blobs, &opened, &decision.plan, &decision.image, &inventory);
            inspection.download_bytes += decision.bytes_beside_layers();
            inspection.base_config = decision.base_config().map(|config| config.to_string());
            inspection.deltas = decision.deltas().iter().map(ToString::to_string).collect();
            inspection.fallback_reason = decision.fallback;
            inspection
        }
    };
    inspection.fits = inspection.present || inspection.misfit.is_none();
    context.print(&inspection, || inspection.text())
}

fn describe(
    args: &InspectArgs,
    keeps_blobs: bool,
    opened: &Opened,
    plan: &RebuildPlan,
    image: &crate::artifact::Image,
    inventory: &Inventory,
) -> Inspection {
    let layers = plan.layers.iter().map(|layer| {
        let (kept, encoder, inexact) = kept(keeps_blobs.then(|| Kept::planned(layer)).as_ref());
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
    Inspection {
        version: VERSION,
        reference: args.reference.to_string(),
        resolved: opened.digest.to_string(),
        kind: "image",
        target_manifest: image.manifest_digest.to_string(),
        config: image.config_digest.to_string(),
        base_config: None,
        signatures: 0,
        deltas: Vec::new(),
        fallback_reason: None,
        fits: true,
        misfit: None,
        present: inventory.by_manifest(&image.manifest_digest).is_some(),
        download_bytes: opened.metadata_bytes() + plan.download_bytes(),
        full_pull_bytes: image.full_bytes(),
        layers: layers.collect(),
        patches: None,
    }
}

impl Inspection {
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
