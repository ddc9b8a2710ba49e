//! Into a repository on this machine: each image as if its delta had been named.

use super::{Bundle, Bundled, End, Otherwise, UnbundleRequest, Unbundled, digest_in, mapped};
use crate::engine::fetch;
use crate::engine::outcome::Status;
use crate::engine::request::{DeltaPolicy, Deltas, FetchRequest};
use crate::error::Result;
use crate::exact::Exact;
use crate::plan::Origin;
use crate::platform::Platform;
use crate::session::Session;
use crate::store::StoreRef;

pub(super) struct Door<'a> {
    pub session: &'a Session,
    pub request: &'a UnbundleRequest,
    pub bundle: &'a Bundle,
    pub repository: &'a StoreRef,
}

impl Door<'_> {
    pub(super) async fn bring(&self, image: &Bundled, unbundled: &mut Unbundled) -> Result<End> {
        let Door { session, request, bundle, repository } = self;
        unbundled.to = mapped(&image.name, &request.map).unwrap_or_else(|| image.name.clone());
        let root = bundle.entry(&digest_in(&image.digest)?)?;
        let platform = request.place.platform.clone().unwrap_or_else(Platform::host);
        let resolved = bundle.layout.resolve(root.image_name(), &platform)?;
        let manifest = image.manifests.iter().find(|m| m.digest == resolved.digest().to_string());
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
        Ok(match outcome.status {
            Status::AlreadyPresent => End::Present,
            Status::Fetched => End::Brought,
            Status::Planned => End::Planned,
        })
    }
}
