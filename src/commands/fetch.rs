//! `fetch`: brings the image behind a reference into the repository.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::image::Descriptor;

use super::Context;
use super::chain::Chain;
use super::report::{ByteReport, Durations, ImageReport, LayerReport, Report, VERSION};
use super::source::{Opened, concurrency};
use super::target::{Hand, Target};
use crate::base::SourceFiles;
use crate::cli::{DeltaPolicy, FetchArgs};
use crate::error::{Error, Kind, Result};
use crate::fetch::{self as scheduler, Download, Received, Source};
use crate::plan::{LayerAction, PlannedLayer};
use crate::progress::Event;
use crate::rebuild::LayerWorker;
use crate::reference::Reference;
use crate::store::{Fidelity, Inventory, Store, StoredImage};
use crate::tardiff;

/// Runs the command.
pub(super) async fn run(context: &Context, args: &FetchArgs) -> Result<()> {
    let reference = args.reference.as_ref().ok_or_else(|| Error::usage("no REF is given"))?;
    let report = fetch(context, reference, args).await?;
    context.print(&report, || report.text())
}

/// Brings an image into the repository, without a report.
pub(super) fn pull<'a>(
    context: &'a Context,
    reference: &'a Reference,
    args: &'a FetchArgs,
) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>> {
    Box::pin(async move { fetch(context, reference, args).await.map(drop) })
}

