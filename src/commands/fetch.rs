//! `fetch`: brings the image behind a reference into the repository.

use super::Context;
use super::export::carried;
use super::report::Report;
use crate::cli::FetchArgs;
use crate::engine;
use crate::engine::export::export;
use crate::error::{Error, Result};

/// Runs the command.
pub(super) async fn run(context: &Context, args: &FetchArgs) -> Result<()> {
    let reference = args.reference.as_ref().ok_or_else(|| Error::usage("no REF is given"))?;
    let request = args.request(reference, &context.repo)?;
    let outcome = match args.dry_run {
        true => engine::plan(&context.session, &request).await?,
        false => engine::fetch(&context.session, &request).await?,
    };
    if let Some(note) = &outcome.note {
        context.say(&format!("note: {note}"));
    }
    let mut report = Report::new(reference, &outcome);
    if let Some(request) = args.export(&outcome, &context.repo)? {
        report.carried_signatures = export(&context.session, &request).await?.signatures;
    }
    context.print(&report, || report.text() + &carried(report.carried_signatures))
}
