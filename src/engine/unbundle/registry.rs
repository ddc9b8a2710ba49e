//! Into a registry: the changed layers are made here, over a base that stays there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::Descriptor;

use super::{Bundle, Bundled, End, UnbundleRequest, Unbundled, digest_in, mapped};
use crate::artifact::MAX_MANIFEST_SIZE;
use crate::bundle::{BundledBase, BundledManifest};
use crate::digest::{Digest, VerifyReader};
use crate::document::{self, DocumentKind};
use crate::engine::fetch_changed;
use crate::engine::in_registry::InRegistry;
use crate::engine::request::{BaseChoice, DeltaPolicy, Deltas, FetchRequest};
use crate::error::{Error, IoContext as _, Result};
use crate::exact::Exact;
use crate::plan::Origin;
use crate::platform::Platform;
use crate::proxy::{Digests, ProxyOptions, copy_out};
use crate::reference::Reference;
use crate::registry::{Change, RemoteRepository};
use crate::session::Session;
use crate::store::StoreRef;

/// What skopeo looks for in the directory of an image (containers/image, directory transport).
const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

pub(super) struct Door<'a> {
    pub session: &'a Session,
    pub request: &'a UnbundleRequest,
    pub bundle: &'a Bundle,
    pub host: &'a str,
    pub prefix: &'a str,
}

