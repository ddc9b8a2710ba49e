//! Our repository: an OCI image layout that skopeo and podman read as it is.
//!
//! Beside the layout's own files, `.oci-delta-fetch/` holds `lock` (shared by
//! everyone at work, exclusive for gc), `publish.lock`, `tmp/` (unfinished
//! files, swept when nobody is at work) and `finished/` (a descriptor for each
//! layer that is complete while its image is not yet, so a rerun goes on there).

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, MediaType};
use rustix::fs::{FlockOperation, flock};

use super::index::{CONVERTED_CONFIG, CONVERTED_FROM, IndexEdit, TARGET_MANIFEST, sync_dir, write_durably};
use super::inventory::{Inventory, StoredImage};
use super::lock::{self, Alone};
use super::sink::{BlobSink, TarSink};
use super::{Fidelity, LayerSink, Published, Store, Swept, Verified, check};
use crate::artifact::{self, MAX_MANIFEST_SIZE, TargetImage};
use crate::base::{LayerSource, LayeredFiles, Part};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, digest_of, parse_digest};
use crate::encoding::Encoding;
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::region::Region;

const STATE: &str = ".oci-delta-fetch";

/// An OCI image layout on this machine, locked against `gc` while this value lives.
#[derive(Debug)]
pub struct OciLayoutStore {
    root: PathBuf,
    layout: Layout,
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
            && fs::read_dir(root).at(root.display())?.next().is_some()
        {
            return Err(Error::misfit(format!("{}: not empty and not an OCI layout", root.display()))
                .with_hint("choose another --repo"));
        }
        for dir in [root.join("blobs/sha256"), state.join("tmp"), state.join("finished")] {
            fs::create_dir_all(&dir).at(dir.display())?;
        }
        let file = open_lock(&state.join("lock"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            sweep(&state.join("tmp"))?;
        }
        lock::share(&file, root.display(), cancel)?;
        if fresh {
            let tmp = state.join("tmp");
            IndexEdit::begin(root, &state.join("publish.lock"), cancel)?.commit(&tmp)?;
            write_durably(&root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, &tmp)?;
            sync_dir(root)?;
        }
        let (layout, lock) = (Layout::open_dir(root)?, Some(file));
        Ok(OciLayoutStore { root: root.to_owned(), layout, lock, cancel: cancel.clone() })
    }

    /// Opens an existing layout for reading; works on a read-only file system.
    ///
    /// # Errors
    /// Misfit when it is no layout; Interrupted.
    pub fn open(root: &Path, cancel: &Cancel) -> Result<Self> {
        let layout = Layout::open_dir(root)?;
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

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// The image behind an index entry, if it is an image and complete.
    fn image(&self, descriptor: &Descriptor) -> Result<Option<TargetImage>> {
        if matches!(descriptor.media_type(), MediaType::ImageIndex) {
            return Ok(None);
        }
        let Some(image) = self.layout.image(descriptor)? else { return Ok(None) };
        for layer in &image.layers {
            if self.layout.blob(layer.digest())?.is_none_or(|blob| blob.len() != layer.size()) {
                return Ok(None);
            }
        }
        Ok(Some(image))
    }

    fn finished_layers(&self) -> Result<Vec<(DiffId, Descriptor)>> {
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
            if self.layout.blob(layer.digest())?.is_some_and(|blob| blob.len() == layer.size()) {
                layers.push((DiffId::new(diff_id), layer));
            }
        }
        Ok(layers)
    }

    /// Drops the notes on finished layers of a published image; a run that was
    /// killed just after publishing leaves them.
    fn forget_finished(&self, image: &TargetImage) {
        for diff_id in &image.diff_ids {
            // A note that stays only costs its bytes, and gc takes it.
            let _ = fs::remove_file(self.finished().join(diff_id.as_digest().digest()));
        }
    }

