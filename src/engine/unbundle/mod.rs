//! Brings a bundle into a place: what is there already stays, the rest is rebuilt exactly.
//!
//! ```text
//! table ─ for each image: there? ─ base at the place ─ changed layers made here ─ blobs, manifests, referrers, tag
//! ```

mod local;
mod parcel;
mod registry;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::export::Otherwise;
use super::request::{Limits, PlaceOptions};
use crate::bundle::{Bundled, Table};
use crate::digest::{Digest, parse_digest};
use crate::error::{Error, Kind, Result};
use crate::layout::Layout;
use crate::reference::Reference;
use crate::session::Session;
use crate::store::StoreRef;

/// A bundle to bring into a place.
#[derive(Debug, Clone)]
pub struct UnbundleRequest {
    /// A layout, the folder of its parts, or an archive.
    pub bundle: Reference,
    /// Where the images go.
    pub to: Destination,
    /// Names that begin so begin otherwise there.
    pub map: Vec<(String, String)>,
    /// What is done with images that cannot be as published.
    pub otherwise: Otherwise,
    /// How the place is reached.
    pub place: PlaceOptions,
    /// Bounds on layers.
    pub limits: Limits,
    /// Where layers are made, and finished ones are found by the next run.
    pub staging: PathBuf,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// Where images of a bundle go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Into a registry, below a prefix if there is one.
    Registry {
        /// Host and port.
        host: String,
        /// What the names of repositories begin with.
        prefix: String,
    },
    /// Into a repository on this machine.
    Repository(StoreRef),
}

/// What became of an image.
#[derive(Debug)]
pub struct Unbundled {
    /// Its name in the bundle.
    pub name: String,
    /// Its name at the place.
    pub to: String,
    /// Digest of what the name means.
    pub digest: String,
    /// Layers that were made by patches.
    pub rebuilt: usize,
    /// Things that point to it and were brought.
    pub referrers: usize,
    /// Bytes of layers that were read at the place, as a base; planned: those that are read in any case.
    pub read: u64,
    /// Bytes of blobs and manifests that the place got, or would get.
    pub sent: u64,
    /// How it ended.
    pub end: End,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// It was there, with all that belongs to it.
    Present,
    /// It is there now.
    Brought,
    /// It would be brought.
    Planned,
    /// It is not there.
    Failed(Error),
}

/// Brings all images of a bundle; one that fails does not stop the others.
///
/// # Errors
/// When the bundle cannot be read, or the work is stopped.
pub async fn unbundle(session: &Session, request: &UnbundleRequest) -> Result<Vec<Unbundled>> {
    if let (Destination::Registry { host, .. }, Otherwise::Rewrite) = (&request.to, request.otherwise) {
        return Err(Error::usage(format!("images go into {host} as they were published, or not at all"))
            .with_hint(
                "a layer that cannot be made again is whole in the bundle, so there is nothing to rewrite",
            ));
    }
    let bundle = Bundle::open(&request.bundle, &session.spool)?;
    let task = Task { session, request, bundle: &bundle };
    match &request.to {
        Destination::Registry { host, prefix } => registry::Door::new(task, host, prefix).bring_all().await,
        Destination::Repository(repository) => local::Door { task, repository }.bring_all().await,
    }
}

/// What is to be brought, and how.
#[derive(Clone, Copy)]
struct Task<'a> {
    session: &'a Session,
    request: &'a UnbundleRequest,
    bundle: &'a Bundle,
}

impl Unbundled {
    fn of(image: &Bundled) -> Self {
        Unbundled {
            name: image.name.clone(),
            to: image.name.clone(),
            digest: image.digest.clone(),
            rebuilt: 0,
            referrers: 0,
            read: 0,
            sent: 0,
            end: End::Planned,
        }
    }

