//! `export`: an image leaves the repository.

use serde::Serialize;

use super::Context;
use super::report::{VERSION, fidelity};
use crate::cli::ExportArgs;
use crate::engine::export::{ExportRequest, Otherwise, export};
use crate::error::Result;
use crate::platform::Platform;

#[derive(Debug, Serialize)]
struct ExportReport {
    version: u32,
    image: String,
    to: String,
    /// Digest of the manifest that left.
    manifest: String,
    /// `verbatim` or `rewritten`.
    fidelity: &'static str,
    /// Layers that were made as published on the way.
    made_exact: usize,
    /// Layers that stayed away.
    omitted: usize,
}

/// Runs the command.
pub(super) async fn run(context: &Context, args: &ExportArgs) -> Result<()> {
    let request = ExportRequest {
        repository: context.repo.clone(),
        image: args.image.clone(),
        to: args.to.clone(),
        otherwise: if args.rewrite { Otherwise::Rewrite } else { Otherwise::Fail },
        reused: args.reused,
        destination: args.destination.options()?.skopeo(Platform::host()),
        max_layer_size: args.limits.max_layer_size,
    };
    let exported = export(&context.session, &request).await?;
    let report = ExportReport {
        version: VERSION,
        image: args.image.clone(),
        to: args.to.clone(),
        manifest: exported.manifest.to_string(),
        fidelity: fidelity(exported.fidelity),
        made_exact: exported.made,
        omitted: exported.omitted,
    };
    context.print(&report, || format!("{}\n{}\n", report.to, report.manifest))
}
