//! `list`, `verify`, `remove`, `gc`: the repository itself.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use super::Context;
use crate::cli::{GcArgs, RemoveArgs, VerifyArgs};
use crate::digest::{LayerHasher, VerifyReader};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::progress::human_bytes;
use crate::store::{OciLayoutStore, StoredImage};

#[derive(Debug, Serialize)]
struct Listed {
    name: Option<String>,
    manifest: String,
    target_manifest: String,
    config: String,
    layers: usize,
    bytes: u64,
}

impl Listed {
    fn new(image: &StoredImage) -> Self {
        Listed {
            name: image.name.clone(),
            manifest: image.descriptor.digest().to_string(),
            target_manifest: image.target_manifest().to_string(),
            config: image.image.config_digest.to_string(),
            layers: image.image.layers.len(),
            bytes: image.image.full_bytes(),
        }
    }
}

/// Lists the images.
pub(super) fn list(context: &Context) -> Result<()> {
    let store = OciLayoutStore::open(&context.repo)?;
    let images: Vec<Listed> = store.inventory()?.images.iter().map(Listed::new).collect();
    context.print(&images, || {
        let mut out = String::new();
        for image in &images {
            let name = image.name.as_deref().unwrap_or("<none>");
            let _ = writeln!(out, "{}  {:>10}  {name}", image.manifest, human_bytes(image.bytes));
        }
        out
    })
}

#[derive(Debug, Serialize)]
struct Verified {
    images: usize,
    blobs: usize,
    bytes: u64,
}

/// Hashes every blob of every image again, and every layer's tar.
pub(super) fn verify(context: &Context, args: &VerifyArgs) -> Result<()> {
    let store = OciLayoutStore::open(&context.repo)?;
    let mut verified = Verified { images: 0, blobs: 0, bytes: 0 };
    let mut broken = 0;
    for descriptor in store.layout().index()?.manifests() {
        let name = crate::layout::ref_name(descriptor).map(str::to_owned);
        let digest = descriptor.digest().to_string();
        if args.image.as_ref().is_some_and(|wanted| *wanted != digest && Some(wanted) != name.as_ref()) {
            continue;
        }
        verified.images += 1;
        if let Err(e) = verify_image(store.layout(), descriptor, &mut verified) {
            broken += 1;
            context.say(&format!("{}: {e}", name.unwrap_or(digest)));
        }
    }
    if broken > 0 {
        return Err(Error::verification(format!("{broken} of {} images are damaged", verified.images))
            .with_hint("remove them, run gc, and fetch them again"));
    }
    if let (0, Some(wanted)) = (verified.images, &args.image) {
        return Err(Error::misfit(format!("no image {wanted:?} in {}", context.repo.display())));
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

fn verify_image(
    layout: &Layout,
    descriptor: &oci_spec::image::Descriptor,
    verified: &mut Verified,
) -> Result<()> {
    let image = layout.image(descriptor)?.ok_or_else(|| Error::verification("the image is not complete"))?;
    verified.blobs += 2;
    verified.bytes += descriptor.size() + image.config_raw.len() as u64;
    for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
        let region = layout.require_blob(layer)?;
        let mut blob = VerifyReader::new(region.reader(), layer.digest().clone(), layer.size());
        let mut tar = LayerHasher::new(io::sink(), u64::MAX);
        {
            let mut plain = encoding::decompress(&mut blob, encoding::MAX_WINDOW_LOG).at(layer.digest())?;
            io::copy(&mut plain, &mut tar).at(layer.digest())?;
        }
        blob.drain().at(layer.digest())?;
        tar.finish(diff_id)?;
        verified.blobs += 1;
        verified.bytes += layer.size();
    }
    Ok(())
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
fn existing(context: &Context) -> Result<OciLayoutStore> {
    OciLayoutStore::open(&context.repo)?;
    OciLayoutStore::open_or_create(&context.repo)
}
