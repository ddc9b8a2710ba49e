//! One layer: from the blob that arrives to the blob that is stored.
//!
//! A patch is applied to the base files and the tar goes into the store's
//! encoding; a whole layer is stored exactly as it comes, and unpacked on the
//! side only to check its diff_id. Runs on a worker thread.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use exact_encoders::fix;
use oci_spec::image::Descriptor;

use crate::apply;
use crate::base::{SourceFiles, View};
use crate::digest::{DiffId, Digest, LayerHasher, VerifiedLayer};
use crate::encoding::{self, Encoding};
use crate::error::{Error, IoContext, Kind, Result};
use crate::exact::{Remake, is_inexact};
use crate::fetch::{Job, Worked, Worker};
use crate::patch;
use crate::pipeline::Pipeline;
use crate::plan::{Keep, Origin, PlannedLayer, Way};
use crate::progress::{Event, Reporter};
use crate::store::{ImageTarget, LayerSink};
use crate::tardiff;

/// After a failure, at most this much more of a blob is read to find out
/// whether the blob itself is damaged, which is the better message.
const MAX_DRAIN: u64 = 4 << 20;

/// The next step when a patch makes something else than the layer.
const OTHER_BASE: &str = "the delta was made for another base, or the base was changed; pull the full image";

/// The same for a layer that is whole, and has the digest that the manifest gives it.
const OTHER_CONFIG: &str = "config and layers of this image do not belong together; it must be made anew";

/// Adds the next step to what is wrong with a layer.
fn advise(e: Error, hint: &'static str) -> Error {
    if e.kind() == Kind::Verification { e.with_hint(hint) } else { e }
}

/// The base's files, opened when the first patch needs them: what the plan takes for a layer may turn out to be one.
pub struct LazyFiles {
    open: Box<dyn Fn() -> Result<Arc<dyn SourceFiles>> + Send + Sync>,
    opened: Mutex<Option<Arc<dyn SourceFiles>>>,
}

impl LazyFiles {
    /// Those that `open` gives.
    pub fn new(open: impl Fn() -> Result<Arc<dyn SourceFiles>> + Send + Sync + 'static) -> Self {
        LazyFiles { open: Box::new(open), opened: Mutex::default() }
    }

    /// Opens them, if nobody has done so; others who want them wait.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn get(&self) -> Result<Arc<dyn SourceFiles>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            *opened = Some((self.open)()?);
        }
        opened.clone().ok_or_else(|| Error::misfit("no base image"))
    }
}

impl std::fmt::Debug for LazyFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyFiles").field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// A layer, and which of its ways is tried now.
#[derive(Debug, Clone)]
pub struct Try {
    /// As planned.
    pub layer: PlannedLayer,
    /// Position in [`PlannedLayer::ways`].
    pub way: usize,
}

impl Try {
    /// The way that is tried.
    pub fn way(&self) -> Option<&Way> {
        self.layer.ways.get(self.way)
    }

    /// The corrections that are needed to make it as published, and the most bytes that they may have.
    pub fn needed_fix(&self) -> Option<(&Descriptor, u64)> {
        let (Keep::Exact(making), Some(way)) = (&self.layer.keep, self.way()) else { return None };
        let fix = making.fix.as_ref().filter(|_| way.blob.digest() != self.layer.published.digest())?;
        Some((fix, fix::most(making.recipe.size())))
    }

    /// Is there something to do for it?
    pub fn is_work(&self) -> bool {
        self.way().is_none_or(|way| self.layer.is_work(way))
    }

    fn origin(&self) -> Origin {
        self.way().map_or(Origin::Whole, |way| way.origin)
    }

    fn blob(&self) -> &Descriptor {
        self.way().map_or(&self.layer.published, |way| &way.blob)
    }

    fn label(&self) -> String {
        let digest = self.layer.diff_id.as_digest().digest();
        format!("{} {}", &digest[..digest.len().min(12)], self.origin().name())
    }
}

/// A layer that is in the store now.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its blob there.
    pub stored: Descriptor,
    /// What it was made of, by the blob's first bytes.
    pub origin: Origin,
    /// Was it made as published, by its recipe?
    pub by_recipe: bool,
}

/// Makes stored layers out of blobs; shared by all workers.
#[derive(Debug)]
pub struct LayerWorker {
    /// Takes the layers.
    pub store: Arc<dyn ImageTarget>,
    /// Base files, for patches.
    pub files: Option<Arc<LazyFiles>>,
    /// How rebuilt layers are kept.
    pub encoding: Encoding,
    /// Bounds on patches.
    pub limits: tardiff::Limits,
    /// Threads of each encoder that makes a layer as published.
    pub threads: NonZeroUsize,
    /// Corrections for recipes, by digest.
    pub fixes: Arc<HashMap<Digest, Vec<u8>>>,
    /// The target's layers; [`Job::index`] points here.
    pub tries: Vec<Try>,
    /// Told about progress.
    pub reporter: Arc<dyn Reporter>,
}

