//! `verify` of an OCI layout: every blob is hashed again, and every layer's tar. Indexes and artifacts that
//! others put there as well.

use std::collections::HashSet;
use std::io;

use oci_spec::image::{Descriptor, Digest};

use super::Verified;
use crate::artifact::{self, Image, MAX_MANIFEST_SIZE};
use crate::cancel::Cancel;
use crate::digest::{DiffId, LayerHasher, VerifyReader};
use crate::document::{self, DocumentKind};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::layout::{Layout, MAX_INDEX_DEPTH, MAX_INDEX_SIZE, full_name, ref_name};

/// Reads what the index names again; `broken` is told of each entry that is damaged.
pub(super) fn verify(
    layout: &Layout,
    wanted: Option<&str>,
    cancel: &Cancel,
    broken: &mut dyn FnMut(&str),
) -> Result<Verified> {
    let mut check = Check { layout, cancel, seen: HashSet::new(), verified: Verified::default() };
    for entry in &layout.index()?.entries {
        let (name, digest) = match entry {
            Ok(entry) => (ref_name(entry).or_else(|| full_name(entry)), Some(entry.digest().to_string())),
            Err(odd) => (None, odd.digest.as_ref().map(Digest::to_string)),
        };
        if wanted.is_some_and(|wanted| Some(wanted) != digest.as_deref() && Some(wanted) != name) {
            continue;
        }
        check.verified.images += 1;
        let shown = name.or(digest.as_deref()).unwrap_or("index.json");
        match entry {
            Err(odd) => broken(&format!("{shown}: {}", odd.why)),
            Ok(entry) => {
                if let Err(e) = check.entry(entry, 0) {
                    cancel.check()?;
                    broken(&format!("{shown}: {e}"));
                }
            }
        }
    }
    Ok(check.verified)
}

struct Check<'a> {
    layout: &'a Layout,
    cancel: &'a Cancel,
    /// Manifests in indexes, each of which is read once.
    seen: HashSet<Digest>,
    verified: Verified,
}

impl Check<'_> {
    fn entry(&mut self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        match self.layout.kind(descriptor)? {
            _ if depth > MAX_INDEX_DEPTH => Err(Error::verification("image indexes are nested too deep")),
            DocumentKind::Other => self.blob(descriptor),
            DocumentKind::Manifest => self.manifest(descriptor),
            DocumentKind::Index => {
                self.count(self.layout.read_blob(descriptor, MAX_INDEX_SIZE)?.len() as u64);
                for entry in &self.layout.nested(descriptor)?.entries {
                    let entry = entry.as_ref().map_err(|odd| Error::verification(odd.why.clone()))?;
                    if self.seen.insert(entry.digest().clone()) {
                        self.entry(entry, depth + 1).map_err(|e| e.context(entry.digest()))?;
                    }
                }
                Ok(())
            }
        }
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<()> {
        if let Some(image) = self.layout.image(descriptor)? {
            return self.image(&image);
        }
        let incomplete = || Error::verification("the image is not complete");
        if self.layout.blob(descriptor.digest())?.is_none() {
            return Err(incomplete());
        }
        let manifest = self.layout.read_blob(descriptor, MAX_MANIFEST_SIZE)?;
        if artifact::image_config(&manifest)?.is_some() && !artifact::is_delta(&manifest)? {
            return Err(incomplete());
        }
        self.count(manifest.len() as u64);
        document::parts(&manifest).iter().try_for_each(|part| self.blob(part))
    }

    fn image(&mut self, image: &Image) -> Result<()> {
        self.count(image.manifest_raw.len() as u64);
        self.count(image.config_raw.len() as u64);
        for (diff_id, blob) in image.diff_ids.iter().zip(&image.layers) {
            // What is in it cannot be told.
            if artifact::unreadable(blob).is_some() || self.is_elsewhere(blob)? {
                self.blob(blob)?;
                continue;
            }
            layer(self.layout, diff_id, blob, self.cancel)?;
            self.count(blob.size());
        }
        Ok(())
    }

    /// A blob of which nothing is known but its digest.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<()> {
        if self.is_elsewhere(descriptor)? {
            return Ok(());
        }
        let digest = descriptor.digest();
        let blob = self.layout.blob(digest)?.ok_or_else(|| {
            Error::verification(format!("blob {digest} ({}) is not there", descriptor.media_type()))
        })?;
        VerifyReader::new(self.cancel.watch(blob.reader()), digest.clone(), blob.len()).drain().at(digest)?;
        self.count(blob.len());
        Ok(())
    }

    /// Is it rightly not here?
    fn is_elsewhere(&self, blob: &Descriptor) -> Result<bool> {
        Ok(artifact::is_elsewhere(blob).is_some() && self.layout.blob(blob.digest())?.is_none())
    }

    fn count(&mut self, bytes: u64) {
        self.verified.blobs += 1;
        self.verified.bytes += bytes;
    }
}

/// Reads a layer again: its blob has its digest, and its tar is the one with this diff_id.
///
/// # Errors
/// Misfit when it is absent; Verification when it is another; Interrupted.
pub(super) fn layer(layout: &Layout, diff_id: &DiffId, layer: &Descriptor, cancel: &Cancel) -> Result<()> {
    let region = layout.require_blob(layer)?;
    let mut blob = VerifyReader::new(cancel.watch(region.reader()), layer.digest().clone(), layer.size());
    let mut tar = LayerHasher::new(cancel.watch(io::sink()), u64::MAX);
    let read = encoding::decompress(&mut blob, encoding::MAX_WINDOW_LOG)
        .and_then(|mut plain| io::copy(&mut plain, &mut tar));
    // A wrong digest says more than the stream that it breaks.
    blob.drain().at(layer.digest())?;
    read.map_err(|e| Error::from_io(e, "layer").context(layer.digest()))?;
    tar.finish(diff_id)?;
    Ok(())
}
