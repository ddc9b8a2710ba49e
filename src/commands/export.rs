//! `export`: an image leaves the repository.

use serde::Serialize;

use super::Context;
use super::report::{VERSION, fidelity};
use crate::cli::ExportArgs;
use crate::engine::export::{ExportRequest, Otherwise, export};
use crate::error::Result;
use crate::exact::Recipes;
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
    /// Signatures that went along, to a registry.
    signatures: Option<usize>,
}

/// How many signatures went along, for people.
pub(super) fn carried(signatures: Option<usize>) -> String {
    match signatures {
        None => String::new(),
        Some(1) => "1 signature went along\n".to_owned(),
        Some(n) => format!("{n} signatures went along\n"),
    }
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
        recipes: Recipes::default(),
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
        signatures: exported.signatures,
    };
    let along = carried(report.signatures);
    context.print(&report, || format!("{}\n{}\n{along}", report.to, report.manifest))
}
