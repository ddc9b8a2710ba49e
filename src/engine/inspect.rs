//! What a delta or image holds, what it would cost here, and whether it fits.

use std::sync::Arc;

use super::base::{self, Elsewhere, Homes};
use super::decision::{Hand, Next, Purpose};
use super::opened::{Opened, concurrency, is_patch};
use super::outcome::Reason;
use super::request::FetchRequest;
use crate::account::{LayerAccount, account};
use crate::artifact::{Delta, DeltaManifest, Image};
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};
use crate::exact::Exact;
use crate::fetch::{self, Download, Job, Worked};
use crate::plan::{Offer, Preference, RebuildPlan};
use crate::session::Session;
use crate::store::{Inventory, Repository};
use crate::tardiff::Limits;

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    /// Digest of the manifest that the reference led to.
    pub resolved: Digest,
    /// Is that a delta? Else an image.
    pub is_delta: bool,
    /// The image: a delta's target.
    pub image: Image,
    /// How its layers would be brought here.
    pub plan: RebuildPlan,
    /// Would the repository keep them as blobs?
    pub keeps_blobs: bool,
    /// Is the image here?
    pub present: bool,
    /// Bytes that a fetch would read now, metadata included.
    pub download_bytes: u64,
    /// Config digest of the base.
    pub base_config: Option<Digest>,
    /// Signatures in a delta.
    pub signatures: usize,
    /// Why a delta does not fit here.
    pub misfit: Option<Error>,
    /// Of an image: the deltas that a fetch would apply, in order.
    pub deltas: Vec<Digest>,
    /// Of an image: why there is none.
    pub fallback: Option<Reason>,
    /// Of a delta, if asked for: where the bytes of each patch go.
    pub accounts: Option<Vec<(DiffId, LayerAccount)>>,
}

/// Looks at what `request` would bring, and changes nothing. With `accounts`, all of a delta is read.
///
/// # Errors
/// As [`fetch`](super::fetch), but for a delta that does not fit.
pub async fn inspect(session: &Session, request: &FetchRequest, accounts: bool) -> Result<Inspection> {
    let request = &FetchRequest { place: request.place.told_to(&session.reporter), ..request.clone() };
    let repository = &request.repository;
    let store = repository.exists().then(|| repository.open(session)).transpose()?;
    let inventory = store.as_ref().map(|store| store.inventory()).transpose()?.unwrap_or_default();
    let elsewhere = Elsewhere::open(&request.base, session)?;
    let look = Look { session, request, store, inventory, elsewhere };
    let opened = Opened::open(&request.reference, &request.place, &session.spool).await?;
    match opened.delta()? {
        Some(manifest) => look.at_delta(&opened, manifest, accounts).await,
        None => look.at_image(&opened).await,
    }
}

struct Look<'a> {
    session: &'a Session,
    request: &'a FetchRequest,
    store: Option<Arc<dyn Repository>>,
    inventory: Inventory,
    elsewhere: Elsewhere,
}

impl Look<'_> {
    async fn at_delta(&self, opened: &Opened, manifest: DeltaManifest, accounts: bool) -> Result<Inspection> {
        let FetchRequest { base: choice, place, .. } = self.request;
        let signatures = manifest.signatures.len();
        let delta = opened.target_of(manifest).await?;
        let spool = &self.session.spool;
        let wanted = delta.source_config();
        let remote = base::check_remote(choice, place, wanted, spool).await;
        let repository = self.store.as_ref().map(|store| (store, &self.inventory));
        let platform = place.platform.as_ref();
        let homes = Homes { repository, elsewhere: &self.elsewhere };
        let found = remote.and_then(|_| base::find(wanted, choice, platform, homes, spool));
        let layered_base = found.as_ref().is_ok_and(|base| base.has_layers());
        let plan = self.plan(opened, &delta, layered_base);
        let accounts = if accounts { Some(self.accounts(opened, &delta).await?) } else { None };
        Ok(Inspection {
            is_delta: true,
            misfit: found.err(),
            signatures,
            base_config: Some(delta.source_config().clone()),
            accounts,
            ..self.inspection(opened, plan, delta.target)
        })
    }

    fn plan(&self, opened: &Opened, delta: &Delta, layered_base: bool) -> RebuildPlan {
        let here = |diff_id: &_, published: &_| self.inventory.layer(diff_id, published).cloned();
        let offer = Offer {
            delta: Some(&delta.manifest),
            layered_base,
            is_patch: &|blob| is_patch(&opened.place, blob),
            preference: Preference::Delta,
            exact: if self.keeps_blobs() { Exact::Auto } else { Exact::Off },
            ..Offer::whole_layers(&here, self.request.limits.max_layer_size)
        };
        offer.plan(&delta.target)
    }

    async fn at_image(&self, opened: &Opened) -> Result<Inspection> {
        let hand = Hand {
            session: self.session,
            request: self.request,
            purpose: Purpose::Look,
            store: self.store.as_ref(),
            inventory: &self.inventory,
            elsewhere: &self.elsewhere,
            spool: &self.session.spool,
        };
        let decision = match hand.decide(opened).await? {
            Next::Decided(decision) => *decision,
            Next::FetchBase(base, _) => return Err(Error::misfit(format!("the base {base} is not here"))),
        };
        let (beside, base_config, deltas) =
            (decision.bytes_beside_layers(), decision.base_config(), decision.deltas());
        let inspection = self.inspection(opened, decision.plan, decision.image);
        Ok(Inspection {
            download_bytes: inspection.download_bytes + beside,
            base_config,
            deltas,
            fallback: decision.fallback,
            ..inspection
        })
    }

    fn inspection(&self, opened: &Opened, plan: RebuildPlan, image: Image) -> Inspection {
        Inspection {
            resolved: opened.digest.clone(),
            is_delta: false,
            keeps_blobs: self.keeps_blobs(),
            present: self.inventory.by_manifest(&image.manifest_digest).is_some(),
            download_bytes: opened.metadata_bytes() + plan.download_bytes(),
            image,
            plan,
            base_config: None,
            signatures: 0,
            misfit: None,
            deltas: Vec::new(),
            fallback: None,
            accounts: None,
        }
    }

    fn keeps_blobs(&self) -> bool {
        self.request.keeps_blobs()
    }

    /// Reads all patches of a delta.
    async fn accounts(&self, opened: &Opened, delta: &Delta) -> Result<Vec<(DiffId, LayerAccount)>> {
        let mut diff_ids: Vec<DiffId> = Vec::new();
        let mut downloads = Vec::new();
        for (layer, diff_id) in delta.target.layers.iter().zip(&delta.target.diff_ids) {
            let Some(blob) = delta.manifest.layers.get(layer.digest()) else { continue };
            if is_patch(&opened.place, blob) && !diff_ids.contains(diff_id) {
                downloads.push(Download::new(downloads.len(), blob.clone(), opened.place.clone()));
                diff_ids.push(diff_id.clone());
            }
        }
        let FetchRequest { limits, place, .. } = self.request;
        let patch_limits = Limits { window_log: limits.max_window_log, ..Default::default() };
        let (max_layer, spool) = (limits.max_layer_size, self.session.spool.clone());
        let work = Arc::new(move |mut job: Job| {
            account(&mut job.blob, &patch_limits, max_layer, &spool).map(Worked::Done)
        });
        let concurrency = concurrency(&opened.place, place.jobs);
        let accounts = fetch::run(downloads, concurrency, &self.session.cancel, work).await?;
        Ok(diff_ids.into_iter().zip(accounts).collect())
    }
}