impl Door<'_> {
    pub(super) async fn bring(&self, image: &Bundled, unbundled: &mut Unbundled) -> Result<End> {
        let name = self.name(&image.name)?;
        unbundled.to = name.whole();
        let at = At { repository: RemoteRepository::new(&name, &self.options()), name };
        let root = digest_in(&image.digest)?;
        let there = at.means(&root).await?;
        let mut end = End::Present;
        if !there {
            if !self.request.dry_run {
                for manifest in &image.manifests {
                    self.manifest(manifest, &at, unbundled).await?;
                }
                self.root(&root, &at).await?;
            }
            end = self.did();
        }
        for referrer in &image.referrers {
            if self.referrer(&digest_in(&referrer.digest)?, referrer.tag.as_deref(), &at).await? {
                unbundled.referrers += 1;
                end = self.did();
            }
        }
        if let (false, false, Some(tag)) = (there, self.request.dry_run, at.name.tag()) {
            let (media_type, bytes) = self.document(&root)?;
            at.repository.put_manifest(tag, &media_type, &bytes).await?;
        }
        Ok(end)
    }

    fn did(&self) -> End {
        if self.request.dry_run { End::Planned } else { End::Brought }
    }

    fn options(&self) -> ProxyOptions {
        self.request.place.told_to(&self.session.reporter).skopeo(Platform::host())
    }

    /// The name that an image gets there: without the host that it came from, unless a rule says more.
    fn name(&self, name: &str) -> Result<DockerReference> {
        let path = match mapped(name, &self.request.map) {
            Some(mapped) => mapped.strip_prefix(&format!("{}/", self.host)).unwrap_or(&mapped).to_owned(),
            None => name.split_once('/').map_or(name, |(_, path)| path).to_owned(),
        };
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        match format!("docker://{}/{prefix}{path}", self.host).parse()? {
            Reference::Docker { name } => Ok(name),
            other => Err(Error::usage(format!("{other} is not in a registry"))),
        }
    }

    /// A manifest or index in the bundle, with its media type.
    fn document(&self, digest: &Digest) -> Result<(String, Vec<u8>)> {
        let index = self.bundle.layout.index()?;
        let listed = index.manifests().find(|entry| entry.digest() == digest);
        let named = listed.map(|entry| entry.media_type().to_string());
        let bytes = self.bundle.layout.read_blob(&of_digest(digest), MAX_MANIFEST_SIZE)?;
        let media_type = match named {
            Some(named) => named,
            None if DocumentKind::sniff(&bytes) == DocumentKind::Index => document::IMAGE_INDEX.into(),
            None => document::named_type(&bytes).unwrap_or_else(|| document::IMAGE_MANIFEST.into()),
        };
        Ok((media_type, bytes))
    }

    /// The image of one platform, by its digest.
    async fn manifest(&self, manifest: &BundledManifest, at: &At, unbundled: &mut Unbundled) -> Result<()> {
        let digest = digest_in(&manifest.digest)?;
        if at.repository.has_manifest(&digest).await? {
            return Ok(());
        }
        let (_, raw) = self.document(&digest)?;
        let parts = document::parts(&raw);
        let base = manifest.base.as_ref().map(|base| self.base(base)).transpose()?;
        let lacking = at.lacking(&parts, base.as_ref()).await?;
        let staging = self.request.staging.join(digest.digest());
        let made = match &manifest.delta {
            Some(delta) if lacking.iter().any(|blob| !self.carries(blob)) => {
                let delta = digest_in(delta)?;
                Some(self.rebuild(&delta, base.as_ref(), &staging, unbundled).await?)
            }
            _ => None,
        };
        let dir = self.stage(&raw, &lacking, made.as_deref())?;
        let to = Reference::Docker { name: at.name.clone() }.pinned(&digest).skopeo();
        let from = format!("dir:{}", dir.display());
        self.session.cancel.until(copy_out(&from, &to, Digests::Stay, &self.options())).await?;
        // What is there now need not be made again.
        let _ = fs::remove_dir_all(&staging);
        Ok(())
    }

    /// The image that a delta starts from, at this place.
    fn base(&self, base: &BundledBase) -> Result<Reference> {
        // A list that was made here has our names, others are mapped as the images are.
        let name = match base.name.strip_prefix(self.host).is_some_and(|rest| rest.starts_with('/')) {
            true => format!("docker://{}", base.name).parse()?,
            false => Reference::Docker { name: self.name(&base.name)? },
        };
        Ok(name.pinned(&digest_in(&base.manifest)?))
    }

    fn carries(&self, blob: &Descriptor) -> bool {
        matches!(self.bundle.layout.blob(blob.digest()), Ok(Some(_)))
    }

    /// Makes the changed layers; gives the repository that holds them.
    async fn rebuild(
        &self,
        delta: &Digest,
        base: Option<&Reference>,
        staging: &Path,
        unbundled: &mut Unbundled,
    ) -> Result<PathBuf> {
        let missing = || Error::misfit("the bundle does not say which image its delta starts from");
        let reference = base.ok_or_else(missing)?;
        let opened = InRegistry::open(self.session, reference, &self.request.place).await;
        let opened = opened.map_err(|e| {
            e.context(format!("the delta starts from {}, which cannot be had", reference)).with_hint(
                "bring the bundle that has it, or make a new one with the list of what is here now",
            )
        })?;
        let request = FetchRequest {
            name: None,
            deltas: Deltas { policy: DeltaPolicy::Only, ..Deltas::default() },
            base: BaseChoice { opened: Some(Arc::new(opened)), ..BaseChoice::default() },
            exact: Exact::Require,
            place: self.request.place.clone(),
            limits: self.request.limits.clone(),
            ..FetchRequest::new(self.bundle.entry(delta)?, StoreRef::Layout(staging.to_owned()))
        };
        let outcome = Box::pin(fetch_changed(self.session, &request)).await?;
        unbundled.rebuilt += outcome.layers.iter().filter(|layer| layer.origin == Origin::Patch).count();
        Ok(staging.to_owned())
    }

    /// The image as skopeo's `dir:`, with those blobs that the registry lacks.
    fn stage(&self, manifest: &[u8], lacking: &[Descriptor], made: Option<&Path>) -> Result<PathBuf> {
        let dir = self.session.scratch()?;
        let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).at(dir.display());
        write("manifest.json", manifest)?;
        write("version", VERSION)?;
        // skopeo reads the config in any case.
        let config = document::parts(manifest).into_iter().next().filter(|config| self.carries(config));
        for blob in config.iter().chain(lacking) {
            let path = dir.join(blob.digest().digest());
            if path.exists() {
                continue;
            }
            let rebuilt = made.map(|made| made.join("blobs/sha256").join(blob.digest().digest()));
            match rebuilt.filter(|rebuilt| rebuilt.exists()) {
                Some(rebuilt) => {
                    let rebuilt = rebuilt.canonicalize().at(rebuilt.display())?;
                    std::os::unix::fs::symlink(&rebuilt, &path).at(path.display())?;
                }
                None => {
                    let region = self.bundle.layout.require_blob(blob)?;
                    let content = self.session.cancel.watch(region.reader());
                    let mut content = VerifyReader::new(content, blob.digest().clone(), region.len());
                    let mut file = fs::File::create(&path).at(path.display())?;
                    std::io::copy(&mut content, &mut file).at(blob.digest())?;
                }
            }
        }
        Ok(dir)
    }

    /// An index, once all of its images are there.
    async fn root(&self, root: &Digest, at: &At) -> Result<()> {
        if at.repository.has_manifest(root).await? {
            return Ok(());
        }
        let (media_type, bytes) = self.document(root)?;
        at.repository.put_manifest(root.as_ref(), &media_type, &bytes).await
    }

    /// Brings what points to an image; false when it is there.
    async fn referrer(&self, digest: &Digest, tag: Option<&str>, at: &At) -> Result<bool> {
        let there = match tag {
            Some(tag) => at.repository.raw(tag).await?.is_some_and(|raw| raw.digest == *digest),
            None => at.repository.has_manifest(digest).await?,
        };
        if there || self.request.dry_run {
            return Ok(!there);
        }
        let (media_type, raw) = self.document(digest)?;
        let parts = document::parts(&raw);
        let lacking = at.lacking(&parts, None).await?;
        let dir = self.stage(&raw, &lacking, None)?;
        let to = Reference::Docker { name: at.name.clone() }.pinned(digest).skopeo();
        let from = format!("dir:{}", dir.display());
        self.session.cancel.until(copy_out(&from, &to, Digests::Stay, &self.options())).await?;
        match tag {
            Some(tag) => at.repository.put_manifest(tag, &media_type, &raw).await?,
            None => {
                if let Some(subject) = document::subject(&raw) {
                    at.list(&subject, digest, &media_type, &raw).await?;
                }
            }
        }
        Ok(true)
    }
}

