//! Sees to it that an image is one that is taken, before a layer of it is read.

use std::fs;
use std::path::{Path, PathBuf};

use super::opened::Opened;
use super::request::{FetchRequest, Signatures};
use super::signatures::{Embedded, Found};
use crate::artifact::DeltaManifest;
use crate::error::{Error, Result};
use crate::podman::locate;
use crate::reference::{PodmanPlace, Reference};
use crate::session::Session;
use crate::store::StoreRef;
use crate::trust::{Demand, Scope, Verified};

/// The check of one image, which goes on while more signatures are found.
pub(super) struct Check<'a> {
    session: &'a Session,
    request: &'a FetchRequest,
    demand: Demand<'a>,
    /// The image's manifest, where something is demanded of it.
    manifest: Vec<u8>,
    found: Found,
    verified: Result<Verified>,
}

/// What came of it.
pub(super) struct Checked {
    verified: Verified,
    found: Found,
}

impl Checked {
    pub(super) fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Bytes that were read for it.
    pub(super) fn bytes(&self) -> u64 {
        self.found.bytes()
    }

    /// Keeps the signatures that were read beside the image.
    pub(super) fn keep(&self, session: &Session, repository: &StoreRef) -> Result<()> {
        self.found.keep(session, repository)
    }
}

impl<'a> Check<'a> {
    pub(super) fn begin(session: &'a Session, request: &'a FetchRequest) -> Result<Self> {
        let name = request.wanted_name();
        let demand = request.trust.demand(&scope(&request.reference), name.as_deref())?;
        let verified = demand.nothing().ok_or_else(|| Error::local("nothing was checked yet"));
        Ok(Check { session, request, demand, manifest: Vec::new(), found: Found::default(), verified })
    }

    /// Is there something to look for?
    fn is_open(&self) -> bool {
        self.verified.is_err() || self.request.signatures == Signatures::All
    }

    /// Looks into the delta that REF leads to, and where the image is.
    pub(super) async fn first(&mut self, opened: &Opened, delta: Option<&DeltaManifest>) -> Result<()> {
        if !self.is_open() {
            return Ok(());
        }
        let image = match delta {
            Some(delta) => opened.target_of(delta.clone()).await?.target,
            None => opened.image().await?,
        };
        self.manifest = image.manifest_raw;
        self.also(delta.map(|delta| Embedded::of(delta, &opened.place)).as_ref()).await?;
        if self.is_open() {
            let FetchRequest { reference, place, .. } = self.request;
            self.found.beside(self.session, reference, place, &image.manifest_digest).await?;
            self.look_again();
        }
        Ok(())
    }

    /// Looks into a delta as well.
    pub(super) async fn also(&mut self, delta: Option<&Embedded>) -> Result<()> {
        let Some(delta) = delta.filter(|_| self.is_open()) else { return Ok(()) };
        self.found.embedded(delta).await?;
        self.look_again();
        Ok(())
    }

    fn look_again(&mut self) {
        if self.verified.is_err() {
            self.verified = self.demand.verify(&self.manifest, &self.found.signatures());
        }
    }

    /// # Errors
    /// Verification when the image is not one that is taken; Transient where that may be because signatures could not be
    /// read.
    pub(super) fn require(&mut self) -> Result<()> {
        if self.verified.is_ok() {
            return Ok(());
        }
        let refused = std::mem::replace(&mut self.verified, Err(Error::local("refused before")));
        refused.map(drop).map_err(|e| std::mem::take(&mut self.found).explain(e))
    }

    /// What came of it.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub(super) fn done(mut self) -> Result<Checked> {
        self.require()?;
        if let Err(e) = self.found.trouble() {
            self.session.say(&format!("not all signatures of the image can be read: {e}"));
        }
        Ok(Checked { verified: self.verified?, found: self.found })
    }
}

/// How policies name a place: as c/image does.
fn scope(reference: &Reference) -> Scope {
    match reference {
        Reference::Docker { name } => {
            let repository = format!("{}/{}", name.registry(), name.repository());
            let mut names = vec![match (name.tag(), name.digest()) {
                (_, Some(digest)) => format!("{repository}@{digest}"),
                (tag, None) => format!("{repository}:{}", tag.unwrap_or("latest")),
            }];
            names.extend(parents(&repository));
            let host = name.registry().split(':').next().unwrap_or_default();
            names.extend(host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..])));
            Scope { transport: "docker", names }
        }
        Reference::Oci { dir, name } => local("oci", dir, name.as_deref()),
        Reference::OciArchive { file, name } => local("oci-archive", file, name.as_deref()),
        Reference::Dir { dir } => local("dir", dir, None),
        Reference::ContainersStorage { place, name } => in_storage(place, name),
    }
}

/// Of podman's storage: by the driver and root of it, of which c/image leaves out the driver last.
fn in_storage(place: &PodmanPlace, name: &str) -> Scope {
    let root = locate(place).map(|(root, _)| root).unwrap_or_default().display().to_string();
    let stores = ["overlay", "vfs"].map(|driver| format!("[{driver}@{root}]"));
    let repository = name.split_once('@').map_or(name, |(repository, _)| repository);
    let untagged = repository.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let named = std::iter::once(name.to_owned()).chain(parents(untagged.map_or(repository, |(r, _)| r)));
    let named = named.flat_map(|name| stores.clone().map(|store| format!("{store}{name}")));
    let names = named.chain(stores.clone()).chain([format!("[{root}]")]).collect();
    Scope { transport: "containers-storage", names }
}

fn local(transport: &'static str, path: &Path, name: Option<&str>) -> Scope {
    let absolute = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path)).display().to_string();
    let named = name.map(|name| format!("{absolute}:{name}"));
    Scope { transport, names: named.into_iter().chain(parents(&absolute)).collect() }
}

/// A path, and what it is below.
fn parents(path: &str) -> Vec<String> {
    let above = path.rmatch_indices('/').map(|(at, _)| path[..at].to_owned());
    std::iter::once(path.to_owned()).chain(above.filter(|path| !path.is_empty())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_from_the_narrowest_to_the_widest() {
        let docker = scope(&"r.example.com:5000/a/os:1".parse().unwrap());
        assert_eq!(docker.transport, "docker");
        let names = ["r.example.com:5000/a/os:1", "r.example.com:5000/a/os", "r.example.com:5000/a"];
        assert_eq!(docker.names[..3], names);
        assert_eq!(docker.names[3..], ["r.example.com:5000", "*.example.com", "*.com"]);
        let archive = scope(&"oci-archive:/nowhere/usb/x.oci:os".parse().unwrap());
        assert_eq!(archive.transport, "oci-archive");
        let names = ["/nowhere/usb/x.oci:os", "/nowhere/usb/x.oci", "/nowhere/usb", "/nowhere"];
        assert_eq!(archive.names, names);
    }
}
