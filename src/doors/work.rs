//! The work on an image that a client opened, on a thread of its own: what deltas give, and the layers.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use oci_spec::image::Descriptor;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::digest::Digest;
use crate::engine::fill::{ByDelta, has_bases};
use crate::engine::offer::Workshop;
use crate::engine::outcome::Reason;
use crate::engine::request::{BaseChoice, FetchRequest};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::session::Session;
use crate::store::BlobCache;

/// What the thread that works on it has come to.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub state: Mutex<State>,
    pub changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// What deltas give; `None` while that is not known.
    pub found: Option<Found>,
    /// Is nothing more to come?
    pub is_over: bool,
}

/// What deltas give.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub manifest: Option<Digest>,
    pub layers: HashMap<Digest, Layer>,
    pub deltas: Vec<Digest>,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub published: Descriptor,
    /// Is it known how to make what was published?
    pub is_exact: bool,
    pub state: Making,
}

#[derive(Debug)]
pub(super) enum Making {
    Awaited,
    Made(Made),
    Failed,
}

#[derive(Debug, Clone)]
pub(super) struct Made {
    pub file: Arc<File>,
    pub digest: Digest,
    pub downloaded: u64,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// The thread that looks what deltas give, and makes it.
pub(super) struct Work {
    pub session: Session,
    pub request: FetchRequest,
    /// Where layers are made; none where the client's repository is filled.
    pub dir: Option<PathBuf>,
    pub shared: Arc<Shared>,
    pub begun: oneshot::Receiver<bool>,
    pub log: fn(&str),
}

impl Work {
    /// All of it.
    pub fn run(self) {
        let (shared, log, image) = (self.shared.clone(), self.log, self.request.reference.to_string());
        match self.done() {
            Err(e) if e.kind() != Kind::Interrupted => log(&fallback(&image, &e.to_string())),
            _ => {}
        }
        shared.change(|state| {
            state.is_over = true;
            state.found.get_or_insert_default();
        });
    }

    fn done(mut self) -> Result<()> {
        let has_bases = has_bases(&self.session, &self.request).or_else(|e| {
            // Storage that this user may not read is none of ours.
            self.request.base = BaseChoice { repository: None, ..self.request.base.clone() };
            (self.log)(&fallback(&self.request.reference.to_string(), &e.to_string()));
            has_bases(&self.session, &self.request)
        });
        if !has_bases? {
            return Ok(());
        }
        let runtime = Builder::new_current_thread().enable_all().build().at("cannot start")?;
        match self.dir.clone() {
            None => runtime.block_on(self.fill()),
            Some(dir) => {
                let cache = Arc::new(BlobCache::open(&dir, u64::MAX)?);
                runtime.block_on(self.make(Workshop::new(cache)))
            }
        }
    }

    /// Brings the image into the client's repository.
    async fn fill(self) -> Result<()> {
        let Work { session, request, shared, log, .. } = &self;
        let Some(image) = ByDelta::look(session, request).await? else { return Ok(()) };
        shared.change(|state| state.found = Some(Found::default()));
        let outcome = image.fetch().await?;
        let line = json!({
            "event": "delta-filled",
            "image": request.reference.to_string(),
            "repository": request.repository.to_string(),
            "downloaded_bytes": outcome.bytes.downloaded,
            "saved_bytes": outcome.bytes.plain_pull.saturating_sub(outcome.bytes.downloaded),
            "deltas": texts(&outcome.deltas),
        });
        log(&line.to_string());
        Ok(())
    }

    /// Makes layers once one of them is wanted.
    async fn make(self, works: Arc<Workshop>) -> Result<()> {
        let Work { session, request, shared, begun, log, .. } = self;
        let offer = match works.offer(&session, &request, None).await? {
            Ok(offer) => offer,
            Err(Reason::LookupFailed) => return Err(Error::transient("deltas cannot be looked up")),
            Err(_) => return Ok(()),
        };
        let layers = offer.layers().map(|(published, is_exact)| {
            let layer = Layer { published: published.clone(), is_exact, state: Making::Awaited };
            (published.digest().clone(), layer)
        });
        let found = Found {
            manifest: Some(offer.image().manifest_digest.clone()),
            layers: layers.collect(),
            deltas: offer.deltas(),
        };
        shared.change(|state| state.found = Some(found));
        let cancel = session.cancel.clone();
        let begun = async { begun.await.map_err(|_| Error::new(Kind::Interrupted, "nobody wants it")) };
        let takes_tars = cancel.until(begun).await?;
        let mut making = JoinSet::new();
        for (published, _) in offer.layers().filter(|(_, is_exact)| *is_exact || takes_tars) {
            let digest = published.digest().clone();
            if let Some(mut reading) = offer.read(&digest)? {
                making.spawn(async move { (digest, reading.whole().await, reading.counts().bytes()) });
            }
        }
        while let Some(made) = cancel.until(async { Ok(making.join_next().await) }).await? {
            let (layer, made, bytes) = made.map_err(|e| Error::local(e.to_string()))?;
            let made = made.inspect_err(|e| {
                log(&fallback(&request.reference.to_string(), &format!("layer {layer}: {e}")))
            });
            let downloaded = bytes + offer.take_bytes_beside();
            let now = match made {
                Ok((file, digest)) => Making::Made(Made { file, digest, downloaded }),
                Err(_) => Making::Failed,
            };
            shared.change(|state| {
                if let Some(layer) = state.found.as_mut().and_then(|found| found.layers.get_mut(&layer)) {
                    layer.state = now;
                }
            });
        }
        Ok(())
    }
}

/// The line that says why a layer does not come from a delta.
pub(super) fn fallback(image: &str, reason: &str) -> String {
    json!({ "event": "delta-fallback", "image": image, "reason": reason }).to_string()
}

pub(super) fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}
