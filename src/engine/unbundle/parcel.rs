//! What an image lacks in a registry: made and checked here, then written in an order that leaves nothing half there.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::Descriptor;

use super::Task;
use crate::cancel::Cancel;
use crate::digest::{Digest, VerifyReader};
use crate::document;
use crate::engine::fetch_changed;
use crate::engine::in_registry::InRegistry;
use crate::engine::request::{BaseChoice, DeltaPolicy, Deltas, FetchRequest};
use crate::error::{Error, IoContext as _, Result};
use crate::exact::Exact;
use crate::fetch::{Errand, Place, on_thread};
use crate::plan::Origin;
use crate::progress::Event;
use crate::region::Region;
use crate::registry::{Blobs, Change, RemoteRepository, Taken};
use crate::spool::Spool;
use crate::store::StoreRef;

/// Blobs that are sent at once, where `--jobs` says nothing.
const UPLOADS: usize = 3;

/// What goes into a repository of a registry.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// Those without a tag first, each after what it names.
    pub documents: Vec<Document>,
    pub makes: Vec<Make>,
}

/// A manifest or index, and the blobs that must be there before it.
#[derive(Debug)]
pub(super) struct Document {
    pub digest: Digest,
    pub media_type: String,
    pub raw: Vec<u8>,
    pub under: Under,
    pub blobs: Vec<(Descriptor, From)>,
}

/// Where it is found.
#[derive(Debug)]
pub(super) enum Under {
    Digest,
    /// Among what points to this one.
    Subject(Digest),
    Tag(String),
}

/// Where a blob comes from.
#[derive(Debug)]
pub(super) enum From {
    Bundle(Region),
    /// Made here; its file.
    Patches(PathBuf),
    /// Another repository of the same registry.
    Repository(Arc<RemoteRepository>),
}

/// Layers to make.
#[derive(Debug)]
pub(super) struct Make {
    pub delta: Digest,
    pub base: Arc<InRegistry>,
    /// A repository that takes them.
    pub staging: PathBuf,
    /// Bytes of the base's layers that are read in any case.
    pub base_bytes: u64,
}

impl Parcel {
    pub fn blobs(&self) -> impl Iterator<Item = &(Descriptor, From)> {
        self.documents.iter().flat_map(|document| &document.blobs)
    }

    /// Bytes that go to the registry: blobs and documents.
    pub fn bytes(&self) -> u64 {
        let blobs = self.blobs().filter(|(_, from)| !matches!(from, From::Repository(_)));
        let documents = self.documents.iter().map(|document| document.raw.len() as u64);
        blobs.map(|(blob, _)| blob.size()).chain(documents).sum()
    }

    /// Hashes all that the bundle has of it, so that nothing is written of what is damaged.
    pub async fn check(&self, cancel: &Cancel) -> Result<()> {
        let of_bundle = self.blobs().filter_map(|(blob, from)| match from {
            From::Bundle(region) => Some((blob.digest().clone(), region.clone())),
            From::Patches(_) | From::Repository(_) => None,
        });
        let (blobs, cancel) = (of_bundle.collect::<Vec<_>>(), cancel.clone());
        on_thread(move || {
            for (digest, region) in blobs {
                let content = cancel.watch(region.reader());
                VerifyReader::new(content, digest.clone(), region.len()).drain().at(&digest)?;
            }
            Ok(())
        })
        .await
    }

    /// Makes the layers that are not in the bundle; gives how many patches it took.
    pub async fn make(&self, task: &Task<'_>) -> Result<usize> {
        let mut rebuilt = 0;
        for make in &self.makes {
            let request = FetchRequest {
                name: None,
                deltas: Deltas { policy: DeltaPolicy::Only, ..Deltas::default() },
                base: BaseChoice { opened: Some(make.base.clone()), ..BaseChoice::default() },
                exact: Exact::Require,
                place: task.request.place.clone(),
                limits: task.request.limits.clone(),
                ..FetchRequest::new(task.bundle.entry(&make.delta)?, StoreRef::Layout(make.staging.clone()))
            };
            let outcome = Box::pin(fetch_changed(task.session, &request)).await?;
            rebuilt += outcome.layers.iter().filter(|layer| layer.origin == Origin::Patch).count();
        }
        Ok(rebuilt)
    }

