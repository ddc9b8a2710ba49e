//! `create`: makes a delta between two images.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::image::Descriptor;
use serde::Serialize;

use super::files::PatchAccount;
use super::publish::store_layout;
use super::report::VERSION;
use super::{Context, local_reference, spool_dir};
use crate::account::account;
use crate::artifact::{Image, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, parse_manifest};
use crate::cli::CreateArgs;
use crate::create::{self, Artifact, Carried, CarriedLayer, Input, Layers, Options};
use crate::digest::digest_of;
use crate::engine;
use crate::engine::request::FetchRequest;
use crate::error::{Error, Result};
use crate::exact::Maker;
use crate::layout::Layout;
use crate::platform::Platform;
use crate::progress::Event;
use crate::reference::Reference;
use crate::region::Region;
use crate::store::{OtherKind, Store, StoreRef, StoredImage};
use crate::tardiff::{Limits, Version};
use crate::terminal::human_bytes;

const TRANSPORTS: [&str; 4] = ["docker://", "oci:", "oci-archive:", "dir:"];

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct CreateReport {
    version: u32,
    output: String,
    /// Digest of the delta's manifest.
    digest: String,
    base_config: String,
    target_manifest: String,
    /// Bytes of the artifact: manifest and distinct blobs.
    delta_bytes: u64,
    /// Bytes of a pull of the whole new image.
    full_pull_bytes: u64,
    layers: Vec<CarriedReport>,
    /// Where the bytes of each patch go, file by file.
    patches: Vec<PatchAccount>,
    seconds: f64,
    #[serde(skip)]
    statistics: Statistics,
}

#[derive(Debug, Serialize)]
struct CarriedReport {
    diff_id: String,
    carried: &'static str,
    /// Bytes in the artifact.
    bytes: u64,
    /// Bytes of the layer's blob in the new image.
    target_bytes: u64,
    /// Why a patch was not used although one was made.
    fault: Option<String>,
    /// How whoever applies the delta makes that blob again.
    exact: Option<Maker>,
    /// Why that cannot be done.
    inexact: Option<String>,
}

/// The account that the reference tool prints.
#[derive(Debug, Default)]
struct Statistics {
    old_layers: usize,
    new_layers: usize,
    processed: usize,
    processed_bytes: u64,
    patch_bytes: u64,
    original_bytes: u64,
}

/// Runs the command.
pub(super) async fn run(context: &Context, args: CreateArgs) -> Result<()> {
    let started = Instant::now();
    let spool = spool_dir();
    let inputs = context.scratch()?;
    let old = open(context, &args, &args.old, &inputs).await?;
    let new = open(context, &args, &args.new, &inputs).await?;
    let signatures = args.signature.iter().map(|r| signature(r, &spool)).collect::<Result<_>>()?;
    let options = Options {
        preset: args.preset,
        level: args.level(),
        version: args.version(),
        jobs: args.jobs(),
        memory: args.memory,
        max_layer: args.limits.max_layer_size,
        spool,
        exact: args.exact,
        signatures,
    };
    let Context { reporter, cancel, .. } = context.clone();
    let work = move || {
        let made = create::create(old.input(), new.input(), &options, &*reporter, &cancel);
        reporter.event(Event::Finish);
        made.map(|made| (old, new, made))
    };
    // Off this thread, which waits for signals.
    let joined = tokio::task::spawn_blocking(work).await;
    let (old, new, (artifact, outcomes)) =
        joined.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
    for outcome in &outcomes {
        if let Carried::Original { fault: Some(fault), .. } = &outcome.carried {
            context.say(&format!(
                "layer {} is carried whole: its patch failed the check: {fault}",
                outcome.diff_id
            ));
        }
    }
    write(context, &args, &artifact, &inputs).await?;
    let mut report = CreateReport::new(&args, &old.image, &new.image, &artifact, &outcomes, started);
    if context.json {
        report.patches = accounts(&args, &outcomes)?;
    }
    context.print(&report, || report.text(args.statistics || context.verbose))
}

