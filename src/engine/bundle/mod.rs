//! Makes a bundle: what another place lacks of some images, as small as can be.
//!
//! ```text
//! references ─ collect (manifests, deltas, referrers) ─ table, shared out to parts ─ blobs ─ tables, indexes
//! ```

mod collect;
mod referrers;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Descriptor;

use super::opened::concurrency;
use super::request::{Limits, PlaceOptions};
use crate::bundle::{Bundled, Have, Table, cut};
use crate::create;
use crate::digest::Digest;
use crate::error::{Error, IoContext as _, Result};
use crate::fetch::{self, Download, Job, Place, Worked, on_thread};
use crate::layout::bundle::{Form, Writer};
use crate::platform::Platform;
use crate::progress::Event;
use crate::reference::Reference;
use crate::region::Region;
use crate::session::Session;
use crate::spool::Spool;
use crate::store::require_room;
use collect::Collector;

/// Bytes that a part needs beside its blobs: the marker, the beginnings of index and table.
const OF_PART: u64 = 4 << 10;
/// Bytes for each blob in the table, and around it in an archive.
const OF_BLOB: u64 = 256 + 1024;
/// Bytes for each image in table and index.
const OF_IMAGE: u64 = 2 << 10;

/// A bundle to make.
#[derive(Debug, Clone)]
pub struct BundleRequest {
    /// The images.
    pub images: Vec<Reference>,
    /// Only this platform of each; `None`: all.
    pub platform: Option<Platform>,
    /// What the other place has.
    pub have: Have,
    /// How deltas are made where none is published; `None`: they are not.
    pub create: Option<Making>,
    /// Whether signatures, SBOMs and the like come along.
    pub referrers: Referrers,
    /// Where it goes.
    pub to: PathBuf,
    /// What the parts are.
    pub form: Form,
    /// Most bytes of a part.
    pub max_size: Option<u64>,
    /// How images are reached.
    pub place: PlaceOptions,
    /// Bounds on images.
    pub limits: Limits,
}

/// How deltas are made.
#[derive(Debug, Clone)]
pub struct Making {
    /// As for `create`.
    pub options: create::Options,
    /// Where those are kept that were made before.
    pub cache: PathBuf,
}

/// What becomes of what points to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referrers {
    /// All of it comes along.
    Required,
    /// It stays.
    LeftOut,
}

/// A bundle that was made, or would be.
#[derive(Debug, Clone)]
pub struct BundleOutcome {
    /// The images in it, those too of which the other place has all.
    pub images: Vec<BundledImage>,
    /// Its parts, once they are written.
    pub parts: Vec<PathBuf>,
    /// How many there are, or would be.
    pub part_count: usize,
    /// Bytes of all blobs in it.
    pub bytes: u64,
    /// Bytes of all its files on the medium.
    pub medium: u64,
    /// Bytes that were read for them, or would be.
    pub downloaded: u64,
}

/// An image in a bundle.
#[derive(Debug, Clone)]
pub struct BundledImage {
    /// Its name.
    pub name: String,
    /// Digest of what the name means.
    pub digest: Digest,
    /// Bytes of blobs that it adds.
    pub bytes: u64,
    /// Bytes of the whole layers that the other place lacks.
    pub whole_bytes: u64,
    /// Deltas for it.
    pub deltas: usize,
    /// Things that point to it.
    pub referrers: usize,
    /// Why a delta that was wanted could not be made; for people.
    pub notes: Vec<String>,
}

/// What an image brings into a bundle.
#[derive(Debug)]
struct Collected {
    bundled: Bundled,
    outcome: BundledImage,
    pieces: Vec<Piece>,
    /// Documents that go along as they are, with all that they name.
    whole: HashSet<String>,
    /// For the index.
    entries: Vec<(Descriptor, Option<String>)>,
}

/// A blob of a bundle.
#[derive(Debug)]
struct Piece {
    digest: Digest,
    size: u64,
    from: From,
}

#[derive(Debug)]
enum From {
    /// Read already.
    Bytes(Vec<u8>),
    Place(Box<Descriptor>, Place),
}

/// Tells what [`bundle`] would do, with the exact bytes. Deltas that have to be made are made, since nothing else tells
/// their sizes; the next run finds them.
///
/// # Errors
/// As [`bundle`].
pub async fn plan(session: &Session, request: &BundleRequest) -> Result<BundleOutcome> {
    let mut work = Work::collect(session, request).await?;
    let writer = work.begin(session, request).await?;
    let remote = work.pieces.iter().filter(|piece| matches!(&piece.from, From::Place(_, Place::Remote(_))));
    let (downloaded, medium) = (remote.map(|piece| piece.size).sum(), writer.bytes(&work.entries)?);
    Ok(BundleOutcome { downloaded, medium, ..work.outcome() })
}

/// Makes the bundle. Where it was begun before, it goes on.
///
/// # Errors
/// What the places of the images say; Usage when something else is at its place; local I/O errors.
pub async fn bundle(session: &Session, request: &BundleRequest) -> Result<BundleOutcome> {
    let work = Work::collect(session, request).await?;
    work.write(session, request).await
}

/// All that goes into a bundle, shared out to its parts.
struct Work {
    images: Vec<BundledImage>,
    pieces: Vec<Piece>,
    entries: Vec<(Descriptor, Option<String>)>,
    table: Table,
}

