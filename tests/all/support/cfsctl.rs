//! cfsctl, the judge over what we write into a composefs repository: its crate's own
//! code, built as an example of this package, or the program that `$CFSCTL` names.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program.
pub fn program() -> PathBuf {
    std::env::var_os("CFSCTL").map_or_else(|| super::example("cfsctl"), PathBuf::from)
}

fn output(repo: &Path, args: &[&str]) -> Output {
    Command::new(program()).arg("--repo").arg(repo).args(args).output().unwrap()
}

/// Runs cfsctl and gives its output.
pub fn cfsctl(repo: &Path, args: &[&str]) -> Vec<u8> {
    let output = output(repo, args);
    assert!(output.status.success(), "cfsctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs cfsctl where it is known to fail.
pub fn cfsctl_fails(repo: &Path, args: &[&str]) {
    assert!(!output(repo, args).status.success(), "cfsctl {args:?} succeeds by now");
}

/// The whole repository is sound.
pub fn fsck(repo: &Path) {
    cfsctl(repo, &["fsck"]);
    cfsctl(repo, &["oci", "fsck"]);
}

/// Makes a repository.
pub fn init(repo: &Path, algorithm: &str) {
    cfsctl(repo, &["init", "--insecure", "--algorithm", &format!("fsverity-{algorithm}-12")]);
}