    fn edit(&self, change: impl FnOnce(&mut IndexEdit<'_>) -> Result<()>) -> Result<()> {
        let mut index =
            IndexEdit::begin(&self.root, &self.root.join(STATE).join("publish.lock"), &self.cancel)?;
        change(&mut index)?;
        index.commit(&self.tmp())
    }

    fn write_blob(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        let path = self.blobs().join(digest.digest());
        if path.exists() { Ok(()) } else { write_durably(&path, bytes, &self.tmp()) }
    }

    /// Hex digests of all blobs that the index leads to.
    fn reachable(&self) -> Result<HashSet<String>> {
        let mut keep = HashSet::new();
        let mut queue: Vec<Descriptor> = self.layout.index()?.manifests().clone();
        while let Some(descriptor) = queue.pop() {
            self.cancel.check()?;
            if !keep.insert(descriptor.digest().digest().to_owned()) {
                continue;
            }
            let entry = StoredImageEntry(&descriptor);
            keep.extend(entry.target_manifest());
            queue.extend(self.layout.children(&descriptor)?);
        }
        Ok(keep)
    }
}

impl Store for OciLayoutStore {
    fn path(&self) -> &Path {
        &self.root
    }

    fn spool(&self) -> PathBuf {
        self.tmp()
    }

    fn inventory(&self) -> Result<Inventory> {
        let mut inventory = Inventory::default();
        for descriptor in self.layout.index()?.manifests() {
            self.cancel.check()?;
            let Some(image) = self.image(descriptor)? else { continue };
            for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
                inventory.layers.insert(diff_id.clone(), layer.clone());
            }
            let name = StoredImage::name_of(descriptor);
            inventory.images.push(StoredImage { name, descriptor: descriptor.clone(), image });
        }
        for (diff_id, layer) in self.finished_layers()? {
            inventory.layers.entry(diff_id).or_insert(layer);
        }
        Ok(inventory)
    }

    fn files(&self, layers: Vec<Part>, max_layer: u64) -> Result<LayeredFiles> {
        let source = |part| match part {
            Part::Given(source) => Ok(source),
            Part::Stored { diff_id, layer } => {
                self.layout.require_blob(&layer).map(|blob| LayerSource { diff_id, blob })
            }
        };
        let layers = layers.into_iter().map(source).collect::<Result<_>>()?;
        Ok(LayeredFiles::stoppable(layers, &self.tmp(), max_layer, &self.cancel))
    }

    fn published(&self, stored: &StoredImage) -> Result<TargetImage> {
        let digest = stored.target_manifest();
        match self.layout.blob(&digest)? {
            Some(blob) if digest != stored.image.manifest_digest => {
                let published = Descriptor::new(MediaType::ImageManifest, blob.len(), digest.clone());
                let manifest = self.layout.read_blob(&published, MAX_MANIFEST_SIZE)?;
                TargetImage::parse(manifest, &digest, stored.image.config_raw.clone())
            }
            _ => Ok(stored.image.clone()),
        }
    }

    fn layer(&self, _diff_id: &DiffId, stored: &Descriptor, _spool: &Path) -> Result<(Descriptor, Region)> {
        Ok((stored.clone(), self.layout.require_blob(stored)?))
    }

