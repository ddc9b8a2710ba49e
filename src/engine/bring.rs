//! Brings the layers of an image into the repository, as decided.

use std::collections::HashMap;
use std::sync::Arc;

use super::chain::Chain;
use super::decision::{Applied, Decision};
use super::opened::{concurrency, cores};
use super::outcome::{Kept, LayerEnd};
use super::request::FetchRequest;
use crate::base::Unpacking;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::exact::{self, Exact, inexact, is_inexact};
use crate::fetch::{self, Download, Received};
use crate::plan::{Keep, Origin};
use crate::progress::Event;
use crate::rebuild::{LayerWorker, LazyFiles, Made, Try};
use crate::session::Session;
use crate::spool::Spool;
use crate::store::{ImageTarget, Inventory, Repository};
use crate::tardiff;
use crate::trust::Verified;

/// The work on the layers.
pub(super) struct Bring<'a> {
    pub session: &'a Session,
    pub request: &'a FetchRequest,
    /// Takes the layers.
    pub target: Arc<dyn ImageTarget>,
    /// Has the layers that are here.
    pub store: Option<&'a Arc<dyn Repository>>,
    pub inventory: &'a Inventory,
    /// What came for each layer.
    pub received: Vec<Received>,
}

/// What is made of layers, by their positions.
type AllMade = HashMap<usize, Made>;

impl<'a> Bring<'a> {
    pub(super) fn new(
        session: &'a Session,
        request: &'a FetchRequest,
        store: &'a Arc<dyn Repository>,
        inventory: &'a Inventory,
        decision: &Decision,
    ) -> Self {
        let received = decision.plan.layers.iter().map(|_| Received::default()).collect();
        Bring { session, request, target: store.clone(), store: Some(store), inventory, received }
    }

    /// Brings all layers into the store, each by the first of its ways that leads to it. `instead` is
    /// the error to report when the last ways lead nowhere.
    pub(super) async fn layers(
        &self,
        decision: &Decision,
        verified: &Verified,
        instead: Option<Error>,
    ) -> Result<Vec<LayerEnd>> {
        verified.covers(&decision.image.manifest_digest)?;
        self.target.prepare(&decision.image, self.request.encoding, decision.plan.stored_bytes())?;
        let mut tries = first_tries(decision);
        let mut cause = instead;
        let files = match self.files(decision).await {
            Err(e) => {
                cause = Some(self.without_base(&mut tries, e)?);
                None
            }
            Ok(files) => files,
        };
        let all: Vec<usize> = (0..tries.len()).collect();
        let made = self.work(decision, files, &mut tries, &all, cause).await?;
        self.session.check()?;
        let end = |(index, this): (usize, &Try)| self.end(&made, index, this);
        tries.iter().enumerate().map(end).collect()
    }

    /// Brings one layer into the target, by one of its ways, for somebody who has judged the image; `files` are
    /// those of [`files`](Self::files).
    pub(super) async fn one(
        &self,
        decision: &Decision,
        files: Option<Arc<LazyFiles>>,
        index: usize,
    ) -> Result<LayerEnd> {
        let mut tries = first_tries(decision);
        let size = tries[index].layer.published.size();
        self.target.prepare(&decision.image, self.request.encoding, size)?;
        let made = self.work(decision, files, &mut tries, &[index], None).await?;
        self.end(&made, index, &tries[index])
    }

    /// Brings the `wanted` ones of the layers, each by the first of its ways that leads to it. `cause` is the
    /// error to report when the last ways lead nowhere.
    async fn work(
        &self,
        decision: &Decision,
        files: Option<Arc<LazyFiles>>,
        tries: &mut [Try],
        wanted: &[usize],
        mut cause: Option<Error>,
    ) -> Result<AllMade> {
        let fixes = Arc::new(self.fixes(decision, tries, wanted).await?);
        let mut made = AllMade::new();
        let mut pending: Vec<usize> = wanted.iter().copied().filter(|i| tries[*i].is_work()).collect();
        while !pending.is_empty() {
            let results = match self.try_all(decision, files.clone(), fixes.clone(), tries, &pending).await {
                // The last way leads nowhere: what went wrong before is what counts.
                Err(e) if e.kind() == Kind::Misfit => return Err(cause.unwrap_or(e)),
                results => results?,
            };
            let mut failed = Vec::new();
            for (index, result) in results {
                match result {
                    Ok(layer) => drop(made.insert(index, layer)),
                    Err(e) => failed.push((index, e)),
                }
            }
            failed.sort_by_key(|(index, _)| *index);
            pending = failed.iter().map(|(index, _)| *index).collect();
            let failed = self.without_recipes(tries, failed)?;
            let indexes: Vec<usize> = failed.iter().map(|(index, _)| *index).collect();
            if let Some((_, e)) = failed.into_iter().next() {
                let e = self.next_ways(tries, &indexes, e)?;
                cause.get_or_insert(e);
            }
            pending.retain(|index| tries[*index].is_work());
        }
        Ok(made)
    }

