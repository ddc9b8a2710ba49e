//! An image that a client is about to bring into its repository, brought there before, where deltas help.

use std::path::Path;

use super::base::{Elsewhere, Homes};
use super::decision::Purpose;
use super::outcome::Outcome;
use super::request::FetchRequest;
use super::{Decided, Plan};
use crate::error::Result;
use crate::ostree::OstreeRepository;
use crate::session::Session;

/// Is there any image here that deltas could start from? Nothing is asked of anybody.
///
/// # Errors
/// When a place of bases cannot be read.
pub fn has_bases(session: &Session, request: &FetchRequest) -> Result<bool> {
    let elsewhere = Elsewhere::open(&request.base, session)?;
    let repository = Some(&request.repository).filter(|repository| repository.exists());
    let repository = repository.map(|repository| repository.open(session)).transpose()?;
    let inventory = repository.as_ref().map(|repository| repository.inventory()).transpose()?;
    let homes = Homes { repository: repository.as_ref().zip(inventory.as_ref()), elsewhere: &elsewhere };
    Ok(!homes.are_empty())
}

/// How many images of the ostree repository at `path` can be bases.
///
/// # Errors
/// When it cannot be read.
pub fn images_in_ostree(path: &Path) -> Result<usize> {
    OstreeRepository::open(path).map(|repository| repository.count())
}

/// An image that deltas help to bring into a repository.
pub struct ByDelta<'a>(Plan<'a>);

impl<'a> ByDelta<'a> {
    /// Looks whether deltas help with the image that `request` names; `None` when none does.
    ///
    /// # Errors
    /// As [`fetch`](super::fetch).
    pub async fn look(session: &'a Session, request: &FetchRequest) -> Result<Option<Self>> {
        let plan = Box::pin(Plan::make(session, request, Purpose::Fetch)).await?;
        let helps = matches!(&plan.decided, Decided::Bring(decision) if decision.plan.uses_delta());
        Ok(helps.then_some(ByDelta(plan)))
    }

    /// Fetches it.
    ///
    /// # Errors
    /// As [`fetch`](super::fetch).
    pub async fn fetch(self) -> Result<Outcome> {
        Box::pin(self.0.run()).await
    }
}

impl std::fmt::Debug for ByDelta<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ByDelta").finish_non_exhaustive()
    }
}
