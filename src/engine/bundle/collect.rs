//! What one image brings into a bundle.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::Descriptor;

use super::{BundleRequest, BundledImage, Collected, From, Making, Piece, Referrers};
use crate::artifact::{self, DeltaManifest, Image, MAX_MANIFEST_SIZE, parse_manifest};
use crate::bundle::{Bundled, BundledBase, BundledManifest, HaveImage};
use crate::digest::{DiffId, Digest, digest_of};
use crate::discover::deltas_for;
use crate::document::{self, DocumentKind};
use crate::engine::make::{self, CreateRequest};
use crate::engine::opened::{Opened, is_patch, remote};
use crate::engine::request::PlaceOptions;
use crate::error::{Error, Kind, Result};
use crate::exact::Exact;
use crate::fetch::Place;
use crate::layout::Layout;
use crate::plan::{Keep, Offer, Origin, RebuildPlan};
use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::reference::Reference;
use crate::registry::{RawManifest, RemoteRepository};
use crate::session::Session;
use crate::store::StoreRef;

/// Collects images.
pub(super) struct Collector<'a> {
    pub session: &'a Session,
    pub request: &'a BundleRequest,
}

/// A delta that may serve.
struct Offered {
    digest: Digest,
    raw: Vec<u8>,
    manifest: DeltaManifest,
    place: Place,
}

