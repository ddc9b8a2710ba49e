//! `create`: makes a delta between two images.

use std::fmt::Write as _;

use serde::Serialize;

use super::Context;
use super::files::PatchAccount;
use super::report::VERSION;
use crate::cli::{CreateArgs, Format};
use crate::create::{Beside, Carried};
use crate::engine::make::{CreateRequest, Created, create};
use crate::error::Result;
use crate::exact::Maker;
use crate::terminal::human_bytes;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct CreateReport {
    version: u32,
    output: String,
    /// Digest of the delta's manifest.
    digest: String,
    base_config: String,
    target_manifest: String,
    /// Bytes of the artifact: manifest and distinct blobs.
    delta_bytes: u64,
    /// Of these, what is read by those who take the smaller of two blobs for a layer.
    needed_bytes: u64,
    /// Bytes of a pull of the whole new image.
    full_pull_bytes: u64,
    layers: Vec<CarriedReport>,
    /// Where the bytes of each patch go, file by file.
    patches: Vec<PatchAccount>,
    seconds: f64,
    #[serde(skip)]
    statistics: Statistics,
}

#[derive(Debug, Serialize)]
struct CarriedReport {
    diff_id: String,
    carried: &'static str,
    /// Bytes in the artifact.
    bytes: u64,
    /// Bytes of the extended patch beside it, if there is one.
    extended_bytes: Option<u64>,
    /// Bytes of the layer's blob in the new image.
    target_bytes: u64,
    /// Why a patch was not used although one was made.
    fault: Option<String>,
    /// How whoever applies the delta makes that blob again.
    exact: Option<Maker>,
    /// Why that cannot be done.
    inexact: Option<String>,
}

/// The account that the reference tool prints.
#[derive(Debug, Default)]
struct Statistics {
    old_layers: usize,
    new_layers: usize,
    processed: usize,
    processed_bytes: u64,
    patch_bytes: u64,
    original_bytes: u64,
}

/// Runs the command.
pub(super) async fn run(context: &Context, mut args: CreateArgs) -> Result<()> {
    if context.as_oci_delta && args.binary_diff.is_none() {
        // What the reference tool makes, and no more.
        args.format.get_or_insert(Format::V1);
    }
    let request = CreateRequest {
        old: args.old.clone(),
        new: args.new.clone(),
        output: args.output.clone(),
        repository: context.repo.clone(),
        signatures: args.signature.clone(),
        options: args.options(context.session.spool.clone()),
        place: args.place.options()?,
        limits: args.limits.limits(),
        accounts: context.json,
    };
    let made = create(&context.session, request).await?;
    let report = CreateReport::new(&args.output, made);
    let statistics = args.statistics || context.verbose;
    if context.as_oci_delta {
        // Scripts read the account there, and nothing else.
        context.say(report.summary().trim_end());
        let account = || if statistics { report.account() } else { String::new() };
        return context.print(&report, account);
    }
    context.print(&report, || match statistics {
        true => report.summary() + &report.account(),
        false => report.summary(),
    })
}

impl CreateReport {
    fn new(output: &str, made: Created) -> Self {
        let (old_layers, new_layers) = (made.old.layers.len(), made.new.layers.len());
        let mut statistics = Statistics { old_layers, new_layers, ..Default::default() };
        let mut layers = Vec::new();
        for outcome in made.layers {
            let (carried, bytes, fault) = match &outcome.carried {
                Carried::Reused => ("reused", 0, None),
                Carried::Patch(content) => ("patch", content.len(), None),
                Carried::Extended(bytes) => ("extended-patch", *bytes, None),
                Carried::Original { bytes, fault } => ("original", *bytes, fault.clone()),
            };
            if carried != "reused" {
                statistics.processed += 1;
                statistics.processed_bytes += outcome.published_bytes;
            }
            match carried {
                "patch" | "extended-patch" => statistics.patch_bytes += bytes,
                _ => statistics.original_bytes += bytes,
            }
            layers.push(CarriedReport {
                diff_id: outcome.diff_id.to_string(),
                carried,
                bytes,
                extended_bytes: match outcome.extended {
                    Beside::Patch(bytes) => Some(bytes),
                    Beside::None | Beside::Fault(_) => None,
                },
                target_bytes: outcome.published_bytes,
                fault,
                exact: outcome.maker,
                inexact: outcome.inexact,
            });
        }
        CreateReport {
            version: VERSION,
            output: output.to_owned(),
            digest: made.digest.to_string(),
            base_config: made.old.config_digest.to_string(),
            target_manifest: made.new.manifest_digest.to_string(),
            delta_bytes: made.bytes,
            needed_bytes: made.needed_bytes,
            full_pull_bytes: made.new.full_bytes(),
            layers,
            patches: made.accounts.into_iter().map(PatchAccount::new).collect(),
            seconds: made.seconds,
            statistics,
        }
    }

    fn summary(&self) -> String {
        format!(
            "{}: {} of {} ({:.1} %), {} as patches, {:.1} s\n",
            self.output,
            human_bytes(self.needed_bytes),
            human_bytes(self.full_pull_bytes),
            self.needed_bytes as f64 * 100.0 / self.full_pull_bytes.max(1) as f64,
            match self.layers.iter().filter(|l| l.carried.ends_with("patch")).count() {
                1 => "1 layer".to_owned(),
                n => format!("{n} layers"),
            },
            self.seconds,
        )
    }

    fn account(&self) -> String {
        let mut out = self.statistics.text();
        for layer in &self.layers {
            let _ = writeln!(out, "  Layer {}: {}", layer.diff_id, layer.exactness());
        }
        out
    }
}

impl CarriedReport {
    fn exactness(&self) -> String {
        match (&self.exact, &self.inexact) {
            (Some(maker), _) => format!("exact by {maker}, a recipe of {} bytes", maker.bytes),
            (None, Some(reason)) => format!("not exact: {reason}"),
            (None, None) => "exact without a recipe".to_owned(),
        }
    }
}

impl Statistics {
    /// Line for line as the reference tool prints it: scripts read it.
    fn text(&self) -> String {
        let mut out = String::from("\nDelta creation statistics:\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "  {name} {value}");
        };
        line("Old image layers:", &self.old_layers);
        line("New image layers:", &self.new_layers);
        line("Processed layers:", &self.processed);
        line("Skipped layers:  ", &(self.new_layers - self.processed));
        line("Processed layer bytes: ", &self.processed_bytes);
        line("Tar-diff layer bytes:  ", &self.patch_bytes);
        line("Original layer bytes:  ", &self.original_bytes);
        if self.processed_bytes > 0 {
            let saved = self.processed_bytes as i128 - i128::from(self.patch_bytes + self.original_bytes);
            let percent = saved as f64 * 100.0 / self.processed_bytes as f64;
            line("Bytes saved:           ", &format!("{saved} ({percent:.1}%)"));
        }
        out
    }
}
