//! Applies a delta outside of any repository: the image that comes out holds the layers that the delta changes, for a
//! place that has the others.

use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;

use super::export::{incomplete, write_image};
use super::opened::Opened;
use super::outcome::Outcome;
use super::request::{BaseChoice, DeltaPolicy, Deltas, FetchRequest, Limits, PlaceOptions};
use super::{fetch, fetch_changed};
use crate::artifact::{MAX_MANIFEST_SIZE, parse_manifest};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::exact::Exact;
use crate::fetch::on_thread;
use crate::layout::{Blobs, Content, Layout};
use crate::plan::Origin;
use crate::platform::Platform;
use crate::proxy::{Digests, copy_out};
use crate::reference::{Reference, has_transport};
use crate::registry::IMAGE_MANIFEST;
use crate::session::Session;
use crate::store::StoreRef;
use crate::trust::Trust;

/// A delta to apply.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// The delta.
    pub delta: Reference,
    /// Where the files of its base are.
    pub base: BaseChoice,
    /// podman's storage that has the base, where `base` names none.
    pub storage: Option<Storage>,
    /// Whose images are taken.
    pub trust: Trust,
    /// Whether layers become the blobs that were published.
    pub exact: Exact,
    /// How the delta is reached, if it is in a registry, and skopeo.
    pub place: PlaceOptions,
    /// Bounds on what comes.
    pub limits: Limits,
}

/// A storage of podman's and its relatives.
#[derive(Debug, Clone, Default)]
pub struct Storage {
    /// Its root; `None`: the one of this user, by storage.conf.
    pub root: Option<PathBuf>,
}

impl Storage {
    /// What is called so there, in skopeo's words.
    fn reference(&self, name: &str) -> String {
        match &self.root {
            Some(root) => format!("containers-storage:[{}@{}]{name}", driver(root), root.display()),
            None => format!("containers-storage:{name}"),
        }
    }

    /// An image by its id.
    fn image(&self, config: &Digest) -> String {
        self.reference(&format!("@{}", config.digest()))
    }
}

/// The driver of the storage in `root`. Where none is named, skopeo takes its own default and makes another storage there.
fn driver(root: &Path) -> &'static str {
    let has_images = |driver: &&str| root.join(format!("{driver}-images/images.json")).exists();
    DRIVERS.into_iter().find(has_images).unwrap_or(DRIVERS[0])
}

/// The drivers of storages, the usual one first (containers/storage).
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// Puts what the delta makes into the layout or archive `to`, without the layers that it does not change: those keep
/// their descriptors, for a place that has them.
///
/// # Errors
/// As [`fetch`]; Usage when `to` is neither; local I/O errors.
pub async fn apply(session: &Session, request: &ApplyRequest, to: &Reference) -> Result<Outcome> {
    incomplete(&to.to_string())?;
    let work = Work::begin(session, request).await?;
    let outcome = fetch_changed(session, &work.request).await?;
    work.write(&outcome, to.clone()).await?;
    Ok(Outcome { name: Some(to.to_string()), ..outcome })
}

/// Puts what the delta makes into podman's storage, where its base is, under a name if there is one. The image's id is
/// the digest of its config.
///
/// # Errors
/// As [`fetch`]; what skopeo says of the storage.
pub async fn import(session: &Session, request: &ApplyRequest, name: Option<&str>) -> Result<Outcome> {
    let storage = request.storage.clone().unwrap_or_default();
    let request = &ApplyRequest { storage: Some(storage.clone()), ..request.clone() };
    let work = Work::begin(session, request).await?;
    let outcome = fetch_changed(session, &work.request).await?;
    let to = match name {
        Some(name) => storage.reference(name),
        None => storage.image(&outcome.config),
    };
    let staging = work.scratch.join("staging");
    work.write(&outcome, Reference::Oci { dir: staging.clone(), name: None }).await?;
    let options = work.request.place.skopeo(Platform::host());
    let from = format!("oci:{}", staging.display());
    let copied = session.cancel.until(copy_out(&from, &to, Digests::Stay, &options)).await;
    match copied {
        Ok(()) => Ok(Outcome { name: Some(to), ..outcome }),
        Err(e) if e.kind() == Kind::Interrupted => Err(e),
        // The storage does not know its layers by the digests that the image gives them: it was built here, or copied
        // from somewhere else. It knows them by their diff_ids.
        Err(e) => {
            session.say(&format!("the image gets another digest in the storage: {e}"));
            let plain = FetchRequest { exact: Exact::Off, ..work.request.clone() };
            let outcome = fetch(session, &plain).await?;
            let whole = format!("oci:{}:{WHOLE}", work.repository.display());
            session.cancel.until(copy_out(&whole, &to, Digests::MayChange, &options)).await?;
            Ok(Outcome { name: Some(to), ..outcome })
        }
    }
}

