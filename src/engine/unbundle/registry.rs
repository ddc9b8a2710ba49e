//! Into a registry: what is lacking there is found out first, then made here over a base that stays there, then written.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::Descriptor;

use super::parcel::{Document, From, Make, Parcel, Under, absent};
use super::{Bundled, End, Task, Unbundled, digest_in, mapped};
use crate::artifact::MAX_MANIFEST_SIZE;
use crate::bundle::{BundledBase, BundledManifest, MAX_DEPTH, Referrer};
use crate::digest::Digest;
use crate::document::{self, DocumentKind};
use crate::engine::in_registry::InRegistry;
use crate::error::{Error, Kind, Result};
use crate::platform::Platform;
use crate::proxy::ProxyOptions;
use crate::reference::Reference;
use crate::registry::{Lines, RemoteRepository};

/// Images that are looked at side by side: a second run takes no longer than the answers of the registry.
const LOOKS: usize = 16;

pub(super) struct Door<'a> {
    task: Task<'a>,
    host: &'a str,
    prefix: &'a str,
    options: ProxyOptions,
    lines: Arc<Lines>,
    repositories: Mutex<HashMap<String, Arc<RemoteRepository>>>,
    /// The repository of each blob that was brought in this run, or would be.
    brought: Mutex<HashMap<Digest, String>>,
}

/// Where an image goes.
#[derive(Debug, Clone)]
struct At {
    name: DockerReference,
    repository: Arc<RemoteRepository>,
}

/// An image at its place.
struct Seen<'a> {
    at: At,
    root: Digest,
    /// Does the name mean it?
    is_there: bool,
    /// What points to it and is not there.
    lacking: Vec<&'a Referrer>,
}

impl<'a> Door<'a> {
    pub(super) fn new(task: Task<'a>, host: &'a str, prefix: &'a str) -> Self {
        let Task { session, request, .. } = task;
        let options = request.place.told_to(&session.reporter).skopeo(Platform::host());
        let (lines, repositories, brought) = Default::default();
        Door { task, host, prefix, options, lines, repositories, brought }
    }

    /// Brings all images.
    pub(super) async fn bring_all(&self) -> Result<Vec<Unbundled>> {
        let images = &self.task.bundle.table.images;
        let looks = stream::iter(images).map(|image| self.look(image)).buffered(LOOKS).collect::<Vec<_>>();
        let looks = self.task.session.cancel.until(async { Ok(looks.await) }).await?;
        let mut done = Vec::new();
        for (image, seen) in images.iter().zip(looks) {
            let mut unbundled = Unbundled::of(image);
            let brought = async { self.bring(image, seen?, &mut unbundled).await };
            let end = self.task.session.cancel.until(Box::pin(brought)).await;
            done.push(unbundled.ended(end)?);
        }
        Ok(done)
    }

