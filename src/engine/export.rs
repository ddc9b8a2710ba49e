//! Brings an image out of the repository, as it was published.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::opened::cores;
use crate::artifact::{Image, layer_size_bound};
use crate::digest::{DiffId, Digest};
use crate::encoding::MAX_WINDOW_LOG;
use crate::error::{Error, IoContext, Kind, Result};
use crate::exact::{self, Recipe, Recipes, Remake, is_inexact};
use crate::fetch::on_thread;
use crate::proxy::{Digests, ProxyOptions, copy_out};
use crate::rebuild::convert;
use crate::session::Session;
use crate::store::{Fidelity, Inventory, Repository, StoreRef, StoredImage, exact_sink};

/// What skopeo looks for in the directory of an image (containers/image, directory transport).
const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

/// An image to bring out of a repository.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The repository.
    pub repository: StoreRef,
    /// The image, by name or manifest digest.
    pub image: String,
    /// Where it goes, in skopeo's words.
    pub to: String,
    /// What is done where it cannot be as published.
    pub otherwise: Otherwise,
    /// How the destination is reached.
    pub destination: ProxyOptions,
    /// Most bytes of a layer's tar.
    pub max_layer_size: u64,
}

/// What is done with an image that cannot be as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// It stays here.
    Fail,
    /// It goes with another digest.
    Rewrite,
}

/// What was brought out.
#[derive(Debug, Clone)]
pub struct Exported {
    /// Digest of the manifest that left.
    pub manifest: Digest,
    /// Is it the publisher's?
    pub fidelity: Fidelity,
    /// Layers that were made as published on the way.
    pub made: usize,
}

/// Copies an image to another place with its publisher's digest. Layers that are kept otherwise are made as published
/// on the way.
///
/// # Errors
/// Misfit when there is no such image, or it cannot be made as published; what the destination says.
pub async fn export(session: &Session, request: &ExportRequest) -> Result<Exported> {
    let dir = tempfile::tempdir_in(&session.spool).at(session.spool.display())?;
    let (path, wanted, cancel) = (dir.path().to_owned(), request.clone(), session.cancel.clone());
    let work = move || {
        let store = wanted.repository.open(&cancel)?;
        let inventory = store.inventory()?;
        let stored = find(&inventory, &wanted)?.clone();
        let out = Out { store, inventory, dir: &path, max_layer: wanted.max_layer_size };
        let staged = out.stage(&stored, wanted.otherwise)?;
        // The blobs are read in place: nobody may sweep them before they are copied.
        Ok((out.store, staged))
    };
    let (store, staged) = session.cancel.until(on_thread(work)).await?;
    let digests = match request.otherwise {
        Otherwise::Fail => Digests::Stay,
        Otherwise::Rewrite => Digests::MayChange,
    };
    let from = format!("dir:{}", dir.path().display());
    let destination = ProxyOptions { reporter: session.reporter.clone(), ..request.destination.clone() };
    session.cancel.until(copy_out(&from, &request.to, digests, &destination)).await?;
    drop(store);
    Ok(staged)
}

/// The image that the request names.
fn find<'a>(inventory: &'a Inventory, request: &ExportRequest) -> Result<&'a StoredImage> {
    let wanted = &request.image;
    let is_meant = |image: &StoredImage| {
        image.name.as_ref() == Some(wanted)
            || image.descriptor.digest().as_ref() == wanted
            || image.published_manifest().as_ref() == wanted
    };
    let absent = || Error::misfit(format!("no image {wanted:?} in {}", request.repository));
    inventory.the_one(&request.repository, is_meant)?.ok_or_else(absent)
}

/// An image on its way out.
struct Out<'a> {
    store: Arc<dyn Repository>,
    inventory: Inventory,
    /// Becomes what skopeo calls `dir:`, with links to the blobs that need not be made.
    dir: &'a Path,
    max_layer: u64,
}

impl Out<'_> {
    fn stage(&self, stored: &StoredImage, otherwise: Otherwise) -> Result<Exported> {
        if self.store.blobs().is_none() {
            return Err(Error::misfit(
                "a composefs repository keeps neither blobs nor recipes, so no image can leave it",
            ));
        }
        let published = self.store.published(stored)?;
        let recipes = self.store.recipes(stored)?;
        let made = match self.layers(&published, &recipes) {
            Err(e) if otherwise == Otherwise::Rewrite && e.kind() == Kind::Misfit => {
                return self.stage_as_kept(stored);
            }
            made => made?,
        };
        self.finish(&published, &published.manifest_raw)?;
        Ok(Exported { manifest: published.manifest_digest, fidelity: Fidelity::Verbatim, made })
    }

    /// The image as the repository keeps it.
    fn stage_as_kept(&self, stored: &StoredImage) -> Result<Exported> {
        let image = &stored.image;
        for layer in &image.layers {
            self.link(layer.digest())?;
        }
        self.finish(image, &image.manifest_raw)?;
        Ok(Exported { manifest: image.manifest_digest.clone(), fidelity: Fidelity::Rewritten, made: 0 })
    }

    fn finish(&self, image: &Image, manifest: &[u8]) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| fs::write(self.dir.join(name), bytes).at(self.dir.display());
        write(image.config_digest.digest(), &image.config_raw)?;
        write("manifest.json", manifest)?;
        write("version", VERSION)
    }

    /// Puts all layers there as published; gives how many were made.
    fn layers(&self, image: &Image, recipes: &Recipes) -> Result<usize> {
        let mut made = 0;
        for (at, (diff_id, layer)) in image.diff_ids.iter().zip(&image.layers).enumerate() {
            if self.dir.join(layer.digest().digest()).exists() {
                continue;
            }
            let stored = self.inventory.layer(diff_id, layer);
            if stored.is_some_and(|stored| stored.digest() == layer.digest())
                && self.link(layer.digest()).is_ok()
            {
                continue;
            }
            let recipe = match recipes.get(at) {
                _ if layer.digest() == diff_id.as_digest() => None,
                Ok(recipe) => Some(&**recipe),
                Err(reason) => return Err(cannot(layer, reason)),
            };
            let stored = stored
                .ok_or_else(|| Error::misfit(format!("layer {diff_id} is gone from the repository")))?;
            self.make(diff_id, stored, layer, recipe).map_err(|e| match is_inexact(&e) {
                true => cannot(layer, &e.to_string()),
                false => e,
            })?;
            made += 1;
        }
        Ok(made)
    }

    fn make(
        &self,
        diff_id: &DiffId,
        stored: &Descriptor,
        layer: &Descriptor,
        recipe: Option<&Recipe>,
    ) -> Result<()> {
        let (_, blob) = self.store.layer(diff_id, stored, self.dir)?;
        let limit = layer_size_bound(layer, self.max_layer);
        let threads = exact::threads_each(cores(), 1);
        let remake = recipe.map(|recipe| Remake { recipe, fix: None, threads });
        let sink = exact_sink(self.dir, layer, remake)?;
        convert(blob.reader(), diff_id, limit, MAX_WINDOW_LOG, sink).map(drop)
    }

    /// Links a blob of the repository into the directory.
    fn link(&self, digest: &Digest) -> Result<()> {
        let path = self.store.path().join("blobs/sha256").join(digest.digest());
        let path = path.canonicalize().at(path.display())?;
        let name = self.dir.join(digest.digest());
        if name.exists() { Ok(()) } else { symlink(path, &name).at(name.display()) }
    }
}

fn cannot(layer: &Descriptor, reason: &str) -> Error {
    Error::misfit(format!("layer {} cannot be made exactly as it was published: {reason}", layer.digest()))
}
