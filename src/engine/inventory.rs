//! What a place has, as the other side of an air gap wants to know it.

use std::collections::HashSet;

use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::Descriptor;

use super::request::PlaceOptions;
use crate::artifact::{self, parse_manifest};
use crate::bundle::{Have, HaveImage};
use crate::digest::Digest;
use crate::document::{self, DocumentKind};
use crate::error::{Error, Kind, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{RawManifest, RemoteRepository};
use crate::session::Session;
use crate::store::StoreRef;

/// Where images are that the list is to name.
#[derive(Debug, Clone)]
pub enum Inventoried {
    /// All repositories of a registry whose names begin so, or one repository, or one image.
    Registry {
        /// The registry's host.
        host: String,
        /// What the names begin with; nothing for all.
        path: String,
    },
    /// A repository on this machine.
    Repository(StoreRef),
    /// These images alone.
    Images(Vec<Reference>),
}

/// Lists what is there.
///
/// # Errors
/// What the registry says; when the repository cannot be read.
pub async fn inventory(session: &Session, of: &Inventoried, place: &PlaceOptions) -> Result<Have> {
    let mut have = Have::default();
    match of {
        Inventoried::Repository(repository) => {
            for stored in repository.open(session)?.inventory()?.images {
                have.add(HaveImage {
                    name: stored.name.clone().unwrap_or_else(|| stored.descriptor.digest().to_string()),
                    manifest: stored.published_manifest(),
                    config: stored.image.config_digest.clone(),
                    layers: stored.image.layers.iter().map(|layer| layer.digest().clone()).collect(),
                    index: stored.inside.clone(),
                    platform: Some(stored.image.platform.clone()),
                    is_image: true,
                });
            }
        }
        Inventoried::Images(references) => {
            for reference in references {
                let Reference::Docker { name } = reference else {
                    return Err(Error::usage(format!("{reference} is not in a registry")));
                };
                let seeker = Seeker { session, repository: repository(name, place), have: &mut have };
                seeker.tag(name, name.digest().or(name.tag()).unwrap_or("latest")).await?;
            }
        }
        Inventoried::Registry { host, path } => {
            for found in repositories(host, path, place).await? {
                let name = DockerReference::with_tag(host.clone(), found, "latest".to_owned());
                let repository = repository(&name, place);
                let tags = session.cancel.until(repository.tags()).await?;
                let mut seeker = Seeker { session, repository, have: &mut have };
                for tag in tags {
                    seeker = seeker.tag(&name, &tag).await?;
                }
            }
        }
    }
    Ok(have)
}

fn repository(name: &DockerReference, place: &PlaceOptions) -> RemoteRepository {
    RemoteRepository::new(name, &place.skopeo(Platform::host()))
}

/// The repositories that are meant: one of this name, or all whose names begin so.
async fn repositories(host: &str, path: &str, place: &PlaceOptions) -> Result<Vec<String>> {
    let name = |path: &str| DockerReference::with_tag(host.to_owned(), path.to_owned(), "latest".to_owned());
    if !path.is_empty() && !repository(&name(path), place).tags().await?.is_empty() {
        return Ok(vec![path.to_owned()]);
    }
    let all = repository(&name("catalog"), place).catalog().await.map_err(|e| match e.kind() {
        Kind::Transient | Kind::Interrupted => e,
        _ => Error::misfit(format!("{host} does not tell which repositories it has: {e}"))
            .with_source(e)
            .with_hint("name the repositories, each as docker://HOST/REPOSITORY"),
    })?;
    let begins =
        |name: &String| path.is_empty() || name.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    Ok(all.into_iter().filter(begins).collect())
}

/// Looks into one repository.
struct Seeker<'a> {
    session: &'a Session,
    repository: RemoteRepository,
    have: &'a mut Have,
}

impl Seeker<'_> {
    /// Adds what a tag or digest means, and what points to it.
    async fn tag(mut self, name: &DockerReference, what: &str) -> Result<Self> {
        let Some(root) = self.raw(what).await? else { return Ok(self) };
        let separator = if what.contains(':') { '@' } else { ':' };
        let shown = format!("{}/{}{separator}{what}", name.registry(), name.repository());
        let mut subjects = vec![root.digest.clone()];
        if DocumentKind::sniff(&root.bytes) == DocumentKind::Index {
            for entry in document::index(&root.bytes, &root.digest)?.manifests() {
                let digest = entry.digest().clone();
                if let Some(raw) = self.raw(digest.as_ref()).await? {
                    self.add(&shown, &raw, Some((&root.digest, entry)));
                    subjects.push(digest);
                }
            }
        } else {
            self.add(&shown, &root, None);
        }
        let mut seen: HashSet<Digest> = subjects.iter().cloned().collect();
        while let Some(subject) = subjects.pop() {
            let listed = self.repository.referrers(&subject, "", u64::MAX);
            for entry in self.session.cancel.until(listed).await?.entries {
                if seen.insert(entry.digest().clone())
                    && let Some(raw) = self.raw(entry.digest().as_ref()).await?
                {
                    let shown = format!("{}/{}@{}", name.registry(), name.repository(), raw.digest);
                    self.add(&shown, &raw, None);
                    subjects.push(raw.digest);
                }
            }
        }
        Ok(self)
    }

    async fn raw(&self, what: &str) -> Result<Option<RawManifest>> {
        self.session.cancel.until(self.repository.raw(what)).await
    }

    /// Adds a manifest; `index` is the one that it is in, with its entry there.
    fn add(&mut self, name: &str, raw: &RawManifest, index: Option<(&Digest, &Descriptor)>) {
        let (index, entry) = index.unzip();
        match parse_manifest(&raw.bytes) {
            Ok(manifest) => self.have.add(HaveImage {
                name: name.to_owned(),
                manifest: raw.digest.clone(),
                config: manifest.config().digest().clone(),
                layers: manifest.layers().iter().map(|layer| layer.digest().clone()).collect(),
                index: index.cloned(),
                platform: entry.and_then(Platform::of),
                is_image: artifact::is_runnable(&raw.bytes),
            }),
            Err(e) => self.session.say(&format!("{name} is passed over: {e}")),
        }
    }
}