    /// The same, with how it ended: one that fails does not stop the others.
    fn ended(self, end: Result<End>) -> Result<Self> {
        match end {
            Ok(end) => Ok(Unbundled { end, ..self }),
            Err(e) if e.kind() == Kind::Interrupted => Err(e),
            Err(e) => Ok(Unbundled { end: End::Failed(e), ..self }),
        }
    }
}

/// A bundle, opened.
#[derive(Debug)]
struct Bundle {
    reference: Reference,
    layout: Arc<Layout>,
    table: Table,
}

impl Bundle {
    fn open(reference: &Reference, spool: &Path) -> Result<Self> {
        let layout = Layout::open(reference, spool)?
            .ok_or_else(|| Error::usage(format!("{reference} is not on this machine")))?;
        let table = layout.table()?.ok_or_else(|| {
            Error::misfit(format!("{reference}: not a bundle, it has no bundle.json"))
                .with_hint("skopeo copies images out of other layouts")
        })?;
        Ok(Bundle { reference: reference.clone(), layout: Arc::new(layout), table })
    }

    /// An entry of the index, as a reference.
    fn entry(&self, digest: &Digest) -> Result<Reference> {
        let index = self.layout.index()?;
        let at = index.entries.iter().position(|e| e.as_ref().is_ok_and(|e| e.digest() == digest));
        let at = at.ok_or_else(|| Error::misfit(format!("{}: {digest} is not there", self.reference)))?;
        let name = Some(format!("@{at}"));
        Ok(match &self.reference {
            Reference::OciArchive { file, .. } => Reference::OciArchive { file: file.clone(), name },
            Reference::Oci { dir, .. } | Reference::Dir { dir } => Reference::Oci { dir: dir.clone(), name },
            Reference::Docker { .. } | Reference::ContainersStorage { .. } => {
                return Err(Error::usage("a bundle is in a directory or archive on this machine"));
            }
        })
    }
}

/// A digest in the table.
fn digest_in(text: &str) -> Result<Digest> {
    parse_digest(text, "bundle.json")
}

/// The name that an image gets: by the first rule that fits.
fn mapped(name: &str, map: &[(String, String)]) -> Option<String> {
    map.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.trim_end_matches('/'))?;
        rest.is_empty().then(|| to.clone()).or_else(|| {
            let to = to.trim_end_matches('/');
            rest.starts_with(['/', ':', '@']).then(|| format!("{to}{rest}"))
        })
    })
}

/// What [`verify`] found.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Verified {
    /// Images.
    pub images: usize,
    /// Blobs, damaged ones included.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Hashes all blobs of a bundle; `broken` is told of each that is damaged or missing.
///
/// # Errors
/// When the bundle cannot be read at all; Interrupted.
pub fn verify(session: &Session, reference: &Reference, broken: &mut dyn FnMut(&str)) -> Result<Verified> {
    let bundle = Bundle::open(reference, &session.spool)?;
    let mut verified = Verified { images: bundle.table.images.len(), ..Verified::default() };
    for (digest, blob) in &bundle.table.blobs {
        session.check()?;
        verified.blobs += 1;
        verified.bytes += blob.size;
        let digest = digest_in(digest)?;
        let check = || {
            let absent = || Error::misfit(format!("blob {digest} is not there"));
            let region = bundle.layout.blob(&digest)?.ok_or_else(absent)?;
            let mut content = crate::digest::VerifyReader::new(region.reader(), digest.clone(), blob.size);
            crate::error::IoContext::at(content.drain(), &digest)
        };
        if let Err(e) = check() {
            broken(&e.to_string());
        }
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_at_their_borders() {
        let map =
            [("reg.example/org".to_owned(), "mirror/org".to_owned()), ("reg.example".into(), "all".into())];
        for (name, to) in [
            ("reg.example/org/app:1", Some("mirror/org/app:1")),
            ("reg.example/organ:1", Some("all/organ:1")),
            ("reg.example/x@sha256:0", Some("all/x@sha256:0")),
            ("other.example/x:1", None),
        ] {
            assert_eq!(mapped(name, &map).as_deref(), to, "{name}");
        }
    }
}
