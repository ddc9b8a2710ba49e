//! Where the signatures of an image are: embedded in a delta, under the image's `.sig` tag, among its referrers, beside
//! it in a layout; and how they go along to another place.

use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::Descriptor;

use super::opened::Opened;
use super::request::PlaceOptions;
use crate::artifact::{DeltaManifest, parse_manifest};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::fetch::Place;
use crate::layout::{Content, Layout, Parcel};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{MAX_LISTING, RemoteRepository};
use crate::session::Session;
use crate::store::StoreRef;
use crate::trust::{MAX_PAYLOAD, MAX_SIGNATURES, SIGNATURE, SIMPLE_SIGNING, Signature, signed_manifest};

/// Largest manifest of signatures in bytes: fifty with certificates beside them.
const MAX_ARTIFACT: u64 = 1 << 20;

/// The type of signatures among the referrers (cosign, registry-referrers-mode oci-1-1).
pub(super) const REFERRER_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Signatures as they are kept: a manifest, its config, and payloads as layers.
#[derive(Debug, Clone)]
pub(super) struct SignatureArtifact {
    manifest: Vec<u8>,
    /// Config and payloads.
    parts: Vec<(Digest, Content)>,
    signatures: Vec<Signature>,
    is_referrer: bool,
}

/// The signatures that a delta embeds.
#[derive(Debug, Clone)]
pub(crate) struct Embedded {
    /// Their manifests.
    manifests: Vec<Descriptor>,
    place: Place,
}

impl Embedded {
    pub(crate) fn of(delta: &DeltaManifest, place: &Place) -> Self {
        Embedded { manifests: delta.signatures.clone(), place: place.clone() }
    }
}

impl SignatureArtifact {
    /// Reads the parts of a manifest; `None` when it holds no signatures of cosign's.
    pub(super) async fn read(place: &Place, manifest: Vec<u8>) -> Result<Option<Self>> {
        let parsed = parse_manifest(&manifest)?;
        let is_payload = |layer: &&Descriptor| layer.media_type().to_string() == SIMPLE_SIGNING;
        let payloads: Vec<&Descriptor> = parsed.layers().iter().filter(is_payload).collect();
        if payloads.is_empty() {
            return Ok(None);
        }
        bounded(payloads.len())?;
        let (mut parts, mut signatures) = (Vec::new(), Vec::new());
        for part in payloads {
            let payload = place.read_blob(part, MAX_PAYLOAD).await?;
            if !parts.iter().any(|(known, _)| known == part.digest()) {
                parts.push((part.digest().clone(), Content::Bytes(payload.clone())));
            }
            let annotation = part.annotations().as_ref().and_then(|a| a.get(SIGNATURE));
            signatures.extend(annotation.map(|text| Signature { payload, signature: text.clone() }));
        }
        let config = place.read_blob(parsed.config(), MAX_PAYLOAD).await?;
        parts.push((parsed.config().digest().clone(), Content::Bytes(config)));
        Ok(Some(SignatureArtifact { is_referrer: parsed.subject().is_some(), manifest, parts, signatures }))
    }

    fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, content)| content.size()).sum::<u64>() + self.manifest.len() as u64
    }

    /// It points to the image by its `subject`.
    pub(super) fn is_referrer(&self) -> bool {
        self.is_referrer
    }

    /// Signatures in it.
    pub(super) fn count(&self) -> usize {
        self.signatures.len()
    }

    /// The same as it goes into a layout.
    pub(super) fn parcel(&self) -> Parcel<'_> {
        Parcel {
            manifest: &self.manifest,
            blobs: self.parts.iter().map(|(digest, content)| (digest, content)).collect(),
            artifact_type: Some(REFERRER_TYPE),
            replaces: |_| false,
        }
    }
}

fn bounded(found: usize) -> Result<()> {
    if found <= MAX_SIGNATURES {
        return Ok(());
    }
    let what = format!("the image has {found} signatures or more, at most {MAX_SIGNATURES} are looked at");
    Err(Error::verification(what))
}

/// What was found of the signatures of one image.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub artifacts: Vec<SignatureArtifact>,
    /// What kept from looking into a place.
    trouble: Option<Error>,
}

impl Found {
    /// All of them.
    pub(super) fn signatures(&self) -> Vec<Signature> {
        self.artifacts.iter().flat_map(|artifact| artifact.signatures.iter().cloned()).collect()
    }

    /// Bytes that were read.
    pub(super) fn bytes(&self) -> u64 {
        self.artifacts.iter().map(SignatureArtifact::bytes).sum()
    }

    /// # Errors
    /// What kept from looking into a place.
    pub(super) fn trouble(&mut self) -> Result<()> {
        self.trouble.take().map_or(Ok(()), Err)
    }

    /// What is told where none of them is good: a place that cannot be looked into may have had a good one.
    pub(super) fn explain(self, refusal: Error) -> Error {
        match self.trouble {
            Some(trouble) if trouble.kind() == Kind::Transient => {
                trouble.context("signatures cannot be read")
            }
            Some(trouble) => Error::verification(format!("{refusal}; another one cannot be read: {trouble}"))
                .with_source(trouble),
            None => refusal,
        }
    }