/// An image that is on this machine now.
#[derive(Debug)]
struct Opened {
    image: Image,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Layout(Layout),
    /// With the layers as the repository keeps them.
    Repository(Arc<dyn Store>, Vec<Descriptor>),
}

impl Opened {
    /// An image in a repository. A delta is for the manifest that was published.
    fn stored(store: Arc<dyn Store>, named: StoredImage) -> Result<Self> {
        let image = store.published(&named)?;
        Ok(Opened { image, place: Place::Repository(store, named.image.layers) })
    }

    fn input(&self) -> Input<'_> {
        Input { image: &self.image, layers: self }
    }
}

impl Layers for Opened {
    fn layer(&self, at: usize) -> Result<(Descriptor, Region)> {
        match &self.place {
            Place::Layout(layout) => {
                let layer = &self.image.layers[at];
                Ok((layer.clone(), layout.require_blob(layer)?))
            }
            Place::Repository(store, stored) => {
                store.layer(&self.image.diff_ids[at], &stored[at], &spool_dir())
            }
        }
    }
}

/// Opens an image: a reference, a path, or a name in the repository.
async fn open(context: &Context, args: &CreateArgs, text: &str, inputs: &Path) -> Result<Opened> {
    if let Some((store, named)) = in_repository(context, text)? {
        return Opened::stored(store, named);
    }
    let reference = match index_in_repository(context, text)? {
        Some(index) => index,
        None => local_reference(text).map_or_else(|| text.parse::<Reference>(), Ok)?,
    };
    let platform = args.place.platform.clone().unwrap_or_else(Platform::host);
    let spool = spool_dir();
    let Some(layout) = Layout::open(&reference, &spool)? else {
        return pull(context, args, &reference, &inputs.join("pulled")).await;
    };
    let descriptor = layout.resolve(reference.image_name(), &platform)?;
    let mut image = layout
        .image(&descriptor)?
        .ok_or_else(|| Error::misfit(format!("{reference}: not an image, or not a complete one")))?;
    layout.correct_sizes(&mut image)?;
    Ok(Opened { image, place: Place::Layout(layout) })
}

/// Pulls an image into a repository in `dir`.
async fn pull(context: &Context, args: &CreateArgs, reference: &Reference, dir: &Path) -> Result<Opened> {
    let pulled = Context { repo: StoreRef::Layout(dir.to_owned()), ..context.clone() };
    let name = reference.to_string();
    let request = FetchRequest {
        name: Some(name.clone()),
        place: args.place.options()?,
        limits: args.limits.limits(),
        ..FetchRequest::new(reference.clone(), pulled.repo.clone())
    };
    engine::fetch(&pulled.session(), &request).await?;
    let found = in_store(&pulled, |image| image.name.as_deref() == Some(&name))?;
    let (store, named) =
        found.ok_or_else(|| Error::local(format!("{reference}: gone after it was pulled")))?;
    Opened::stored(store, named)
}

/// May this be a name in the repository?
fn may_be_stored(context: &Context, text: &str) -> bool {
    let has_transport = TRANSPORTS.iter().any(|transport| text.starts_with(transport));
    !has_transport && !Path::new(text).exists() && context.repo.exists()
}

/// An index of images in the repository, which another tool put there: one of them is for the platform.
fn index_in_repository(context: &Context, text: &str) -> Result<Option<Reference>> {
    let StoreRef::Layout(dir) = &context.repo else { return Ok(None) };
    if !may_be_stored(context, text) {
        return Ok(None);
    }
    let others = context.repo.open(&context.cancel)?.inventory()?.others;
    let found = others.iter().any(|o| o.kind == OtherKind::Index && o.name.as_deref() == Some(text));
    Ok(found.then(|| Reference::Oci { dir: dir.clone(), name: Some(text.to_owned()) }))
}

