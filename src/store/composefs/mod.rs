//! A composefs repository: objects named by fs-verity digest, layers as
//! split streams, one EROFS image for each image.
//!
//! Everything that knows the crates `composefs` and `composefs-oci` is in this
//! module. Locks are theirs: a repository that is open cannot be collected.
//!
//! Finished layers get their names in groups: a name needs `syncfs` before it,
//! which flushes the whole file system. A kill costs at most the work of
//! [`COMMIT_EVERY`]; objects that are on disk already are not written again.

mod base;
mod check;
mod images;
mod objects;
mod sink;
mod split;
mod tar;
mod verity;
mod writers;

use std::error::Error as StdError;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use composefs::fsverity::{self, FsVerityHashValue, Sha256HashValue, Sha512HashValue};
use composefs::repository::{
    FeatureCheck, Repository, RepositoryConfig, RepositoryOpenError, read_repo_algorithm,
};
use composefs::tree::ImageError;
use composefs_oci::layer_sync::finalize_oci_image;
use composefs_oci::oci_image::tag_image;
use composefs_oci::{OciDigest, layer_content_id};
use oci_spec::image::{Descriptor, MediaType};
use rustix::fs::CWD;

use super::sink::BlobSink;
use super::{
    Algorithm, Fidelity, Handover, ImageTarget, InitOptions, Inventory, LayerSink, Published, StoredImage,
    Swept, Verified,
};
use crate::artifact::Image;
use crate::base::{BaseLayer, Unpacking};
use crate::cancel::Cancel;
use crate::digest::DiffId;
use crate::encoding::Encoding;
use crate::error::{Advice, Error, IoContext, Kind, Result};
use crate::exact::Recipes;
use crate::layout::lock::{self, Alone};
use crate::region::Region;

/// Finished layers wait at most this long for their names, while layers finish.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// Bytes written at once to a spool file.
const SPOOL_CHUNK: usize = 1 << 20;

/// Opens a repository with the hash that its `meta.json` names.
///
/// # Errors
/// Misfit when it is none, or one of a version or with features that are unknown here.
pub(super) fn open(path: &Path, write: bool, cancel: &Cancel) -> Result<Arc<dyn super::Repository>> {
    let shown = &path.display();
    let dir = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => missing(path),
        _ => Error::from_io(e, shown),
    })?;
    // The crate waits without an end.
    lock::share(&dir, shown, cancel)?;
    let algorithm = read_repo_algorithm(&dir).map_err(|e| foreign(Kind::Misfit, shown, e))?;
    match algorithm {
        None if path.join("objects").is_dir() => Err(Error::misfit(format!(
            "composefs:{shown}: a repository of the old format, without meta.json"
        ))
        .with_hint("cfsctl init brings it up to date")),
        None => Err(missing(path)),
        Some(fsverity::Algorithm::Sha256 { .. }) => open_as::<Sha256HashValue>(path, write, cancel),
        Some(fsverity::Algorithm::Sha512 { .. }) => open_as::<Sha512HashValue>(path, write, cancel),
    }
}

fn missing(path: &Path) -> Error {
    let repo = format!("composefs:{}", path.display());
    Error::misfit(format!("{repo}: there is no composefs repository"))
        .with_hint(format!("oci-delta-fetch init {repo}"))
}

fn open_as<H: FsVerityHashValue>(
    path: &Path,
    write: bool,
    cancel: &Cancel,
) -> Result<Arc<dyn super::Repository>> {
    let shown = &path.display();
    let repo = Repository::<H>::open_path(CWD, path).map_err(|e| {
        let kind = if matches!(e, RepositoryOpenError::Io(_)) { Kind::Local } else { Kind::Misfit };
        foreign(kind, shown, e)
    })?;
    match repo.metadata().features.check().map_err(|e| foreign(Kind::Misfit, shown, e))? {
        FeatureCheck::ReadOnly(features) if write => {
            return Err(Error::misfit(format!(
                "composefs:{shown}: has features that allow us only to read it: {}",
                features.join(", ")
            )));
        }
        _ => {}
    }
    let shared = Shared {
        repo: Arc::new(repo),
        path: path.to_owned(),
        unnamed: Mutex::default(),
        new_in_a_row: AtomicU32::new(0),
        cancel: cancel.clone(),
    };
    Ok(Arc::new(ComposefsStore { shared: Arc::new(shared) }))
}

/// Makes a repository, as `cfsctl init` does.
pub(super) fn init(path: &Path, options: InitOptions) -> Result<()> {
    let shown = &path.display();
    let fresh = !path.join("meta.json").exists();
    if fresh && path.is_dir() && std::fs::read_dir(path).at(shown)?.next().is_some() {
        return Err(Error::misfit(format!("{shown}: not empty and not a composefs repository")));
    }
    std::fs::create_dir_all(path).at(shown)?;
    let done = match options.algorithm {
        Algorithm::Sha256 => {
            let config = config(fsverity::Algorithm::SHA256, options);
            Repository::<Sha256HashValue>::init_path(CWD, path, config).map(drop)
        }
        Algorithm::Sha512 => {
            let config = config(fsverity::Algorithm::SHA512, options);
            Repository::<Sha512HashValue>::init_path(CWD, path, config).map(drop)
        }
    };
    done.map_err(|e| match fresh {
        true => foreign(Kind::Local, shown, e).with_hint(Advice::WithoutVerity),
        false => foreign(Kind::Misfit, shown, e),
    })
}

