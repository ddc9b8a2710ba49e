//! cfsctl, the judge over what we write into a composefs repository. It is found
//! by `$CFSCTL`, on the path, or where `contrib/ci/install-crate` puts it; a
//! machine without it fails the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("CFSCTL") {
        return path.into();
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/cfsctl");
    if built.exists() { built } else { "cfsctl".into() }
}

fn output(repo: &Path, args: &[&str]) -> Output {
    let program = program();
    Command::new(&program).arg("--repo").arg(repo).args(args).output().unwrap_or_else(|e| {
        panic!("{}: {e}; contrib/ci/install-crate installs it", program.display());
    })
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