impl Collector<'_> {
    /// The image, or all images of an index.
    pub(super) async fn image(&self, reference: &Reference) -> Result<Collected> {
        let Reference::Docker { name } = reference else {
            return Err(Error::usage(format!("{reference} is not in a registry"))
                .with_hint("a bundle is made of images in registries: docker://HOST/REPO:TAG"));
        };
        let options = self.request.place.skopeo(Platform::host());
        let repository = RemoteRepository::new(name, &options);
        let what = name.digest().or(name.tag()).unwrap_or("latest");
        let absent = || Error::misfit(format!("{reference}: there is no such image"));
        let root = repository.raw(what).await?.ok_or_else(absent)?;
        let (root, whole_name) = self.root(name, &repository, root).await?;
        let mut collected = Collected {
            outcome: BundledImage {
                name: whole_name.clone(),
                digest: root.digest.clone(),
                bytes: 0,
                whole_bytes: 0,
                deltas: 0,
                referrers: 0,
                notes: Vec::new(),
            },
            bundled: Bundled {
                name: whole_name.clone(),
                digest: root.digest.to_string(),
                manifests: Vec::new(),
                referrers: Vec::new(),
            },
            pieces: Vec::new(),
            whole: HashSet::new(),
            entries: vec![(root.entry(), Some(whole_name))],
        };
        collected.document(&root);
        for image in images_of(&root)? {
            let here = (image == root.digest).then_some(&root);
            self.listed(reference, &repository, &image, here, &mut collected).await?;
        }
        if self.request.referrers == Referrers::Required {
            let subjects = collected.bundled.manifests.iter().map(|m| m.digest.clone());
            let subjects: Vec<String> = subjects.chain([root.digest.to_string()]).collect();
            for subject in subjects {
                self.referrers(name, &repository, &subject, &mut collected, 0).await?;
            }
        }
        Ok(collected)
    }

    /// What the name means: of an index only the image for the platform, where that is wanted.
    async fn root(
        &self,
        name: &DockerReference,
        repository: &RemoteRepository,
        root: RawManifest,
    ) -> Result<(RawManifest, String)> {
        let Some(platform) = self.request.platform.as_ref().filter(|_| root.kind() == DocumentKind::Index)
        else {
            return Ok((root, name.whole()));
        };
        let index = document::index(&root.bytes, &root.digest)?;
        let digest = platform.choose(index.manifests())?.digest().to_string();
        let gone = || Error::misfit(format!("{}: manifest {digest} is not there", name.whole()));
        Ok((repository.raw(&digest).await?.ok_or_else(gone)?, name.whole()))
    }

    /// What the name means, or an index under it lists: an image, or something that is listed beside images, as the
    /// attestations of BuildKit are.
    async fn listed(
        &self,
        reference: &Reference,
        repository: &RemoteRepository,
        digest: &Digest,
        read: Option<&RawManifest>,
        collected: &mut Collected,
    ) -> Result<()> {
        let known = BundledManifest { digest: digest.to_string(), delta: None, base: None };
        if self.request.have.has_manifest(digest) {
            collected.bundled.manifests.push(known);
            return Ok(());
        }
        let pinned = reference.pinned(digest);
        // It was chosen already.
        let place = PlaceOptions { platform: None, ..self.request.place.clone() };
        let gone = || Error::misfit(format!("{pinned} is not there"));
        let raw = match read {
            Some(raw) => raw.clone(),
            None => repository.raw(digest.as_ref()).await?.ok_or_else(gone)?,
        };
        if artifact::is_schema1(&raw.bytes) {
            return Err(Error::misfit(format!("{pinned}: a Docker manifest of schema version 1"))
                .with_hint("skopeo copy --format oci makes an OCI image of it"));
        }
        if !artifact::is_runnable(&raw.bytes) {
            collected.bundled.manifests.push(known);
            return self.all_of(reference, repository, &raw, collected, 0).await;
        }
        let opened = Opened::open(&pinned, &place, &self.session.spool).await?;
        self.platform(&pinned, repository, &opened, collected).await
    }

    /// An image, by a delta where one serves.
    async fn platform(
        &self,
        pinned: &Reference,
        repository: &RemoteRepository,
        opened: &Opened,
        collected: &mut Collected,
    ) -> Result<()> {
        let have = &self.request.have;
        let image = opened.image().await?;
        let digest = &image.manifest_digest;
        collected.bytes(digest, &image.manifest_raw);
        collected.bytes(&image.config_digest, &image.config_raw);
        let lacking = image.layers.iter().filter(|layer| !have.has_blob(layer.digest()));
        collected.outcome.whole_bytes += lacking.map(Descriptor::size).sum::<u64>();
        let mut best = self.plan(&image, None, &opened.place);
        let mut by: Option<Offered> = None;
        for offered in self.deltas(pinned, repository, &image, &best, collected).await? {
            let plan = self.plan(&image, Some(&offered), &opened.place);
            if plan.uses_delta() && bytes_of(&plan) + (offered.raw.len() as u64) < bytes_of(&best) {
                (best, by) = (plan, Some(offered));
            }
        }
        collected.layers(&best, by.as_ref(), &opened.place)?;
        let base = by.as_ref().and_then(|by| have.by_config(&by.manifest.source_config));
        collected.outcome.deltas += usize::from(by.is_some());
        collected.bundled.manifests.push(BundledManifest {
            digest: digest.to_string(),
            delta: by.as_ref().map(|by| by.digest.to_string()),
            base: base.map(|base| BundledBase {
                name: base.name.clone(),
                manifest: base.manifest.to_string(),
                config: base.config.to_string(),
            }),
        });
        Ok(())
    }

    /// How the layers get there with the fewest bytes, each as it was published.
    fn plan(&self, image: &Image, offered: Option<&Offered>, place: &Place) -> RebuildPlan {
        let have = &self.request.have;
        let here =
            |_: &DiffId, published: &Descriptor| have.has_blob(published.digest()).then(|| published.clone());
        let offer = Offer {
            delta: offered.map(|offered| &offered.manifest),
            exact: Exact::Require,
            is_patch: &|blob| offered.is_some_and(|offered| is_patch(&offered.place, blob)),
            // Whatever bundles are unpacked into has images by layers.
            layered_base: true,
            whole: &|layer| place.may_have(layer),
            ..Offer::whole_layers(&here, self.request.limits.max_layer_size)
        };
        offer.plan(image)
    }

    /// Deltas from images that the other place has: those that are published, or one that is made now.
    async fn deltas(
        &self,
        reference: &Reference,
        repository: &RemoteRepository,
        image: &Image,
        whole: &RebuildPlan,
        collected: &mut Collected,
    ) -> Result<Vec<Offered>> {
        let have = &self.request.have;
        let at_stake = bytes_of(whole);
        if at_stake == 0 || have.images.is_empty() {
            return Ok(Vec::new());
        }
        let here = |config: &Digest| have.by_config(config).is_some();
        let found = deltas_for(repository, &image.manifest_digest, here, at_stake).await;
        for note in
            found.notes.iter().map(ToString::to_string).chain(found.failure.iter().map(ToString::to_string))
        {
            self.session.say(&note);
        }
        let mut offered = Vec::new();
        for candidate in found.candidates {
            let leads_here = candidate.manifest.target_manifest.digest() == &image.manifest_digest;
            if leads_here && here(&candidate.manifest.source_config) {
                let raw = repository.manifest(&candidate.digest, MAX_MANIFEST_SIZE).await?;
                let options = self.request.place.skopeo(Platform::host());
                let at = reference.pinned(&candidate.digest);
                let place = remote(Proxy::new(&at.skopeo(), options), &at);
                offered.push(Offered { digest: candidate.digest, raw, manifest: candidate.manifest, place });
            }
        }
        if let (true, Some(making)) = (offered.is_empty(), &self.request.create) {
            match self.make(reference, image, making).await {
                Ok(made) => offered.extend(made),
                Err(e) if e.kind() == Kind::Interrupted => return Err(e),
                Err(e) => collected.outcome.notes.push(format!("no delta could be made: {e}")),
            }
        }
        Ok(offered)
    }

    /// Makes a delta from the image of the same repository that the other place has, or takes the one that was made.
    async fn make(&self, reference: &Reference, image: &Image, making: &Making) -> Result<Option<Offered>> {
        let Reference::Docker { name } = reference else { return Ok(None) };
        let serves = |had: &&HaveImage| {
            let is_other = had.is_image && had.config != image.config_digest;
            let runs_here = had.platform.as_ref().is_none_or(|platform| platform.accepts(&image.platform));
            is_other && runs_here && is_of(&had.name, name.repository())
        };
        let shared = |had: &&HaveImage| {
            image.layers.iter().filter(|layer| had.layers.contains(layer.digest())).count()
        };
        // Of those that share as many layers the latest version.
        let Some(base) =
            self.request.have.images.iter().filter(serves).max_by_key(|had| (shared(had), had.version()))
        else {
            return Ok(None);
        };
        let pair = format!("{}-{}", base.config.digest(), image.manifest_digest.digest());
        let dir = making.cache.join(digest_of(pair.as_bytes()).digest());
        if !dir.join("index.json").is_file() {
            let request = CreateRequest {
                old: reference.pinned(&base.manifest).to_string(),
                new: reference.to_string(),
                output: format!("oci:{}", dir.display()),
                repository: StoreRef::Layout(making.cache.join("images")),
                signatures: Vec::new(),
                options: making.options.clone(),
                place: self.request.place.clone(),
                limits: self.request.limits.clone(),
                accounts: false,
            };
            make::create(self.session, request).await?;
        }
        made_before(&dir).map(Some)
    }
}

