//! What deltas can give of an image that somebody else pulls: the blobs of changed layers, exactly as they were
//! published, which may be read while they are made; and where that is wanted, the plain tars of others.
//!
//! ```text
//! workshop ─ offer (manifest → deltas, base, plan) ─ layer ─┬─ rebuild, once ─► cache
//!                                                           └─ reading: follows the file as it grows
//! ```
//!
//! Whoever reads gets nothing of the last MiB before the digest is right. Where a rebuild fails, it learns how far
//! it came, and goes on elsewhere.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use oci_spec::image::{Descriptor, MediaType};
use tokio::sync::{OnceCell, Semaphore, watch};

use super::base::Elsewhere;
use super::bring::Bring;
use super::decision::{Decision, Hand, Next, Purpose};
use super::opened::Opened;
use super::outcome::{LayerEnd, Reason};
use super::request::FetchRequest;
use crate::artifact::Image;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::exact::Exact;
use crate::fetch::{Place, Received, on_thread};
use crate::plan::{Keep, Origin, PlannedLayer};
use crate::rebuild::LazyFiles;
use crate::session::Session;
use crate::store::{BlobCache, Growth, Inventory, Repository, StoreRef};

/// Layers that are rebuilt at once, whoever asks: each takes a core or two, and memory for windows and encoders.
pub const MAX_REBUILDS: usize = 2;
/// How long somebody who pulls should wait to hear whether deltas help.
pub const LOOKUP: Duration = Duration::from_secs(2);
/// Bytes at the end of a blob that nobody gets before its digest is right: without them no client takes it for whole.
pub const HOLD_BACK: u64 = 1 << 20;
/// Bytes that are read at once by who reads along.
const PIECE: u64 = 256 << 10;
/// New bytes that who reads along is woken for.
const STEP: u64 = 128 << 10;

/// An image as somebody else has seen it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Of the manifest.
    pub digest: Digest,
    /// The manifest itself.
    pub manifest: Vec<u8>,
    /// Where its blobs and those of its deltas are.
    pub place: Place,
}

/// Makes layers for those who pull.
#[derive(Debug)]
pub struct Workshop {
    cache: Arc<BlobCache>,
    rebuilds: Arc<Semaphore>,
    /// What is at work, by digest.
    at_work: Mutex<HashMap<Digest, watch::Receiver<Progress>>>,
}

impl Workshop {
    /// One whose layers go into `cache`.
    pub fn new(cache: Arc<BlobCache>) -> Arc<Self> {
        let rebuilds = Arc::new(Semaphore::new(MAX_REBUILDS));
        Arc::new(Workshop { cache, rebuilds, at_work: Mutex::default() })
    }

    /// Where its layers are kept.
    pub fn cache(&self) -> &Arc<BlobCache> {
        &self.cache
    }

    /// Reads a layer of `size` bytes that was made before.
    ///
    /// # Errors
    /// Local, where the cache cannot be read.
    pub fn read(&self, digest: &Digest, size: u64) -> Result<Option<Reading>> {
        let blob = Descriptor::new(MediaType::Other(String::new()), size, digest.clone());
        Ok(self.cache.get(digest, size)?.map(|file| Reading::of_file(&blob, file)))
    }

