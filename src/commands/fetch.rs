//! `fetch`: brings the image behind a reference into the repository.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::image::Descriptor;

use super::Context;
use super::base::{self, Base};
use super::report::{ByteReport, ImageReport, LayerReport, Report, VERSION};
use super::source::{Opened, concurrency};
use crate::artifact::TargetImage;
use crate::cli::{BaseArgs, FetchArgs};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::fetch::{self as scheduler, Download, Source};
use crate::plan::{LayerAction, RebuildPlan, plan_delta, plan_image};
use crate::progress::Event;
use crate::rebuild::LayerWorker;
use crate::reference::Reference;
use crate::store::{Fidelity, Inventory, Published, Store, StoredImage};
use crate::tardiff;

/// Runs the command.
pub(super) async fn run(context: &Context, args: &FetchArgs) -> Result<()> {
    let reference = args.reference.as_ref().ok_or_else(|| Error::usage("no REF is given"))?;
    let report = fetch(context, reference, args).await?;
    context.print(&report, || report.text())
}

/// What is to be rebuilt, and from what.
struct Target {
    image: TargetImage,
    plan: RebuildPlan,
    base: Option<Base>,
    base_config: Option<Digest>,
}

/// Brings an image into the repository, without a report.
pub(super) async fn pull(context: &Context, reference: &Reference, args: &FetchArgs) -> Result<()> {
    fetch(context, reference, args).await.map(drop)
}

