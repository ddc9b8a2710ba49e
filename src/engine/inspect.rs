//! What a delta or image holds, what it would cost here, and whether it fits.

use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::base::{self, Elsewhere, Homes};
use super::base_image::BaseImage;
use super::decision::{Hand, Next, Purpose};
use super::opened::{Opened, concurrency, is_patch};
use super::outcome::Reason;
use super::request::FetchRequest;
use crate::account::{LayerAccount, NEEDS_LAYERS, account, no_base};
use crate::artifact::{Delta, DeltaManifest, Image};
use crate::base::{Holder, Unpacking, View};
use crate::digest::{DiffId, Digest};
use crate::error::{Advice, Error, Result};
use crate::exact::Exact;
use crate::fetch::{self, Download, Job, Worked, Worker};
use crate::plan::{Offer, Preference, RebuildPlan};
use crate::rebuild::LazyFiles;
use crate::session::Session;
use crate::spool::Spool;
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
    /// Of a delta, if asked for: where the bytes of each patch go, of two for one layer of that which a fetch would read.
    pub accounts: Option<Vec<(DiffId, LayerAccount)>>,
}

/// Looks at what `request` would bring, and changes nothing. With `accounts`, the patches of a delta are read.
///
/// # Errors
/// As [`fetch`](super::fetch), but for a delta that does not fit. With `accounts`, though, Misfit for one that has an
/// extended patch alone for a layer, where there are no layers of its base.
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
        let plan = self.plan(opened, &delta, with_layers(&found).is_some());
        let accounts = if accounts { Some(self.accounts(opened, &delta, &found).await?) } else { None };
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

    /// Reads the patches of a delta and accounts for them.
    async fn accounts(
        &self,
        opened: &Opened,
        delta: &Delta,
        found: &Result<Arc<dyn BaseImage>>,
    ) -> Result<Vec<(DiffId, LayerAccount)>> {
        let (diff_ids, blobs): (Vec<_>, Vec<_>) = patches(opened, delta, found)?.into_iter().unzip();
        let FetchRequest { limits, place, .. } = self.request;
        let concurrency = concurrency(&opened.place, place.jobs);
        let unpacking = Unpacking {
            spool: Spool::in_dir(&self.session.spool),
            max_layer: limits.max_layer_size,
            cancel: self.session.cancel.clone(),
        };
        let base = with_layers(found);
        let accountant = Accountant {
            files: base.map(|base| files_of(base, &delta.target, concurrency.workers, &unpacking)),
            limits: Limits { window_log: limits.max_window_log, ..Default::default() },
            max_layer: unpacking.max_layer,
            spool: unpacking.spool,
        };
        let download = |(index, blob)| Download::new(index, blob, opened.place.clone());
        let downloads = blobs.into_iter().enumerate().map(download).collect();
        let accounts = fetch::run(downloads, concurrency, &self.session.cancel, Arc::new(accountant)).await?;
        Ok(diff_ids.into_iter().zip(accounts).collect())
    }
}

/// The base that was found, if it has its layers.
fn with_layers(found: &Result<Arc<dyn BaseImage>>) -> Option<&Arc<dyn BaseImage>> {
    found.as_ref().ok().filter(|base| base.has_layers())
}

/// The patches of a delta with their layers: of two for one layer that which a fetch would read with the base that was found.
fn patches(
    opened: &Opened,
    delta: &Delta,
    found: &Result<Arc<dyn BaseImage>>,
) -> Result<Vec<(DiffId, Descriptor)>> {
    let mut patches: Vec<(DiffId, Descriptor)> = Vec::new();
    for (layer, diff_id) in delta.target.layers.iter().zip(&delta.target.diff_ids) {
        match delta.manifest.blobs_for(layer.digest(), with_layers(found).is_some()).first() {
            Some(blob) if is_patch(&opened.place, blob) && patches.iter().all(|(of, _)| of != diff_id) => {
                patches.push((diff_id.clone(), (*blob).clone()));
            }
            None if delta.manifest.changes(layer.digest()) => return Err(needs_layers(found)),
            _ => {}
        }
    }
    Ok(patches)
}

/// Why an extended patch is not accounted for: it came to this when the base was looked for.
fn needs_layers(found: &Result<Arc<dyn BaseImage>>) -> Error {
    match found {
        Err(e) => e.again().context(NEEDS_LAYERS),
        Ok(_) => {
            Error::misfit(format!("{NEEDS_LAYERS}: it has files alone here")).with_hint(Advice::NameBase)
        }
    }
}

/// The files of the base, opened for the first patch that wants them.
fn files_of(base: &Arc<dyn BaseImage>, target: &Image, threads: usize, unpacking: &Unpacking) -> LazyFiles {
    let (base, target, unpacking) = (base.clone(), target.clone(), unpacking.clone());
    LazyFiles::new(move || base.files(&target, threads, &unpacking))
}

/// Accounts for patches.
struct Accountant {
    /// Those of a base that has its layers.
    files: Option<LazyFiles>,
    limits: Limits,
    max_layer: u64,
    spool: Spool,
}

impl Worker<LayerAccount> for Accountant {
    fn work(&self, mut job: Job) -> Result<Worked<LayerAccount>> {
        let holders = |holder: &Holder| match &self.files {
            Some(files) => View::new(&*files.get()?, 0).holder(holder),
            None => no_base(holder),
        };
        account(&mut job.blob, &holders, &self.limits, self.max_layer, &self.spool).map(Worked::Done)
    }
}