impl Work {
    async fn collect(session: &Session, request: &BundleRequest) -> Result<Self> {
        let collector = Collector { session, request };
        let (mut bundled, mut images, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut pieces: Vec<Piece> = Vec::new();
        let mut known: HashMap<Digest, ()> = HashMap::new();
        for reference in &request.images {
            let collected = session.cancel.until(Box::pin(collector.image(reference))).await?;
            let mut outcome = collected.outcome;
            for piece in collected.pieces {
                if known.insert(piece.digest.clone(), ()).is_none() {
                    outcome.bytes += piece.size;
                    pieces.push(piece);
                }
            }
            for (entry, name) in collected.entries {
                if !entries.iter().any(|(e, n): &(Descriptor, _)| e.digest() == entry.digest() && *n == name)
                {
                    entries.push((entry, name));
                }
            }
            bundled.push(collected.bundled);
            images.push(outcome);
        }
        let sizes: Vec<u64> = pieces.iter().map(|piece| piece.size).collect();
        let beside =
            OF_PART + OF_BLOB * sizes.len() as u64 + OF_IMAGE * (images.len() + entries.len()) as u64;
        let room = request.max_size.map(|max| max.saturating_sub(beside));
        let shares = cut(&sizes, room, 0)?;
        let blobs: Vec<_> = pieces.iter().map(|piece| (piece.digest.clone(), piece.size)).collect();
        let table = Table::new(bundled, &blobs, &shares)?;
        Ok(Work { images, pieces, entries, table })
    }

    fn outcome(self) -> BundleOutcome {
        BundleOutcome {
            images: self.images,
            parts: Vec::new(),
            part_count: self.table.parts,
            bytes: self.table.blobs.values().map(|blob| blob.size).sum(),
            medium: 0,
            downloaded: 0,
        }
    }

    /// Looks at the medium, and keeps of the pieces those that it lacks.
    async fn begin(&mut self, session: &Session, request: &BundleRequest) -> Result<Arc<Writer>> {
        let (to, form, table) = (request.to.clone(), request.form, self.table.clone());
        let (pieces, cancel) = (std::mem::take(&mut self.pieces), session.cancel.clone());
        let looked = on_thread(move || {
            let writer = Writer::begin(&to, form, table)?;
            let mut lacking = Vec::new();
            for piece in pieces {
                cancel.check()?;
                if !writer.has(&piece.digest)? {
                    lacking.push(piece);
                }
            }
            Ok((writer, lacking))
        });
        let (writer, lacking) = looked.await?;
        self.pieces = lacking;
        Ok(Arc::new(writer))
    }

    async fn write(mut self, session: &Session, request: &BundleRequest) -> Result<BundleOutcome> {
        let writer = self.begin(session, request).await?;
        let (pieces, entries) = (std::mem::take(&mut self.pieces), std::mem::take(&mut self.entries));
        let lacking = pieces.iter().map(|piece| piece.size).sum();
        // The folder is made later.
        let there = request.to.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        require_room(there, lacking)?;
        let downloaded = bring(session, request, &writer, pieces).await?;
        let writer = Arc::into_inner(writer).ok_or_else(|| Error::local("the bundle is still written to"))?;
        let medium = writer.bytes(&entries)?;
        let parts = on_thread(move || writer.finish(&entries)).await?;
        Ok(BundleOutcome { parts, medium, downloaded, ..self.outcome() })
    }
}

/// Puts blobs there; gives the bytes that were read.
async fn bring(
    session: &Session,
    request: &BundleRequest,
    writer: &Arc<Writer>,
    pieces: Vec<Piece>,
) -> Result<u64> {
    let mut downloads = Vec::new();
    for piece in pieces {
        match piece.from {
            From::Bytes(bytes) => {
                let len = bytes.len() as u64;
                writer.put(&piece.digest, &Region::of(Arc::new(bytes.into_boxed_slice()), len))?;
            }
            From::Place(blob, place) => downloads.push(Download::new(downloads.len(), *blob, place)),
        }
    }
    let Some(first) = downloads.first() else { return Ok(0) };
    let concurrency = concurrency(&first.place, request.place.jobs);
    let total_bytes = downloads.iter().map(|d| d.blob.size()).sum();
    session.reporter.event(Event::Start { total_bytes, layers: downloads.len() });
    let remote = downloads.iter().filter(|download| matches!(download.place, Place::Remote(_)));
    let received: Vec<_> = remote.map(|download| download.received.clone()).collect();
    let (spool, out, reporter) = (Spool::in_dir(&session.spool), writer.clone(), session.reporter.clone());
    let digests: Vec<Digest> = downloads.iter().map(|d| d.blob.digest().clone()).collect();
    let work = move |job: Job| {
        let Job { index, mut blob, .. } = job;
        let label = digests[index].digest()[..12].to_owned();
        reporter.event(Event::LayerStart { index, label: &label, bytes: blob.remaining() });
        let mut here = spool.begin().at(spool.dir().display())?;
        std::io::copy(&mut blob, &mut here).at("blob")?;
        let content = here.into_region();
        reporter.event(Event::LayerBytes { index, delta: content.len() });
        out.put(&digests[index], &content)?;
        reporter.event(Event::LayerDone { index, outcome: "bundled" });
        Ok(Worked::Done(()))
    };
    let done = fetch::run(downloads, concurrency, &session.cancel, Arc::new(work)).await;
    session.reporter.event(Event::Finish);
    done?;
    Ok(received.iter().map(fetch::Received::bytes).sum())
}
