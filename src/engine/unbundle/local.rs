//! Into a repository on this machine: each image as if its delta had been named.

use std::collections::HashSet;

use super::{Bundled, End, Otherwise, Task, Unbundled, digest_in, mapped};
use crate::digest::Digest;
use crate::engine::fetch;
use crate::engine::outcome::Status;
use crate::engine::request::{DeltaPolicy, Deltas, FetchRequest};
use crate::error::Result;
use crate::exact::Exact;
use crate::plan::Origin;
use crate::platform::Platform;
use crate::store::{StoreRef, StoredImage};

pub(super) struct Door<'a> {
    pub task: Task<'a>,
    pub repository: &'a StoreRef,
}

impl Door<'_> {
    /// Brings all images.
    pub(super) async fn bring_all(&self) -> Result<Vec<Unbundled>> {
        let mut done = Vec::new();
        let there = self.there()?;
        for image in &self.task.bundle.table.images {
            let mut unbundled = Unbundled::of(image);
            let brought = Box::pin(self.bring(image, &there, &mut unbundled));
            let end = self.task.session.cancel.until(brought).await;
            done.push(unbundled.ended(end)?);
        }
        Ok(done)
    }

    /// Names of the images that are there as they were published, with their digests: a run that brings nothing
    /// reads the repository once.
    fn there(&self) -> Result<HashSet<(String, Digest)>> {
        let Door { task, repository } = self;
        if !repository.exists() {
            return Ok(HashSet::new());
        }
        let images = repository.open(task.session)?.inventory()?.images.into_iter();
        let verbatim = images.filter(StoredImage::is_verbatim);
        Ok(verbatim.filter_map(|image| Some((image.name.clone()?, image.published_manifest()))).collect())
    }

    async fn bring(
        &self,
        image: &Bundled,
        there: &HashSet<(String, Digest)>,
        unbundled: &mut Unbundled,
    ) -> Result<End> {
        let Door { task: Task { session, request, bundle }, repository } = self;
        unbundled.to = mapped(&image.name, &request.map).unwrap_or_else(|| image.name.clone());
        let root = bundle.entry(&digest_in(&image.digest)?)?;
        let platform = request.place.platform.clone().unwrap_or_else(Platform::host);
        let resolved = bundle.layout.resolve(root.image_name(), &platform)?;
        let manifest = image.manifests.iter().find(|m| m.digest == resolved.digest().to_string());
        if there.contains(&(unbundled.to.clone(), resolved.digest().clone())) {
            return Ok(End::Present);
        }
        let delta = manifest.and_then(|manifest| manifest.delta.as_deref());
        let reference = match delta {
            Some(delta) => bundle.entry(&digest_in(delta)?)?,
            None => root,
        };
        let fetching = FetchRequest {
            name: Some(unbundled.to.clone()),
            deltas: Deltas { policy: DeltaPolicy::Auto, ..Deltas::default() },
            exact: match request.otherwise {
                Otherwise::Fail => Exact::Require,
                Otherwise::Rewrite => Exact::Auto,
            },
            place: request.place.clone(),
            limits: request.limits.clone(),
            ..FetchRequest::new(reference, (*repository).clone())
        };
        let outcome = match request.dry_run {
            true => crate::engine::plan(session, &fetching).await?,
            false => fetch(session, &fetching).await?,
        };
        unbundled.rebuilt = outcome.layers.iter().filter(|layer| layer.origin == Origin::Patch).count();
        let lacking = outcome.layers.iter().filter(|layer| layer.origin != Origin::Here);
        unbundled.sent = lacking.map(|layer| layer.published_bytes).sum();
        Ok(match outcome.status {
            Status::AlreadyPresent => End::Present,
            Status::Fetched => End::Brought,
            Status::Planned => End::Planned,
        })
    }
}