fn config(algorithm: fsverity::Algorithm, options: InitOptions) -> RepositoryConfig {
    let config = RepositoryConfig::new(algorithm);
    if options.insecure { config.set_insecure() } else { config }
}

/// What the store and its sinks share.
#[derive(Debug)]
struct Shared<H: FsVerityHashValue> {
    repo: Arc<Repository<H>>,
    path: PathBuf,
    unnamed: Mutex<Unnamed<H>>,
    /// New objects since one was there already.
    new_in_a_row: AtomicU32,
    cancel: Cancel,
}

/// Layers that are objects already, but have no name.
#[derive(Debug)]
struct Unnamed<H> {
    layers: Vec<(DiffId, H)>,
    since: Instant,
}

impl<H> Default for Unnamed<H> {
    fn default() -> Self {
        Unnamed { layers: Vec::new(), since: Instant::now() }
    }
}

impl<H: FsVerityHashValue> Shared<H> {
    fn unnamed(&self) -> MutexGuard<'_, Unnamed<H>> {
        self.unnamed.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Gives all finished layers their names; what they name is on disk before.
    fn commit(&self, unnamed: &mut Unnamed<H>) -> Result<()> {
        if unnamed.layers.is_empty() {
            return Ok(());
        }
        self.repo.sync().map_err(|e| self.failed(e))?;
        for (diff_id, id) in unnamed.layers.drain(..) {
            let name = format!("streams/{}", layer_content_id(diff_id.as_digest()));
            let object = format!("objects/{}", id.to_object_pathname());
            self.repo.symlink(name, object).map_err(|e| self.failed(e))?;
        }
        unnamed.since = Instant::now();
        Ok(())
    }

    fn failed(&self, e: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        foreign(Kind::Local, format!("composefs:{}", self.path.display()), e)
    }
}

impl<H: FsVerityHashValue> Drop for Shared<H> {
    /// A run that fails keeps its finished layers. One that is interrupted waits for no disk: it keeps those
    /// that have their names.
    fn drop(&mut self) {
        if self.cancel.is_cancelled() {
            return;
        }
        let mut unnamed = std::mem::take(&mut *self.unnamed());
        // Nobody is left to tell; the rerun makes these layers again.
        let _ = self.commit(&mut unnamed);
    }
}

/// A composefs repository with objects named by `H`.
#[derive(Debug)]
struct ComposefsStore<H: FsVerityHashValue> {
    shared: Arc<Shared<H>>,
}

impl<H: FsVerityHashValue> ComposefsStore<H> {
    fn repo(&self) -> &Arc<Repository<H>> {
        &self.shared.repo
    }

    /// Config, manifest, EROFS image and tag, in this order; what is there already
    /// stays. A tree that composefs cannot express has no EROFS image, but is a base
    /// for deltas and a source for `create` all the same; gives why it has none.
    fn finalize(&self, image: &Image, name: Option<&str>) -> Result<Option<String>> {
        let mut layers: Vec<(OciDigest, H)> = Vec::new();
        for diff_id in &image.diff_ids {
            let digest = diff_id.as_digest();
            let stream = self.repo().has_stream(&layer_content_id(digest));
            let id = stream.map_err(|e| self.shared.failed(e))?.ok_or_else(|| {
                Error::local(format!("layer {diff_id} is gone from the repository")).with_hint("run again")
            })?;
            layers.push((digest.clone(), id));
        }
        let Err(e) =
            finalize_oci_image(self.repo(), &image.manifest_raw, &image.config_raw, &layers, name, None)
        else {
            return Ok(None);
        };
        let Some(why) = e.chain().find_map(|cause| cause.downcast_ref::<ImageError>()) else {
            return Err(self.shared.failed(e));
        };
        if let Some(name) = name {
            tag_image(self.repo(), &image.manifest_digest, name).map_err(|e| self.shared.failed(e))?;
        }
        Ok(Some(format!("composefs cannot mount this image: {why}")))
    }
}

impl<H: FsVerityHashValue> ImageTarget for ComposefsStore<H> {
    fn spool(&self) -> PathBuf {
        self.shared.path.clone()
    }

    /// How much a patch adds to the objects cannot be told before; only the sort of image can.
    fn prepare(&self, image: &Image, encoding: Encoding, _needed: u64) -> Result<()> {
        if encoding != Encoding::Plain {
            return Err(Error::usage("a composefs repository keeps layers in its own form"));
        }
        let image = image.in_oci_terms()?;
        let media_type = image.manifest.config().media_type();
        if *media_type == MediaType::ImageConfig {
            return Ok(());
        }
        Err(Error::misfit(format!(
            "a composefs repository takes images only, this one has config {media_type}"
        )))
    }

