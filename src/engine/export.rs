//! Brings an image out of the repository, as it was published.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::carry::carry;
use super::opened::cores;
use crate::artifact::{self, Image, layer_size_bound, rewrite_manifest};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, digest_of};
use crate::encoding::MAX_WINDOW_LOG;
use crate::error::{Error, IoContext, Kind, Result};
use crate::exact::{self, Recipe, Recipes, Remake, is_inexact};
use crate::fetch::{Place, on_thread};
use crate::layout::{Blobs, Content, Parcel, write_folder};
use crate::plan::Reused;
use crate::proxy::{Digests, ProxyOptions, copy_out};
use crate::rebuild::convert;
use crate::reference::Reference;
use crate::region::Region;
use crate::session::Session;
use crate::store::{Fidelity, Inventory, Repository, StoreRef, StoredImage, exact_sink};

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
    /// What becomes of layers that another image in the repository has, too.
    pub reused: Reused,
    /// How the destination is reached.
    pub destination: ProxyOptions,
    /// Most bytes of a layer's tar.
    pub max_layer_size: u64,
    /// How layers become what was published, should the repository not know.
    pub recipes: Recipes,
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
    /// Layers that stayed away.
    pub omitted: usize,
    /// Signatures of the image that went along; `None` to a place that takes none.
    pub signatures: Option<usize>,
}

/// Copies an image to another place with its publisher's digest. Layers that are kept otherwise are made as published
/// on the way.
///
/// # Errors
/// Misfit when there is no such image, or it cannot be made as published; Usage when layers are to stay away from
/// something that must have them; what the destination says.
pub async fn export(session: &Session, request: &ExportRequest) -> Result<Exported> {
    let dir = session.scratch_dir()?;
    // What misses layers is written by us: skopeo copies whole images only.
    let written = match request.reused {
        Reused::Keep => None,
        Reused::Omit => Some(incomplete(&request.to)?),
    };
    let (path, wanted, opening) = (dir.path().to_owned(), request.clone(), session.clone());
    let by_us = written.clone();
    let work = move || {
        let store = wanted.repository.open(&opening)?;
        let inventory = store.inventory()?;
        let stored = find(&inventory, &wanted)?.clone();
        let stays_away = match wanted.reused {
            Reused::Keep => HashSet::new(),
            Reused::Omit => of_others(&inventory, &stored),
        };
        let out = Out { store, inventory, dir: &path, max_layer: wanted.max_layer_size, stays_away };
        let staged = out.stage(&stored, &wanted)?;
        if let Some(to) = &by_us {
            out.write(to, &opening.cancel)?;
        }
        // The blobs are read in place: nobody may sweep them before they are copied.
        Ok((out.store, staged))
    };
    let (store, staged) = session.cancel.until(on_thread(work)).await?;
    if written.is_some() {
        return Ok(staged);
    }
    let digests = match request.otherwise {
        Otherwise::Fail => Digests::Stay,
        Otherwise::Rewrite => Digests::MayChange,
    };
    let from = format!("dir:{}", dir.path().display());
    let destination = ProxyOptions { reporter: session.reporter.clone(), ..request.destination.clone() };
    session.cancel.until(copy_out(&from, &request.to, digests, &destination)).await?;
    let to = request.to.parse().ok().filter(|to| matches!(to, Reference::Docker { .. }));
    let signatures = match (to, store.blobs()) {
        (Some(to), Some(blobs)) if staged.fidelity == Fidelity::Verbatim => {
            Some(carry(session, &Place::Local(blobs), &staged.manifest, &to, &destination).await?)
        }
        // No signature is for an image with another digest.
        (Some(_), _) => Some(0),
        (None, _) => None,
    };
    on_thread(move || store.tidy()).await?;
    Ok(Exported { signatures, ..staged })
}

/// The layout or archive that an image without some of its layers goes into.
///
/// # Errors
/// Usage for any other place.
pub(super) fn incomplete(to: &str) -> Result<Reference> {
    match to.parse() {
        Ok(to @ (Reference::Oci { .. } | Reference::OciArchive { .. })) => Ok(to),
        _ => Err(Error::usage(format!("{to}: an image that misses layers goes into a layout or an archive"))
            .with_hint("oci:DIR[:NAME] or oci-archive:FILE[:NAME]")),
    }
}

/// The layers that an image shares with others.
fn of_others(inventory: &Inventory, stored: &StoredImage) -> HashSet<DiffId> {
    let config = &stored.image.config_digest;
    let others = inventory.images.iter().filter(|other| other.image.config_digest != *config);
    others.flat_map(|other| other.image.diff_ids.iter().cloned()).collect()
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
    /// Layers that are left out.
    stays_away: HashSet<DiffId>,
}

