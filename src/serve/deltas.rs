//! Which layers can be made here instead of being downloaded: images that clients asked for lately, and what deltas
//! give of them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::distribution::Reference as DockerReference;
use tokio::sync::{Semaphore, watch};

use super::log::{Line, Log, named};
use crate::digest::{Digest, digest_of};
use crate::document;
use crate::engine::offer::{LOOKUP, Offer, Seen, Workshop};
use crate::engine::outcome::Reason;
use crate::engine::request::FetchRequest;
use crate::error::Result;
use crate::fetch::Place;
use crate::reference::Reference;
use crate::registry::{Blobs, RemoteRepository};
use crate::session::Session;

/// Images that are known at a time.
const MAX_IMAGES: usize = 64;
/// How long an image is known after somebody wanted something of it: meanwhile its base stays open.
const STAYS: Duration = Duration::from_secs(10 * 60);
/// Searches for deltas at once.
const MAX_LOOKUPS: usize = 4;
/// Layers of an image that are looked at; real ones have at most 127.
const MAX_LAYERS: usize = 1024;

/// What a search came to, once it did.
type Looked = Option<Option<Arc<Offer>>>;

/// An image that a client asked for.
#[derive(Debug)]
struct Known {
    /// Host and repository.
    name: String,
    /// As the client that asked sees it: what is downloaded for a delta is asked for in its name.
    repository: Arc<RemoteRepository>,
    manifest: Digest,
    blobs: HashSet<Digest>,
    started: Instant,
    used: Instant,
    looked: watch::Receiver<Looked>,
}

/// Where old files may be, and what is done about layers.
#[derive(Debug)]
pub(super) struct Deltas {
    pub session: Session,
    pub works: Arc<Workshop>,
    /// All but the reference.
    pub request: FetchRequest,
    pub log: Log,
    known: Mutex<VecDeque<Known>>,
    lookups: Arc<Semaphore>,
}

/// Host and repository.
pub(super) fn name_of(image: &DockerReference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

impl Deltas {
    pub(super) fn new(session: &Session, works: Arc<Workshop>, request: FetchRequest, log: Log) -> Self {
        let (known, lookups) = (Mutex::default(), Arc::new(Semaphore::new(MAX_LOOKUPS)));
        Deltas { session: session.clone(), works, request, log, known, lookups }
    }

    /// A client got this manifest: whether deltas help with its layers is found out beside.
    pub(super) fn look_up(self: &Arc<Self>, repository: &Arc<RemoteRepository>, manifest: &[u8]) {
        let blobs: HashSet<Digest> =
            document::parts(manifest).iter().take(MAX_LAYERS).map(|part| part.digest().clone()).collect();
        let (name, digest) = (name_of(repository.image()), digest_of(manifest));
        let Ok(turn) = self.lookups.clone().try_acquire_owned() else { return };
        let (tell, looked) = watch::channel(None);
        {
            let mut known = self.forget_old();
            if let Some(again) =
                known.iter_mut().find(|k| k.manifest == digest && Arc::ptr_eq(&k.repository, repository))
            {
                again.used = Instant::now();
                return;
            }
            if known.len() == MAX_IMAGES {
                known.pop_front();
            }
            let (started, used) = (Instant::now(), Instant::now());
            let (manifest, repository) = (digest.clone(), repository.clone());
            known.push_back(Known { name, repository, manifest, blobs, started, used, looked });
        }
        let (this, repository, manifest) = (self.clone(), repository.clone(), manifest.to_vec());
        tokio::spawn(async move {
            let reference = Reference::Docker { name: repository.image().clone() }.pinned(&digest);
            let offer = this.offer(&reference, repository, digest, manifest).await;
            let offer = match offer {
                Ok(Ok(offer)) => Some(offer),
                Ok(Err(reason)) => {
                    this.log.write(&Line::without(named(&reference), reason, None));
                    None
                }
                Err(e) => {
                    this.log.write(&Line::without(
                        named(&reference),
                        Reason::LookupFailed,
                        Some(e.to_string()),
                    ));
                    None
                }
            };
            drop(turn);
            // Nobody waits for an image that was forgotten.
            let _ = tell.send(Some(offer));
        });
    }

    async fn offer(
        &self,
        reference: &Reference,
        repository: Arc<RemoteRepository>,
        digest: Digest,
        manifest: Vec<u8>,
    ) -> Result<std::result::Result<Arc<Offer>, Reason>> {
        let place = Place::Remote(Arc::new(Blobs::direct(repository)));
        let request = FetchRequest { reference: reference.clone(), ..self.request.clone() };
        let seen = Seen { digest, manifest, place };
        Box::pin(self.works.offer(&self.session, &request, Some(seen))).await
    }

    /// What deltas give of the image with this blob, if anything, by the newest search; waits a little for a search that is under way.
    pub(super) async fn offer_with(&self, image: &DockerReference, blob: &Digest) -> Option<Arc<Offer>> {
        let name = name_of(image);
        let candidates: Vec<(Instant, watch::Receiver<Looked>)> = {
            let mut known = self.forget_old();
            let with_blob =
                known.iter_mut().rev().filter(|known| known.name == name && known.blobs.contains(blob));
            let looked = with_blob.map(|known| {
                known.used = Instant::now();
                (known.started, known.looked.clone())
            });
            looked.collect()
        };
        for (started, mut looked) in candidates {
            let left = LOOKUP.saturating_sub(started.elapsed());
            let found = tokio::time::timeout(left, looked.wait_for(Option::is_some)).await;
            let offer = found.ok().and_then(|found| found.ok()?.clone()?);
            if let Some(offer) = offer.filter(|offer| gives(offer, blob)) {
                return Some(offer);
            }
        }
        None
    }

    /// Lets go of images, and of their bases, that nobody wanted for a while.
    pub(super) fn tidy(&self) {
        drop(self.forget_old());
    }

    fn forget_old(&self) -> std::sync::MutexGuard<'_, VecDeque<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.used.elapsed() < STAYS);
        known
    }
}

fn gives(offer: &Offer, blob: &Digest) -> bool {
    offer.image().config_digest == *blob || offer.layers().any(|(layer, _)| layer.digest() == blob)
}
