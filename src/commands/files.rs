//! Where the bytes of a delta go, file by file.

use std::fmt::Write as _;

use serde::Serialize;

use crate::account::{Account, FileAccount, LayerAccount};
use crate::digest::DiffId;
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
    pub fn new((diff_id, account): (DiffId, LayerAccount)) -> Self {
        PatchAccount { diff_id: diff_id.to_string(), account }
    }

    /// The total, and the files that cost most.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let digest = self.diff_id.trim_start_matches("sha256:");
        let _ = writeln!(
            out,
            "\npatch {}: {:>11} {:>11} {:>11} {:>11} {:>11}  path",
            &digest[..10],
            "in patch",
            "copied",
            "added",
            "literal",
            "encoded"
        );
        let mut line = |name: &str, a: &Account| {
            let parts = [a.patch_bytes, a.copied, a.added, a.literal, a.encoded].map(human_bytes);
            let [packed, copied, added, literal, encoded] = parts;
            let _ = writeln!(
                out,
                "{:17} {packed:>11} {copied:>11} {added:>11} {literal:>11} {encoded:>11}  {name}",
                ""
            );
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