    /// Finds out what is there of an image. Whether its layers are does not matter where its name means it.
    async fn look<'i>(&self, image: &'i Bundled) -> Result<Seen<'i>> {
        let name = self.name(&image.name)?;
        let at = self.at(name);
        let root = digest_in(&image.digest)?;
        let is_there = match at.name.tag() {
            Some(tag) => at.means(tag, &root).await?,
            None => at.repository.has_manifest(&root).await?,
        };
        let (mut lacking, mut lists) = (Vec::new(), HashMap::new());
        for referrer in &image.referrers {
            let digest = digest_in(&referrer.digest)?;
            let found = match &referrer.tag {
                Some(tag) => at.means(tag, &digest).await?,
                None => {
                    // The list counts, and not the manifest: a run may have ended between the two.
                    let subject = document::subject(&self.raw(&digest)?).unwrap_or(root.clone());
                    if !lists.contains_key(&subject) {
                        lists.insert(subject.clone(), at.list(&subject).await?);
                    }
                    match &lists[&subject] {
                        Some(list) => list.iter().any(|entry| *entry.digest() == digest),
                        None => at.repository.has_manifest(&digest).await?,
                    }
                }
            };
            lacking.extend((!found).then_some(referrer));
        }
        Ok(Seen { at, root, is_there, lacking })
    }

    async fn bring(&self, image: &Bundled, seen: Seen<'_>, unbundled: &mut Unbundled) -> Result<End> {
        unbundled.to = seen.at.name.whole();
        if seen.is_there && seen.lacking.is_empty() {
            return Ok(End::Present);
        }
        let parcel = self.parcel(image, &seen).await?;
        unbundled.referrers = seen.lacking.len();
        if self.task.request.dry_run {
            unbundled.sent = parcel.bytes();
            unbundled.read = parcel.makes.iter().map(|make| make.base_bytes).sum();
            self.remember(&parcel, &seen.at);
            return Ok(End::Planned);
        }
        parcel.check(&self.task.session.cancel).await?;
        unbundled.rebuilt = parcel.make(&self.task).await?;
        unbundled.sent = parcel.write(&self.task, &seen.at.repository).await?;
        unbundled.read = parcel.makes.iter().map(|make| make.base.received()).sum();
        self.remember(&parcel, &seen.at);
        // What is there now need not be made again.
        for make in &parcel.makes {
            let _ = fs::remove_dir_all(&make.staging);
        }
        Ok(End::Brought)
    }

    /// What is lacking there, in the order of writing. Reads of the registry only what it takes to say so.
    async fn parcel(&self, image: &Bundled, seen: &Seen<'_>) -> Result<Parcel> {
        let mut parcel = Parcel::default();
        if !seen.is_there {
            for manifest in &image.manifests {
                self.manifest(manifest, &seen.at, &mut parcel).await?;
            }
            let known = parcel.documents.iter().any(|document| document.digest == seen.root);
            if !known && !seen.at.repository.has_manifest(&seen.root).await? {
                let (media_type, raw) = self.document(&seen.root)?;
                let (digest, under, blobs) = (seen.root.clone(), Under::Digest, Vec::new());
                parcel.documents.push(Document { digest, media_type, raw, under, blobs });
            }
        }
        for referrer in &seen.lacking {
            let digest = digest_in(&referrer.digest)?;
            let under = match (&referrer.tag, document::subject(&self.raw(&digest)?)) {
                (Some(tag), _) => Under::Tag(tag.clone()),
                (None, Some(subject)) => Under::Subject(subject),
                (None, None) => Under::Digest,
            };
            self.all_of(digest, under, &seen.at, &mut parcel, 0).await?;
        }
        if let (false, Some(tag)) = (seen.is_there, seen.at.name.tag()) {
            let (media_type, raw) = self.document(&seen.root)?;
            let (digest, under, blobs) = (seen.root.clone(), Under::Tag(tag.to_owned()), Vec::new());
            parcel.documents.push(Document { digest, media_type, raw, under, blobs });
        }
        Ok(parcel)
    }

    /// Adds the image of one platform.
    async fn manifest(&self, manifest: &BundledManifest, at: &At, parcel: &mut Parcel) -> Result<()> {
        let digest = digest_in(&manifest.digest)?;
        if at.repository.has_manifest(&digest).await? {
            return Ok(());
        }
        let (media_type, raw) = self.document(&digest)?;
        if is_index(&media_type, &raw) {
            return self.all_of(digest, Under::Digest, at, parcel, 0).await;
        }
        let base = manifest.base.as_ref().map(|base| self.base(base)).transpose()?;
        let staging = self.task.request.staging.join(digest.digest());
        let by_delta = base.as_ref().map(|base| (base.repository(), &*staging));
        let blobs = self.lacking(&document::parts(&raw), by_delta, at, parcel).await?;
        if let (Some(delta), Some(base)) = (&manifest.delta, &base)
            && blobs.iter().any(|(_, from)| matches!(from, From::Patches(_)))
        {
            let base = self.open(base, manifest).await?;
            let target = self.task.bundle.layout.image(&of_digest(&digest))?;
            let base_bytes = target.map_or(0, |target| base.read_in_any_case(&target));
            parcel.makes.push(Make { delta: digest_in(delta)?, base, staging, base_bytes });
        }
        parcel.documents.push(Document { digest, media_type, raw, under: Under::Digest, blobs });
        Ok(())
    }

    /// Adds a document with its blobs; of an index its manifests before it.
    async fn all_of(
        &self,
        digest: Digest,
        under: Under,
        at: &At,
        parcel: &mut Parcel,
        depth: usize,
    ) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::verification(format!(
                "{digest} is listed in a row of more than {MAX_DEPTH} indexes"
            )));
        }
        let (media_type, raw) = self.document(&digest)?;
        let is_index = is_index(&media_type, &raw);
        let is_listed =
            |part: &Descriptor| is_index && DocumentKind::of(part.media_type()) != DocumentKind::Other;
        let (listed, blobs): (Vec<_>, Vec<_>) = document::parts(&raw).into_iter().partition(is_listed);
        for part in listed {
            let known = parcel.documents.iter().any(|document| document.digest == *part.digest());
            if !known && !at.repository.has_manifest(part.digest()).await? {
                let under = Under::Digest;
                Box::pin(self.all_of(part.digest().clone(), under, at, parcel, depth + 1)).await?;
            }
        }
        let blobs = self.lacking(&blobs, None, at, parcel).await?;
        parcel.documents.push(Document { digest, media_type, raw, under, blobs });
        Ok(())
    }

    /// Those of the blobs that are neither there nor in the parcel already, each with where it comes from. A delta
    /// has its base in a repository, and puts layers into a folder.
    async fn lacking(
        &self,
        blobs: &[Descriptor],
        by_delta: Option<(&str, &Path)>,
        at: &At,
        parcel: &Parcel,
    ) -> Result<Vec<(Descriptor, From)>> {
        let mut lacking: Vec<(Descriptor, From)> = Vec::new();
        for blob in blobs {
            let digest = blob.digest();
            let known = |(other, _): &(Descriptor, From)| other.digest() == digest;
            if lacking.iter().any(known) || parcel.blobs().any(known) {
                continue;
            }
            let brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
            let here = at.name.repository();
            if brought.as_deref() == Some(here) || at.repository.has_blob(digest).await? {
                continue;
            }
            let beside = match (brought, by_delta) {
                (Some(other), _) => Some(self.repository(&other)),
                (None, Some((other, _))) if other != here => {
                    let other = self.repository(other);
                    other.has_blob(digest).await?.then_some(other)
                }
                _ => None,
            };
            let from = match (beside, self.task.bundle.layout.blob(digest)?, by_delta) {
                (Some(other), _, _) => From::Repository(other),
                (None, Some(region), _) => From::Bundle(region),
                (None, None, Some((_, staging))) => From::patches(staging, digest),
                (None, None, None) => return Err(absent(digest)),
            };
            lacking.push((blob.clone(), from));
        }
        Ok(lacking)
    }

    /// Opens the image that a delta starts from.
    async fn open(&self, base: &DockerReference, manifest: &BundledManifest) -> Result<Arc<InRegistry>> {
        let reference = Reference::Docker { name: base.clone() };
        let digest = digest_in(manifest.base.as_ref().map_or("", |base| &base.manifest))?;
        let reference = reference.pinned(&digest);
        let opened = InRegistry::open(self.repository(base.repository()), &reference, &digest).await;
        opened.map(Arc::new).map_err(|e| {
            e.context(format!("the delta starts from {reference}, which cannot be had")).with_hint(
                "bring the bundle that has it, or make a new one with the list of what is here now",
            )
        })
    }

    fn remember(&self, parcel: &Parcel, at: &At) {
        let mut brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        for (blob, _) in parcel.blobs() {
            brought.insert(blob.digest().clone(), at.name.repository().to_owned());
        }
    }

    fn at(&self, name: DockerReference) -> At {
        At { repository: self.repository(name.repository()), name }
    }

    /// A repository of the registry.
    fn repository(&self, repository: &str) -> Arc<RemoteRepository> {
        let mut repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let name =
                DockerReference::with_tag(self.host.to_owned(), repository.to_owned(), "latest".to_owned());
            Arc::new(RemoteRepository::new(&name, &self.options).over(&self.lines))
        };
        repositories.entry(repository.to_owned()).or_insert_with(new).clone()
    }

    /// The name that an image gets there: without the host that it came from, unless a rule says more.
    fn name(&self, name: &str) -> Result<DockerReference> {
        let path = match mapped(name, &self.task.request.map) {
            Some(mapped) => mapped.strip_prefix(&format!("{}/", self.host)).unwrap_or(&mapped).to_owned(),
            None => name.split_once('/').map_or(name, |(_, path)| path).to_owned(),
        };
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        docker(&format!("docker://{}/{prefix}{path}", self.host))
    }

    /// The name of the image that a delta starts from, at this place.
    fn base(&self, base: &BundledBase) -> Result<DockerReference> {
        // A list that was made here has our names, others are mapped as the images are.
        match base.name.strip_prefix(self.host).is_some_and(|rest| rest.starts_with('/')) {
            true => docker(&format!("docker://{}", base.name)),
            false => self.name(&base.name),
        }
    }

    /// A manifest or index in the bundle, with its media type.
    fn document(&self, digest: &Digest) -> Result<(String, Vec<u8>)> {
        let index = self.task.bundle.layout.index()?;
        let listed = index.manifests().find(|entry| entry.digest() == digest);
        let named = listed.map(|entry| entry.media_type().to_string());
        let bytes = self.raw(digest)?;
        let media_type = match named {
            Some(named) => named,
            None if DocumentKind::sniff(&bytes) == DocumentKind::Index => document::IMAGE_INDEX.into(),
            None => document::named_type(&bytes).unwrap_or_else(|| document::IMAGE_MANIFEST.into()),
        };
        Ok((media_type, bytes))
    }

    fn raw(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.task.bundle.layout.read_blob(&of_digest(digest), MAX_MANIFEST_SIZE)
    }
}

fn is_index(media_type: &str, raw: &[u8]) -> bool {
    DocumentKind::of_document(&media_type.into(), raw) == DocumentKind::Index
}

fn of_digest(digest: &Digest) -> Descriptor {
    Descriptor::new(document::IMAGE_MANIFEST.into(), 0, digest.clone())
}

fn docker(text: &str) -> Result<DockerReference> {
    match text.parse()? {
        Reference::Docker { name } => Ok(name),
        other => Err(Error::usage(format!("{other} is not in a registry"))),
    }
}

impl At {
    /// Does the tag mean this manifest there?
    async fn means(&self, tag: &str, digest: &Digest) -> Result<bool> {
        Ok(self.repository.raw(tag).await?.is_some_and(|raw| raw.digest == *digest))
    }

    /// What points to `subject` there; `None` where the registry does not tell us, though it may take more.
    async fn list(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        match self.repository.referrers(subject, "", u64::MAX).await {
            Ok(listing) => Ok(Some(listing.entries)),
            Err(e) if matches!(e.kind(), Kind::Transient | Kind::Interrupted) => Err(e),
            Err(_) => Ok(None),
        }
    }
}