    /// What deltas can give of the image of `request`, over a base in its repository or where else it says;
    /// the reason where that is nothing. `seen` is its manifest, if it was read already. Layers that cannot be made
    /// as they were published are offered as tars, unless the request requires exact ones.
    ///
    /// # Errors
    /// As for [`plan`](super::plan).
    pub async fn offer(
        self: &Arc<Self>,
        session: &Session,
        request: &FetchRequest,
        seen: Option<Seen>,
    ) -> Result<Result<Arc<Offer>, Reason>> {
        let stock = open(session, &request.repository).await?;
        let (choice, told) = (request.base.clone(), session.clone());
        let elsewhere = on_thread(move || Elsewhere::open(&choice, &told)).await?;
        let nothing = Inventory::default();
        // Kept as blobs, wherever the base is.
        let request = FetchRequest { repository: StoreRef::Layout(self.cache.spool()), ..request.clone() };
        let spool = self.cache.spool();
        let (reference, cancel) = (&request.reference, &session.cancel);
        let opened = match seen {
            Some(Seen { digest, manifest, place }) => Opened::seen(reference, place, &digest, manifest)?,
            None => cancel.until(Opened::open(reference, &request.place, &spool)).await?,
        };
        let hand = Hand {
            session,
            request: &request,
            purpose: Purpose::Look,
            store: stock.as_ref().map(|stock| &stock.repository),
            inventory: stock.as_ref().map_or(&nothing, |stock| &stock.inventory),
            elsewhere: &elsewhere,
            spool: &spool,
        };
        let Next::Decided(mut decision) = cancel.until(hand.decide(&opened)).await? else {
            return Ok(Err(Reason::NoBase));
        };
        let has_blobs = decision.places.here.is_some();
        for layer in &mut decision.plan.layers {
            // The registry is for whoever pulls to ask, and so it counts what comes from there.
            layer.ways.retain(|way| way.origin != Origin::Whole && (has_blobs || way.origin != Origin::Here));
        }
        if !decision.plan.layers.iter().any(|layer| is_offered(layer, request.exact)) {
            return Ok(Err(decision.fallback.unwrap_or(Reason::NotSmaller)));
        }
        let beside = decision.bytes_beside_layers() + opened.metadata_bytes();
        Ok(Ok(Arc::new(Offer {
            workshop: self.clone(),
            session: session.clone(),
            request,
            decision: *decision,
            stock,
            files: OnceCell::new(),
            failures: Mutex::default(),
            beside: AtomicU64::new(beside),
        })))
    }
}

/// A repository that is only read, and what it holds.
#[derive(Debug)]
struct Stock {
    repository: Arc<dyn Repository>,
    inventory: Inventory,
}

/// A repository for reading, and what it holds; nothing where there is none.
async fn open(session: &Session, place: &StoreRef) -> Result<Option<Stock>> {
    let (place, session) = (place.clone(), session.clone());
    on_thread(move || {
        if !place.exists() {
            return Ok(None);
        }
        let repository = place.open(&session)?;
        Ok(Some(Stock { inventory: repository.inventory()?, repository }))
    })
    .await
}

/// Can it be made here, as it was published or as its tar, where that will do?
fn is_offered(layer: &PlannedLayer, exact: Exact) -> bool {
    layer.same_as.is_none()
        && layer.ways.first().is_some_and(|way| {
            let is_whole = way.blob.digest() == layer.published.digest();
            match (way.origin, is_whole) {
                (Origin::Here, true) => false,
                (_, true) => true,
                (Origin::Here, false) => is_exact(layer),
                (_, false) => exact != Exact::Require || is_exact(layer),
            }
        })
}

/// Is it known how to make the blob that was published?
fn is_exact(layer: &PlannedLayer) -> bool {
    let is_whole = layer.ways.first().is_some_and(|way| way.blob.digest() == layer.published.digest());
    is_whole || !matches!(layer.keep, Keep::Rewritten(_))
}

/// What deltas can give of an image. Its repositories stay open, so that nobody's gc takes the base away.
#[derive(Debug)]
pub struct Offer {
    workshop: Arc<Workshop>,
    session: Session,
    request: FetchRequest,
    decision: Decision,
    stock: Option<Stock>,
    files: OnceCell<Option<Arc<LazyFiles>>>,
    /// Layers that could not be made, and why.
    failures: Mutex<HashMap<Digest, String>>,
    beside: AtomicU64,
}

impl Offer {
    /// The image.
    pub fn image(&self) -> &Image {
        &self.decision.image
    }

    /// Deltas from the base to the image, in the order of application.
    pub fn deltas(&self) -> Vec<Digest> {
        self.decision.deltas()
    }

    /// The layers that can be read here, as they were published; and whether what is read is to be that, and not its
    /// tar.
    pub fn layers(&self) -> impl Iterator<Item = (&Descriptor, bool)> {
        let layers = self.decision.plan.layers.iter();
        let offered = layers.filter(|layer| is_offered(layer, self.request.exact));
        offered.map(|layer| (&layer.published, is_exact(layer)))
    }

    /// Bytes that are read for it beside its layers: manifests, lists, links of a chain. The one who asks first
    /// counts them, others get 0.
    pub fn take_bytes_beside(&self) -> u64 {
        self.beside.swap(0, Ordering::Relaxed)
    }

