//! Our repository: an OCI image layout that skopeo and podman read as it is.
//!
//! Beside the layout's own files, `.oci-delta-fetch/` holds `lock` (shared by
//! everyone at work, exclusive for gc), `publish.lock`, `tmp/` (unfinished
//! files, swept when nobody is at work), `finished/` (a descriptor for each
//! layer that is complete while its image is not yet, so a rerun goes on there),
//! and `verified/` (a file for each manifest whose layers were read here). Of
//! images that others put here, layers are read before another image gets them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use oci_spec::image::{Descriptor, MediaType};
use rustix::fs::{FlockOperation, flock};

use super::inventory::{
    CONVERTED_CONFIG, CONVERTED_FROM, Inventory, PUBLISHED_MANIFEST, RECIPES, StoredImage,
};
use super::sink::{BlobSink, Files, TarSink};
use super::{
    Fidelity, Handover, ImageTarget, LayerSink, Published, Repository, Swept, Verified, check, keep, stock,
};
use crate::artifact::{self, Image, MAX_MANIFEST_SIZE};
use crate::base::{BaseLayer, LayerBlob, TarLayer, Unpacking};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, digest_of, parse_digest};
use crate::encoding::Encoding;
use crate::error::{Advice, Error, IoContext, Kind, Result};
use crate::exact::{Recipes, Remake};
use crate::layout::lock::{self, Alone};
use crate::layout::{IndexEdit, Layout, MARKER, STATE, edit_index, open_lock, sync_dir, write_durably};
use crate::region::Region;

/// Notes of manifests whose layers were read here, in [`STATE`].
const VERIFIED: &str = "verified";

/// An OCI image layout on this machine, locked against `gc` while this value lives.
#[derive(Debug)]
pub struct OciLayoutStore {
    root: PathBuf,
    layout: Arc<Layout>,
    lock: Option<File>,
    cancel: Cancel,
}