fn in_repository(context: &Context, text: &str) -> Result<Option<(Arc<dyn Store>, StoredImage)>> {
    if !may_be_stored(context, text) {
        return Ok(None);
    }
    let whole = text.parse::<Reference>().ok().and_then(|r| r.tag_name());
    in_store(context, |image| {
        let name = image.name.as_deref();
        name.is_some() && (name == Some(text) || name == whole.as_deref())
            || image.descriptor.digest().as_ref() == text
    })
}

fn in_store(
    context: &Context,
    wanted: impl Fn(&StoredImage) -> bool,
) -> Result<Option<(Arc<dyn Store>, StoredImage)>> {
    let store = context.repo.open(&context.cancel)?;
    let mut found = store.inventory()?.images.into_iter().filter(|image| wanted(image));
    let Some(first) = found.next() else { return Ok(None) };
    if let Some(other) = found.find(|other| other.descriptor.digest() != first.descriptor.digest()) {
        let (first, other) = (first.descriptor.digest(), other.descriptor.digest());
        return Err(Error::usage(format!("more than one image in {} has this name", context.repo))
            .with_hint(format!("name one by its digest: {first}, {other}")));
    }
    Ok(Some((store, first)))
}

/// The parts of a signature: its manifest, config and payloads.
fn signature(reference: &str, spool: &Path) -> Result<Vec<(Descriptor, Vec<u8>)>> {
    let reference = local_reference(reference).map_or_else(|| reference.parse::<Reference>(), Ok)?;
    let layout = Layout::open(&reference, spool)?.ok_or_else(|| {
        Error::usage(format!("{reference}: a signature must be in a local layout"))
            .with_hint("skopeo copy it to oci:DIR first")
    })?;
    let manifest = layout.resolve(reference.image_name(), &Platform::host())?;
    let mut parts = vec![manifest.clone()];
    let bytes = layout.read_blob(&manifest, MAX_MANIFEST_SIZE)?;
    let parsed = parse_manifest(&bytes)?;
    parts.push(parsed.config().clone());
    parts.extend(parsed.layers().iter().cloned());
    let read = |part: Descriptor| {
        let bytes = layout.read_blob(&part, MAX_CONFIG_SIZE)?;
        Ok((part, bytes))
    };
    parts.into_iter().map(read).collect()
}

fn accounts(args: &CreateArgs, outcomes: &[CarriedLayer]) -> Result<Vec<PatchAccount>> {
    let mut accounts = Vec::new();
    for outcome in outcomes {
        // The output of dictionary frames cannot be accounted for without the base.
        if let (Carried::Patch(patch), Version::V1) = (&outcome.carried, args.version()) {
            let account =
                account(patch.reader(), &Limits::default(), args.limits.max_layer_size, &spool_dir())?;
            accounts.push(PatchAccount::new(outcome.diff_id.to_string(), account));
        }
    }
    Ok(accounts)
}

async fn write(context: &Context, args: &CreateArgs, artifact: &Artifact, inputs: &Path) -> Result<()> {
    let cancel = &context.cancel;
    match output(&args.output)? {
        Reference::Oci { dir, name } => artifact.write_dir(&dir, name.as_deref(), cancel),
        Reference::OciArchive { file, name } => artifact.write_archive(&file, name.as_deref()),
        Reference::Dir { .. } => Err(Error::usage("a delta cannot be written to dir:")
            .with_hint("write it to oci:DIR, then skopeo copy oci:DIR dir:OTHER")),
        Reference::Docker { .. } => {
            let dir = inputs.join("delta");
            artifact.write_dir(&dir, None, cancel)?;
            store_layout(context, &dir, &artifact.manifest, &args.output, &args.place).await
        }
    }
}

/// A bare path is an archive.
fn output(text: &str) -> Result<Reference> {
    if TRANSPORTS.iter().any(|t| text.starts_with(t)) {
        return text.parse();
    }
    Ok(Reference::OciArchive { file: text.into(), name: None })
}

