//! What points to an image, and what is listed beside it: goes along as it is.

use oci_spec::distribution::Reference as DockerReference;

use super::Collected;
use super::collect::Collector;
use crate::artifact;
use crate::bundle::{MAX_DEPTH, Referrer};
use crate::digest::parse_digest;
use crate::document::{self, DocumentKind};
use crate::engine::opened::remote;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::reference::Reference;
use crate::registry::{RawManifest, RemoteRepository};

/// Most things that point to one image, and most documents that are no images.
const MAX_REFERRERS: usize = 256;

/// How cosign ends the tags of what belongs to an image.
const TAGS: [&str; 3] = ["sig", "att", "sbom"];

impl Collector<'_> {
    /// Everything that points to `subject`, and what points to that.
    pub(super) async fn referrers(
        &self,
        name: &DockerReference,
        repository: &RemoteRepository,
        subject: &str,
        collected: &mut Collected,
        depth: usize,
    ) -> Result<()> {
        let digest = parse_digest(subject, "subject")?;
        let listed = repository.referrers(&digest, "", u64::MAX).await?;
        let mut found: Vec<(Option<String>, String)> =
            listed.entries.iter().map(|entry| (None, entry.digest().to_string())).collect();
        for ending in TAGS {
            let tag = format!("{}.{ending}", subject.replacen(':', "-", 1));
            found.push((Some(tag.clone()), tag));
        }
        for (tag, what) in found {
            let raw = match repository.raw(&what).await? {
                Some(raw) => raw,
                None if tag.is_some() => continue,
                None => {
                    return Err(Error::misfit(format!(
                        "{}: {what} points to {subject}, but is not there",
                        name.whole()
                    ))
                    .with_hint("a bundle can be made without what points to its images"));
                }
            };
            if artifact::is_delta(&raw.bytes).unwrap_or(false) || self.request.have.has_manifest(&raw.digest)
            {
                continue;
            }
            let known =
                |referrer: &Referrer| referrer.digest == raw.digest.to_string() && referrer.tag == tag;
            if collected.bundled.referrers.iter().any(known) {
                continue;
            }
            if collected.bundled.referrers.len() >= MAX_REFERRERS || depth >= MAX_DEPTH {
                return Err(too_many(&name.whole()));
            }
            collected.outcome.referrers += 1;
            let shown = tag.as_ref().map(|tag| format!("{}/{}:{tag}", name.registry(), name.repository()));
            collected.bundled.referrers.push(Referrer { digest: raw.digest.to_string(), tag });
            collected.entries.push((raw.entry(), shown));
            let reference = Reference::Docker { name: name.clone() };
            self.all_of(&reference, repository, &raw, collected, 0).await?;
            Box::pin(self.referrers(name, repository, raw.digest.as_ref(), collected, depth + 1)).await?;
        }
        Ok(())
    }

    /// A document with all that it is made of; of an index its manifests with all of theirs.
    pub(super) async fn all_of(
        &self,
        reference: &Reference,
        repository: &RemoteRepository,
        raw: &RawManifest,
        collected: &mut Collected,
        depth: usize,
    ) -> Result<()> {
        let (digest, at) = (raw.digest.to_string(), reference.pinned(&raw.digest));
        if collected.whole.contains(&digest) {
            return Ok(());
        }
        if collected.whole.len() >= MAX_REFERRERS || depth >= MAX_DEPTH {
            return Err(too_many(&reference.to_string()));
        }
        collected.whole.insert(digest);
        collected.document(raw);
        let options = self.request.place.skopeo(Platform::host());
        let place = remote(Proxy::new(&at.skopeo(), options), &at);
        let is_index = raw.kind() == DocumentKind::Index;
        for part in document::parts(&raw.bytes) {
            // A delta has a manifest as a layer; only what an index lists are documents of the registry.
            if !is_index || DocumentKind::of(part.media_type()) == DocumentKind::Other {
                collected.blob(&part, &place);
                continue;
            }
            let gone = || Error::misfit(format!("{at} lists {}, which is not there", part.digest()));
            let listed = repository.raw(part.digest().as_ref()).await?.ok_or_else(gone)?;
            Box::pin(self.all_of(reference, repository, &listed, collected, depth + 1)).await?;
        }
        Ok(())
    }
}

fn too_many(name: &str) -> Error {
    Error::verification(format!(
        "{name}: more than {MAX_REFERRERS} things point to it or stand beside it, or in rows longer than {MAX_DEPTH}"
    ))
}
