//! Opens what a reference names and reads its metadata, counting every byte.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oci_spec::image::Descriptor;
use tokio::sync::OnceCell;

use super::request::PlaceOptions;
use crate::artifact::{self, Delta, DeltaManifest, Image, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};
use crate::digest::{Digest, digest_of};
use crate::error::{Advice, Error, Result};
use crate::fetch::Place;
use crate::layout::Layout;
use crate::patch;
use crate::platform::Platform;
use crate::proxy::{Proxy, inspect_raw};
use crate::reference::Reference;
use crate::registry::Blobs;
use crate::store::{Inventory, StoredImage};

/// A manifest and the place that it and its blobs are in.
#[derive(Debug)]
pub(crate) struct Opened {
    reference: Reference,
    pub place: Place,
    pub digest: Digest,
    pub manifest: Vec<u8>,
    /// The manifest is what skopeo made of a Docker one, which `digest` is of: [`image`](Self::image) reads that.
    converted: bool,
    /// The platform that the user insists on.
    platform: Option<Platform>,
    /// Bytes of metadata read so far.
    read: AtomicU64,
    /// What [`image`](Self::image) read.
    image: OnceCell<Image>,
}

impl Opened {
    /// Resolves `reference` and reads its manifest.
    pub(crate) async fn open(reference: &Reference, options: &PlaceOptions, spool: &Path) -> Result<Self> {
        match Opened::ask(reference, options).await? {
            Some(opened) => Ok(opened),
            None => Opened::read(reference, options, spool),
        }
    }

    /// The same in a registry; `None` for what is on this machine.
    pub(crate) async fn ask(reference: &Reference, options: &PlaceOptions) -> Result<Option<Self>> {
        let Reference::Docker { .. } = reference else { return Ok(None) };
        let required = options.platform.clone();
        let platform = required.clone().unwrap_or_else(Platform::host);
        let proxy = Proxy::new(&reference.skopeo(), options.skopeo(platform));
        let (digest, manifest) = proxy.manifest().await?;
        let found = digest_of(&manifest);
        let converted = found != digest;
        if converted && !artifact::may_be_converted(&manifest)? {
            return Err(Error::verification(format!(
                "{reference}: manifest digest mismatch: expected {digest}, found {found}"
            )));
        }
        let place = remote(proxy, reference);
        Ok(Some(Opened::new(reference, place, digest, manifest, converted, required)))
    }

    /// The same on this machine; a compressed archive is unpacked into `spool`.
    pub(crate) fn read(reference: &Reference, options: &PlaceOptions, spool: &Path) -> Result<Self> {
        let layout = Layout::open(reference, spool)?
            .ok_or_else(|| Error::local(format!("{reference} is not on this machine")))?;
        let required = options.platform.clone();
        let platform = required.clone().unwrap_or_else(Platform::host);
        let descriptor = layout.resolve(reference.image_name(), &platform)?;
        let manifest = layout.read_blob(&descriptor, MAX_MANIFEST_SIZE)?;
        let (digest, place) = (descriptor.digest().clone(), Place::Local(Arc::new(layout)));
        Ok(Opened::new(reference, place, digest, manifest, false, required))
    }

    /// A manifest that was read before, in the place that its blobs are read from.
    ///
    /// # Errors
    /// Verification when it is not the one with this digest.
    pub(crate) fn seen(
        reference: &Reference,
        place: Place,
        digest: &Digest,
        manifest: Vec<u8>,
    ) -> Result<Self> {
        let found = digest_of(&manifest);
        if found != *digest {
            return Err(Error::verification(format!(
                "{reference}: manifest digest mismatch: expected {digest}, found {found}"
            )));
        }
        Ok(Opened::new(reference, place, digest.clone(), manifest, false, None))
    }

    fn new(
        reference: &Reference,
        place: Place,
        digest: Digest,
        manifest: Vec<u8>,
        converted: bool,
        platform: Option<Platform>,
    ) -> Self {
        let read = AtomicU64::new(manifest.len() as u64);
        Opened {
            reference: reference.clone(),
            place,
            digest,
            manifest,
            converted,
            platform,
            read,
            image: OnceCell::new(),
        }
    }

