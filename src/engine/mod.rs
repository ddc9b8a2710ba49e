//! The main job: resolve a reference, find deltas, decide, bring the layers, publish.
//!
//! ```text
//! request → opened (manifest) → decision (deltas, base, plan) → bring (layers) → publish → outcome
//! ```

pub mod apply;
pub(crate) mod base;
mod base_image;
mod bring;
pub mod bundle;
mod carry;
mod chain;
pub(crate) mod decision;
pub mod export;
pub mod fill;
mod in_registry;
pub mod inspect;
pub mod inventory;
pub mod make;
pub mod offer;
pub(crate) mod opened;
pub mod outcome;
pub mod publish;
pub mod request;
mod signatures;
pub mod unbundle;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::image::Descriptor;

use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::exact::{Exact, Recipes};
use crate::fetch::on_thread;
use crate::plan::{Origin, PlannedLayer};
use crate::platform::Platform;
use crate::proxy::{Digests, ProxyOptions, copy_out};
use crate::session::Session;
use crate::store::{Fidelity, Handover, Inventory, Repository, StoredImage};
use base::Elsewhere;
use bring::Bring;
use decision::{Decision, Hand, Next, Purpose};
use opened::Opened;
use outcome::{Bytes, Durations, Kept, LayerOutcome, Outcome, Status};
use request::{BaseChoice, Deltas, FetchRequest};
use verify::{Check, Checked};

/// Tells what [`fetch`] would do, with the exact bytes, and changes nothing.
///
/// # Errors
/// As [`fetch`], as far as they can be known.
pub async fn plan(session: &Session, request: &FetchRequest) -> Result<Outcome> {
    // Large futures, which need not lie on the stack of whoever calls.
    Box::pin(Plan::make(session, request, Purpose::Look)).await.map(|plan| plan.outcome())
}

/// Brings an image into the repository: by deltas where they serve, whole where they do not. Nothing is
/// visible there before every layer is verified and on disk; after an interrupt, the next call goes on from
/// the finished layers.
///
/// # Errors
/// By [`Kind`](crate::error::Kind): Misfit for what is not there or does not fit, Verification for what is
/// not what it claims to be, Transient for trouble of the network, Interrupted by the session, else Local.
pub async fn fetch(session: &Session, request: &FetchRequest) -> Result<Outcome> {
    let plan = Box::pin(Plan::make(session, request, Purpose::Fetch)).await?;
    Box::pin(plan.run()).await
}

/// As [`fetch`] for a delta, but without the layers that it does not change: the image in the repository is not complete.
///
/// # Errors
/// As [`fetch`].
async fn fetch_changed(session: &Session, request: &FetchRequest) -> Result<Outcome> {
    let plan = Box::pin(Plan::make(session, request, Purpose::FetchChanged)).await?;
    Box::pin(plan.run()).await
}

/// A request, and what was decided for it.
struct Plan<'a> {
    session: &'a Session,
    request: FetchRequest,
    started: Instant,
    opened: Opened,
    store: Option<Arc<dyn Repository>>,
    inventory: Inventory,
    decided: Decided,
    checked: Checked,
    /// Seconds until here.
    seconds: f64,
}

enum Decided {
    /// The image is here.
    Here(Box<StoredImage>),
    /// It is brought here.
    Bring(Box<Decision>),
}

