//! Signals and `--timeout`: heard whatever the run is doing, and never swallowed.

use crate::support;

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use oci_delta_fetch::engine;
use oci_delta_fetch::engine::request::FetchRequest;
use oci_delta_fetch::error::Kind;
use oci_delta_fetch::session::Session;
use oci_delta_fetch::store::StoreRef;
use rustix::fs::{FlockOperation, flock};
use support::images::{TAR_GZIP, gzip, noise, tar};
use support::running::{Running, SOON, runs, wait_for};
use support::{Delta, Ended, Image, Layer, OciDir, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

/// The program, with a place of its own for temporary files.
fn command(sandbox: &Sandbox) -> Command {
    let spool = sandbox.path("spool");
    std::fs::create_dir_all(&spool).unwrap();
    let mut command = sandbox.command();
    command.env("TMPDIR", spool);
    command
}

/// Files that runs left there.
fn spooled(sandbox: &Sandbox) -> Vec<PathBuf> {
    std::fs::read_dir(sandbox.path("spool")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Starts a run, signals it after `pause`, and demands that it ends as one that was interrupted.
fn interrupt(sandbox: &Sandbox, args: &[&str], signal: &str, pause: u64) {
    let running = Running::start(command(sandbox).args(args));
    std::thread::sleep(Duration::from_millis(pause));
    running.signal(signal);
    let ended = running.end();
    assert_eq!(ended.code, 130, "{args:?} after {pause} ms: {ended:#?}");
    assert!(ended.stderr.contains("interrupted"), "{ended:#?}");
    assert_eq!(ended.stdout, "", "{args:?}");
}

/// The same for both signals, at once and later.
fn interrupt_often(sandbox: &Sandbox, args: &[&str]) {
    for (signal, pause) in [("TERM", 0), ("INT", 3), ("TERM", 40), ("INT", 200)] {
        interrupt(sandbox, args, signal, pause);
    }
}

fn times_out(sandbox: &Sandbox, args: &[&str]) {
    let ended: Ended = Running::start(command(sandbox).args(args).args(["--timeout", "1"])).end();
    assert_eq!(ended.code, 5, "{ended:#?}");
    assert!(ended.stderr.contains("not done within 1 seconds"), "{ended:#?}");
}

fn small(sandbox: &Sandbox) -> (OciDir, Image, Image) {
    let layer = |tail: &[u8]| Layer::gzip(tar(&[("file", &[&noise(1, 100_000), tail].concat())]));
    let (old, new) = (Image::new(vec![layer(b"old")]), Image::new(vec![layer(b"newer")]));
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).image("new", &new).delta("delta", &Delta::new(&old, &new));
    (dir, old, new)
}

/// A layer whose blob is small and takes long to unpack, to 20 GB.
fn endless() -> Layer {
    let tar = tar(&[("file", b"content")]);
    let blob = [gzip(&tar), gzip(&[0; 1 << 20]).repeat(20_000)].concat();
    Layer { tar, blob, media_type: TAR_GZIP.into() }
}

#[test]
fn while_others_hold_a_lock() {
    let sandbox = Sandbox::new();
    let (dir, ..) = small(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    let delta = dir.reference("delta");
    let lock = |name: &str| {
        let file = File::open(sandbox.repo().join(".oci-delta-fetch").join(name)).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        file
    };
    let held = lock("lock");
    for args in [&["list"][..], &["verify"], &["gc"], &["remove", "old"], &["init"], &[&delta]] {
        interrupt(&sandbox, args, "TERM", 0);
        interrupt(&sandbox, args, "INT", 30);
    }
    times_out(&sandbox, &[&delta]);
    drop(held);
    let held = lock("publish.lock");
    for args in [&["remove", "old"][..], &["gc", "--untagged"], &[&delta]] {
        interrupt(&sandbox, args, "TERM", 30);
    }
    times_out(&sandbox, &[&delta]);
    // It goes on as soon as the lock is free.
    let running = Running::start(command(&sandbox).args([&*delta, "--tag", "new"]));
    std::thread::sleep(Duration::from_millis(100));
    drop(held);
    let ended = running.end();
    assert_eq!(ended.code, 0, "{ended:#?}");
    sandbox.ok(&["verify"]);
}

#[test]
fn while_a_repository_is_verified() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.repo());
    dir.image("endless", &Image::new(vec![endless()]));
    interrupt_often(&sandbox, &["verify"]);
}

#[test]
fn while_a_base_layer_is_unpacked() {
    let sandbox = Sandbox::new();
    let old = Image::new(vec![endless()]);
    let new = Image::new(vec![Layer::gzip(tar(&[("file", b"content, newer")]))]);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).image("new", &new).delta("delta", &Delta::new(&old, &new));
    let (delta, base) = (dir.reference("delta"), dir.reference("old"));
    let args = [&*delta, "--base", &base];
    interrupt_often(&sandbox, &args);
    times_out(&sandbox, &args);
    let out = sandbox.path("out.oci");
    interrupt(&sandbox, &["create", &base, &dir.reference("new"), out.to_str().unwrap()], "TERM", 100);
    assert_eq!(spooled(&sandbox), Vec::<PathBuf>::new());
}

/// A registry that takes connections and says nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn while_a_registry_is_silent() {
    let sandbox = Sandbox::new();
    let (dir, ..) = small(&sandbox);
    let (_listener, address) = silent();
    let (image, delta) = (format!("docker://{address}/os:1"), dir.reference("delta"));
    let (repository, out) = (format!("docker://{address}/os"), sandbox.path("out.oci"));
    for args in [
        &[&*image][..],
        &["inspect", &image],
        &["deltas", &image],
        &["prune", &image],
        &["push", &delta, &repository],
        &["create", &image, &image, out.to_str().unwrap()],
    ] {
        let args = [args, &REMOTE].concat();
        interrupt(&sandbox, &args, "TERM", 0);
        interrupt(&sandbox, &args, "INT", 300);
        wait_for("skopeo to end", || !runs(&address));
    }
    times_out(&sandbox, &[&image, REMOTE[0], REMOTE[1]]);
    wait_for("skopeo to end", || !runs(&address));
    assert_eq!(spooled(&sandbox), Vec::<PathBuf>::new());
}

#[test]
fn while_a_registry_is_silent_to_a_program_that_uses_the_library() {
    let sandbox = Sandbox::new();
    let (_listener, address) = silent();
    let reference = format!("docker://{address}/os:1").parse().unwrap();
    let mut request = FetchRequest::new(reference, StoreRef::Layout(sandbox.repo()));
    request.place.proxy.insecure_policy = true;
    let session = Session::new(sandbox.path(""));
    let cancel = session.cancel.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = Instant::now();
    let error = runtime.block_on(async {
        let stop = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        };
        tokio::join!(engine::fetch(&session, &request), stop).0.unwrap_err()
    });
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    assert!(started.elapsed() < SOON);
    wait_for("skopeo to end", || !runs(&address));
}
