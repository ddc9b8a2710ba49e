//! Podman's storage (containers/storage), read where it lies: images, layers, and the tar of each layer.
//!
//! Nothing is ever written here: who wants an image in it has skopeo copy it. A layer is kept as its unpacked files
//! and, in a file named tar-split, as everything of its tar that is no content of a file; both together are the tar
//! again, bit by bit, without a copy. Unpacked layers are never merged by us: how deletions look on the disk differs
//! from driver to driver, in the tar it does not.
//!
//! Knows nothing of OCI documents but their digests.

mod config;
mod lock;
mod records;
mod tar_split;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};
use crate::reference::PodmanPlace;
use crate::region::Region;
use crate::spool::Spool;
use config::Found;
pub(crate) use records::{ImageRecord, Known, LayerRecord};
use tar_split::LazyTar;
pub(crate) use tar_split::is_out_of_reach;

/// How a storage lays out its layers on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Overlay,
    Vfs,
}

impl Driver {
    const ALL: [Driver; 2] = [Driver::Overlay, Driver::Vfs];

    fn name(self) -> &'static str {
        match self {
            Driver::Overlay => "overlay",
            Driver::Vfs => "vfs",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.name() == name)
    }

    /// Where the files of layer `id` are.
    fn files(self, root: &Path, id: &str) -> PathBuf {
        match self {
            Driver::Overlay => root.join("overlay").join(id).join("diff"),
            Driver::Vfs => root.join("vfs/dir").join(id),
        }
    }

    fn is_in(self, root: &Path) -> bool {
        self.layers(root).is_dir()
    }

    fn layers(self, root: &Path) -> PathBuf {
        root.join(format!("{}-layers", self.name()))
    }

    fn images(self, root: &Path) -> PathBuf {
        root.join(format!("{}-images", self.name()))
    }
}

/// The directory of a storage, and whether there is one of a driver that is known here.
///
/// # Errors
/// Usage when this machine's configuration cannot be read.
pub(crate) fn locate(place: &PodmanPlace) -> Result<(PathBuf, bool)> {
    let root = config::find(place)?.roots.into_iter().next().unwrap_or_default();
    let exists = Driver::ALL.into_iter().any(|driver| driver.is_in(&root));
    Ok((root, exists))
}

/// A storage, with the further ones for images that it reads.
#[derive(Debug)]
pub(crate) struct Storage {
    place: PodmanPlace,
    driver: Driver,
    /// The first one takes images; the others are read only.
    roots: Vec<PathBuf>,
    spool: Spool,
    cancel: Cancel,
    known: Mutex<Arc<Known>>,
    tars: Mutex<HashMap<DiffId, Region>>,
}

impl Storage {
    /// Opens what `place` names, and reads what is in it. What tar-split files hold is spooled to `spool`.
    ///
    /// # Errors
    /// Misfit when there is none, or one of a driver that is unknown here; Local when podman has it locked for too
    /// long, and for I/O errors; Interrupted.
    pub(crate) fn open(place: &PodmanPlace, spool: &Path, cancel: &Cancel) -> Result<Self> {
        let found = config::find(place)?;
        match driver_of(place, &found)? {
            Some(driver) => Self::of(place, found, driver, spool, cancel),
            None => {
                Err(Error::misfit(format!("{place}: podman has no storage in {}", found.root().display()))
                    .with_hint("it is made by the first image that podman or skopeo puts there"))
            }
        }
    }

    /// The same where the first image is still to come.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_to_add(place: &PodmanPlace, spool: &Path, cancel: &Cancel) -> Result<Self> {
        let found = config::find(place)?;
        let named = found.driver.as_deref().and_then(Driver::named);
        let driver = driver_of(place, &found)?.or(named).unwrap_or(Driver::Overlay);
        Self::of(place, found, driver, spool, cancel)
    }

    fn of(place: &PodmanPlace, found: Found, driver: Driver, spool: &Path, cancel: &Cancel) -> Result<Self> {
        let storage = Storage {
            place: place.clone(),
            driver,
            roots: found.roots,
            spool: Spool::in_dir(spool),
            cancel: cancel.clone(),
            known: Mutex::default(),
            tars: Mutex::default(),
        };
        storage.read()?;
        Ok(storage)
    }

    /// As a user names it.
    pub(crate) fn place(&self) -> &PodmanPlace {
        &self.place
    }

    /// Its directory.
    pub(crate) fn root(&self) -> &Path {
        self.roots.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// What was there when it was read last.
    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads anew what is there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn read(&self) -> Result<Arc<Known>> {
        let known = Arc::new(records::read(&self.roots, self.driver, &self.cancel)?);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        // A layer that was removed and pulled again is in another directory.
        self.tars.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(known)
    }

    /// A manifest or config of at most `max` bytes, unverified; `None` when it is not here.
    ///
    /// # Errors
    /// Verification above `max`; local I/O errors.
    pub(crate) fn document(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        self.known().document(digest, max)
    }

    /// The plain tar of a layer; `None` when it is not here. It is put together when it is read.
    ///
    /// # Errors
    /// When its size is not noted, as reading it.
    pub(crate) fn tar(&self, diff_id: &DiffId) -> Result<Option<Region>> {
        let known = self.known();
        let Some(layer) = known.layer(diff_id) else { return Ok(None) };
        let mut tars = self.tars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tar) = tars.get(diff_id) {
            return Ok(Some(tar.clone()));
        }
        let tar = LazyTar::new(layer.clone(), self.spool.clone(), self.cancel.clone());
        let tar = tar.into_region()?;
        tars.insert(diff_id.clone(), tar.clone());
        Ok(Some(tar))
    }
}

/// The driver of a storage; `None` when there is none yet.
fn driver_of(place: &PodmanPlace, found: &Found) -> Result<Option<Driver>> {
    let root = found.root();
    let named = match found.driver.as_deref() {
        Some(name) => Some(Driver::named(name).ok_or_else(|| unknown(place, name))?),
        None => None,
    };
    let candidates = named.map_or(Driver::ALL.to_vec(), |driver| vec![driver]);
    if let Some(driver) = candidates.into_iter().find(|driver| driver.is_in(root)) {
        return Ok(Some(driver));
    }
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Error::from_io(e, root.display()).with_hint("run as the user whose storage it is"));
        }
    };
    let other = entries.flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix("-layers").map(str::to_owned)
    });
    match other {
        Some(other) if Driver::named(&other).is_none() => Err(unknown(place, &other)),
        _ => Ok(None),
    }
}

fn unknown(place: &PodmanPlace, driver: &str) -> Error {
    let known = Driver::ALL.map(Driver::name).join(" and ");
    Error::misfit(format!("{place}: a storage of driver {driver:?}, only {known} can be read"))
        .with_hint("skopeo copy the image from containers-storage: to oci:DIR:NAME, then use that")
}