impl<'a> Plan<'a> {
    async fn make(session: &'a Session, request: &FetchRequest, purpose: Purpose) -> Result<Self> {
        let started = Instant::now();
        let request = &FetchRequest { place: request.place.told_to(&session.reporter), ..request.clone() };
        // Nothing that is waited for here works on, so it can be dropped when the session is stopped.
        let cancel = &session.cancel;
        let elsewhere = Elsewhere::open(&request.base, session)?;
        // While skopeo starts and asks, there is time to see what is here.
        let asked = cancel.until(Opened::ask(&request.reference, &request.place));
        let (asked, (store, mut inventory, spool)) =
            tokio::try_join!(asked, open_store(session, request, purpose))?;
        let opened = match asked {
            Some(opened) => opened,
            None => Opened::read(&request.reference, &request.place, &spool)?,
        };
        let name = match (&store, request.wanted_name()) {
            (Some(store), Some(name)) => Some(store.name_for(&name)?),
            (_, name) => name,
        };
        let request = &FetchRequest { name, ..request.clone() };
        if let Some(expected) = &request.expected {
            cancel.until(opened.expect(expected, &request.place)).await?;
        }
        let delta = opened.delta()?;
        let mut check = Check::begin(session, request)?;
        cancel.until(check.first(&opened, delta.as_ref())).await?;
        let wanted = delta.as_ref().map_or(&opened.digest, |d| d.target_manifest.digest());
        let here = cancel.until(opened.find(&inventory, wanted)).await?.filter(|_| store.is_some()).cloned();
        // One that was rewritten can still become what was published.
        let is_good = |stored: &StoredImage| request.exact() != Exact::Require || stored.is_verbatim();
        let here = here.filter(is_good);
        let decided = match here {
            Some(stored) => {
                opened.require_platform(&stored.image)?;
                check.require()?;
                Decided::Here(Box::new(stored))
            }
            None => loop {
                let hand = Hand {
                    session,
                    request,
                    purpose,
                    store: store.as_ref(),
                    inventory: &inventory,
                    elsewhere: &elsewhere,
                    spool: &spool,
                };
                match cancel.until(hand.decide(&opened)).await? {
                    Next::Decided(decision) => {
                        let others = confirm(store.as_ref(), &inventory, &decision, purpose).await?;
                        if others.is_empty() {
                            require_exact(request, &decision)?;
                            cancel.until(check.also(decision.embedded.as_ref())).await?;
                            check.require()?;
                            break Decided::Bring(decision);
                        }
                        for diff_id in others {
                            session.say(&format!(
                                "layer {diff_id} in the repository is another; it is not used"
                            ));
                            inventory.layers.remove(&diff_id);
                        }
                    }
                    Next::FetchBase(base, embedded) => {
                        cancel.until(check.also(Some(&embedded))).await?;
                        check.require()?;
                        session.say(&format!("fetching the base image {base}"));
                        let request = FetchRequest {
                            reference: base,
                            name: None,
                            expected: None,
                            deltas: Deltas::default(),
                            base: BaseChoice::default(),
                            ..request.clone()
                        };
                        Box::pin(fetch(session, &request)).await?;
                        if let Some(store) = store.clone() {
                            inventory = on_thread(move || inventory_of(&*store, request.goes_on)).await?;
                        }
                    }
                }
            },
        };
        let seconds = started.elapsed().as_secs_f64();
        let (checked, request) = (check.done()?, request.clone());
        Ok(Plan { session, request, started, opened, store, inventory, decided, checked, seconds })
    }

    /// The outcome as far as the plan tells it.
    fn outcome(&self) -> Outcome {
        match &self.decided {
            Decided::Here(stored) => self.already_here(stored),
            Decided::Bring(decision) => self.planned(decision),
        }
    }

    async fn run(self) -> Result<Outcome> {
        let Some(store) = &self.store else { return Ok(self.outcome()) };
        match &self.decided {
            Decided::Here(stored) => {
                let mut stored = stored.clone();
                let left = settle(&**store, &self.inventory, &mut stored, self.request.wanted_name())?;
                hand_over(self.session, &self.request, left, store).await?;
                self.checked.keep(self.session, &self.request.repository)?;
                Ok(self.already_here(&stored))
            }
            Decided::Bring(_) => self.bring().await,
        }
    }

    async fn bring(self) -> Result<Outcome> {
        let mut outcome = self.outcome();
        let Plan { session, request, started, opened, store, inventory, decided, checked, seconds } = self;
        let (Decided::Bring(mut decision), Some(store)) = (decided, store) else { return Ok(outcome) };
        let rebuilding = Instant::now();
        let instead = decision.instead.take();
        let bring = Bring::new(session, &request, &store, &inventory, &decision);
        let ends = bring.layers(&decision, checked.verified(), instead).await?;
        let metadata = opened.metadata_bytes() + checked.bytes();
        outcome.count(&ends, metadata + decision.bytes_read_beside_layers());
        let rebuild = rebuilding.elapsed().as_secs_f64();
        let publishing = Instant::now();
        let layers: Vec<Descriptor> = ends.into_iter().map(|end| end.stored).collect();
        let (image, recipes, name) = (decision.image, decision.recipes, outcome.name.clone());
        // On a thread: an interrupt does not wait for it, and it finds free what the workers used.
        let target = store.clone();
        let publish = move || target.publish(&image, &layers, name.as_deref(), &recipes);
        let published = on_thread(publish).await?;
        hand_over(session, &request, published.handover, &store).await?;
        drop(store);
        checked.keep(session, &request.repository)?;
        outcome.status = Status::Fetched;
        outcome.manifest = Some(published.manifest);
        outcome.fidelity = Some(published.fidelity);
        outcome.note = published.note;
        let publish = publishing.elapsed().as_secs_f64();
        outcome.durations =
            Durations { plan: seconds, rebuild, publish, total: started.elapsed().as_secs_f64() };
        Ok(outcome)
    }