impl OciLayoutStore {
    /// Opens the repository for writing, making it if it is not there, and
    /// sweeps what a killed run left.
    ///
    /// # Errors
    /// Local I/O errors; Misfit when the directory holds something else; Interrupted.
    pub fn open_or_create(root: &Path, cancel: &Cancel) -> Result<Self> {
        let fresh = !root.join("oci-layout").exists();
        let state = root.join(STATE);
        if fresh
            && root.is_dir()
            && !state.is_dir()
            && !root.join("index.json").is_file()
            && fs::read_dir(root).at(root.display())?.next().is_some()
        {
            return Err(Error::misfit(format!("{}: not empty and not an OCI layout", root.display()))
                .with_hint(Advice::OtherRepository));
        }
        let ours = ["tmp", "finished", VERIFIED].map(|name| state.join(name));
        for dir in [root.join("blobs/sha256")].into_iter().chain(ours) {
            fs::create_dir_all(&dir).at(dir.display())?;
        }
        let file = open_lock(&state.join("lock"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            sweep(&state.join("tmp"), |_| true)?;
        }
        lock::share(&file, root.display(), cancel)?;
        if fresh {
            let tmp = state.join("tmp");
            edit_index(root, &tmp, cancel, |_| Ok(()))?;
            write_durably(&root.join("oci-layout"), MARKER, &tmp)?;
            sync_dir(root)?;
        }
        let (layout, lock) = (Arc::new(Layout::open_dir(root)?), Some(file));
        Ok(OciLayoutStore { root: root.to_owned(), layout, lock, cancel: cancel.clone() })
    }

    /// Opens an existing layout for reading; works on a read-only file system.
    ///
    /// # Errors
    /// Misfit when it is no layout; Interrupted.
    pub fn open(root: &Path, cancel: &Cancel) -> Result<Self> {
        let layout = Arc::new(Layout::open_dir(root)?);
        let lock = File::open(root.join(STATE).join("lock")).ok();
        if let Some(file) = &lock {
            lock::share(file, root.display(), cancel)?;
        }
        Ok(OciLayoutStore { root: root.to_owned(), layout, lock, cancel: cancel.clone() })
    }

    fn tmp(&self) -> PathBuf {
        self.root.join(STATE).join("tmp")
    }

    fn finished(&self) -> PathBuf {
        self.root.join(STATE).join("finished")
    }

    pub(super) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn files(&self) -> Files {
        Files { tmp: self.tmp(), blobs: self.blobs_dir(), growth: None }
    }

    fn note_of(&self, manifest: &Digest) -> PathBuf {
        self.root.join(STATE).join(VERIFIED).join(manifest.digest())
    }

    pub(super) fn finished_layers(&self) -> Result<Vec<(DiffId, Descriptor)>> {
        let dir = self.finished();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::from_io(e, dir.display())),
        };
        let mut layers = Vec::new();
        for entry in entries {
            let entry = entry.at(dir.display())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(diff_id) = parse_digest(&format!("sha256:{name}"), "finished layer") else { continue };
            let bytes = fs::read(entry.path()).at(entry.path().display())?;
            let Ok(layer) = serde_json::from_slice::<Descriptor>(&bytes) else { continue };
            if self.layout.size(layer.digest())? == Some(layer.size()) {
                layers.push((DiffId::new(diff_id), layer));
            }
        }
        Ok(layers)
    }

    /// Drops the notes on finished layers of a published image; a run that was
    /// killed just after publishing leaves them.
    fn forget_finished(&self, image: &Image) {
        // A note that stays only costs its bytes, and gc takes it. Mostly there are none, but many layers.
        let _ =
            sweep(&self.finished(), |name| image.diff_ids.iter().any(|id| id.as_digest().digest() == name));
    }

    /// Of a layout without images: drops the finished layers that `goes` picks, by when they were noted, and all blobs
    /// that are none; unless others are at work here.
    ///
    /// # Errors
    /// Local I/O errors.
    pub(super) fn forget(&self, goes: impl Fn(&DiffId, SystemTime) -> bool) -> Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let Ok(_alone) = Alone::at(lock, self.root.display()) else { return Ok(()) };
        let mut keep = HashSet::new();
        for (diff_id, layer) in self.finished_layers()? {
            let note = self.finished().join(diff_id.as_digest().digest());
            if goes(&diff_id, fs::metadata(&note).and_then(|meta| meta.modified()).at(note.display())?) {
                fs::remove_file(&note).at(note.display())?;
            } else {
                keep.insert(layer.digest().digest().to_owned());
            }
        }
        sweep(&self.blobs_dir(), |name| !keep.contains(name))
    }

    fn edit<T>(&self, change: impl FnOnce(&mut IndexEdit) -> Result<T>) -> Result<T> {
        edit_index(&self.root, &self.tmp(), &self.cancel, change)
    }

    fn write_blob(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        let path = self.blobs_dir().join(digest.digest());
        if path.exists() { Ok(()) } else { write_durably(&path, bytes, &self.tmp()) }
    }

    /// Deletes what is not reachable; nobody else is at work.
    fn sweep(&self) -> Result<Swept> {
        let keep = keep::reachable(&self.layout, &self.cancel)?;
        let mut swept = Swept::default();
        for entry in fs::read_dir(self.blobs_dir()).at(self.blobs_dir().display())? {
            self.cancel.check()?;
            let entry = entry.at(self.blobs_dir().display())?;
            let meta = entry.metadata().at(entry.path().display())?;
            if keep.contains(&*entry.file_name().to_string_lossy()) || meta.is_dir() {
                continue;
            }
            swept.bytes += meta.len();
            swept.blobs += 1;
            fs::remove_file(entry.path()).at(entry.path().display())?;
        }
        sweep(&self.finished(), |_| true)?;
        sweep(&self.root.join(STATE).join(VERIFIED), |name| !keep.contains(name))?;
        sweep(&self.tmp(), |_| true)?;
        Ok(swept)
    }
}

impl ImageTarget for OciLayoutStore {
    fn spool(&self) -> PathBuf {
        self.tmp()
    }

    fn prepare(&self, _image: &Image, _encoding: Encoding, needed: u64) -> Result<()> {
        require_room(&self.root, needed)
    }

    fn begin_layer(&self, encoding: Encoding) -> Result<Box<dyn LayerSink>> {
        Ok(Box::new(TarSink::new(&self.files(), encoding)?))
    }

    fn begin_exact(&self, published: &Descriptor, remake: Remake<'_>) -> Result<Box<dyn LayerSink>> {
        Ok(Box::new(TarSink::exact(&self.files(), published, remake)?))
    }