    /// The delta manifest, if this is one.
    pub(crate) fn delta(&self) -> Result<Option<DeltaManifest>> {
        if artifact::is_delta(&self.manifest)? {
            DeltaManifest::parse(&self.manifest).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Is this a delta?
    pub(crate) fn is_delta(&self) -> bool {
        artifact::is_delta(&self.manifest).unwrap_or(false)
    }

    /// Refuses anything but the manifest with this digest: the image's, the delta's target, or of an
    /// index in the registry that leads to the image.
    pub(crate) async fn expect(&self, expected: &Digest, options: &PlaceOptions) -> Result<()> {
        let target = self.delta()?.map(|delta| delta.target_manifest.digest().clone());
        if self.digest == *expected || target.as_ref() == Some(expected) {
            return Ok(());
        }
        if let Reference::Docker { .. } = &self.reference {
            let options = options.skopeo(Platform::host());
            let index = inspect_raw(&self.reference.skopeo(), &options).await?;
            let lists = String::from_utf8_lossy(&index).contains(self.digest.as_ref());
            if digest_of(&index) == *expected && lists {
                return Ok(());
            }
        }
        Err(Error::verification(format!(
            "{}: digest mismatch: expected {expected}, found {}",
            self.reference, self.digest
        )))
    }

    /// The target image inside a delta.
    pub(crate) async fn target_of(&self, delta: DeltaManifest) -> Result<Delta> {
        let manifest = self.blob(&delta.target_manifest, MAX_MANIFEST_SIZE).await?;
        let config = self.blob(&delta.target_config, MAX_CONFIG_SIZE).await?;
        let target = Image::parse(manifest, delta.target_manifest.digest(), config)?;
        self.require_platform(&target)?;
        delta.with_target(target)
    }

    /// The image itself, when this is no delta. Always as the registry has it, whatever skopeo converts.
    pub(crate) async fn image(&self) -> Result<Image> {
        let image = self.image.get_or_try_init(|| self.read_image()).await?;
        self.require_platform(image)?;
        Ok(image.clone())
    }

    async fn read_image(&self) -> Result<Image> {
        let proxy = match &self.place {
            Place::Remote(blobs) if self.converted => blobs.proxy(),
            _ => None,
        };
        match proxy {
            Some(proxy) => self.docker_image(proxy).await,
            None => self.image_of(self.manifest.clone(), &self.digest).await,
        }
    }

    async fn image_of(&self, manifest: Vec<u8>, digest: &Digest) -> Result<Image> {
        let config = artifact::image_config(&manifest)?.ok_or_else(|| {
            Error::misfit(format!("{} is neither an image nor an oci-delta artifact", self.digest))
        })?;
        let config = self.blob(&config, MAX_CONFIG_SIZE).await?;
        let mut image = Image::parse(manifest, digest, config)?;
        if let Place::Local(layout) = &self.place {
            layout.correct_sizes(&mut image)?;
        }
        Ok(image)
    }

    /// The image proxy shows what skopeo makes of a Docker manifest, with a config that it writes anew.
    async fn docker_image(&self, proxy: &Proxy) -> Result<Image> {
        let pinned = self.reference.pinned(&self.digest).skopeo();
        let raw = inspect_raw(&pinned, proxy.options()).await?;
        let config = proxy.config().await?;
        self.count((raw.len() + config.len()) as u64);
        if artifact::is_schema1(&raw) {
            // It has no config, and its digest is not that of its bytes: what skopeo makes of it is the image.
            let image = Image::parse(self.manifest.clone(), &digest_of(&self.manifest), config)?;
            return Ok(Image { converted_from: Some(self.digest.clone()), ..image });
        }
        let image = self.image_of(raw, &self.digest).await?;
        let converted = digest_of(&config);
        let converted_config = (converted != image.config_digest).then_some(converted);
        Ok(Image { converted_config, ..image })
    }

    /// The image that is here under this digest, if there is one; `wanted` is the manifest that REF leads to.
    pub(crate) async fn find<'a>(
        &self,
        inventory: &'a Inventory,
        wanted: &Digest,
    ) -> Result<Option<&'a StoredImage>> {
        if let Some(found) = inventory.by_manifest(wanted) {
            return Ok(Some(found));
        }
        // A store that keeps no notes knows a Docker image by its manifest in OCI's terms only.
        if *wanted != self.digest || !(self.converted || artifact::is_docker(&self.manifest)?) {
            return Ok(None);
        }
        let known = self.image().await?.in_oci_terms()?.manifest_digest;
        Ok(inventory.by_manifest(&known))
    }

    /// Refuses an image that is not for the platform that was asked for. Unasked, any will do:
    /// an image need not run on the machine that fetches it.
    ///
    /// # Errors
    /// Misfit.
    pub(crate) fn require_platform(&self, image: &Image) -> Result<()> {
        match &self.platform {
            Some(wanted) if !wanted.accepts(&image.platform) => {
                Err(Error::misfit(format!("the image is for platform {}, not {wanted}", image.platform))
                    .with_hint(Advice::AnyPlatform))
            }
            _ => Ok(()),
        }
    }

    async fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        self.count(descriptor.size());
        self.place.read_blob(descriptor, max).await
    }

    /// Bytes of metadata read so far.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The blobs that belong to `reference` in a registry.
pub(crate) fn remote(proxy: Proxy, reference: &Reference) -> Place {
    let image = match reference {
        Reference::Docker { name } => Some(name.clone()),
        _ => None,
    };
    Place::Remote(Arc::new(Blobs::new(proxy, image)))
}

/// Is this blob of a delta a patch? Its first bytes decide, where they can be had before it is fetched.
pub(crate) fn is_patch(place: &Place, blob: &Descriptor) -> bool {
    match place.head(blob, patch::HEAD) {
        Some(head) => patch::is_patch(&head),
        None => artifact::claims_patch(blob),
    }
}

/// Cores of this machine that we may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Blobs in flight and at work for a source; `jobs` sets both.
pub(crate) fn concurrency(place: &Place, jobs: Option<usize>) -> crate::fetch::Concurrency {
    let cores = cores();
    match (place, jobs.filter(|n| *n > 0)) {
        (_, Some(n)) => crate::fetch::Concurrency { downloads: n, workers: n + 1 },
        // Two hide the latency of a registry; the extra worker lets a download
        // start while the last layer is finished.
        (Place::Remote(_), None) => crate::fetch::Concurrency { downloads: 2, workers: cores.max(3) },
        (Place::Local(_), None) => crate::fetch::Concurrency { downloads: cores, workers: cores },
    }
}