impl Out<'_> {
    fn stage(&self, stored: &StoredImage, request: &ExportRequest) -> Result<Exported> {
        if self.store.blobs().is_none() {
            return Err(Error::misfit(
                "a composefs repository keeps neither blobs nor recipes, so no image can leave it",
            ));
        }
        let published = self.store.published(stored)?;
        let known = self.store.recipes(stored)?;
        let recipes = if known.says_nothing() { &request.recipes } else { &known };
        let made = match self.layers(&published, recipes) {
            Err(e) if request.otherwise == Otherwise::Rewrite && e.kind() == Kind::Misfit => {
                return self.stage_as_kept(stored);
            }
            made => made?,
        };
        write_folder(self.dir, &published, &published.manifest_raw)?;
        let omitted = self.omitted(&published);
        Ok(Exported {
            manifest: published.manifest_digest,
            fidelity: Fidelity::Verbatim,
            made,
            omitted,
            signatures: None,
        })
    }

    fn omitted(&self, image: &Image) -> usize {
        image.diff_ids.iter().filter(|diff_id| self.stays_away.contains(diff_id)).count()
    }

    /// Writes what was staged into a layout or archive.
    fn write(&self, to: &Reference, cancel: &Cancel) -> Result<()> {
        let manifest = fs::read(self.dir.join("manifest.json")).at(self.dir.display())?;
        if artifact::is_docker(&manifest)? {
            let what = "its manifest is a Docker one, which a layout does not hold";
            return Err(Error::misfit(format!("the image cannot be as it was published: {what}")));
        }
        let parsed = artifact::parse_manifest(&manifest)?;
        let mut blobs = Blobs::new();
        for blob in std::iter::once(parsed.config()).chain(parsed.layers()) {
            let path = self.dir.join(blob.digest().digest());
            if path.exists() && !blobs.iter().any(|(known, _)| known == blob.digest()) {
                let file = fs::File::open(&path).and_then(Region::whole).at(path.display())?;
                blobs.push((blob.digest().clone(), Content::Region(file)));
            }
        }
        write_image(&manifest, &blobs, to, cancel)
    }

    /// The image as the repository keeps it.
    fn stage_as_kept(&self, stored: &StoredImage) -> Result<Exported> {
        let image = &stored.image;
        let mut changes = Vec::new();
        for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
            changes.push(match self.stays_away.contains(diff_id) || self.link(layer.digest()).is_ok() {
                true => None,
                // A store that keeps no blobs has the plain tar.
                false => {
                    let plain = self.make(diff_id, layer, layer, None)?;
                    Some((plain.media_type().clone(), plain.digest().clone(), plain.size()))
                }
            });
        }
        let manifest = match changes.iter().all(Option::is_none) {
            true => image.manifest_raw.clone(),
            false => rewrite_manifest(&image.manifest_raw, &changes)?,
        };
        write_folder(self.dir, image, &manifest)?;
        let (manifest, omitted) = (digest_of(&manifest), self.omitted(image));
        Ok(Exported { manifest, fidelity: Fidelity::Rewritten, made: 0, omitted, signatures: None })
    }

    /// Puts all layers there as published; gives how many were made.
    fn layers(&self, image: &Image, recipes: &Recipes) -> Result<usize> {
        let mut made = 0;
        for (at, (diff_id, layer)) in image.diff_ids.iter().zip(&image.layers).enumerate() {
            if self.stays_away.contains(diff_id) || self.dir.join(layer.digest().digest()).exists() {
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
    ) -> Result<Descriptor> {
        let (_, blob) = self.store.layer(diff_id, stored, self.dir)?;
        let limit = layer_size_bound(layer, self.max_layer);
        let threads = exact::threads_each(cores(), 1);
        let remake = recipe.map(|recipe| Remake { recipe, fix: None, threads });
        let sink = exact_sink(self.dir, layer, remake)?;
        convert(blob.reader(), diff_id, limit, MAX_WINDOW_LOG, sink)
    }

    /// Links a blob of the repository into the directory.
    fn link(&self, digest: &Digest) -> Result<()> {
        let path = self.store.blob_file(digest);
        let path = path.ok_or_else(|| Error::misfit(format!("{digest}: no blob here")))?;
        let path = path.canonicalize().at(path.display())?;
        let name = self.dir.join(digest.digest());
        if name.exists() { Ok(()) } else { symlink(path, &name).at(name.display()) }
    }
}

/// Writes an image, with those of its blobs that come along.
pub(super) fn write_image(
    manifest: &[u8],
    blobs: &[(Digest, Content)],
    to: &Reference,
    cancel: &Cancel,
) -> Result<()> {
    let parcel = Parcel {
        manifest,
        blobs: blobs.iter().map(|(digest, content)| (digest, content)).collect(),
        artifact_type: None,
        replaces: |manifest| artifact::image_config(manifest).is_ok_and(|config| config.is_some()),
    };
    match to {
        Reference::OciArchive { file, name } => parcel.write_archive(file, name.as_deref()),
        Reference::Oci { dir, name } => parcel.write_dir(dir, name.as_deref(), cancel),
        other => Err(Error::usage(format!("{other}: neither a layout nor an archive"))),
    }
}

fn cannot(layer: &Descriptor, reason: &str) -> Error {
    Error::misfit(format!("layer {} cannot be made exactly as it was published: {reason}", layer.digest()))
}
