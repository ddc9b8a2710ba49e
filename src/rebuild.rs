//! One layer: from the blob that arrives to the blob that is stored.
//!
//! A patch is applied to the base files and the tar goes into the store's
//! encoding; a whole layer is stored exactly as it comes, and unpacked on the
//! side only to check its diff_id. Runs on a worker thread.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use oci_spec::image::Descriptor;

use crate::apply;
use crate::base::SourceFiles;
use crate::digest::{LayerHasher, VerifiedLayer};
use crate::encoding::{self, Encoding};
use crate::error::{Error, IoContext, Kind, Result};
use crate::fetch::{Job, Step, Worker};
use crate::pipeline::Pipeline;
use crate::plan::PlannedLayer;
use crate::progress::{Event, Reporter};
use crate::store::Store;
use crate::tardiff;

/// After a failure, at most this much more of a blob is read to find out
/// whether the blob itself is damaged, which is the better message.
const MAX_DRAIN: u64 = 4 << 20;

/// Bytes that tell a patch from a whole layer.
const HEAD: u64 = 8;

/// Makes stored layers out of blobs; shared by all workers.
#[derive(Debug)]
pub struct LayerWorker {
    /// Takes the layers.
    pub store: Arc<dyn Store>,
    /// Base files, for patches.
    pub files: Option<Arc<dyn SourceFiles>>,
    /// How rebuilt layers are kept.
    pub encoding: Encoding,
    /// Bounds on patches.
    pub limits: tardiff::Limits,
    /// The target's layers; [`Job::index`] points here.
    pub layers: Vec<PlannedLayer>,
    /// Told about progress.
    pub reporter: Arc<dyn Reporter>,
}

impl LayerWorker {
    /// Works on one blob.
    ///
    /// # Errors
    /// What the blob, the base or the store does wrong, with the layer's name before it.
    fn make(&self, job: Job) -> Result<Step<Descriptor>> {
        let Job { index, round, mut blob } = job;
        let layer = &self.layers[index];
        let label = label(layer);
        self.reporter.event(Event::LayerStart { index, label: &label, bytes: blob.remaining() });
        let result = self.store_layer(layer, index, round, &mut blob);
        let result = match result {
            Err(e)
                if matches!(e.kind(), Kind::Misfit | Kind::Verification) && blob.remaining() <= MAX_DRAIN =>
            {
                // A damaged blob explains what came of it.
                blob.drain().at(&label).and(Err(e))
            }
            other => other,
        };
        match result {
            Ok(Step::Done(stored)) => {
                self.store.note_finished(&layer.diff_id, &stored)?;
                self.reporter.event(Event::LayerDone { index, outcome: layer.action.name() });
                Ok(Step::Done(stored))
            }
            Ok(Step::Again) => Ok(Step::Again),
            Err(e) => Err(e.context(format!("layer {}", layer.diff_id))),
        }
    }

    fn store_layer(
        &self,
        layer: &PlannedLayer,
        index: usize,
        round: u32,
        blob: &mut (impl Read + Send),
    ) -> Result<Step<Descriptor>> {
        let mut blob = Counted { inner: blob, index, reporter: &*self.reporter };
        let mut head = Vec::new();
        blob.by_ref().take(HEAD).read_to_end(&mut head).at("blob")?;
        let is_patch = tardiff::is_patch(&head);
        let blob = Cursor::new(head).chain(blob);
        if is_patch { self.apply(layer, round, blob) } else { self.keep(layer, blob).map(Step::Done) }
    }

    fn apply(&self, layer: &PlannedLayer, round: u32, blob: impl Read) -> Result<Step<Descriptor>> {
        let files = self.files.as_deref().ok_or_else(|| Error::misfit("a patch needs a base image"))?;
        let sink = self.store.begin_layer(self.encoding)?;
        // Hashing takes as long as decoding and reading the base, and so may writing: three threads.
        let mut tar = Pipeline::new(LayerHasher::new(io::sink(), layer.limit), sink).at("layer")?;
        let stats = apply::apply_patch(blob, files, round, &self.limits, &mut tar)?;
        let (tar, sink) = tar.finish()?;
        match tar.finish(&layer.diff_id) {
            Ok((_, verified)) => sink.finish(&verified).map(Step::Done),
            Err(e) if e.kind() == Kind::Verification && stats.ambiguous && round == 0 => Ok(Step::Again),
            // A damaged base file explains what came of it.
            Err(e) => files.check_opened().and(Err(e)),
        }
    }

    /// Stores a whole layer: verbatim, or in a store that takes layers apart, its tar.
    fn keep(&self, layer: &PlannedLayer, mut blob: impl Read + Send) -> Result<Descriptor> {
        let mut head = [0; 4];
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
        let blob = layer.blob();
        let media_type = if blob.digest() == layer.target.digest() {
            layer.target.media_type().clone()
        } else {
            media_type
        };
        tee.copy.finish(&verified, media_type, blob.digest(), blob.size())
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
        tar.finish(&layer.diff_id)
    }
}

impl Worker<Result<Descriptor>> for LayerWorker {
    fn work(&self, job: Job) -> Result<Step<Result<Descriptor>>> {
        self.make(job).map(|step| match step {
            Step::Done(stored) => Step::Done(Ok(stored)),
            Step::Again => Step::Again,
        })
    }

    /// That a blob of the delta is gone or damaged, or does not fit the base, stops no other layer.
    fn failed(&self, index: usize, error: Error) -> Result<Result<Descriptor>> {
        let harmless = matches!(error.kind(), Kind::Misfit | Kind::Verification);
        if harmless && self.layers[index].action.is_of_delta() { Ok(Err(error)) } else { Err(error) }
    }
}

fn label(layer: &PlannedLayer) -> String {
    let digest = layer.diff_id.as_digest().digest();
    format!("{} {}", &digest[..digest.len().min(12)], layer.action.name())
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