/// The name of the image in the repository that is made for it.
const WHOLE: &str = "image";

/// A reference to a layout or archive: with a transport, or the path of an archive, as the reference tool takes it.
///
/// # Errors
/// Usage.
pub fn output(text: &str) -> Result<Reference> {
    match has_transport(text) {
        true => text.parse(),
        false => Ok(Reference::OciArchive { file: text.into(), name: None }),
    }
}

/// A delta at work, over a repository that lasts as long.
struct Work<'a> {
    session: &'a Session,
    request: FetchRequest,
    repository: PathBuf,
    scratch: PathBuf,
}

impl<'a> Work<'a> {
    async fn begin(session: &'a Session, request: &ApplyRequest) -> Result<Self> {
        let scratch = session.scratch()?;
        let place = request.place.told_to(&session.reporter);
        let mut base = request.base.clone();
        let manifest = Opened::open(&request.delta, &place, &session.spool).await?.delta()?;
        if manifest.is_none() {
            return Err(Error::misfit(format!("{} is not an oci-delta artifact", request.delta)));
        }
        if let Some(storage) = request.storage.as_ref().filter(|_| base.is_open()) {
            base.repository = Some(storage.reference("").parse()?);
        }
        let repository = scratch.join("repository");
        let request = FetchRequest {
            name: Some(WHOLE.to_owned()),
            deltas: Deltas { policy: DeltaPolicy::Only, ..Deltas::default() },
            base,
            trust: request.trust.clone(),
            exact: request.exact,
            place,
            limits: request.limits.clone(),
            ..FetchRequest::new(request.delta.clone(), StoreRef::Layout(repository.clone()))
        };
        Ok(Work { session, request, repository, scratch })
    }

    /// Writes the image with the layers that are there.
    async fn write(&self, outcome: &Outcome, to: Reference) -> Result<()> {
        let (outcome, cancel) = (outcome.clone(), self.session.cancel.clone());
        let dir = self.repository.clone();
        on_thread(move || {
            let (manifest, blobs) = changed(&dir, &outcome)?;
            write_image(&manifest, &blobs, &to, &cancel)
        })
        .await
    }
}

/// The manifest of the image in the layout `dir`, its config, and those of its layers that do not stay away.
fn changed(dir: &Path, outcome: &Outcome) -> Result<(Vec<u8>, Blobs)> {
    let layout = Layout::open_dir(dir)?;
    let gone = || Error::local("the image is gone from the repository that was made for it");
    let digest = outcome.manifest.clone().ok_or_else(gone)?;
    let size = layout.blob(&digest)?.ok_or_else(gone)?.len();
    let entry = Descriptor::new(IMAGE_MANIFEST.into(), size, digest);
    let manifest = layout.read_blob(&entry, MAX_MANIFEST_SIZE)?;
    let parsed = parse_manifest(&manifest)?;
    let layers = parsed.layers().iter().zip(&outcome.layers);
    let changed = layers.filter(|(_, layer)| layer.origin != Origin::Absent).map(|(blob, _)| blob);
    let mut blobs = Blobs::new();
    for blob in std::iter::once(parsed.config()).chain(changed) {
        if !blobs.iter().any(|(known, _)| known == blob.digest()) {
            blobs.push((blob.digest().clone(), Content::Region(layout.require_blob(blob)?)));
        }
    }
    Ok((manifest, blobs))
}
