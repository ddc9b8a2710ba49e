//! `apply` and `import`: what a delta makes, for a place that has the layers which did not change.

use super::report::Report;
use super::{Context, write_stdout};
use crate::cli::{ApplyArgs, ImportArgs};
use crate::engine::apply::{self, ApplyRequest};
use crate::error::Result;
use crate::reference::Reference;

/// Runs `apply`.
pub(super) async fn apply(context: &Context, args: &ApplyArgs) -> Result<()> {
    let to = apply::output(&args.output)?;
    let request = args.request(delta(context, &args.delta)?)?;
    let request = with_repository(context, request);
    let outcome = apply::apply(&context.session, &request, &to).await?;
    let report = Report::new(&request.delta, &outcome);
    match context.as_oci_delta {
        true => Ok(()),
        false => context.print(&report, || report.text()),
    }
}

/// Runs `import`.
pub(super) async fn import(context: &Context, args: &ImportArgs) -> Result<()> {
    let delta = delta(context, &args.delta)?;
    let outcome = apply::import(&context.session, &args.request(delta.clone())?, args.tag.as_deref()).await?;
    match context.json {
        true => context.print(&Report::new(&delta, &outcome), String::new),
        // What podman calls the image.
        false => write_stdout(&format!("{}\n", outcome.config.digest())),
    }
}

/// The delta that is meant. To the reference tool a bare path is an archive.
fn delta(context: &Context, text: &str) -> Result<Reference> {
    if context.as_oci_delta { apply::output(text) } else { Reference::or_path(text) }
}

/// Where no base is named, it may be in the repository.
fn with_repository(context: &Context, mut request: ApplyRequest) -> ApplyRequest {
    if request.storage.is_none() {
        request.base.repository = Some(context.repo.clone());
    }
    request
}