impl LayerWorker {
    /// Works on one blob.
    ///
    /// # Errors
    /// What the blob, the base or the store does wrong, with the layer's name before it.
    fn make(&self, job: Job) -> Result<Worked<Made>> {
        let Job { index, round, mut blob } = job;
        let this = &self.tries[index];
        let label = this.label();
        self.reporter.event(Event::LayerStart { index, label: &label, bytes: blob.remaining() });
        let result = self.store_layer(this, index, round, &mut blob);
        let result = match result {
            Err(e)
                if matches!(e.kind(), Kind::Misfit | Kind::Verification)
                    && !is_inexact(&e)
                    && blob.remaining() <= MAX_DRAIN =>
            {
                // A damaged blob explains what came of it.
                blob.drain().at(&label).and(Err(e))
            }
            other => other,
        };
        let diff_id = &this.layer.diff_id;
        match result {
            Ok(Worked::Done(made)) => {
                self.store.note_finished(diff_id, &made.stored)?;
                self.reporter.event(Event::LayerDone { index, outcome: made.origin.name() });
                Ok(Worked::Done(made))
            }
            Ok(Worked::Again) => Ok(Worked::Again),
            Err(e) => Err(e.context(format!("layer {diff_id}"))),
        }
    }

    fn store_layer(
        &self,
        this: &Try,
        index: usize,
        round: u32,
        blob: &mut (impl Read + Send),
    ) -> Result<Worked<Made>> {
        let blob = Counted { inner: blob, index, reporter: &*self.reporter };
        let (is_patch, blob) = patch::sniff(blob).at("blob")?;
        if is_patch {
            return self.apply(&this.layer, round, blob);
        }
        let origin = if this.origin() == Origin::Patch { Origin::Carried } else { this.origin() };
        let is_published = this.blob().digest() == this.layer.published.digest();
        let (stored, by_recipe) = match &this.layer.keep {
            Keep::Plain | Keep::Exact(_) if !is_published => {
                (self.convert(&this.layer, blob)?, this.layer.has_recipe())
            }
            _ => (self.keep(this, blob)?, false),
        };
        Ok(Worked::Done(Made { stored, origin, by_recipe }))
    }

    fn apply(&self, layer: &PlannedLayer, round: u32, blob: impl Read) -> Result<Worked<Made>> {
        let files = self.files.as_ref().ok_or_else(|| Error::misfit("a patch needs a base image"))?.get()?;
        let view = View::new(&*files, round);
        match self.apply_to(&view, layer, blob) {
            Ok(stored) => {
                Ok(Worked::Done(Made { stored, origin: Origin::Patch, by_recipe: layer.has_recipe() }))
            }
            Err(e) if !is_inexact(&e) && view.has_another_chance(&e) => Ok(Worked::Again),
            // A damaged base file explains what came of it.
            Err(e) if e.kind() == Kind::Verification && !is_inexact(&e) => files.check_opened().and(Err(e)),
            Err(e) => Err(e),
        }
    }

    /// What the tar of a layer is written into.
    fn begin(&self, layer: &PlannedLayer) -> Result<Box<dyn LayerSink>> {
        match &layer.keep {
            Keep::Rewritten(_) => self.store.begin_layer(self.encoding),
            Keep::Plain => self.store.begin_layer(Encoding::Plain),
            Keep::Exact(making) => {
                let fix = making.fix.as_ref().and_then(|fix| self.fixes.get(fix.digest())).cloned();
                let remake = Remake { recipe: &making.recipe, fix, threads: self.threads };
                self.store.begin_exact(&layer.published, remake)
            }
        }
    }

    fn apply_to(&self, files: &View<'_>, layer: &PlannedLayer, blob: impl Read) -> Result<Descriptor> {
        let sink = self.begin(layer)?;
        // Hashing takes as long as decoding and reading the base, and so may writing: three threads.
        let mut tar = Pipeline::new(LayerHasher::new(io::sink(), layer.limit), sink).at("layer")?;
        apply::apply_patch(blob, files, &self.limits, &mut tar)?;
        let (tar, sink) = tar.finish()?;
        let (_, verified) = tar.finish(&layer.diff_id).map_err(|e| advise(e, OTHER_BASE))?;
        sink.finish(&verified)
    }