    fn begin_verbatim(&self) -> Result<Option<BlobSink>> {
        BlobSink::new(&self.files()).map(Some)
    }

    fn note_finished(&self, diff_id: &DiffId, layer: &Descriptor) -> Result<()> {
        let bytes = serde_json::to_vec(layer).map_err(|e| Error::local(format!("{diff_id}: {e}")))?;
        write_durably(&self.finished().join(diff_id.as_digest().digest()), &bytes, &self.tmp())
    }

    fn publish(
        &self,
        image: &Image,
        layers: &[Descriptor],
        name: Option<&str>,
        recipes: &Recipes,
    ) -> Result<Published> {
        let changes: Vec<_> = image
            .manifest
            .layers()
            .iter()
            .zip(layers)
            .map(|(target, stored)| {
                (target.digest() != stored.digest() || target.size() != stored.size())
                    .then(|| (stored.media_type().clone(), stored.digest().clone(), stored.size()))
            })
            .collect();
        let bytes = artifact::rewrite_manifest(&image.manifest_raw, &changes)?;
        let digest = digest_of(&bytes);
        let fidelity = if digest == image.manifest_digest { Fidelity::Verbatim } else { Fidelity::Rewritten };
        self.write_blob(&image.config_raw, &image.config_digest)?;
        self.write_blob(&image.manifest_raw, &image.manifest_digest)?;
        self.write_blob(&bytes, &digest)?;
        let original = (fidelity == Fidelity::Rewritten).then_some(&image.manifest_digest);
        let recipes = (original.is_some() && !recipes.says_nothing()).then(|| recipes.to_text().into_bytes());
        let recipes = match recipes {
            Some(text) => {
                let digest = digest_of(&text);
                self.write_blob(&text, &digest)?;
                Some(digest)
            }
            None => None,
        };
        sync_dir(&self.blobs_dir())?;
        let descriptor = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest.clone());
        let notes = [
            (PUBLISHED_MANIFEST, original),
            (RECIPES, recipes.as_ref()),
            (CONVERTED_FROM, image.converted_from.as_ref()),
            (CONVERTED_CONFIG, image.converted_config.as_ref()),
        ];
        // Every layer was read on its way here, or by `confirm`. Without the note it is only read again.
        let _ = File::create(self.note_of(&digest));
        self.edit(|index| index.put(&descriptor, name, &notes))?;
        self.forget_finished(image);
        Ok(Published { manifest: digest, fidelity, note: None, handover: None })
    }
}

impl Repository for OciLayoutStore {
    fn path(&self) -> &Path {
        &self.root
    }

    fn inventory(&self) -> Result<Inventory> {
        let is_verified = |manifest: &Digest| self.note_of(manifest).exists();
        stock::take(&self.layout, &is_verified, self.finished_layers()?, &self.cancel)
    }

    fn confirm(&self, inventory: &Inventory, layers: &[DiffId]) -> Result<Vec<DiffId>> {
        let mut others = Vec::new();
        for diff_id in layers.iter().filter(|diff_id| inventory.unverified.contains(diff_id)) {
            let Some(layer) = inventory.layers.get(diff_id) else { continue };
            match check::layer(&self.layout, diff_id, layer, &self.cancel) {
                Ok(()) => self.note_finished(diff_id, layer)?,
                Err(e) if matches!(e.kind(), Kind::Misfit | Kind::Verification) => {
                    others.push(diff_id.clone())
                }
                Err(e) => return Err(e),
            }
        }
        Ok(others)
    }

    fn base_layer(
        &self,
        diff_id: &DiffId,
        stored: &Descriptor,
        unpacking: &Unpacking,
    ) -> Result<Box<dyn BaseLayer>> {
        let layer = LayerBlob { diff_id: diff_id.clone(), blob: self.layout.require_blob(stored)? };
        Ok(Box::new(TarLayer::new(layer, unpacking)))
    }

