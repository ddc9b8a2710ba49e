//! Podman's storage as a layout: its manifests and configs are blobs, and so are the plain tars of its layers. What a
//! layer was compressed to is not kept.

use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::{MAX_INDEX_SIZE, REF_NAME, Storage, dir};
use crate::digest::{DiffId, Digest, digest_of, parse_digest};
use crate::document::Index;
use crate::error::{Error, Result};
use crate::podman::{self, ImageRecord};
use crate::reference::Reference;
use crate::region::Region;

/// Fewest digits of an id that name an image.
const SHORTEST_ID: usize = 4;

#[derive(Debug)]
pub(super) struct InPodman {
    storage: Arc<podman::Storage>,
}

impl InPodman {
    pub(super) fn new(storage: Arc<podman::Storage>) -> Self {
        InPodman { storage }
    }

    /// The entry of an image's first manifest.
    fn entry(&self, image: &ImageRecord, name: Option<&str>) -> Result<Option<Descriptor>> {
        let Some(digest) = image.manifests.first() else { return Ok(None) };
        let Some(bytes) = self.storage.document(digest, MAX_INDEX_SIZE)? else { return Ok(None) };
        let mut entry = Descriptor::new(dir::media_type(&bytes), bytes.len() as u64, digest.clone());
        if let Some(name) = name {
            entry.set_annotations(Some([(REF_NAME.to_owned(), name.to_owned())].into()));
        }
        Ok(Some(entry))
    }

    /// Is this image meant? `wanted` are all the names that `name` may be.
    fn is_meant(image: &ImageRecord, name: &str, wanted: &[String]) -> bool {
        let id = name.strip_prefix('@').unwrap_or(name);
        let is_id = id.len() >= SHORTEST_ID && image.id.starts_with(id);
        is_id || image.names.iter().any(|name| wanted.contains(name))
    }
}

/// What podman may have written for `name`: with its host and tag, or as one of this machine.
fn names(name: &str) -> Vec<String> {
    let whole = |name: &str| match name.parse() {
        Ok(Reference::Docker { name }) => Some(name.whole()),
        _ => None,
    };
    let local = format!("localhost/{name}");
    [name.to_owned()].into_iter().chain(whole(name)).chain(whole(&local)).collect()
}

impl Storage for InPodman {
    fn index(&self) -> Result<Index> {
        let mut entries = Vec::new();
        for image in &self.storage.known().images {
            let named = image.names.iter().map(|name| Some(name.as_str()));
            let nameless = image.names.is_empty().then_some(None);
            for name in named.chain(nameless) {
                entries.extend(self.entry(image, name)?.map(Ok));
            }
        }
        Ok(Index { entries })
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        if let Some(tar) = self.storage.tar(&DiffId::new(digest.clone()))? {
            return Ok(Some(tar));
        }
        let document = self.storage.document(digest, MAX_INDEX_SIZE)?;
        Ok(document.map(|bytes| {
            let len = bytes.len() as u64;
            Region::of(Arc::new(bytes.into_boxed_slice()), len)
        }))
    }

    /// Podman's ways to name an image: by its name with or without host and tag, by its id or the beginning of that,
    /// by the digest of its manifest.
    fn named(&self, name: &str) -> Result<Option<Descriptor>> {
        let known = self.storage.known();
        if let Some((_, digest)) = name.rsplit_once('@')
            && let Ok(digest) = parse_digest(digest, name)
            && let Some(bytes) = self.storage.document(&digest, MAX_INDEX_SIZE)?
            && digest_of(&bytes) == digest
        {
            return Ok(Some(Descriptor::new(dir::media_type(&bytes), bytes.len() as u64, digest)));
        }
        let wanted = names(name);
        let meant: Vec<&ImageRecord> =
            known.images.iter().filter(|image| Self::is_meant(image, name, &wanted)).collect();
        match meant[..] {
            [] => Ok(None),
            [image] => self.entry(image, None),
            // The name as it was written counts more than what it may be short for.
            _ => match meant.iter().find(|image| image.names.iter().any(|has| has == name)) {
                Some(image) => self.entry(image, None),
                None => Err(Error::usage(format!(
                    "{}: {} images may be meant by {name:?}",
                    self.storage.place(),
                    meant.len()
                ))
                .with_hint("give the name that podman images shows, or more of the id")),
            },
        }
    }
}