    fn prepare(&self, _image: &TargetImage, _encoding: Encoding, needed: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.root).map_err(std::io::Error::from).at(self.root.display())?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(Error::local(format!(
            "{}: {free} bytes are free, at least {needed} are needed",
            self.root.display()
        ))
        .with_hint("remove images and run gc, or choose another --repo"))
    }

    fn begin_layer(&self, encoding: Encoding) -> Result<Box<dyn LayerSink>> {
        Ok(Box::new(TarSink::new(&self.tmp(), &self.blobs(), encoding)?))
    }

    fn begin_verbatim(&self) -> Result<Option<BlobSink>> {
        BlobSink::new(&self.tmp(), &self.blobs()).map(Some)
    }

    fn note_finished(&self, diff_id: &DiffId, layer: &Descriptor) -> Result<()> {
        let bytes = serde_json::to_vec(layer).map_err(|e| Error::local(format!("{diff_id}: {e}")))?;
        write_durably(&self.finished().join(diff_id.as_digest().digest()), &bytes, &self.tmp())
    }

    fn publish(&self, image: &TargetImage, layers: &[Descriptor], name: Option<&str>) -> Result<Published> {
        let changes: Vec<_> = image
            .layers
            .iter()
            .zip(layers)
            .map(|(target, stored)| {
                (target.digest() != stored.digest())
                    .then(|| (stored.media_type().clone(), stored.digest().clone(), stored.size()))
            })
            .collect();
        let bytes = artifact::rewrite_manifest(&image.manifest_raw, &changes)?;
        let digest = digest_of(&bytes);
        let fidelity = if digest == image.manifest_digest { Fidelity::Verbatim } else { Fidelity::Rewritten };
        self.write_blob(&image.config_raw, &image.config_digest)?;
        self.write_blob(&image.manifest_raw, &image.manifest_digest)?;
        self.write_blob(&bytes, &digest)?;
        sync_dir(&self.blobs())?;
        let descriptor = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest.clone());
        let original = (fidelity == Fidelity::Rewritten).then_some(&image.manifest_digest);
        let notes = [
            (TARGET_MANIFEST, original),
            (CONVERTED_FROM, image.converted_from.as_ref()),
            (CONVERTED_CONFIG, image.converted_config.as_ref()),
        ];
        self.edit(|index| index.put(&descriptor, name, &notes))?;
        self.forget_finished(image);
        Ok(Published { manifest: digest, fidelity, note: None })
    }

    fn settle(&self, image: &StoredImage, name: Option<&str>) -> Result<()> {
        self.forget_finished(&image.image);
        let Some(name) = name.filter(|_| image.name.as_deref() != name) else { return Ok(()) };
        let target = image.target_manifest();
        let original = (target != *image.descriptor.digest()).then_some(&target);
        let (converted, config) = (image.converted_from(), image.converted_config());
        let notes = [
            (TARGET_MANIFEST, original),
            (CONVERTED_FROM, converted.as_ref()),
            (CONVERTED_CONFIG, config.as_ref()),
        ];
        let mut descriptor = image.descriptor.clone();
        descriptor.set_annotations(None);
        self.edit(|index| index.put(&descriptor, Some(name), &notes))
    }

    fn verify(&self, wanted: Option<&str>, broken: &mut dyn FnMut(&str)) -> Result<Verified> {
        check::verify(&self.layout, wanted, &self.cancel, broken)
    }

    fn remove(&self, name_or_digest: &str) -> Result<usize> {
        let mut removed = 0;
        self.edit(|index| {
            removed =
                index.remove(|digest, name| name == Some(name_or_digest) || digest == name_or_digest)?;
            Ok(())
        })?;
        if removed == 0 {
            return Err(Error::misfit(format!("no image {name_or_digest:?} in {}", self.root.display()))
                .with_hint("see: oci-delta-fetch list"));
        }
        Ok(removed)
    }

    fn remove_unnamed(&self) -> Result<usize> {
        let mut removed = 0;
        self.edit(|index| {
            removed = index.remove(|_, name| name.is_none())?;
            Ok(())
        })?;
        Ok(removed)
    }

    fn gc(&self) -> Result<Swept> {
        let lock = self.lock.as_ref().ok_or_else(|| {
            Error::local(format!("{}: read-only, or not our repository", self.root.display()))
        })?;
        let _alone = Alone::at(lock, self.root.display())?;
        let keep = self.reachable()?;
        let mut swept = Swept::default();
        for entry in fs::read_dir(self.blobs()).at(self.blobs().display())? {
            self.cancel.check()?;
            let entry = entry.at(self.blobs().display())?;
            if keep.contains(&*entry.file_name().to_string_lossy()) {
                continue;
            }
            swept.bytes += entry.metadata().at(entry.path().display())?.len();
            swept.blobs += 1;
            fs::remove_file(entry.path()).at(entry.path().display())?;
        }
        sweep(&self.finished())?;
        sweep(&self.tmp())?;
        Ok(swept)
    }
}

/// An index entry of any sort, for its annotations.
struct StoredImageEntry<'a>(&'a Descriptor);

impl StoredImageEntry<'_> {
    fn target_manifest(&self) -> Option<String> {
        let text = self.0.annotations().as_ref()?.get(TARGET_MANIFEST)?;
        parse_digest(text, "index.json").ok().map(|d| d.digest().to_owned())
    }
}

fn open_lock(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path).at(path.display())
}

/// Empties a directory of ours.
fn sweep(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).at(dir.display())? {
        let path = entry.at(dir.display())?.path();
        fs::remove_file(&path).at(path.display())?;
    }
    Ok(())
}