/// The delta in a layout that was made for it.
fn made_before(dir: &Path) -> Result<Offered> {
    let layout = Layout::open_dir(dir)?;
    let descriptor = layout.resolve(None, &Platform::host())?;
    let raw = layout.read_blob(&descriptor, MAX_MANIFEST_SIZE)?;
    let manifest = DeltaManifest::parse(&raw)?;
    Ok(Offered { digest: digest_of(&raw), raw, manifest, place: Place::Local(Arc::new(layout)) })
}

/// Is this the name of an image of that repository, wherever it was mirrored to?
fn is_of(name: &str, repository: &str) -> bool {
    let Some((_, path)) = name.split_once('/') else { return false };
    let path = path.split('@').next().unwrap_or(path);
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    path == repository
        || path.ends_with(&format!("/{repository}"))
        || repository.ends_with(&format!("/{path}"))
}

fn bytes_of(plan: &RebuildPlan) -> u64 {
    plan.download_bytes()
}

/// The manifests of the images that a document means: itself, or those of its platforms.
fn images_of(root: &RawManifest) -> Result<Vec<Digest>> {
    if root.kind() != DocumentKind::Index {
        return Ok(vec![root.digest.clone()]);
    }
    let index = document::index(&root.bytes, &root.digest)?;
    Ok(index.manifests().map(|entry| entry.digest().clone()).collect())
}

impl RawManifest {
    pub(super) fn kind(&self) -> DocumentKind {
        DocumentKind::of_document(&self.media_type.as_str().into(), &self.bytes)
    }

    /// What an index says of it.
    pub(super) fn entry(&self) -> Descriptor {
        let size = self.bytes.len() as u64;
        let mut entry = Descriptor::new(self.media_type.as_str().into(), size, self.digest.clone());
        entry.set_artifact_type(document::listed(&self.bytes).0);
        entry
    }
}

impl Collected {
    fn bytes(&mut self, digest: &Digest, bytes: &[u8]) {
        let piece =
            Piece { digest: digest.clone(), size: bytes.len() as u64, from: From::Bytes(bytes.to_vec()) };
        self.pieces.push(piece);
    }

    pub(super) fn document(&mut self, raw: &RawManifest) {
        self.bytes(&raw.digest, &raw.bytes);
    }

    pub(super) fn blob(&mut self, blob: &Descriptor, place: &Place) {
        let from = From::Place(Box::new(blob.clone()), place.clone());
        self.pieces.push(Piece { digest: blob.digest().clone(), size: blob.size(), from });
    }

    /// The blobs that the plan names, and the delta that they are of.
    fn layers(&mut self, plan: &RebuildPlan, by: Option<&Offered>, place: &Place) -> Result<()> {
        for layer in &plan.layers {
            let Some(way) = layer.ways.first() else { continue };
            match (way.origin, by) {
                (Origin::Whole, _) => self.blob(&way.blob, place),
                (Origin::Patch | Origin::Carried, Some(by)) => {
                    self.blob(&way.blob, &by.place);
                    if let Keep::Exact(making) = &layer.keep
                        && let Some(fix) = &making.fix
                    {
                        self.blob(fix, &by.place);
                    }
                }
                _ => {}
            }
        }
        if let Some(by) = by {
            self.bytes(&by.digest, &by.raw);
            let config = parse_manifest(&by.raw)?.config().clone();
            self.blob(&config, &by.place);
            let mut entry =
                Descriptor::new(document::IMAGE_MANIFEST.into(), by.raw.len() as u64, by.digest.clone());
            entry.set_artifact_type(Some(artifact::ARTIFACT_TYPE.into()));
            self.entries.push((entry, None));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrored_repositories_are_known_by_the_end_of_their_path() {
        for (name, repository, known) in [
            ("inner.example/app:1", "app", true),
            ("inner.example:5000/mirror/org/app@sha256:0", "org/app", true),
            ("inner.example/app:1", "org/app", true),
            ("inner.example/myapp:1", "app", false),
            ("app", "app", false),
        ] {
            assert_eq!(is_of(name, repository), known, "{name} {repository}");
        }
    }
}
