//! Programs that are started: none outlives the run, none gets credentials by a name, none is waited for without end.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::blobs::Layout;
use support::fake::FakeSkopeo;
use support::images::{noise, tar};
use support::running::{Running, SOON, runs, wait_for};
use support::{Delta, Image, Layer, OciDir, Sandbox};

/// `me:very-secret` as an auth file has it.
const SECRET: &str = "bWU6dmVyeS1zZWNyZXQ=";

/// A program of that shell text.
fn script(sandbox: &Sandbox, text: &str) -> PathBuf {
    let path = sandbox.path("skopeo");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Notes its credentials, its limit and that it runs, and stays.
fn stays(sandbox: &Sandbox) -> String {
    format!(
        "for word; do case $last in *authfile) cat \"$word\" > {0}/auth; echo \"$word\" > {0}/named;; esac; last=$word; done
ulimit -Sn > {0}/limit
touch {0}/runs
exec sleep 1234567",
        sandbox.path("").display()
    )
}

fn delta(sandbox: &Sandbox) -> String {
    let image =
        |tail: &[u8]| Image::new(vec![Layer::gzip(tar(&[("file", &[&noise(1, 100_000), tail].concat())]))]);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.delta("delta", &Delta::new(&image(b"old"), &image(b"newer")));
    dir.reference("delta")
}

/// Starts a command with credentials whose skopeo stays, and kills it.
fn killed(sandbox: &Sandbox, command: &mut Command) {
    let spool = sandbox.path("spool");
    fs::create_dir(&spool).unwrap();
    let run = Running::start(command.args(["--creds", "me:very-secret"]).env("TMPDIR", &spool));
    wait_for("skopeo", || sandbox.path("runs").exists());
    assert!(fs::read_to_string(sandbox.path("auth")).unwrap().contains(SECRET), "they are no credentials");
    let named = fs::read_to_string(sandbox.path("named")).unwrap();
    assert!(named.starts_with("/proc/self/fd/"), "{named}");
    fs::remove_file(sandbox.path("auth")).unwrap();
    assert!(!holds(&sandbox.path(""), SECRET), "the credentials are in a file");
    assert_eq!(fs::read_to_string(sandbox.path("limit")).unwrap().trim(), "200", "the limit of open files");
    let pid = children(run.pid());
    assert_eq!(pid.len(), 1);
    run.signal("KILL");
    run.end();
    wait_for("skopeo to be gone", || !runs_still(&pid[0]));
    assert!(!holds(&sandbox.path(""), SECRET));
}

fn children(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.map(|p| p.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| stat(pid).is_some_and(|stat| stat.split(' ').nth(1) == Some(&parent.to_string())))
        .collect()
}

/// What follows the name in the process's `stat`: state, parent, and so on.
fn stat(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn runs_still(pid: &str) -> bool {
    stat(pid).is_some_and(|stat| !stat.starts_with('Z'))
}

/// Is the text in a file below `dir`?
fn holds(dir: &Path, text: &str) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let content = fs::read(&path).unwrap_or_default();
        content.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[test]
fn a_killed_push_leaves_no_skopeo_and_no_credentials() {
    let sandbox = Sandbox::new();
    let skopeo = script(&sandbox, &stays(&sandbox));
    let delta = delta(&sandbox);
    let mut command = sandbox.limited("ulimit -Sn 200");
    killed(&sandbox, command.args(["push", &delta, "docker://127.0.0.1:1/os", "--skopeo"]).arg(skopeo));
}

#[test]
fn a_killed_look_at_an_index_leaves_no_skopeo_and_no_credentials() {
    let sandbox = Sandbox::new();
    let layout = Layout::new(&[b"layer"]);
    let fake = FakeSkopeo::new(layout.path(), "0.2.8", "", 0);
    let text = format!(
        "case \"$*\" in *--raw*) ;; *) exec {} \"$@\";; esac\n{}",
        fake.program().display(),
        stays(&sandbox)
    );
    let skopeo = script(&sandbox, &text);
    let other = format!("sha256:{}", "0".repeat(64));
    let mut command = sandbox.limited("ulimit -Sn 200");
    command.args(["docker://127.0.0.1:1/os:1", "--insecure-policy", "--expect-digest", &other, "--skopeo"]);
    // The proxy's skopeo is the other child.
    command.arg(skopeo);
    let spool = sandbox.path("spool");
    fs::create_dir(&spool).unwrap();
    let run = Running::start(command.args(["--creds", "me:very-secret"]).env("TMPDIR", &spool));
    wait_for("skopeo", || sandbox.path("runs").exists());
    let named = fs::read_to_string(sandbox.path("named")).unwrap();
    assert!(named.starts_with("/proc/self/fd/"), "{named}");
    let pids = children(run.pid());
    assert_eq!(pids.len(), 2);
    run.signal("KILL");
    run.end();
    wait_for("skopeo to be gone", || !pids.iter().any(|pid| runs_still(pid)));
}

#[test]
fn a_push_that_stands_still_is_given_up() {
    let sandbox = Sandbox::new();
    let words = sandbox.path("words");
    let skopeo = script(&sandbox, &format!("echo \"$*\" > {}; exec sleep 1234568", words.display()));
    let delta = delta(&sandbox);
    let started = Instant::now();
    let mut command = sandbox.command();
    command.env_remove("TMPDIR");
    command.args(["push", &delta, "docker://127.0.0.1:1/os", "--stall-timeout", "1", "--retries", "1"]);
    let ended = Running::start(command.arg("--skopeo").arg(skopeo)).end();
    assert_eq!(ended.code, 5, "{ended:#?}");
    assert!(ended.stderr.contains("stood still for 1.0 s"), "{ended:#?}");
    assert!(started.elapsed() < SOON);
    let words = fs::read_to_string(words).unwrap();
    assert!(words.contains(" oci:/var/tmp/"), "it is copied to where memory is scarce: {words}");
    wait_for("skopeo to be gone", || !runs("1234568"));
}

#[test]
fn a_push_that_is_slow_is_not_given_up() {
    let sandbox = Sandbox::new();
    let text = "for n in 1 2 3 4 5 6 7 8 9; do printf %65536s x > /dev/null; sleep 0.5; done; echo blob unknown >&2; exit 1";
    let skopeo = script(&sandbox, text);
    let delta = delta(&sandbox);
    let mut command = sandbox.command();
    command.args(["push", &delta, "docker://127.0.0.1:1/os", "--stall-timeout", "2", "--retries", "0"]);
    let ended = Running::start(command.arg("--skopeo").arg(skopeo)).end();
    assert!(ended.stderr.contains("blob unknown"), "{ended:#?}");
}