    fn begin_layer(&self, _encoding: Encoding) -> Result<Box<dyn LayerSink>> {
        Ok(Box::new(sink::SplitSink::new(self.shared.clone())?))
    }

    fn begin_verbatim(&self) -> Result<Option<BlobSink>> {
        Ok(None)
    }

    fn note_finished(&self, _diff_id: &DiffId, _layer: &Descriptor) -> Result<()> {
        let mut unnamed = self.shared.unnamed();
        if unnamed.since.elapsed() >= COMMIT_EVERY { self.shared.commit(&mut unnamed) } else { Ok(()) }
    }

    fn publish(
        &self,
        image: &Image,
        _layers: &[Descriptor],
        name: Option<&str>,
        _recipes: &Recipes,
    ) -> Result<Published> {
        self.shared.commit(&mut self.shared.unnamed())?;
        let stored = image.in_oci_terms()?;
        let note = self.finalize(&stored, name)?;
        let verbatim = stored.manifest_digest == image.manifest_digest;
        let fidelity = if verbatim { Fidelity::Verbatim } else { Fidelity::Rewritten };
        Ok(Published { manifest: stored.manifest_digest, fidelity, note, handover: None })
    }
}

impl<H: FsVerityHashValue> super::Repository for ComposefsStore<H> {
    fn path(&self) -> &Path {
        &self.shared.path
    }

    fn inventory(&self) -> Result<Inventory> {
        images::inventory(&self.shared)
    }

    fn base_layer(
        &self,
        diff_id: &DiffId,
        _stored: &Descriptor,
        unpacking: &Unpacking,
    ) -> Result<Box<dyn BaseLayer>> {
        Ok(Box::new(base::SplitLayer::new(self.repo().clone(), diff_id.clone(), unpacking.spool.clone())))
    }

    /// Manifests are kept as they were published.
    fn published(&self, image: &StoredImage) -> Result<Image> {
        Ok(image.image.clone())
    }

    fn layer(&self, diff_id: &DiffId, _stored: &Descriptor, spool: &Path) -> Result<(Descriptor, Region)> {
        let file = tempfile::tempfile_in(spool).at(spool.display())?;
        let tar = self.shared.cancel.watch(io::BufWriter::with_capacity(SPOOL_CHUNK, file));
        let tar = base::write_tar(self.repo(), diff_id, tar)?.into_inner();
        let file = tar.into_inner().map_err(|e| Error::from_io(e.into_error(), spool.display()))?;
        let tar = Region::whole(file).at(spool.display())?;
        Ok((Descriptor::new(MediaType::ImageLayer, tar.len(), diff_id.as_digest().clone()), tar))
    }

    fn settle(&self, image: &StoredImage, name: Option<&str>) -> Result<Option<Handover>> {
        self.finalize(&image.image, name).map(|_| None)
    }

    fn verify(&self, wanted: Option<&str>, broken: &mut dyn FnMut(&str)) -> Result<Verified> {
        check::verify(&self.shared, wanted, broken)
    }

    fn remove(&self, name_or_digest: &str) -> Result<usize> {
        images::remove(&self.shared, |digest, name| name == Some(name_or_digest) || digest == name_or_digest)
            .and_then(|removed| match removed {
                0 => Err(Error::misfit(format!("no image {name_or_digest:?} in {}", self.path().display()))
                    .with_hint("see: oci-delta-fetch list")),
                n => Ok(n),
            })
    }

    fn remove_unnamed(&self) -> Result<usize> {
        images::remove(&self.shared, |_, name| name.is_none())
    }

    /// Images without a name stay, as in a layout; what cfsctl's own gc does not keep.
    fn gc(&self) -> Result<Swept> {
        let dir = self.repo().repo_fd();
        let _alone = Alone::at(dir, self.path().display())?;
        let keep = images::unnamed_streams(&self.shared)?;
        let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
        let swept = self.repo().gc(&keep).map_err(|e| self.shared.failed(e))?;
        Ok(Swept { blobs: swept.objects_removed as usize, bytes: swept.objects_bytes })
    }
}

/// An error of the composefs crates as one of ours. One of ours that travelled
/// through them keeps its kind.
fn foreign(kind: Kind, context: impl Display, e: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    let e = e.into();
    let mut text = context.to_string();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&*e);
    while let Some(c) = cause {
        let inside = c.downcast_ref::<io::Error>().and_then(|io| io.get_ref());
        if let Some(ours) = inside.and_then(|inner| inner.downcast_ref::<Error>()) {
            let copy = Error::new(ours.kind(), ours.to_string());
            return match ours.hint() {
                Some(hint) => copy.with_hint(hint.clone()),
                None => copy,
            };
        }
        let part = c.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = c.source();
    }
    Error::new(kind, text).with_source(e)
}