/// Where an image goes.
struct At {
    name: DockerReference,
    repository: RemoteRepository,
}

impl At {
    /// Does the name mean this manifest there?
    async fn means(&self, digest: &Digest) -> Result<bool> {
        match self.name.tag() {
            Some(tag) => Ok(self.repository.raw(tag).await?.is_some_and(|raw| raw.digest == *digest)),
            None => self.repository.has_manifest(digest).await,
        }
    }

    /// Those of the blobs that the repository neither has nor gets from the one of the base.
    async fn lacking(&self, blobs: &[Descriptor], base: Option<&Reference>) -> Result<Vec<Descriptor>> {
        let beside = base.and_then(|base| self.beside(base));
        let (mut lacking, mut seen) = (Vec::new(), HashSet::new());
        for blob in blobs {
            if !seen.insert(blob.digest().clone()) || self.repository.has_blob(blob.digest()).await? {
                continue;
            }
            match beside {
                Some(from) if self.repository.mount(blob.digest(), from).await? => {}
                _ => lacking.push(blob.clone()),
            }
        }
        Ok(lacking)
    }

    /// Another repository of the same registry.
    fn beside<'a>(&self, base: &'a Reference) -> Option<&'a str> {
        let Reference::Docker { name } = base else { return None };
        let other = name.registry() == self.name.registry() && name.repository() != self.name.repository();
        other.then(|| name.repository())
    }

    /// Adds an entry to the list of what points to `subject`, where the registry keeps none by itself.
    async fn list(&self, subject: &Digest, digest: &Digest, media_type: &str, raw: &[u8]) -> Result<()> {
        if self.repository.referrers_by_api(subject, "", u64::MAX).await?.is_some() {
            return Ok(());
        }
        let mut entry = Descriptor::new(media_type.into(), raw.len() as u64, digest.clone());
        if let Ok(manifest) = crate::artifact::parse_manifest(raw) {
            entry.set_artifact_type(manifest.artifact_type().clone());
            entry.set_annotations(manifest.annotations().clone());
        }
        let change = Change::Add { entry: Box::new(entry), room: u64::MAX };
        self.repository.change_list(subject, &change).await
    }
}

fn of_digest(digest: &Digest) -> Descriptor {
    Descriptor::new(document::IMAGE_MANIFEST.into(), 0, digest.clone())
}