    fn published(&self, stored: &StoredImage) -> Result<Image> {
        let digest = stored.published_manifest();
        match self.layout.blob(&digest)? {
            Some(blob) if digest != stored.image.manifest_digest => {
                let published = Descriptor::new(MediaType::ImageManifest, blob.len(), digest.clone());
                let manifest = self.layout.read_blob(&published, MAX_MANIFEST_SIZE)?;
                Image::parse(manifest, &digest, stored.image.config_raw.clone())
            }
            _ => Ok(stored.image.clone()),
        }
    }

    fn layer(&self, _diff_id: &DiffId, stored: &Descriptor, _spool: &Path) -> Result<(Descriptor, Region)> {
        Ok((stored.clone(), self.layout.require_blob(stored)?))
    }

    fn blobs(&self) -> Option<Arc<Layout>> {
        Some(self.layout.clone())
    }

    fn blob_file(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.blobs_dir().join(digest.digest()))
    }

    fn recipes(&self, image: &StoredImage) -> Result<Recipes> {
        let Some(digest) = image.recipes() else { return Ok(Recipes::default()) };
        let Some(blob) = self.layout.blob(&digest)? else { return Ok(Recipes::default()) };
        let note = Descriptor::new(MediaType::Other(String::new()), blob.len(), digest);
        let text = self.layout.read_blob(&note, MAX_MANIFEST_SIZE)?;
        Ok(Recipes::parse(&String::from_utf8_lossy(&text)))
    }

    fn settle(&self, image: &StoredImage, name: Option<&str>) -> Result<Option<Handover>> {
        self.forget_finished(&image.image);
        let Some(name) = name.filter(|_| image.name.as_deref() != name) else { return Ok(None) };
        let target = image.published_manifest();
        let original = (target != *image.descriptor.digest()).then_some(&target);
        let (converted, config) = (image.converted_from(), image.converted_config());
        let recipes = image.recipes();
        let notes = [
            (PUBLISHED_MANIFEST, original),
            (RECIPES, recipes.as_ref()),
            (CONVERTED_FROM, converted.as_ref()),
            (CONVERTED_CONFIG, config.as_ref()),
        ];
        let mut descriptor = image.descriptor.clone();
        descriptor.set_annotations(None);
        self.edit(|index| index.put(&descriptor, Some(name), &notes))?;
        Ok(None)
    }

    fn verify(&self, wanted: Option<&str>, broken: &mut dyn FnMut(&str)) -> Result<Verified> {
        check::verify(&self.layout, wanted, &self.cancel, broken)
    }

    fn remove(&self, name_or_digest: &str) -> Result<usize> {
        let removed = self.edit(|index| {
            let named = index.named(Some(name_or_digest));
            if named.len() > 1 {
                return Err(Error::usage(format!("{} images are named {name_or_digest:?}", named.len()))
                    .with_hint(format!("remove one by its digest: {}", named.join(", "))));
            }
            index.remove(|digest, name| name == Some(name_or_digest) || digest == name_or_digest)
        })?;
        if removed == 0 {
            return Err(Error::misfit(format!("no image {name_or_digest:?} in {}", self.root.display()))
                .with_hint("see: oci-delta-fetch list"));
        }
        Ok(removed)
    }

    fn remove_unnamed(&self) -> Result<usize> {
        self.edit(|index| {
            let attached = keep::attached(&self.layout, &self.cancel)?;
            index.remove(|digest, name| name.is_none() && !attached.contains(digest))
        })
    }

    fn gc(&self) -> Result<Swept> {
        let lock = self.lock.as_ref().ok_or_else(|| {
            Error::local(format!("{}: read-only, or not our repository", self.root.display()))
        })?;
        let _alone = Alone::at(lock, self.root.display())?;
        self.sweep()
    }
}

/// Refuses a file system with less free space.
///
/// # Errors
/// Local.
pub(crate) fn require_room(dir: &Path, needed: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(dir).map_err(std::io::Error::from).at(dir.display())?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed <= free {
        return Ok(());
    }
    Err(Error::local(format!("{}: {free} bytes are free, at least {needed} are needed", dir.display()))
        .with_hint(Advice::MakeRoom))
}

/// Deletes the files of a directory of ours that `goes` picks by name.
pub(super) fn sweep(dir: &Path, goes: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(dir).at(dir.display())? {
        let entry = entry.at(dir.display())?;
        if goes(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).at(entry.path().display())?;
        }
    }
    Ok(())
}
