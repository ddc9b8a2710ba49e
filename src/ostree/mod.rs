//! An ostree repository, read without libostree: images that bootc or rpm-ostree wrote into it, as bases.
//!
//! Each image is a commit under a ref of its own, and the commit carries the image's manifest, by which the base of
//! a delta is found. There are only files, no layers: the times and the order of a layer's tar are lost. Commits and
//! directories are compared with their checksums when they are read, so a directory cannot be in itself; files are,
//! where they are unpacked, or when what was made from them came out wrong.

mod files;
mod gvariant;
mod objects;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode as Permissions, OFlags};

use crate::base::Unpacking;
use crate::digest::Digest;
use crate::document;
use crate::error::{Error, IoContext, Result};
pub(crate) use files::OstreeFiles;
use gvariant::{Malformed, Structure};
use objects::{Checksum, Mode, Objects};

/// Where images have their refs.
const IMAGES: &str = "refs/heads/ostree/container/image";

/// Most bytes of a repository's configuration; real ones have a few hundred.
const MAX_CONFIG: u64 = 1 << 20;

/// Most refs that are looked at; a machine has a handful of images.
const MAX_REFS: usize = 10_000;

/// Directories below each other in the name of a ref: a component of a reference takes two bytes at least, and a
/// reference has no more than 255 (distribution-spec).
const MAX_DEPTH: usize = 128;

/// The images in a repository.
#[derive(Debug)]
pub(crate) struct OstreeRepository {
    path: PathBuf,
    objects: Arc<Objects>,
    images: Vec<OstreeImage>,
    /// Why refs are no images that can be a base, of each.
    odd: Vec<String>,
}

/// An image in a repository.
#[derive(Debug)]
struct OstreeImage {
    /// Digest of its config.
    config: Digest,
    /// Its root directory.
    root: Checksum,
}

impl OstreeRepository {
    /// Opens a repository, and reads which images it has.
    ///
    /// # Errors
    /// Local when it is not there; Misfit when it is none, or one of a mode that is not known.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Permissions::empty())
            .map_err(std::io::Error::from)
            .at(format_args!("ostree repository {}", path.display()))?;
        let objects = Arc::new(Objects::new(directory, mode_of(path)?));
        let mut repository =
            OstreeRepository { path: path.to_owned(), objects, images: Vec::new(), odd: Vec::new() };
        let mut refs = Vec::new();
        list(&path.join(IMAGES), 0, &mut refs)?;
        refs.sort();
        for path in refs {
            match repository.image_of(&path) {
                Ok(image) => repository.images.push(image),
                Err(e) => {
                    let name = path.file_name().unwrap_or(path.as_os_str());
                    repository.odd.push(format!("ref {}: {e}", name.display()));
                }
            }
        }
        Ok(repository)
    }

    /// Does it have an image with this config?
    pub fn has(&self, config: &Digest) -> bool {
        self.image(config).is_some()
    }

    /// Has it no image?
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// How many images it has.
    pub fn count(&self) -> usize {
        self.images.len()
    }

    /// The files of the image with this config.
    pub fn files(&self, config: &Digest, unpacking: &Unpacking) -> Option<OstreeFiles> {
        self.image(config).map(|image| OstreeFiles::new(self.objects.clone(), image.root, unpacking))
    }

    /// Where it is and what is there, for messages.
    pub fn describe(&self) -> String {
        let path = self.path.display();
        let count = self.images.len();
        match self.odd.first() {
            Some(odd) => format!("ostree repository {path} ({count} images; {odd})"),
            None => format!("ostree repository {path} ({count} images)"),
        }
    }

    fn image(&self, config: &Digest) -> Option<&OstreeImage> {
        self.images.iter().find(|image| image.config == *config)
    }

    /// The image of a ref.
    fn image_of(&self, path: &Path) -> Result<OstreeImage> {
        let text = fs::read_to_string(path).at("cannot be read")?;
        let commit = Checksum::of_hex(text.trim()).ok_or_else(|| Error::misfit("it names no commit"))?;
        let bytes = self.objects.metadata(commit, "commit")?;
        let name = format!("commit {}", commit.hex());
        let (manifest, root) =
            read_commit(&bytes).map_err(|Malformed| Error::verification(format!("{name} is damaged")))?;
        let manifest = manifest.ok_or_else(|| Error::misfit(format!("{name} has no ostree.manifest")))?;
        let manifest = document::manifest(manifest).map_err(|e| e.context(&name))?;
        Ok(OstreeImage { config: manifest.config().digest().clone(), root })
    }
}

/// The image's manifest in a commit, and the root directory: `(a{sv}aya(say)sstayay)`, of which the sixth member of
/// variable size is that directory, behind a time of eight bytes.
fn read_commit(bytes: &[u8]) -> std::result::Result<(Option<&[u8]>, Checksum), Malformed> {
    let commit = Structure::new(bytes, 6)?;
    let manifest = gvariant::text_in(commit.member(0, 0)?, "ostree.manifest")?;
    let after_body = commit.end(4)?;
    let time = after_body.checked_next_multiple_of(8).ok_or(Malformed)?;
    let root = Checksum::of_bytes(commit.member(time.checked_add(8).ok_or(Malformed)?, 5)?);
    Ok((manifest, root.ok_or(Malformed)?))
}

/// The mode that a repository's configuration states.
fn mode_of(path: &Path) -> Result<Mode> {
    let path = path.join("config");
    let none = |what: &str| {
        Error::misfit(format!("{}: {what}, so this is no ostree repository that can be read", path.display()))
    };
    let file = fs::File::open(&path).map_err(|e| none(&e.to_string()))?;
    let mut text = String::new();
    file.take(MAX_CONFIG).read_to_string(&mut text).map_err(|e| none(&e.to_string()))?;
    let lines = text.lines().map(str::trim).skip_while(|line| *line != "[core]").skip(1);
    let mut core = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
    let mode = core.find(|(key, _)| key.trim() == "mode").map(|(_, mode)| mode.trim());
    let mode = mode.ok_or_else(|| none("core.mode is not set"))?;
    Mode::named(mode).ok_or_else(|| {
        none(&format!("core.mode is {mode:?}, known are bare, bare-user, bare-user-only and archive"))
    })
}

/// The files below a directory of refs.
fn list(directory: &Path, depth: usize, refs: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.at(directory.display())?,
    };
    for entry in entries {
        let entry = entry.at(directory.display())?;
        if refs.len() >= MAX_REFS || depth >= MAX_DEPTH {
            let what = format!("more than {MAX_REFS} refs, or more than {MAX_DEPTH} directories deep");
            return Err(Error::misfit(format!("{}: {what}", directory.display())));
        }
        // A directory that is a link could lead back here.
        if entry.file_type().at(directory.display())?.is_dir() {
            list(&entry.path(), depth + 1, refs)?;
        } else if !is_unfinished(&entry.file_name()) {
            refs.push(entry.path());
        }
    }
    Ok(())
}

/// A ref on its way: libostree writes beside it first.
fn is_unfinished(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