    /// Why a layer could not be made, if that was tried.
    pub fn failure(&self, layer: &Digest) -> Option<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }

    /// Reads a layer, which is made once, however many read it; `None` for one that is not offered, or could not
    /// be made before.
    ///
    /// # Errors
    /// Local, where the cache cannot be read.
    pub fn read(self: &Arc<Self>, digest: &Digest) -> Result<Option<Reading>> {
        let layers = &self.decision.plan.layers;
        let wanted = |layer: &PlannedLayer| {
            layer.published.digest() == digest && is_offered(layer, self.request.exact)
        };
        let Some(index) = layers.iter().position(wanted).filter(|_| self.failure(digest).is_none()) else {
            return Ok(None);
        };
        let published = &layers[index].published;
        let mut at_work = self.workshop.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = at_work.get(digest) {
            let counts = Received::default();
            return Ok(Some(Reading { counts, ..Reading::new(published, progress.clone()) }));
        }
        if let Some(file) = self.workshop.cache.get(digest, published.size())? {
            return Ok(Some(Reading::of_file(published, file)));
        }
        let (tell, progress) = watch::channel(Progress::default());
        at_work.insert(digest.clone(), progress.clone());
        drop(at_work);
        // It goes on when nobody reads any more: what is half made would be lost.
        tokio::spawn(self.clone().rebuild(index, tell));
        Ok(Some(Reading::new(published, progress)))
    }

    async fn rebuild(self: Arc<Self>, index: usize, tell: watch::Sender<Progress>) {
        let digest = self.decision.plan.layers[index].published.digest().clone();
        let received = tell.borrow().received.clone();
        let tell = Arc::new(Teller(tell));
        let made = self.make(index, received, tell.clone()).await;
        // What has to do with the network or the disk may go well another time.
        let lasts = |e: &&Error| matches!(e.kind(), Kind::Misfit | Kind::Verification);
        if let Some(e) = made.as_ref().err().filter(lasts) {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.insert(digest.clone(), e.to_string());
        }
        // Whoever comes now looks into the cache.
        self.workshop.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let end = made.map(|layer| layer.stored.digest().clone()).map_err(|e| e.to_string());
        tell.0.send_modify(|progress| progress.end = Some(progress.end.take().unwrap_or(end)));
    }

    async fn make(&self, index: usize, received: Received, tell: Arc<Teller>) -> Result<LayerEnd> {
        let _turn = self.workshop.rebuilds.acquire().await.map_err(|e| Error::local(e.to_string()))?;
        let nothing = Inventory::default();
        let bring = Bring {
            session: &self.session,
            request: &self.request,
            target: self.workshop.cache.taking(tell),
            store: self.stock.as_ref().map(|stock| &stock.repository),
            inventory: self.stock.as_ref().map_or(&nothing, |stock| &stock.inventory),
            received: vec![received; self.decision.plan.layers.len()],
        };
        let files = self.files.get_or_try_init(|| bring.files(&self.decision)).await?;
        bring.one(&self.decision, files.clone(), index).await
    }
}

/// How far the file of a layer is.
#[derive(Debug, Clone, Default)]
struct Progress {
    file: Option<Arc<File>>,
    /// Times that it was begun.
    begun: u32,
    bytes: u64,
    /// How it ended: all bytes are right, those of the blob with this digest; or why they never will be.
    end: Option<Result<Digest, String>>,
    received: Received,
}

/// Tells those who read along.
#[derive(Debug)]
struct Teller(watch::Sender<Progress>);

impl Growth for Teller {
    fn begin(&self, file: File) {
        self.0.send_modify(|progress| {
            (progress.file, progress.bytes) = (Some(Arc::new(file)), 0);
            progress.begun += 1;
        });
    }

    fn grow(&self, bytes: u64) {
        self.0.send_if_modified(|progress| {
            let step = bytes / STEP > progress.bytes / STEP;
            progress.bytes = bytes;
            step
        });
    }

    fn verified(&self, digest: &Digest) {
        self.0.send_modify(|progress| progress.end = Some(Ok(digest.clone())));
    }
}

/// Follows the blob of a layer as it is made.
#[derive(Debug)]
pub struct Reading {
    /// As published.
    digest: Digest,
    size: u64,
    progress: watch::Receiver<Progress>,
    counts: Received,
    started: Instant,
    /// Keeps a channel open that nobody tells anything any more.
    _teller: Option<watch::Sender<Progress>>,
    /// Over all that was read, which may have been of a file that was begun anew since.
    prefix: Hasher,
    begun: u32,
}

