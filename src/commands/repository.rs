//! `init`, `list`, `verify`, `remove`, `gc`: the repository itself.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::Context;
use crate::cli::{GcArgs, InitArgs, RemoveArgs, VerifyArgs};
use crate::error::{Error, Result};
use crate::store::{Algorithm, InitOptions, OtherKind, Repository, StoreRef, StoredImage, StoredOther};
use crate::terminal::human_bytes;

#[derive(Debug, Serialize)]
struct Entry {
    name: Option<String>,
    /// `image`, `index`, `artifact` or `unknown`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    manifest: String,
    target_manifest: String,
    /// Of an image.
    config: Option<String>,
    /// Of an image; else the parts of what it is.
    layers: usize,
    bytes: u64,
}

impl Entry {
    fn new(image: &StoredImage) -> Self {
        Entry {
            name: image.name.clone(),
            kind: "image",
            artifact_type: None,
            manifest: image.descriptor.digest().to_string(),
            target_manifest: image.published_manifest().to_string(),
            config: Some(image.image.config_digest.to_string()),
            layers: image.image.layers.len(),
            bytes: image.image.full_bytes(),
        }
    }

    fn other(other: &StoredOther) -> Self {
        let (kind, artifact_type) = match &other.kind {
            OtherKind::Index => ("index", None),
            OtherKind::Artifact(artifact_type) => ("artifact", artifact_type.clone()),
            OtherKind::Unknown => ("unknown", None),
        };
        Entry {
            name: other.name.clone(),
            kind,
            artifact_type,
            manifest: other.descriptor.digest().to_string(),
            target_manifest: other.descriptor.digest().to_string(),
            config: None,
            layers: other.parts,
            bytes: other.bytes,
        }
    }
}

/// Lists the images, and what else others put there.
pub(super) fn list(context: &Context) -> Result<()> {
    let store = context.repo.open(&context.session)?;
    let inventory = store.inventory()?;
    // Those in an index are listed with it.
    let images = inventory.images.iter().filter(|image| image.inside.is_none()).map(Entry::new);
    let images: Vec<Entry> = images.chain(inventory.others.iter().map(Entry::other)).collect();
    context.print(&images, || {
        let mut out = String::new();
        for image in &images {
            let name = image.name.as_deref().unwrap_or("<none>");
            let what = match (image.kind, &image.artifact_type) {
                ("image", _) => String::new(),
                (kind, None) => format!("  ({kind})"),
                (kind, Some(artifact_type)) => format!("  ({kind}, {})", artifact_type.escape_default()),
            };
            let _ = writeln!(out, "{}  {:>10}  {name}{what}", image.manifest, human_bytes(image.bytes));
        }
        out
    })
}

/// Reads every image again.
pub(super) fn verify(context: &Context, args: &VerifyArgs) -> Result<()> {
    if let Some(bundle) = args.image.as_deref().filter(|named| Path::new(named).exists()) {
        return super::bundle::verify(context, bundle);
    }
    let mut broken = 0;
    let verified = context.repo.open(&context.session)?.verify(args.image.as_deref(), &mut |what| {
        broken += 1;
        context.say(what);
    })?;
    if broken > 0 {
        let next = match context.repo {
            StoreRef::Podman(_) => "podman rmi removes them; pull or fetch them again",
            _ => "remove them, run gc, and fetch them again",
        };
        let what = format!("{broken} of {} images are damaged", verified.images);
        return Err(Error::verification(what).with_hint(next));
    }
    if let (0, Some(wanted)) = (verified.images, &args.image) {
        return Err(Error::misfit(format!("no image {wanted:?} in {}", context.repo)));
    }
    context.print(&verified, || {
        format!(
            "{} images, {} blobs, {}: good\n",
            verified.images,
            verified.blobs,
            human_bytes(verified.bytes)
        )
    })
}

/// Makes a repository.
pub(super) fn init(context: &Context, args: &InitArgs) -> Result<()> {
    let repo = args.repository.as_ref().unwrap_or(&context.repo);
    if matches!(repo, StoreRef::Layout(_)) && (args.insecure || args.algorithm.is_some()) {
        return Err(Error::usage("--insecure and --algorithm are for composefs repositories")
            .with_hint(format!("composefs:{repo}")));
    }
    let algorithm = args.algorithm.unwrap_or(Algorithm::Sha512);
    repo.init(InitOptions { insecure: args.insecure, algorithm }, &context.session.cancel)?;
    let made = Initialized { repository: repo.to_string() };
    context.print(&made, || format!("{repo}\n"))
}

#[derive(Debug, Serialize)]
struct Initialized {
    repository: String,
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: usize,
    blobs: usize,
    bytes: u64,
}

impl Removed {
    fn text(&self) -> String {
        format!("{} images removed, {} freed\n", self.removed, human_bytes(self.bytes))
    }
}

/// Removes an image, and its blobs when nobody else is at work in the repository.
pub(super) fn remove(context: &Context, args: &RemoveArgs) -> Result<()> {
    let store = existing(context)?;
    let removed = store.remove(&args.image)?;
    let swept = store.gc().unwrap_or_else(|e| {
        context.say(&format!("blobs stay until the next gc: {e}"));
        Default::default()
    });
    let removed = Removed { removed, blobs: swept.blobs, bytes: swept.bytes };
    context.print(&removed, || removed.text())
}

/// Deletes what no image needs.
pub(super) fn gc(context: &Context, args: &GcArgs) -> Result<()> {
    let store = existing(context)?;
    let removed = if args.untagged { store.remove_unnamed()? } else { 0 };
    let swept = store.gc()?;
    let removed = Removed { removed, blobs: swept.blobs, bytes: swept.bytes };
    context.print(&removed, || removed.text())
}

/// Opens the repository for changes, but does not make one.
fn existing(context: &Context) -> Result<Arc<dyn Repository>> {
    context.repo.open(&context.session)?;
    context.repo.open_or_create(&context.session)
}
