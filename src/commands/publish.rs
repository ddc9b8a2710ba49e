//! `push`, `deltas`, `prune`: deltas in a registry, where fetch finds them.

use std::fmt::Write as _;

use serde::Serialize;

use super::Context;
use super::export::carried;
use super::report::VERSION;
use crate::cli::{DeltasArgs, PlaceArgs, PruneArgs, PushArgs};
use crate::engine::publish::{self, DeltasOf, List, Prune, Pruned, Pushed};
use crate::error::Result;
use crate::reference::Reference;
use crate::terminal::human_bytes;

#[derive(Debug, Serialize)]
struct PushReport {
    version: u32,
    /// Where it is, by digest.
    reference: String,
    digest: String,
    /// The image that it is for.
    subject: String,
    /// The registry lists it by itself; else it was added to the list under the fallback tag.
    referrers_api: bool,
    /// Signatures that went along: embedded in the delta, and beside it.
    signatures: usize,
}

impl PushReport {
    fn new(pushed: &Pushed) -> Self {
        PushReport {
            version: VERSION,
            reference: pushed.reference.to_string(),
            digest: pushed.digest.to_string(),
            subject: pushed.subject.to_string(),
            referrers_api: pushed.by_api,
            signatures: pushed.signatures,
        }
    }
}

/// Runs `push`.
pub(super) async fn push(context: &Context, args: &PushArgs) -> Result<()> {
    let place = args.place.options()?;
    let pushed = publish::push(&context.session, &args.delta, &args.destination, &place).await?;
    let report = PushReport::new(&pushed);
    let along = Some(report.signatures).filter(|n| *n > 0);
    context.print(&report, || format!("{}\n{}", report.reference, carried(along)))
}

fn deltas_of(reference: &Reference, listed_in: Option<&Reference>, place: &PlaceArgs) -> Result<DeltasOf> {
    Ok(DeltasOf { reference: reference.clone(), listed_in: listed_in.cloned(), place: place.options()? })
}

/// A delta in a list, as people and scripts see it.
#[derive(Debug, Serialize)]
struct DeltaReport {
    digest: String,
    /// Config digest of the image it starts from.
    base_config: String,
    /// Names of that image here.
    base: Vec<String>,
    /// Manifest and blobs, as far as a fetch reads them.
    bytes: u64,
    /// `bytes` as a share of the full image, 1 for the same size.
    share: f64,
    /// The base is here.
    fits: bool,
}

#[derive(Debug, Serialize)]
struct ListReport {
    version: u32,
    reference: String,
    image: String,
    full_pull_bytes: u64,
    deltas: Vec<DeltaReport>,
}

/// Runs `deltas`.
pub(super) async fn deltas(context: &Context, args: &DeltasArgs) -> Result<()> {
    let of = deltas_of(&args.reference, args.delta_repo.as_ref(), &args.place)?;
    let list = publish::deltas(&context.session, &of, &context.repo).await?;
    let report = ListReport::new(&args.reference, list);
    context.print(&report, || report.text())
}

impl ListReport {
    fn new(reference: &Reference, list: List) -> Self {
        let full = list.full_bytes;
        let deltas = list.deltas.into_iter().map(|delta| DeltaReport {
            digest: delta.digest.to_string(),
            base_config: delta.base_config.to_string(),
            base: delta.base,
            bytes: delta.bytes,
            share: delta.bytes as f64 / full.max(1) as f64,
            fits: delta.fits,
        });
        ListReport {
            version: VERSION,
            reference: reference.to_string(),
            image: list.image.to_string(),
            full_pull_bytes: full,
            deltas: deltas.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("image {}, {} whole\n", self.image, human_bytes(self.full_pull_bytes));
        if self.deltas.is_empty() {
            text.push_str("no deltas\n");
        }
        for delta in &self.deltas {
            let from = if delta.base.is_empty() { delta.base_config.clone() } else { delta.base.join(", ") };
            let fits = if delta.fits { "fits" } else { "base not here" };
            let _ = writeln!(
                text,
                "{}  {:>10}  {:5.1} %  {fits}, from {from}",
                delta.digest,
                human_bytes(delta.bytes),
                delta.share * 100.0
            );
        }
        text
    }
}

#[derive(Debug, Serialize)]
struct PruneReport {
    version: u32,
    image: String,
    kept: Vec<String>,
    removed: Vec<String>,
}

/// Runs `prune`.
pub(super) async fn prune(context: &Context, args: &PruneArgs) -> Result<()> {
    let of = deltas_of(&args.reference, args.delta_repo.as_ref(), &args.place)?;
    let how = Prune { keep: args.keep, dry_run: args.dry_run };
    let report = PruneReport::new(&publish::prune(&context.session, &of, how).await?);
    context.print(&report, || report.text())
}

impl PruneReport {
    fn new(pruned: &Pruned) -> Self {
        PruneReport {
            version: VERSION,
            image: pruned.image.to_string(),
            kept: pruned.kept.iter().map(ToString::to_string).collect(),
            removed: pruned.removed.iter().map(ToString::to_string).collect(),
        }
    }

    fn text(&self) -> String {
        self.removed.iter().map(|digest| format!("{digest}\n")).collect::<String>()
            + &format!("{} removed, {} kept\n", self.removed.len(), self.kept.len())
    }
}