impl Reading {
    fn new(blob: &Descriptor, progress: watch::Receiver<Progress>) -> Self {
        let (begun, counts) = {
            let now = progress.borrow();
            (now.begun, now.received.clone())
        };
        let (started, prefix) = (Instant::now(), Hasher::default());
        let (digest, size) = (blob.digest().clone(), blob.size());
        Reading { digest, size, progress, counts, started, _teller: None, prefix, begun }
    }

    fn of_file(blob: &Descriptor, file: File) -> Self {
        let (file, end) = (Some(Arc::new(file)), Some(Ok(blob.digest().clone())));
        let progress = Progress { file, begun: 1, bytes: blob.size(), end, ..Progress::default() };
        let (teller, progress) = watch::channel(progress);
        Reading { _teller: Some(teller), ..Reading::new(blob, progress) }
    }

    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that were read, and the hash of them, with which to go on elsewhere.
    pub fn prefix(&self) -> &Hasher {
        &self.prefix
    }

    /// Counts the bytes that come for this layer: for the one who asked first, so that they count once.
    pub fn counts(&self) -> &Received {
        &self.counts
    }

    /// Since it was asked for.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The whole blob, once it is right, and its digest, which is that of the tar for a layer that is no more than
    /// that here; nothing of it was read before.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub async fn whole(&mut self) -> Result<(Arc<File>, Digest)> {
        let progress = self.progress.wait_for(|progress| progress.end.is_some()).await.map_err(|_| gone())?;
        match (&progress.end, &progress.file) {
            (Some(Ok(digest)), Some(file)) => Ok((file.clone(), digest.clone())),
            (Some(Err(why)), _) => Err(Error::misfit(why.clone())),
            _ => Err(gone()),
        }
    }

    /// The next bytes, as soon as they may be given away; `None` after the last. For exact layers.
    ///
    /// # Errors
    /// Why the blob cannot be made as it was published, or not from here on.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            let ready = match &now.end {
                Some(Err(why)) => return Err(Error::misfit(why.clone())),
                Some(Ok(made)) if *made != self.digest => return Err(Error::misfit("made as another blob")),
                Some(Ok(_)) => self.size,
                None => now.bytes.min(self.size.saturating_sub(HOLD_BACK)),
            };
            let at = self.prefix.bytes();
            if let Some(file) = now.file.filter(|_| ready > at || at == self.size) {
                if now.begun != self.begun {
                    self.same_so_far(file.clone()).await?;
                    self.begun = now.begun;
                }
                if ready == at {
                    return Ok(None);
                }
                return self.read(file, (ready - at).min(PIECE)).await.map(Some);
            }
            if now.end.is_some() {
                return if at == self.size { Ok(None) } else { Err(gone()) };
            }
            self.progress.changed().await.map_err(|_| gone())?;
        }
    }

    async fn read(&mut self, file: Arc<File>, length: u64) -> Result<Bytes> {
        let mut hasher = std::mem::take(&mut self.prefix);
        let at = hasher.bytes();
        let read = move || {
            let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
            file.read_exact_at(&mut piece, at).at("rebuilt layer")?;
            hasher.update(&piece);
            Ok((hasher, Bytes::from(piece)))
        };
        let (hasher, piece) = on_thread(read).await?;
        self.prefix = hasher;
        Ok(piece)
    }

    /// Does the file begin with what was read of another one before?
    async fn same_so_far(&self, file: Arc<File>) -> Result<()> {
        let (read, mut again) = (self.prefix.clone(), Hasher::default());
        let length = read.bytes();
        let hash = move || {
            let mut piece = vec![0; PIECE as usize];
            while again.bytes() < length {
                let most = usize::try_from(length - again.bytes()).unwrap_or(usize::MAX).min(piece.len());
                file.read_exact_at(&mut piece[..most], again.bytes()).at("rebuilt layer")?;
                again.update(&piece[..most]);
            }
            Ok(again.finish() == read.finish())
        };
        if on_thread(hash).await? {
            return Ok(());
        }
        Err(Error::verification("the layer was begun anew, and does not begin as it did"))
    }
}

fn gone() -> Error {
    Error::local("the work on this layer was given up")
}