    /// Reads the corrections that recipes need; layers whose corrections cannot be had are kept without.
    ///
    /// # Errors
    /// Interrupted; Misfit where all must be exact.
    async fn fixes(
        &self,
        decision: &Decision,
        tries: &mut [Try],
        wanted: &[usize],
    ) -> Result<HashMap<Digest, Vec<u8>>> {
        let (mut fixes, mut failed) = (HashMap::new(), Vec::new());
        let mut room = exact::MAX_FIXES;
        for &index in wanted {
            let this = &tries[index];
            let Some((fix, most)) = this.needed_fix() else { continue };
            if fixes.contains_key(fix.digest()) {
                continue;
            }
            let read = decision.places.delta.read_blob(fix, most.min(room));
            match self.session.cancel.until(read).await {
                Ok(bytes) => {
                    room -= bytes.len() as u64;
                    self.received[index].add(bytes.len());
                    fixes.insert(fix.digest().clone(), bytes);
                }
                Err(e) if e.kind() == Kind::Interrupted => return Err(e),
                Err(e) => {
                    let layer = &this.layer.diff_id;
                    failed
                        .push((index, inexact(format!("layer {layer}: its corrections cannot be had: {e}"))));
                }
            }
        }
        self.without_recipes(tries, failed)?;
        Ok(fixes)
    }