    /// Stores a whole layer: verbatim, or in a store that takes layers apart, its tar.
    fn keep(&self, this: &Try, mut blob: impl Read + Send) -> Result<Descriptor> {
        let layer = &this.layer;
        let mut head = [0; encoding::HEAD];
        let n = encoding::read_full(&mut blob, &mut head).at("blob")?;
        let media_type = encoding::media_type_of(&head[..n]);
        let mut blob = Cursor::new(&head[..n]).chain(blob);
        let Some(copy) = self.store.begin_verbatim()? else {
            let sink = self.store.begin_layer(Encoding::Plain)?;
            let (sink, verified) = self.unpack(&mut blob, layer, sink)?;
            return sink.finish(&verified);
        };
        let mut tee = Tee { inner: blob, copy };
        let (_, verified) = self.unpack(&mut tee, layer, io::sink())?;
        let blob = this.blob();
        let media_type = if blob.digest() == layer.published.digest() {
            layer.published.media_type().clone()
        } else {
            media_type
        };
        tee.copy.finish(&verified, media_type, blob.digest(), blob.size())
    }

    /// Makes what was published of a layer that comes in another encoding.
    fn convert(&self, layer: &PlannedLayer, blob: impl Read + Send) -> Result<Descriptor> {
        convert(blob, &layer.diff_id, layer.limit, self.limits.window_log, self.begin(layer)?)
    }

    /// Unpacks a whole layer into `out` and checks its diff_id; reads the blob to its end.
    fn unpack<W: Write>(
        &self,
        blob: &mut (impl Read + Send),
        layer: &PlannedLayer,
        out: W,
    ) -> Result<(W, VerifiedLayer)> {
        let mut tar = LayerHasher::new(out, layer.limit);
        let mut plain = encoding::decompress(&mut *blob, self.limits.window_log).at("layer")?;
        io::copy(&mut plain, &mut tar).at("layer")?;
        drop(plain);
        io::copy(blob, &mut io::sink()).at("blob")?;
        tar.finish(&layer.diff_id).map_err(|e| advise(e, OTHER_CONFIG))
    }
}

/// Writes the tar of a whole layer, at most `limit` bytes, into `sink`, and checks its diff_id.
///
/// # Errors
/// What is wrong with the blob or the sink.
pub(crate) fn convert(
    mut blob: impl Read + Send,
    diff_id: &DiffId,
    limit: u64,
    window_log: u32,
    sink: Box<dyn LayerSink>,
) -> Result<Descriptor> {
    let mut tar = Pipeline::new(LayerHasher::new(io::sink(), limit), sink).at("layer")?;
    let mut plain = encoding::decompress(&mut blob, window_log).at("layer")?;
    io::copy(&mut plain, &mut tar).at("layer")?;
    drop(plain);
    io::copy(&mut blob, &mut io::sink()).at("blob")?;
    let (tar, sink) = tar.finish()?;
    let (_, verified) = tar.finish(diff_id).map_err(|e| advise(e, OTHER_CONFIG))?;
    sink.finish(&verified)
}

impl Worker<Result<Made>> for LayerWorker {
    fn work(&self, job: Job) -> Result<Worked<Result<Made>>> {
        self.make(job).map(|step| match step {
            Worked::Done(made) => Worked::Done(Ok(made)),
            Worked::Again => Worked::Again,
        })
    }

    /// Whatever one way to a layer ends with, the next one may lead to it; an interrupt ends all.
    fn failed(&self, index: usize, error: Error) -> Result<Result<Made>> {
        let this = &self.tries[index];
        let harmless = match error.kind() {
            Kind::Interrupted => false,
            // The same way leads to the layer in another encoding.
            _ if is_inexact(&error) => true,
            // Of the delta: the other layers are there for the next run.
            Kind::Misfit | Kind::Verification if this.origin().is_of_delta() => true,
            _ => this.way + 1 < this.layer.ways.len(),
        };
        if harmless { Ok(Err(error)) } else { Err(error) }
    }
}

/// Reports the bytes that pass.
struct Counted<'a, R> {
    inner: R,
    index: usize,
    reporter: &'a dyn Reporter,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n > 0 {
            self.reporter.event(Event::LayerBytes { index: self.index, delta: n as u64 });
        }
        Ok(n)
    }
}

/// Writes what it reads to a second place.
struct Tee<R, W> {
    inner: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.copy.write_all(&buf[..n]).map_err(|e| io::Error::from(Error::from_io(e, "repository")))?;
        Ok(n)
    }
}
