//! `fetch`: brings the image behind a reference into the repository.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::image::Descriptor;

use super::Context;
use super::chain::Chain;
use super::decision::{Applied, Decision, Hand};
use super::report::{ByteReport, Durations, ImageReport, LayerEnd, LayerReport, Report, VERSION};
use super::source::{Opened, concurrency};
use crate::cli::FetchArgs;
use crate::error::{Error, Kind, Result};
use crate::fetch::{self as scheduler, Download, Received};
use crate::plan::{Origin, PlannedLayer};
use crate::progress::Event;
use crate::rebuild::{LayerWorker, LazyFiles, Made, Try};
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
    if let (Some(stored), Some(store)) = (opened.find(&inventory, wanted).await?, &repository) {
        opened.require_platform(&stored.image)?;
        let mut stored = stored.clone();
        if !args.dry_run {
            settle(&**store, &inventory, &mut stored, name)?;
        }
        return Ok(already_here(reference, &opened, &stored, delta.is_some(), started));
    }

    let mut hand = Hand { context, args, pull, store: repository, inventory, spool: &spool };
    let mut decision = hand.decide(reference, &opened).await?;
    let mut report = planned(reference, &opened, &decision, name.clone());
    report.durations.plan = started.elapsed().as_secs_f64();
    let Hand { store, inventory, .. } = hand;
    match store {
        Some(store) if !args.dry_run => {
            let rebuilding = Instant::now();
            let bring = Bring::new(context, args, store, inventory, &decision);
            let instead = decision.instead.take();
            let ends = bring.layers(&decision, instead).await?;
            report.count(&ends, opened.metadata_bytes() + decision.bytes_read_beside_layers());
            report.durations.rebuild = rebuilding.elapsed().as_secs_f64();
            let publishing = Instant::now();
            let layers: Vec<Descriptor> = ends.into_iter().map(|end| end.stored).collect();
            // On a thread: an interrupt does not wait for it, and it finds free what the workers used.
            let (store, image) = (bring.store, decision.image);
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

impl<'a> Bring<'a> {
    fn new(
        context: &'a Context,
        args: &'a FetchArgs,
        store: Arc<dyn Store>,
        inventory: Inventory,
        decision: &Decision,
    ) -> Self {
        let received = decision.plan.layers.iter().map(|_| Received::default()).collect();
        Bring { context, args, store, inventory, received }
    }

    /// Brings all layers into the store, each by the first of its ways that leads to it. `instead` is
    /// the error to report when the last ways lead nowhere.
    async fn layers(&self, decision: &Decision, instead: Option<Error>) -> Result<Vec<LayerEnd>> {
        self.store.prepare(&decision.image, self.args.compress, decision.plan.stored_bytes())?;
        let mut tries: Vec<Try> =
            decision.plan.layers.iter().map(|layer| Try { layer: layer.clone(), way: 0 }).collect();
        let mut cause = instead;
        let files = match self.files(decision).await {
            Err(e) => {
                let patched = |attempt: &Try| attempt.layer.origin() == Origin::Patch;
                let indexes = tries.iter().enumerate().filter(|(_, t)| patched(t)).map(|(index, _)| index);
                let failed: Vec<usize> = indexes.collect();
                cause = Some(self.next_ways(&mut tries, &failed, e)?);
                None
            }
            Ok(files) => files,
        };
        let mut made: HashMap<usize, Made> = HashMap::new();
        let is_here = |attempt: &Try| attempt.layer.origin() == Origin::Here;
        let mut pending: Vec<usize> = (0..tries.len()).filter(|index| !is_here(&tries[*index])).collect();
        while !pending.is_empty() {
            let results = match self.round(decision, files.clone(), &tries, &pending).await {
                // The last way leads nowhere: what went wrong before is what counts.
                Err(e) if e.kind() == Kind::Misfit => return Err(cause.unwrap_or(e)),
                results => results?,
            };
            let mut failed = Vec::new();
            for (index, result) in results {
                match result {
                    Ok(layer) => drop(made.insert(index, layer)),
                    Err(e) => failed.push((index, e)),
                }
            }
            failed.sort_by_key(|(index, _)| *index);
            pending = failed.iter().map(|(index, _)| *index).collect();
            if let Some((_, e)) = failed.into_iter().next() {
                let e = self.next_ways(&mut tries, &pending, e)?;
                cause.get_or_insert(e);
            }
        }
        if self.context.cancel.is_cancelled() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        let end = |(index, layer): (usize, &PlannedLayer)| self.end(decision, &made, index, layer);
        decision.plan.layers.iter().enumerate().map(end).collect()
    }

    /// Goes on to the next way of each of those layers, which failed with `e` and the like, and gives it back.
    ///
    /// # Errors
    /// That one, where there is no other way, and an interrupt.
    fn next_ways(&self, tries: &mut [Try], failed: &[usize], e: Error) -> Result<Error> {
        let exhausted = failed.iter().any(|index| tries[*index].way + 1 >= tries[*index].layer.ways.len());
        if exhausted || e.kind() == Kind::Interrupted {
            return Err(e);
        }
        for index in failed {
            tries[*index].way += 1;
        }
        if !failed.is_empty() {
            self.context.say(&format!("{} of the layers are fetched whole: {e}", failed.len()));
        }
        Ok(e)
    }

    /// How a layer ended.
    fn end(
        &self,
        decision: &Decision,
        made: &HashMap<usize, Made>,
        index: usize,
        layer: &PlannedLayer,
    ) -> Result<LayerEnd> {
        let first = decision.plan.first_with(&layer.diff_id).unwrap_or(index);
        let stored = made.get(&first).map(|made| &made.stored);
        let stored = stored.or_else(|| self.inventory.layers.get(&layer.diff_id)).ok_or_else(|| {
            Error::local(format!("layer {} is gone from the repository", layer.diff_id))
                .with_hint("run again")
        })?;
        Ok(LayerEnd {
            stored: stored.clone(),
            planned: layer.origin(),
            origin: made.get(&index).map_or(Origin::Here, |made| made.origin),
            bytes: self.received[index].bytes(),
        })
    }

    /// The files that patches read: opened when the plan has patches, else when a blob turns out to be one.
    async fn files(&self, decision: &Decision) -> Result<Option<Arc<LazyFiles>>> {
        let Some(applied) = decision.applied.as_ref().filter(|_| decision.plan.uses_delta()) else {
            return Ok(None);
        };
        let Applied { base, links, .. } = applied;
        let concurrency = concurrency(&decision.places.delta, self.args.source.jobs);
        let (base_of, target, limits) = (base.clone(), decision.image.clone(), self.args.limits.clone());
        let (spool, threads) = (self.store.spool(), concurrency.workers);
        let files = LazyFiles::new(move || base_of.files(&target, &limits, &spool, threads));
        let files = Arc::new(files);
        if links.is_empty() && !decision.plan.uses_patches() {
            return Ok(Some(files));
        }
        let opening = files.clone();
        let first = scheduler::on_thread(move || opening.get()).await?;
        if links.is_empty() {
            return Ok(Some(files));
        }
        let limits = &self.args.limits;
        let chain = Chain { context: self.context, limits, concurrency, inventory: &self.inventory };
        let last = chain.files(base, first, links).await?;
        Ok(Some(Arc::new(LazyFiles::new(move || Ok(last.clone())))))
    }

    /// Tries to bring the `pending` layers; a result for each, by its index.
    async fn round(
        &self,
        decision: &Decision,
        files: Option<Arc<LazyFiles>>,
        tries: &[Try],
        pending: &[usize],
    ) -> Result<Vec<(usize, Result<Made>)>> {
        let concurrency = concurrency(&decision.places.image, self.args.source.jobs);
        let downloads = self.downloads(decision, tries, pending);
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
            tries: tries.to_vec(),
            reporter: self.context.reporter.clone(),
        };
        let stored = scheduler::run(downloads, concurrency, &self.context.cancel, Arc::new(worker)).await;
        self.context.reporter.event(Event::Finish);
        Ok(order.into_iter().zip(stored?).collect())
    }

    /// The blobs to bring, largest first, so that no big one is left for the end.
    fn downloads(&self, decision: &Decision, tries: &[Try], pending: &[usize]) -> Vec<Download> {
        let download = |index: &usize| {
            let way = tries[*index].way()?;
            let source = decision.places.of(way.origin).clone();
            let download = Download::new(*index, way.blob.clone(), source);
            Some(match way.origin {
                // Not from the source, so it does not count.
                Origin::Base => download,
                _ => Download { received: self.received[*index].clone(), ..download },
            })
        };
        let mut downloads: Vec<Download> = pending.iter().filter_map(download).collect();
        downloads.sort_by_key(|d| std::cmp::Reverse(d.blob.size()));
        downloads
    }
}

/// The report as far as the plan tells it.
fn planned(reference: &Reference, opened: &Opened, decision: &Decision, name: Option<String>) -> Report {
    let metadata = opened.metadata_bytes();
    let downloaded = metadata + decision.bytes_beside_layers() + decision.plan.download_bytes();
    let layers = decision.plan.layers.iter().map(|layer| LayerReport {
        diff_id: layer.diff_id.to_string(),
        action: layer.origin().name(),
        bytes: layer.download_bytes(),
        target_bytes: layer.target.size(),
    });
    Report {
        version: VERSION,
        reference: reference.to_string(),
        resolved: opened.digest.to_string(),
        kind: if opened.is_delta() { "delta" } else { "image" },
        status: "planned",
        deltas: decision.deltas(),
        fallback_reason: decision.fallback,
        image: ImageReport {
            name,
            manifest: None,
            target_manifest: decision.image.manifest_digest.to_string(),
            config: decision.image.config_digest.to_string(),
            fidelity: None,
            base_config: decision.base_config(),
        },
        layers: layers.collect(),
        bytes: ByteReport::new(downloaded, metadata + decision.plain_bytes, decision.image.full_bytes()),
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
        action: Origin::Here.name(),
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