impl CreateReport {
    fn new(
        args: &CreateArgs,
        old: &Image,
        new: &Image,
        artifact: &Artifact,
        outcomes: &[CarriedLayer],
        started: Instant,
    ) -> Self {
        let mut statistics =
            Statistics { old_layers: old.layers.len(), new_layers: new.layers.len(), ..Default::default() };
        let mut layers = Vec::new();
        for outcome in outcomes {
            let (carried, bytes, fault) = match &outcome.carried {
                Carried::Reused => ("reused", 0, None),
                Carried::Patch(content) => ("patch", content.len(), None),
                Carried::Original { bytes, fault } => ("original", *bytes, fault.clone()),
            };
            if carried != "reused" {
                statistics.processed += 1;
                statistics.processed_bytes += outcome.published_bytes;
            }
            match carried {
                "patch" => statistics.patch_bytes += bytes,
                _ => statistics.original_bytes += bytes,
            }
            layers.push(CarriedReport {
                diff_id: outcome.diff_id.to_string(),
                carried,
                bytes,
                target_bytes: outcome.published_bytes,
                fault,
                exact: outcome.maker.clone(),
                inexact: outcome.inexact.clone(),
            });
        }
        CreateReport {
            version: VERSION,
            output: args.output.clone(),
            digest: digest_of(&artifact.manifest).to_string(),
            base_config: old.config_digest.to_string(),
            target_manifest: new.manifest_digest.to_string(),
            delta_bytes: artifact.manifest.len() as u64
                + artifact.blobs.iter().map(create::Blob::size).sum::<u64>(),
            full_pull_bytes: new.full_bytes(),
            layers,
            patches: Vec::new(),
            seconds: started.elapsed().as_secs_f64(),
            statistics,
        }
    }

    fn text(&self, statistics: bool) -> String {
        let mut out = format!(
            "{}: {} of {} ({:.1} %), {} as patches, {:.1} s\n",
            self.output,
            human_bytes(self.delta_bytes),
            human_bytes(self.full_pull_bytes),
            self.delta_bytes as f64 * 100.0 / self.full_pull_bytes.max(1) as f64,
            match self.layers.iter().filter(|l| l.carried == "patch").count() {
                1 => "1 layer".to_owned(),
                n => format!("{n} layers"),
            },
            self.seconds,
        );
        if statistics {
            out.push_str(&self.statistics.text());
            for layer in &self.layers {
                let _ = writeln!(out, "  Layer {}: {}", layer.diff_id, layer.exactness());
            }
        }
        out
    }
}

impl CarriedReport {
    fn exactness(&self) -> String {
        match (&self.exact, &self.inexact) {
            (Some(maker), _) => format!("exact by {maker}, a recipe of {} bytes", maker.bytes),
            (None, Some(reason)) => format!("not exact: {reason}"),
            (None, None) => "exact without a recipe".to_owned(),
        }
    }
}

impl Statistics {
    /// Line for line as the reference tool prints it: scripts read it.
    fn text(&self) -> String {
        let mut out = String::from("\nDelta creation statistics:\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "  {name} {value}");
        };
        line("Old image layers:", &self.old_layers);
        line("New image layers:", &self.new_layers);
        line("Processed layers:", &self.processed);
        line("Skipped layers:  ", &(self.new_layers - self.processed));
        line("Processed layer bytes: ", &self.processed_bytes);
        line("Tar-diff layer bytes:  ", &self.patch_bytes);
        line("Original layer bytes:  ", &self.original_bytes);
        if self.processed_bytes > 0 {
            let saved = self.processed_bytes as i128 - i128::from(self.patch_bytes + self.original_bytes);
            let percent = saved as f64 * 100.0 / self.processed_bytes as f64;
            line("Bytes saved:           ", &format!("{saved} ({percent:.1}%)"));
        }
        out
    }
}