    /// Adds what was read; trouble with one place ends no search in others, an interrupt does.
    fn add(&mut self, read: Result<Option<SignatureArtifact>>) -> Result<()> {
        match read {
            Ok(Some(artifact)) => {
                let known = self.artifacts.iter().any(|other| other.manifest == artifact.manifest);
                self.artifacts.extend((!known).then_some(artifact));
                bounded(self.artifacts.iter().map(|artifact| artifact.signatures.len()).sum())
            }
            Ok(None) => Ok(()),
            // Not there.
            Err(e) if e.kind() == Kind::Misfit => Ok(()),
            Err(e) if e.kind() == Kind::Interrupted => Err(e),
            Err(e) => {
                self.trouble.get_or_insert(e);
                Ok(())
            }
        }
    }

    /// Those that a delta embeds.
    pub(super) async fn embedded(&mut self, delta: &Embedded) -> Result<()> {
        bounded(delta.manifests.len())?;
        for manifest in &delta.manifests {
            let read = async {
                let bytes = delta.place.read_blob(manifest, MAX_ARTIFACT).await?;
                SignatureArtifact::read(&delta.place, bytes).await
            };
            self.add(read.await)?;
        }
        Ok(())
    }

    /// Those of an image where `reference` is, in a registry or a layout.
    pub(super) async fn beside(
        &mut self,
        session: &Session,
        reference: &Reference,
        place: &PlaceOptions,
        image: &Digest,
    ) -> Result<()> {
        match reference {
            Reference::Docker { name } => self.in_registry(session, name, place, image).await,
            other => match Layout::open(other, &session.spool)? {
                Some(layout) => self.in_layout(&Place::Local(layout.into()), image).await,
                None => Ok(()),
            },
        }
    }

    async fn in_registry(
        &mut self,
        session: &Session,
        name: &DockerReference,
        place: &PlaceOptions,
        image: &Digest,
    ) -> Result<()> {
        // A policy is about images; what signatures are worth is seen here.
        let mut place = PlaceOptions { platform: None, ..place.clone() };
        place.proxy.insecure_policy = true;
        self.add(read_one(session, &signature_tag(name, image), &place).await)?;
        let options = place.skopeo(Platform::host());
        let repository = RemoteRepository::new(name, &options).remembered(session.notes.as_deref());
        let listed = match repository.referrers(image, REFERRER_TYPE, MAX_LISTING).await {
            Ok(listing) => listing.entries,
            Err(e) => return self.add(Err(e)),
        };
        let is_signature = |entry: &Descriptor| {
            entry.artifact_type().as_ref().is_some_and(|t| t.to_string() == REFERRER_TYPE)
        };
        let listed: Vec<Descriptor> = listed.into_iter().filter(is_signature).collect();
        bounded(listed.len())?;
        let here = Reference::Docker { name: name.clone() };
        for entry in listed {
            self.add(read_one(session, &here.pinned(entry.digest()), &place).await)?;
        }
        Ok(())
    }

    /// Those that lie beside an image in a layout: their payloads name it.
    pub(super) async fn in_layout(&mut self, place: &Place, image: &Digest) -> Result<()> {
        let Place::Local(layout) = place else { return Ok(()) };
        for entry in layout.index()?.manifests() {
            let bytes = layout.peek(entry)?;
            if bytes.len() as u64 > MAX_ARTIFACT || parse_manifest(&bytes).is_err() {
                continue;
            }
            let read = SignatureArtifact::read(place, bytes).await;
            let names = |artifact: &SignatureArtifact| {
                artifact.signatures.iter().any(|s| signed_manifest(&s.payload).as_ref() == Some(image))
            };
            self.add(read.map(|artifact| artifact.filter(names)))?;
        }
        Ok(())
    }

    /// Keeps them beside the image in our repository, for whoever it goes on to.
    pub(super) fn keep(&self, session: &Session, repository: &StoreRef) -> Result<()> {
        let StoreRef::Layout(dir) = repository else { return Ok(()) };
        self.artifacts.iter().try_for_each(|artifact| artifact.parcel().write_dir(dir, None, &session.cancel))
    }
}

/// The tag under which cosign keeps the signatures of an image.
pub(super) fn signature_tag(name: &DockerReference, image: &Digest) -> Reference {
    let tag = format!("sha256-{}.sig", image.digest());
    let (registry, repository) = (name.registry().to_owned(), name.repository().to_owned());
    Reference::Docker { name: DockerReference::with_tag(registry, repository, tag) }
}

async fn read_one(
    session: &Session,
    reference: &Reference,
    place: &PlaceOptions,
) -> Result<Option<SignatureArtifact>> {
    let opened = Opened::open(reference, place, &session.spool).await?;
    SignatureArtifact::read(&opened.place, opened.manifest).await
}