    /// Writes it: blobs, manifests, what points to them, tags. Gives the bytes that were sent.
    pub async fn write(&self, task: &Task<'_>, at: &RemoteRepository) -> Result<u64> {
        let jobs = task.request.place.jobs.unwrap_or(UPLOADS).max(1);
        let reporter = &task.session.reporter;
        let blobs: Vec<_> =
            self.blobs().enumerate().map(|(index, blob)| send(index, blob, task, at)).collect();
        let total_bytes = self.blobs().map(|(blob, _)| blob.size()).sum();
        reporter.event(Event::Start { total_bytes, layers: blobs.len() });
        let blobs = stream::iter(blobs).buffer_unordered(jobs);
        let blobs = blobs.try_fold(0, |sum, bytes| std::future::ready(Ok(sum + bytes))).await;
        reporter.event(Event::Finish);
        let mut sent = blobs?;
        let (tags, others): (Vec<_>, Vec<_>) =
            self.documents.iter().partition(|document| matches!(document.under, Under::Tag(_)));
        for document in others.into_iter().chain(tags) {
            let Document { digest, media_type, raw, under, .. } = document;
            let name = if let Under::Tag(tag) = under { tag } else { digest.as_ref() };
            at.put_manifest(name, media_type, raw).await?;
            if let Under::Subject(subject) = under {
                list(at, subject, document).await?;
            }
            sent += raw.len() as u64;
        }
        Ok(sent)
    }
}

/// Brings one blob into the repository; gives the bytes that were sent.
async fn send(
    index: usize,
    (blob, from): &(Descriptor, From),
    task: &Task<'_>,
    at: &RemoteRepository,
) -> Result<u64> {
    let (digest, reporter) = (blob.digest(), task.session.reporter.clone());
    reporter.event(Event::LayerStart { index, label: &digest.digest()[..12], bytes: blob.size() });
    let content = match from {
        From::Bundle(region) => region.clone(),
        From::Patches(path) => {
            File::open(path).and_then(Region::whole).at(format!("blob {digest}, made by a delta"))?
        }
        From::Repository(other) => {
            if at.mount(digest, other.image().repository()).await? {
                reporter.event(Event::LayerDone { index, outcome: "mounted" });
                return Ok(0);
            }
            // A registry need not do that.
            let place = Place::Remote(Arc::new(Blobs::direct(other.clone())));
            let (errand, spool, blob) = (Errand::here(), Spool::in_dir(&task.session.spool), blob.clone());
            on_thread(move || errand.bring(&place, &blob, &spool)).await?
        }
    };
    let told = reporter.clone();
    let taken: Taken = Arc::new(move |delta| told.event(Event::LayerBytes { index, delta }));
    at.upload(digest, &content, &taken).await?;
    reporter.event(Event::LayerDone { index, outcome: "sent" });
    Ok(content.len())
}

/// Adds an entry to the list of what points to `subject`, where the registry keeps none by itself.
async fn list(at: &RemoteRepository, subject: &Digest, document: &Document) -> Result<()> {
    if at.referrers_by_api(subject, "", u64::MAX).await?.is_some() {
        return Ok(());
    }
    let Document { digest, media_type, raw, .. } = document;
    let mut entry = Descriptor::new(media_type.as_str().into(), raw.len() as u64, digest.clone());
    let (artifact_type, annotations) = document::listed(raw);
    entry.set_artifact_type(artifact_type);
    entry.set_annotations(annotations);
    let change = Change::Add { entry: Box::new(entry), room: u64::MAX };
    at.change_list(subject, &change).await
}

impl From {
    /// Of a layer that the delta makes, in the repository `staging`.
    pub fn patches(staging: &std::path::Path, digest: &Digest) -> Self {
        From::Patches(staging.join("blobs/sha256").join(digest.digest()))
    }
}

/// Nothing of the image can be had otherwise.
pub(super) fn absent(digest: &Digest) -> Error {
    Error::misfit(format!("blob {digest} is not there, and not in the bundle"))
        .with_hint("make a new bundle with the list of what is here now")
}