    fn planned(&self, decision: &Decision) -> Outcome {
        let metadata = self.opened.metadata_bytes() + self.checked.bytes();
        let layer = |layer: &PlannedLayer| LayerOutcome {
            diff_id: layer.diff_id.clone(),
            origin: layer.origin(),
            bytes: layer.download_bytes(),
            published_bytes: layer.published.size(),
            kept: self.request.keeps_blobs().then(|| Kept::planned(layer)),
        };
        Outcome {
            resolved: self.opened.digest.clone(),
            is_delta: self.opened.is_delta(),
            status: Status::Planned,
            deltas: decision.deltas(),
            fallback: decision.fallback,
            name: self.request.wanted_name(),
            manifest: None,
            published_manifest: decision.image.manifest_digest.clone(),
            config: decision.image.config_digest.clone(),
            fidelity: None,
            base_config: decision.base_config(),
            signers: self.checked.verified().signers().to_vec(),
            layers: decision.plan.layers.iter().map(layer).collect(),
            bytes: Bytes {
                downloaded: metadata + decision.bytes_beside_layers() + decision.plan.download_bytes(),
                plain_pull: metadata + decision.plain_bytes,
                full_pull: decision.image.full_bytes(),
            },
            durations: Durations { plan: self.seconds, total: self.seconds, ..Durations::default() },
            note: None,
            recipes: decision.recipes.clone(),
        }
    }

    fn already_here(&self, stored: &StoredImage) -> Outcome {
        let verbatim = stored.is_verbatim();
        let metadata = self.opened.metadata_bytes() + self.checked.bytes();
        let layers =
            stored.image.diff_ids.iter().zip(&stored.image.layers).map(|(diff_id, layer)| LayerOutcome {
                diff_id: diff_id.clone(),
                origin: Origin::Here,
                bytes: 0,
                published_bytes: layer.size(),
                kept: None,
            });
        Outcome {
            resolved: self.opened.digest.clone(),
            is_delta: self.opened.is_delta(),
            status: Status::AlreadyPresent,
            deltas: Vec::new(),
            fallback: None,
            name: stored.name.clone(),
            manifest: Some(stored.descriptor.digest().clone()),
            published_manifest: stored.published_manifest(),
            config: stored.image.config_digest.clone(),
            fidelity: Some(if verbatim { Fidelity::Verbatim } else { Fidelity::Rewritten }),
            base_config: None,
            signers: self.checked.verified().signers().to_vec(),
            layers: layers.collect(),
            bytes: Bytes { downloaded: metadata, plain_pull: metadata, full_pull: stored.image.full_bytes() },
            durations: Durations { total: self.started.elapsed().as_secs_f64(), ..Durations::default() },
            note: None,
            recipes: Recipes::default(),
        }
    }
}

/// The repository, what it holds, and where may be spooled. Who only looks leaves even its directory alone.
async fn open_store(
    session: &Session,
    request: &FetchRequest,
    purpose: Purpose,
) -> Result<(Option<Arc<dyn Repository>>, Inventory, PathBuf)> {
    let (place, opening) = (request.repository.clone(), session.clone());
    let goes_on = request.goes_on;
    let open = move || {
        let store = match purpose {
            Purpose::Fetch | Purpose::FetchChanged => Some(place.open_or_create(&opening)?),
            Purpose::Look if place.exists() => Some(place.open(&opening)?),
            Purpose::Look => None,
        };
        let inventory = store.as_deref().map(|store| inventory_of(store, goes_on)).transpose()?;
        Ok((store, inventory.unwrap_or_default()))
    };
    let (store, inventory) = on_thread(open).await?;
    let spool = store.as_ref().map_or_else(|| session.spool.clone(), |store| store.spool());
    Ok((store, inventory, spool))
}