    /// Those layers of which the recipe is wrong are kept without it from now on; gives the others back.
    ///
    /// # Errors
    /// Misfit where that is not wanted.
    fn without_recipes(&self, tries: &mut [Try], failed: Vec<(usize, Error)>) -> Result<Vec<(usize, Error)>> {
        let (inexact, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(|(_, e)| is_inexact(e));
        for (index, e) in inexact {
            if self.request.exact() == Exact::Require {
                return Err(Error::misfit(e.to_string()).with_source(e));
            }
            self.session.say(&format!("not kept as it was published: {e}"));
            tries[index].layer.keep = Keep::Rewritten(Some(e.to_string()));
        }
        Ok(others)
    }

    /// Goes on to the next way of each of those layers, which failed with `e` and the like, and gives it back.
    ///
    /// # Errors
    /// That one, where there is no other way, and an interrupt.
    fn next_ways(&self, tries: &mut [Try], failed: &[usize], e: Error) -> Result<Error> {
        let exhausted = failed.iter().any(|index| tries[*index].way + 1 >= tries[*index].layer.ways.len());
        if exhausted || e.kind() == Kind::Interrupted {
            return Err(e);
        }
        for index in failed {
            tries[*index].way += 1;
        }
        if !failed.is_empty() {
            let way = |index: &usize| tries[*index].way().map(|way| way.origin);
            let instead = match failed.iter().all(|index| way(index) == Some(Origin::Patch)) {
                true => "made by their other patch",
                false => "fetched whole",
            };
            self.session.say(&format!("{} of the layers are {instead}: {e}", failed.len()));
        }
        Ok(e)
    }

    /// The same for all patches, as the base cannot be read.
    ///
    /// # Errors
    /// As [`next_ways`](Self::next_ways).
    fn without_base(&self, tries: &mut [Try], e: Error) -> Result<Error> {
        let mut failed = Vec::new();
        for (index, this) in tries.iter_mut().enumerate() {
            let ways = this.layer.ways[this.way..].iter();
            let patches = ways.take_while(|way| way.origin == Origin::Patch).count();
            if patches > 0 {
                this.way += patches - 1;
                failed.push(index);
            }
        }
        self.next_ways(tries, &failed, e)
    }

    /// How a layer ended.
    fn end(&self, made: &AllMade, index: usize, Try { layer, .. }: &Try) -> Result<LayerEnd> {
        let own = made.get(&index);
        let made = layer.same_as.map_or(own, |first| made.get(&first));
        let stored = made.map(|made| &made.stored);
        let here = || self.inventory.layer(&layer.diff_id, &layer.published);
        let absent = (layer.origin() == Origin::Absent).then_some(&layer.published);
        let stored = stored.or(absent).or_else(here).ok_or_else(|| {
            Error::local(format!("layer {} is gone from the repository", layer.diff_id))
                .with_hint("run again")
        })?;
        Ok(LayerEnd {
            stored: stored.clone(),
            planned: layer.origin(),
            origin: own.map_or_else(|| absent.map_or(Origin::Here, |_| Origin::Absent), |made| made.origin),
            kept: Kept::of(layer, stored, made.is_some_and(|made| made.by_recipe)),
            bytes: self.received[index].bytes(),
        })
    }

    /// The files that patches read: opened when the plan has patches, else when a blob turns out to be one.
    pub(super) async fn files(&self, decision: &Decision) -> Result<Option<Arc<LazyFiles>>> {
        let Some(applied) = decision.applied.as_ref().filter(|_| decision.plan.uses_delta()) else {
            return Ok(None);
        };
        let Applied { base, links, .. } = applied;
        let concurrency = concurrency(&decision.places.delta, self.request.place.jobs);
        let unpacking = Unpacking {
            spool: Spool::in_dir(&self.target.spool()),
            max_layer: self.request.limits.max_layer_size,
            cancel: self.session.cancel.clone(),
        };
        let (base_of, threads, opening) = (base.clone(), concurrency.workers, unpacking.clone());
        let target = decision.image.clone();
        let files = LazyFiles::new(move || base_of.files(&target, threads, &opening));
        let files = Arc::new(files);
        if links.is_empty() && !decision.plan.uses_patches() {
            return Ok(Some(files));
        }
        let opening = files.clone();
        let first = fetch::on_thread(move || opening.get()).await?;
        if links.is_empty() {
            return Ok(Some(files));
        }
        let chain = Chain {
            repository: self.store.map(|store| &**store),
            inventory: self.inventory,
            window_log: self.request.limits.max_window_log,
            concurrency,
            unpacking,
        };
        let last = chain.files(&**base, first, links).await?;
        Ok(Some(Arc::new(LazyFiles::new(move || Ok(last.clone())))))
    }

    /// Tries to bring the `pending` layers; a result for each, by its index.
    async fn try_all(
        &self,
        decision: &Decision,
        files: Option<Arc<LazyFiles>>,
        fixes: Arc<HashMap<Digest, Vec<u8>>>,
        tries: &[Try],
        pending: &[usize],
    ) -> Result<Vec<(usize, Result<Made>)>> {
        let concurrency = concurrency(&decision.places.image, self.request.place.jobs);
        let downloads = self.downloads(decision, tries, pending);
        let total_bytes = downloads.iter().map(|d| d.blob.size()).sum();
        self.session.reporter.event(Event::Start { total_bytes, layers: downloads.len() });
        let order: Vec<usize> = downloads.iter().map(|d| d.index).collect();
        let encoders = pending.iter().filter(|index| tries[**index].layer.has_recipe()).count();
        let worker = LayerWorker {
            store: self.target.clone(),
            files,
            encoding: self.request.encoding,
            limits: tardiff::Limits {
                window_log: self.request.limits.max_window_log,
                spool: Some(self.target.spool()),
                threads: exact::threads_each(cores(), 1),
                ..Default::default()
            },
            threads: exact::threads_each(cores(), encoders.min(concurrency.workers)),
            fixes,
            tries: tries.to_vec(),
            reporter: self.session.reporter.clone(),
        };
        let stored = fetch::run(downloads, concurrency, &self.session.cancel, Arc::new(worker)).await;
        self.session.reporter.event(Event::Finish);
        Ok(order.into_iter().zip(stored?).collect())
    }

    /// The blobs to bring, largest first, so that no big one is left for the end.
    fn downloads(&self, decision: &Decision, tries: &[Try], pending: &[usize]) -> Vec<Download> {
        let download = |index: &usize| {
            let way = tries[*index].way()?;
            let place = decision.places.of(way.origin).clone();
            let download = Download::new(*index, way.blob.clone(), place);
            Some(match way.origin {
                // Not from the source, so it does not count.
                Origin::Base | Origin::Here | Origin::Absent => download,
                _ => Download { received: self.received[*index].clone(), ..download },
            })
        };
        let mut downloads: Vec<Download> = pending.iter().filter_map(download).collect();
        downloads.sort_by_key(|d| std::cmp::Reverse(d.blob.size()));
        downloads
    }
}

fn first_tries(decision: &Decision) -> Vec<Try> {
    decision.plan.layers.iter().map(|layer| Try { layer: layer.clone(), way: 0 }).collect()
}
