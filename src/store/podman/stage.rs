//! Layers on their way into podman's storage: a layout of our own beside it, and what skopeo takes on from there.
//!
//! In the user's cache it outlasts a run that broke, so that the next one goes on from the finished layers; what the
//! storage has, and what is old, leaves it again.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oci_spec::image::Descriptor;

use crate::artifact::{Image, MAX_MANIFEST_SIZE};
use crate::digest::{DiffId, Digest, digest_of};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::exact::Recipes;
use crate::layout::{write_durably, write_folder};
use crate::scratch::Scratch;
use crate::session::Session;
use crate::store::{ImageTarget as _, OciLayoutStore, Repository as _};

/// For so long a layer waits for the run that goes on with it.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// The folder with recipes of images, by the digest of the manifest.
const RECIPES: &str = "recipes";

#[derive(Debug)]
pub(super) struct Stage {
    pub layers: OciLayoutStore,
    /// Goes with this value: where skopeo finds an image, and the layout itself where it cannot last. None for readers.
    temporary: Option<Scratch>,
}

impl Stage {
    /// The stage of the storage in `root`, for new layers.
    ///
    /// # Errors
    /// Local I/O errors; Interrupted.
    pub(super) fn open_or_create(root: &Path, session: &Session) -> Result<Self> {
        let temporary = session.scratch_dir()?;
        let lasting = lasting(root, session).map(|dir| OciLayoutStore::open_or_create(&dir, &session.cancel));
        let layers = match lasting {
            Some(Err(e)) if e.kind() == Kind::Interrupted => return Err(e),
            Some(Ok(layers)) => layers,
            // A service may not write to its home.
            _ => OciLayoutStore::open_or_create(&temporary.path().join("layers"), &session.cancel)?,
        };
        Ok(Stage { layers, temporary: Some(temporary) })
    }

    /// The same, to see what a run that broke has left; `None` when there is nothing.
    ///
    /// # Errors
    /// Local I/O errors; Interrupted.
    pub(super) fn open(root: &Path, session: &Session) -> Result<Option<Self>> {
        let Some(dir) = lasting(root, session).filter(|dir| dir.join("oci-layout").exists()) else {
            return Ok(None);
        };
        match OciLayoutStore::open(&dir, &session.cancel) {
            Err(e) if e.kind() != Kind::Interrupted => Ok(None),
            layers => Ok(Some(Stage { layers: layers?, temporary: None })),
        }
    }

    /// Finished layers.
    ///
    /// # Errors
    /// Local I/O errors.
    pub(super) fn finished(&self) -> Result<Vec<(DiffId, Descriptor)>> {
        self.layers.finished_layers()
    }

    /// Lays out `image` with this manifest as skopeo's `dir:`: config, manifest, and the layers that are here.
    ///
    /// # Errors
    /// Local I/O errors, and where it was opened to be read.
    pub(super) fn lay_out(&self, image: &Image, manifest: &[u8]) -> Result<PathBuf> {
        let opened_to_read = || Error::local(format!("{}: opened to be read", self.layers.path().display()));
        let folder = self.temporary.as_ref().ok_or_else(opened_to_read)?.path().join("image");
        fs::create_dir_all(&folder).at(folder.display())?;
        let blobs = self.layers.blobs_dir();
        for blob in fs::read_dir(&blobs).at(blobs.display())? {
            let blob = blob.at(blobs.display())?;
            let link = folder.join(blob.file_name());
            if !link.exists() {
                symlink(blob.path(), &link).at(link.display())?;
            }
        }
        write_folder(&folder, image, manifest)?;
        Ok(folder)
    }

    /// Drops the layers that are in the storage, as `is_there` tells, and old ones; unless others are at work here.
    /// Recipes go with their images, of which `is_image` knows the manifests.
    ///
    /// # Errors
    /// Local I/O errors.
    pub(super) fn tidy(
        &self,
        is_there: impl Fn(&DiffId) -> bool,
        is_image: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let is_old = |noted: SystemTime| noted.elapsed().is_ok_and(|age| age > LONGEST);
        self.layers.forget(|diff_id, noted| is_there(diff_id) || is_old(noted))?;
        for note in fs::read_dir(self.layers.path().join(RECIPES)).into_iter().flatten().flatten() {
            let goes = || Some(is_old(note.metadata().ok()?.modified().ok()?));
            if !note.file_name().to_str().is_some_and(&is_image) && goes().unwrap_or(true) {
                // One that stays costs some hundred bytes.
                let _ = fs::remove_file(note.path());
            }
        }
        Ok(())
    }

    /// Keeps how the layers of the image with this manifest become what was published: podman keeps neither that nor the
    /// blobs.
    ///
    /// # Errors
    /// Local I/O errors.
    pub(super) fn keep_recipes(&self, manifest: &Digest, recipes: &Recipes) -> Result<()> {
        let dir = self.layers.path().join(RECIPES);
        fs::create_dir_all(&dir).at(dir.display())?;
        write_durably(&dir.join(manifest.digest()), recipes.to_text().as_bytes(), &self.layers.spool())
    }

    /// The same, where they were kept. What is made by them is compared with the digest of the layer.
    pub(super) fn recipes(&self, manifest: &Digest) -> Recipes {
        let path = self.layers.path().join(RECIPES).join(manifest.digest());
        let mut text = String::new();
        let read = |file: File| file.take(MAX_MANIFEST_SIZE).read_to_string(&mut text);
        match File::open(path).and_then(read) {
            Ok(_) => Recipes::parse(&text),
            Err(_) => Recipes::default(),
        }
    }
}

/// Where it is, if there is a place that lasts: another one for each storage.
fn lasting(root: &Path, session: &Session) -> Option<PathBuf> {
    let root = std::path::absolute(root).ok()?;
    let name = &digest_of(root.as_os_str().as_bytes()).digest()[..16].to_owned();
    Some(session.notes.as_ref()?.join("podman").join(name))
}