/// What is in the repository; for an image that goes on, of what stays there.
fn inventory_of(store: &dyn Repository, goes_on: bool) -> Result<Inventory> {
    let inventory = store.inventory()?;
    // An image that goes on is in need of the delta's recipes, which nobody would read if all layers were here.
    Ok(if goes_on { inventory.without_staged() } else { inventory })
}

/// The layers that the decision finds here, but that are not what others who put them here said.
async fn confirm(
    store: Option<&Arc<dyn Repository>>,
    inventory: &Inventory,
    decision: &Decision,
    purpose: Purpose,
) -> Result<Vec<DiffId>> {
    let here = decision.plan.layers.iter().filter(|layer| layer.origin() == Origin::Here);
    let layers: Vec<DiffId> =
        here.map(|l| l.diff_id.clone()).filter(|d| inventory.unverified.contains(d)).collect();
    match store {
        Some(store) if purpose != Purpose::Look && !layers.is_empty() => {
            let (store, inventory) = (store.clone(), inventory.clone());
            on_thread(move || store.confirm(&inventory, &layers)).await
        }
        _ => Ok(Vec::new()),
    }
}

/// Refuses a layer that cannot become what was published, where that is required.
fn require_exact(request: &FetchRequest, decision: &Decision) -> Result<()> {
    let layers = &decision.plan.layers;
    match layers.iter().find_map(|layer| Some((layer, layer.inexact()?))) {
        Some((layer, reason)) if request.exact() == Exact::Require => {
            let layer = layer.published.digest();
            Err(Error::misfit(format!("layer {layer} cannot be made exactly as it was published: {reason}")))
        }
        _ => Ok(()),
    }
}

/// Gives an image that is here the wanted name, if it does not have it.
fn settle(
    store: &dyn Repository,
    inventory: &Inventory,
    stored: &mut StoredImage,
    name: Option<String>,
) -> Result<Option<Handover>> {
    let digest = stored.descriptor.digest();
    let has = |name: &String| {
        inventory.images.iter().any(|i| i.name.as_ref() == Some(name) && i.descriptor.digest() == digest)
    };
    let left = store.settle(stored, name.as_ref().filter(|name| !has(name)).map(String::as_str))?;
    stored.name = name.or(stored.name.take());
    Ok(left)
}

/// Has skopeo take an image on to a place that only it writes to, if that is left to do. Credentials that were typed are
/// for the source alone. Then nothing is left to do in the store, unless the image goes on.
async fn hand_over(
    session: &Session,
    request: &FetchRequest,
    left: Option<Handover>,
    store: &Arc<dyn Repository>,
) -> Result<()> {
    if let Some(Handover { from, to }) = left {
        let options = ProxyOptions { creds: None, ..request.place.skopeo(Platform::host()) };
        let copied = session.cancel.until(copy_out(&from, &to, Digests::Stay, &options)).await;
        copied.map_err(|e| match e.hint() {
            None => e.with_hint("run again, if a layer was removed there meanwhile"),
            Some(_) => e,
        })?;
    }
    let store = store.clone();
    if request.goes_on { Ok(()) } else { on_thread(move || store.tidy()).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: &T) {}

    /// Compiles.
    #[allow(dead_code)]
    fn the_work_may_move_between_threads(
        session: &Session,
        request: &FetchRequest,
        making: make::CreateRequest,
        leaving: &export::ExportRequest,
        works: &Arc<offer::Workshop>,
        of: &publish::DeltasOf,
    ) {
        is_send(&plan(session, request));
        is_send(&fetch(session, request));
        is_send(&inspect::inspect(session, request, true));
        is_send(&make::create(session, making));
        is_send(&export::export(session, leaving));
        is_send(&works.offer(session, request, None));
        is_send(&publish::push(session, "", "", &request.place));
        is_send(&publish::deltas(session, of, &request.repository));
        is_send(&publish::prune(session, of, publish::Prune { keep: None, dry_run: true }));
    }
}