async fn fetch(context: &Context, reference: &Reference, args: &FetchArgs) -> Result<Report> {
    let started = Instant::now();
    let repository = open_repository(context, args)?;
    let mut inventory = repository.as_ref().map(|r| r.inventory()).transpose()?.unwrap_or_default();
    let spool = repository.as_ref().map_or_else(std::env::temp_dir, |r| r.spool());
    let opened = Opened::open(reference, &args.source, &spool).await?;
    let name = args.tag.clone().or_else(|| reference.tag_name());
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

    let target = match delta {
        Some(delta) => {
            let delta = opened.target_of(delta).await?;
            let remote = base::check_remote(&args.base, &args.source, delta.source_config(), &spool).await?;
            if let (Some(remote), Some(store), false) = (remote, &repository, args.dry_run)
                && inventory.by_config(delta.source_config()).is_none()
            {
                context.say(&format!("fetching the base image {remote}"));
                let base_args = FetchArgs { tag: None, base: BaseArgs::default(), ..args.clone() };
                Box::pin(fetch(context, remote, &base_args)).await?;
                inventory = store.inventory()?;
            }
            let here = repository.as_ref().map(|store| (store, &inventory));
            let base = Base::find(&delta, &args.base, args.source.platform.as_ref(), here, &spool)?;
            let plan = plan_delta(&delta, |d| inventory.layers.contains_key(d), args.limits.max_layer_size);
            let base_config = Some(delta.source_config().clone());
            Target { image: delta.target, plan, base: Some(base), base_config }
        }
        None => {
            let image = opened.image().await?;
            let plan = plan_image(&image, |d| inventory.layers.contains_key(d), args.limits.max_layer_size);
            Target { image, plan, base: None, base_config: None }
        }
    };
    let mut report = planned(reference, &opened, &target, name.clone());
    match repository {
        Some(store) if !args.dry_run => {
            let published =
                rebuild(context, args, &opened, &target, store, &inventory, name.as_deref()).await?;
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

async fn rebuild(
    context: &Context,
    args: &FetchArgs,
    opened: &Opened,
    target: &Target,
    store: Arc<dyn Store>,
    inventory: &Inventory,
    name: Option<&str>,
) -> Result<Published> {
    let plan = &target.plan;
    store.prepare(&target.image, args.compress, plan.stored_bytes())?;
    let concurrency = concurrency(&opened.source, args.source.jobs);
    let files = match &target.base {
        Some(base) if plan.layers.iter().any(|l| l.action.is_patch()) => {
            Some(base.files(&target.image, &args.limits, &store.spool(), concurrency.workers)?)
        }
        _ => None,
    };
    let downloads = downloads(plan, target.base.as_ref(), &opened.source);
    let total_bytes = downloads.iter().map(|d| d.blob.size()).sum();
    context.reporter.event(Event::Start { total_bytes, layers: downloads.len() });
    let order: Vec<usize> = downloads.iter().map(|d| d.index).collect();
    let worker = LayerWorker {
        store: store.clone(),
        files,
        encoding: args.compress,
        limits: tardiff::Limits { window_log: args.limits.max_window_log, ..Default::default() },
        layers: plan.layers.clone(),
        reporter: context.reporter.clone(),
    };
    let stored = scheduler::run(downloads, concurrency, &context.cancel, Arc::new(worker)).await;
    context.reporter.event(Event::Finish);
    let made = order.into_iter().zip(stored?).map(|(index, made)| Ok((index, made?)));
    let made: HashMap<usize, Descriptor> = made.collect::<Result<_>>()?;
    let mut layers = Vec::with_capacity(plan.layers.len());
    for (index, layer) in plan.layers.iter().enumerate() {
        let first = plan.first_with(&layer.diff_id).unwrap_or(index);
        let stored = made.get(&first).or_else(|| inventory.layers.get(&layer.diff_id)).ok_or_else(|| {
            Error::local(format!("layer {} is gone from the repository", layer.diff_id))
                .with_hint("run again")
        })?;
        layers.push(stored.clone());
    }
    if context.cancel.is_cancelled() {
        return Err(Error::new(Kind::Interrupted, "interrupted"));
    }
    store.publish(&target.image, &layers, name)
}

/// The blobs to bring, largest first, so that no big one is left for the end.
fn downloads(plan: &RebuildPlan, base: Option<&Base>, source: &Source) -> Vec<Download> {
    let mut downloads: Vec<Download> = Vec::new();
    for (index, layer) in plan.layers.iter().enumerate() {
        if layer.action == LayerAction::Present {
            continue;
        }
        let from_base = match layer.action {
            LayerAction::Fetch => base.and_then(|b| b.layer(&layer.diff_id)),
            _ => None,
        };
        downloads.push(match from_base {
            Some((layout, blob)) => Download { index, blob, source: Source::Local(layout) },
            None => Download { index, blob: layer.blob().clone(), source: source.clone() },
        });
    }
    downloads.sort_by_key(|d| std::cmp::Reverse(d.blob.size()));
    downloads
}

/// The report as far as the plan tells it.
fn planned(reference: &Reference, opened: &Opened, target: &Target, name: Option<String>) -> Report {
    let base = target.base.as_ref();
    let mut downloaded = opened.metadata_bytes();
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
        kind: if target.base_config.is_some() { "delta" } else { "image" },
        status: "planned",
        image: ImageReport {
            name,
            manifest: None,
            target_manifest: target.image.manifest_digest.to_string(),
            config: target.image.config_digest.to_string(),
            fidelity: None,
            base_config: target.base_config.as_ref().map(ToString::to_string),
        },
        layers,
        bytes: ByteReport::new(downloaded, target.image.full_bytes()),
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
        image: ImageReport {
            name: stored.name.clone(),
            manifest: Some(stored.descriptor.digest().to_string()),
            target_manifest: stored.target_manifest().to_string(),
            config: stored.image.config_digest.to_string(),
            fidelity: Some(fidelity_name(fidelity)),
            base_config: None,
        },
        layers: layers.collect(),
        bytes: ByteReport::new(opened.metadata_bytes(), stored.image.full_bytes()),
        seconds: started.elapsed().as_secs_f64(),
    }
}

fn fidelity_name(fidelity: Fidelity) -> &'static str {
    match fidelity {
        Fidelity::Verbatim => "verbatim",
        Fidelity::Rewritten => "rewritten",
    }
}