async fn fetch(context: &Context, reference: &Reference, args: &FetchArgs) -> Result<Report> {
    let started = Instant::now();
    let repository = open_repository(context, args)?;
    let inventory = repository.as_ref().map(|r| r.inventory()).transpose()?.unwrap_or_default();
    let spool = repository.as_ref().map_or_else(std::env::temp_dir, |r| r.spool());
    let opened = Opened::open(reference, &args.source, &spool).await?;
    let name = args.tag.clone().or_else(|| reference.tag_name());
    if let Some(expected) = &args.expect_digest {
        opened.expect(expected, &args.source).await?;
    }
    let delta = opened.delta()?;
    let wanted = delta.as_ref().map_or(&opened.digest, |d| d.target_manifest.digest());
    if let (Some(stored), Some(store)) = (inventory.by_manifest(wanted), &repository) {
        opened.require_platform(&stored.image)?;
        let mut stored = stored.clone();
        if !args.dry_run {
            settle(&**store, &inventory, &mut stored, name)?;
        }
        return Ok(already_here(reference, &opened, &stored, delta.is_some(), started));
    }

    let mut hand = Hand { context, args, pull, store: repository, inventory, spool: &spool };
    let mut target = hand.decide(reference, &opened).await?;
    let mut report = planned(reference, &opened, &target, name.clone());
    report.durations.plan = started.elapsed().as_secs_f64();
    let Hand { store, inventory, .. } = hand;
    match store {
        Some(store) if !args.dry_run => {
            let rebuilding = Instant::now();
            let received = target.plan.layers.iter().map(|_| Received::default()).collect();
            let bring = Bring { context, args, store, inventory, received };
            let layers = match bring.layers(&mut target, &mut report).await {
                Err(e) if e.kind() == Kind::Misfit => return Err(target.instead.take().unwrap_or(e)),
                layers => layers?,
            };
            report.count(&bring.received, opened.metadata_bytes() + target.bytes_read_beside_layers());
            report.durations.rebuild = rebuilding.elapsed().as_secs_f64();
            let publishing = Instant::now();
            // On a thread: an interrupt does not wait for it, and it finds free what the workers used.
            let (store, image) = (bring.store, target.image);
            let published =
                scheduler::on_thread(move || store.publish(&image, &layers, name.as_deref())).await?;
            report.durations.publish = publishing.elapsed().as_secs_f64();
            report.status = "fetched";
            report.image.manifest = Some(published.manifest.to_string());
            report.image.fidelity = Some(fidelity_name(published.fidelity));
            if let Some(note) = published.note {
                context.say(&format!("note: {note}"));
            }
        }
        _ => {}
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Gives an image that is here the wanted name, if it does not have it.
fn settle(
    store: &dyn Store,
    inventory: &Inventory,
    stored: &mut StoredImage,
    name: Option<String>,
) -> Result<()> {
    let digest = stored.descriptor.digest();
    let has = |name: &String| {
        inventory.images.iter().any(|i| i.name.as_ref() == Some(name) && i.descriptor.digest() == digest)
    };
    store.settle(stored, name.as_ref().filter(|name| !has(name)).map(String::as_str))?;
    stored.name = name.or(stored.name.take());
    Ok(())
}

/// A dry run leaves even the repository's directory alone.
fn open_repository(context: &Context, args: &FetchArgs) -> Result<Option<Arc<dyn Store>>> {
    match args.dry_run {
        false => context.repo.open_or_create().map(Some),
        true if context.repo.exists() => context.repo.open().map(Some),
        true => Ok(None),
    }
}

/// The work on the layers.
struct Bring<'a> {
    context: &'a Context,
    args: &'a FetchArgs,
    store: Arc<dyn Store>,
    inventory: Inventory,
    /// What came for each layer.
    received: Vec<Received>,
}

impl Bring<'_> {
    /// Brings all layers into the store: as planned, and what of the delta fails, whole.
    async fn layers(&self, target: &mut Target, report: &mut Report) -> Result<Vec<Descriptor>> {
        self.store.prepare(&target.image, self.args.compress, target.plan.stored_bytes())?;
        let auto = self.args.delta.delta_policy == DeltaPolicy::Auto;
        let files = match self.files(target).await {
            Err(e) if auto && matches!(e.kind(), Kind::Misfit | Kind::Verification) => {
                self.give_up_patches(target, report, e)?;
                None
            }
            files => files?,
        };
        let mut made = HashMap::new();
        let mut failed = Vec::new();
        let all = |_, layer: &PlannedLayer| layer.action != LayerAction::Present;
        for (index, result) in self.round(target, files, all).await? {
            match result {
                Ok(stored) => drop(made.insert(index, stored)),
                Err(e) => failed.push((index, e)),
            }
        }
        failed.sort_by_key(|(index, _)| *index);
        let hopeless = failed.iter().any(|(index, _)| !target.may_have_whole(*index));
        if let Some((_, e)) = failed.first() {
            if hopeless || !auto {
                return Err(failed.swap_remove(0).1);
            }
            self.context.say(&format!("{} of the layers are fetched whole: {e}", failed.len()));
            let again: HashSet<usize> = failed.iter().map(|(index, _)| *index).collect();
            for index in &again {
                let layer = &mut target.plan.layers[*index];
                layer.action = LayerAction::Fetch;
                report.fell_back(*index, layer);
            }
            match self.round(target, None, |index, _| again.contains(&index)).await {
                // The registry does not have them: what went wrong before is what counts.
                Err(e) if e.kind() == Kind::Misfit => return Err(failed.swap_remove(0).1),
                results => made.extend(
                    results?.into_iter().map(|(i, r)| Ok((i, r?))).collect::<Result<HashMap<_, _>>>()?,
                ),
            }
        }
        if self.context.cancel.is_cancelled() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        let plan = &target.plan;
        let stored = plan.layers.iter().enumerate().map(|(index, layer)| {
            let first = plan.first_with(&layer.diff_id).unwrap_or(index);
            let here = made.get(&first).or_else(|| self.inventory.layers.get(&layer.diff_id));
            here.cloned().ok_or_else(|| {
                Error::local(format!("layer {} is gone from the repository", layer.diff_id))
                    .with_hint("run again")
            })
        });
        stored.collect()
    }

    /// The files that patches read.
    async fn files(&self, target: &Target) -> Result<Option<Arc<dyn SourceFiles>>> {
        let patched = target.plan.layers.iter().any(|layer| layer.action.is_patch());
        let Some(base) = target.base.as_ref().filter(|_| patched) else { return Ok(None) };
        let (limits, concurrency) =
            (&self.args.limits, concurrency(&target.delta_source, self.args.source.jobs));
        let files = base.files(&target.image, limits, &self.store.spool(), concurrency.workers)?;
        let chain = Chain { context: self.context, limits, concurrency, inventory: &self.inventory };
        chain.files(base, files, &target.links).await.map(Some)
    }

    /// All patched layers are fetched whole after all, because of `e`, which is the error where that cannot be.
    fn give_up_patches(&self, target: &mut Target, report: &mut Report, e: Error) -> Result<()> {
        let patched = |layer: &PlannedLayer| layer.action.is_patch();
        let count = target.plan.layers.len();
        if (0..count).any(|index| patched(&target.plan.layers[index]) && !target.may_have_whole(index)) {
            return Err(e);
        }
        self.context.say(&format!("the image is fetched whole: {e}"));
        for (index, layer) in target.plan.layers.iter_mut().enumerate().filter(|(_, layer)| patched(layer)) {
            layer.action = LayerAction::Fetch;
            report.fell_back(index, layer);
        }
        target.instead = Some(e);
        Ok(())
    }

    /// Brings those layers that are `wanted`; a result for each, by its index.
    async fn round(
        &self,
        target: &Target,
        files: Option<Arc<dyn SourceFiles>>,
        wanted: impl Fn(usize, &PlannedLayer) -> bool,
    ) -> Result<Vec<(usize, Result<Descriptor>)>> {
        let plan = &target.plan;
        let concurrency = concurrency(&target.whole_source, self.args.source.jobs);
        let downloads = self.downloads(target, wanted);
        let total_bytes = downloads.iter().map(|d| d.blob.size()).sum();
        self.context.reporter.event(Event::Start { total_bytes, layers: downloads.len() });
        let order: Vec<usize> = downloads.iter().map(|d| d.index).collect();
        let worker = LayerWorker {
            store: self.store.clone(),
            files,
            encoding: self.args.compress,
            limits: tardiff::Limits {
                window_log: self.args.limits.max_window_log,
                spool: Some(self.store.spool()),
                ..Default::default()
            },
            layers: plan.layers.clone(),
            reporter: self.context.reporter.clone(),
        };
        let stored = scheduler::run(downloads, concurrency, &self.context.cancel, Arc::new(worker)).await;
        self.context.reporter.event(Event::Finish);
        Ok(order.into_iter().zip(stored?).collect())
    }

    /// The blobs to bring, largest first, so that no big one is left for the end.
    fn downloads(&self, target: &Target, wanted: impl Fn(usize, &PlannedLayer) -> bool) -> Vec<Download> {
        let mut downloads: Vec<Download> = Vec::new();
        let layers = target.plan.layers.iter().enumerate();
        for (index, layer) in layers.filter(|(index, layer)| wanted(*index, layer)) {
            let from_base = match layer.action {
                LayerAction::Fetch => target.base.as_ref().and_then(|b| b.layer(&layer.diff_id)),
                _ => None,
            };
            downloads.push(match from_base {
                // Not from the source, so it does not count.
                Some((layout, blob)) => Download::new(index, blob, Source::Local(layout)),
                None => {
                    let source = target.source_of(&layer.action).clone();
                    let received = self.received[index].clone();
                    Download { received, ..Download::new(index, layer.blob().clone(), source) }
                }
            });
        }
        downloads.sort_by_key(|d| std::cmp::Reverse(d.blob.size()));
        downloads
    }
}

