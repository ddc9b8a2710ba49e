//! Where the bytes of a delta go, file by file.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::Context;
use crate::account::{Account, FileAccount, LayerAccount, account};
use crate::artifact::Delta;
use crate::cli::InspectArgs;
use crate::engine::opened::{Opened, concurrency, is_patch};
use crate::error::Result;
use crate::fetch::{self, Download, Job, Worked};
use crate::tardiff::Limits;
use crate::terminal::human_bytes;

/// Files of a patch that are listed for people; `--json` has them all.
const SHOWN: usize = 20;

/// The account of a patch.
#[derive(Debug, Serialize)]
pub(super) struct PatchAccount {
    diff_id: String,
    #[serde(flatten)]
    account: LayerAccount,
}

impl PatchAccount {
    pub fn new(diff_id: String, account: LayerAccount) -> Self {
        PatchAccount { diff_id, account }
    }

    /// The total, and the files that cost most.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let digest = self.diff_id.trim_start_matches("sha256:");
        let _ = writeln!(
            out,
            "\npatch {}: {:>11} {:>11} {:>11} {:>11}  path",
            &digest[..10],
            "in patch",
            "copied",
            "added",
            "literal"
        );
        let mut line = |name: &str, a: &Account| {
            let parts = [a.patch_bytes, a.copied, a.added, a.literal].map(human_bytes);
            let [packed, copied, added, literal] = parts;
            let _ = writeln!(out, "{:17} {packed:>11} {copied:>11} {added:>11} {literal:>11}  {name}", "");
        };
        line("(all)", &self.account.total);
        line("(headers)", &self.account.headers);
        let mut files: Vec<&FileAccount> = self.account.files.iter().collect();
        files.sort_by_key(|f| std::cmp::Reverse(f.account.patch_bytes));
        for file in files.iter().take(SHOWN) {
            line(&file.path, &file.account);
        }
        if files.len() > SHOWN {
            let _ = writeln!(out, "{:17} and {} more files; --json lists them", "", files.len() - SHOWN);
        }
        out
    }
}

/// Reads all patches of a delta.
pub(super) async fn of_delta(
    context: &Context,
    args: &InspectArgs,
    opened: &Opened,
    delta: &Delta,
    spool: &Path,
) -> Result<Vec<PatchAccount>> {
    let mut diff_ids = Vec::new();
    let mut downloads = Vec::new();
    for (layer, diff_id) in delta.target.layers.iter().zip(&delta.target.diff_ids) {
        let Some(blob) = delta.manifest.layers.get(layer.digest()) else { continue };
        if is_patch(&opened.place, blob) && !diff_ids.contains(&diff_id.to_string()) {
            downloads.push(Download::new(downloads.len(), blob.clone(), opened.place.clone()));
            diff_ids.push(diff_id.to_string());
        }
    }
    let limits = Limits { window_log: args.limits.max_window_log, ..Default::default() };
    let (max_layer, spool) = (args.limits.max_layer_size, spool.to_owned());
    let work =
        Arc::new(move |mut job: Job| account(&mut job.blob, &limits, max_layer, &spool).map(Worked::Done));
    let concurrency = concurrency(&opened.place, args.place.options()?.jobs);
    let accounts = fetch::run(downloads, concurrency, &context.cancel, work).await?;
    Ok(diff_ids
        .into_iter()
        .zip(accounts)
        .map(|(diff_id, account)| PatchAccount::new(diff_id, account))
        .collect())
}
