//! Which repository is meant, and how it is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::podman::PodmanStore;
use super::{InitOptions, OciLayoutStore, Repository};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::podman;
use crate::reference::{PodmanPlace, TRANSPORT};
use crate::session::Session;

/// What stands before the path of a composefs repository.
const COMPOSEFS: &str = "composefs:";

/// A repository as a user names it: `DIR`, an OCI layout, `composefs:DIR`, or podman's `containers-storage:[STORAGE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreRef {
    /// An OCI image layout.
    Layout(PathBuf),
    /// A composefs repository.
    Composefs(PathBuf),
    /// Podman's storage.
    Podman(PodmanPlace),
}

impl StoreRef {
    /// Is there a repository?
    pub fn exists(&self) -> bool {
        match self {
            StoreRef::Layout(path) => path.join("oci-layout").exists() || path.join("index.json").is_file(),
            StoreRef::Composefs(path) => path.join("meta.json").exists(),
            StoreRef::Podman(place) => podman::locate(place).is_ok_and(|(_, exists)| exists),
        }
    }

    /// Opens it for reading; a layout also on a read-only file system. Waits for a `gc`; the session ends that,
    /// and whatever takes long in the store.
    ///
    /// # Errors
    /// Misfit when there is none of this sort; Interrupted.
    pub fn open(&self, session: &Session) -> Result<Arc<dyn Repository>> {
        let cancel = &session.cancel;
        match self {
            StoreRef::Layout(path) => Ok(Arc::new(OciLayoutStore::open(path, cancel)?)),
            StoreRef::Composefs(path) => composefs(path, false, cancel),
            StoreRef::Podman(place) => Ok(Arc::new(PodmanStore::open(place, session)?)),
        }
    }

    /// Opens it for writing. A layout is made if it is not there; a composefs
    /// repository is not, since someone must choose its hash and its security.
    ///
    /// # Errors
    /// Local I/O errors; Misfit when the directory holds something else; as [`open`](Self::open).
    pub fn open_or_create(&self, session: &Session) -> Result<Arc<dyn Repository>> {
        let cancel = &session.cancel;
        match self {
            StoreRef::Layout(path) => Ok(Arc::new(OciLayoutStore::open_or_create(path, cancel)?)),
            StoreRef::Composefs(path) => composefs(path, true, cancel),
            StoreRef::Podman(place) => Ok(Arc::new(PodmanStore::open_to_add(place, session)?)),
        }
    }

    /// Makes a repository; one of the same sort that is there stays as it is.
    ///
    /// # Errors
    /// Local I/O errors; Misfit when the directory holds something else.
    pub fn init(&self, options: InitOptions, cancel: &Cancel) -> Result<()> {
        match self {
            StoreRef::Layout(path) => OciLayoutStore::open_or_create(path, cancel).map(drop),
            StoreRef::Composefs(path) => init_composefs(path, options),
            StoreRef::Podman(place) => {
                Err(Error::usage(format!("{place}: podman makes its storage itself, with the first image")))
            }
        }
    }
}

#[cfg(feature = "composefs")]
fn composefs(path: &Path, write: bool, cancel: &Cancel) -> Result<Arc<dyn Repository>> {
    super::composefs::open(path, write, cancel)
}

#[cfg(feature = "composefs")]
fn init_composefs(path: &Path, options: InitOptions) -> Result<()> {
    super::composefs::init(path, options)
}

#[cfg(not(feature = "composefs"))]
fn composefs(path: &Path, _write: bool, _cancel: &Cancel) -> Result<Arc<dyn Repository>> {
    Err(Error::usage(format!(
        "{COMPOSEFS}{}: this build has no support for composefs repositories",
        path.display()
    ))
    .with_hint("build with the cargo feature \"composefs\""))
}

#[cfg(not(feature = "composefs"))]
fn init_composefs(path: &Path, _options: InitOptions) -> Result<()> {
    composefs(path, true, &Cancel::default()).map(drop)
}

impl FromStr for StoreRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix(TRANSPORT) {
            // The brackets are skopeo's; a path alone says the same.
            let place = match PodmanPlace::split(rest)? {
                (place, "") => place,
                (_, path) if path.starts_with('/') && path.len() == rest.len() => path.parse()?,
                _ => {
                    return Err(Error::usage(format!("{text:?} names an image, not a repository"))
                        .with_hint(
                            "containers-storage:[overlay@/ROOT+/RUNROOT], or containers-storage: alone",
                        ));
                }
            };
            return Ok(StoreRef::Podman(place));
        }
        let (path, composefs) = match text.strip_prefix(COMPOSEFS) {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            return Err(Error::usage(format!("{text:?} names no directory")));
        }
        let path = PathBuf::from(path);
        Ok(if composefs { StoreRef::Composefs(path) } else { StoreRef::Layout(path) })
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreRef::Layout(path) => path.display().fmt(f),
            StoreRef::Composefs(path) => write!(f, "{COMPOSEFS}{}", path.display()),
            StoreRef::Podman(place) => place.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_directory_composefs_or_podmans() {
        for text in [
            "/a/b",
            "rel",
            "composefs:/sysroot/composefs",
            "composefs:rel",
            "containers-storage:",
            "containers-storage:[vfs@/r+/u]",
        ] {
            assert_eq!(text.parse::<StoreRef>().unwrap().to_string(), text);
        }
        assert_eq!("composefs:/x".parse::<StoreRef>().unwrap(), StoreRef::Composefs("/x".into()));
        assert_eq!(
            "containers-storage:/r".parse::<StoreRef>().unwrap().to_string(),
            "containers-storage:[/r]"
        );
        for bad in ["composefs:", "containers-storage:x", "containers-storage:[/r]x"] {
            assert!(bad.parse::<StoreRef>().is_err(), "{bad}");
        }
        assert!("".parse::<StoreRef>().is_err());
    }
}