/// The report as far as the plan tells it.
fn planned(reference: &Reference, opened: &Opened, target: &Target, name: Option<String>) -> Report {
    let base = target.base.as_ref();
    let metadata = opened.metadata_bytes();
    let mut downloaded = metadata + target.bytes_beside_layers();
    let mut layers = Vec::new();
    for layer in &target.plan.layers {
        let from_base =
            layer.action == LayerAction::Fetch && base.is_some_and(|b| b.layer(&layer.diff_id).is_some());
        let bytes = match layer.action {
            LayerAction::Present => 0,
            _ if from_base => 0,
            _ => layer.blob().size(),
        };
        downloaded += bytes;
        layers.push(LayerReport {
            diff_id: layer.diff_id.to_string(),
            action: if from_base { "base" } else { layer.action.name() },
            bytes,
            target_bytes: layer.target.size(),
        });
    }
    Report {
        version: VERSION,
        reference: reference.to_string(),
        resolved: opened.digest.to_string(),
        kind: if opened.is_delta() { "delta" } else { "image" },
        status: "planned",
        deltas: target.deltas.iter().map(ToString::to_string).collect(),
        fallback_reason: target.fallback,
        image: ImageReport {
            name,
            manifest: None,
            target_manifest: target.image.manifest_digest.to_string(),
            config: target.image.config_digest.to_string(),
            fidelity: None,
            base_config: target.base_config.as_ref().map(ToString::to_string),
        },
        layers,
        bytes: ByteReport::new(downloaded, metadata + target.plain_bytes, target.image.full_bytes()),
        durations: Durations::default(),
        seconds: 0.0,
    }
}

fn already_here(
    reference: &Reference,
    opened: &Opened,
    stored: &StoredImage,
    is_delta: bool,
    started: Instant,
) -> Report {
    let verbatim = stored.target_manifest() == *stored.descriptor.digest();
    let fidelity = if verbatim { Fidelity::Verbatim } else { Fidelity::Rewritten };
    let layers = stored.image.diff_ids.iter().zip(&stored.image.layers).map(|(diff_id, layer)| LayerReport {
        diff_id: diff_id.to_string(),
        action: LayerAction::Present.name(),
        bytes: 0,
        target_bytes: layer.size(),
    });
    Report {
        version: VERSION,
        reference: reference.to_string(),
        resolved: opened.digest.to_string(),
        kind: if is_delta { "delta" } else { "image" },
        status: "already-present",
        deltas: Vec::new(),
        fallback_reason: None,
        image: ImageReport {
            name: stored.name.clone(),
            manifest: Some(stored.descriptor.digest().to_string()),
            target_manifest: stored.target_manifest().to_string(),
            config: stored.image.config_digest.to_string(),
            fidelity: Some(fidelity_name(fidelity)),
            base_config: None,
        },
        layers: layers.collect(),
        bytes: ByteReport::new(opened.metadata_bytes(), opened.metadata_bytes(), stored.image.full_bytes()),
        durations: Durations::default(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

fn fidelity_name(fidelity: Fidelity) -> &'static str {
    match fidelity {
        Fidelity::Verbatim => "verbatim",
        Fidelity::Rewritten => "rewritten",
    }
}
