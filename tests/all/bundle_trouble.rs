//! Bundles where things go wrong: the wrong order, a slow line, a full disk, a run that is killed; and other targets.

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::cli::ended;
use support::gap::{Gap, REMOTE};
use support::podman::Podman;

#[test]
fn three_generations_with_signatures_come_in_any_order_twice() {
    let mut gap = Gap::new();
    let digests = [1, 2, 3].map(|n| {
        let digest = gap.release(n);
        gap.sign(n, &digest);
        digest
    });
    let media = [1, 2, 3].map(|n| {
        let (medium, since) = (gap.medium(&format!("medium-{n}")), gap.os(n - 1));
        let options: &[&str] = if n > 1 { &["--since", &since, "--create"] } else { &[] };
        let bundled = gap.bundle(&[&gap.os(n)], &[&["--to", &medium], options].concat());
        assert_eq!(bundled["images"][0]["deltas"], u64::from(n > 1), "{bundled:#}");
        assert_eq!(bundled["images"][0]["referrers"], 1, "{bundled:#}");
        medium
    });
    let tags = |gap: &Gap| gap.sandbox.ok(&[&["inventory", &gap.target()], &REMOTE[..]].concat()).stdout;
    for early in [2, 1] {
        let before = tags(&gap);
        assert_eq!(gap.fails(&media[early]).0, 3);
        assert_eq!(tags(&gap), before, "nothing is written without a base");
    }
    for (n, digest) in digests.iter().enumerate() {
        assert_eq!(gap.unbundle(&media[n])[0]["status"], "brought");
        assert_eq!(&gap.digest_inside(&format!("org/os:{}", n + 1)), digest);
        gap.digest_inside(&format!("org/os:{}.sig", digest.replacen(':', "-", 1)));
    }
    let before = tags(&gap);
    for medium in [&media[1], &media[0], &media[2]] {
        let done = gap.unbundle(medium);
        assert_eq!((&done[0]["status"], &done[0]["sent_bytes"]), (&"present".into(), &0.into()));
    }
    assert_eq!(tags(&gap), before);
    // A signature is no image that a delta could start from, though it is kept as one and listed last.
    let have = gap.have();
    gap.release(4);
    let bundled = gap.bundle(&[&gap.os(4)], &["--have", &have, "--create", "--to", &gap.medium("4")]);
    assert_eq!(bundled["images"][0]["deltas"], 1, "{bundled:#}");
}

#[test]
fn a_bandwidth_limit_holds_both_ways() {
    let mut gap = Gap::new();
    gap.release(1);
    let medium = gap.medium("medium");
    let limit = ["--limit-rate", "200K"];
    let seconds = |bytes: &serde_json::Value| bytes.as_f64().unwrap() / (200.0 * 1024.0);
    let started = Instant::now();
    let bundled = gap.bundle(&[&gap.os(1)], &[&["--to", &medium], &limit[..]].concat());
    let (took, least) = (started.elapsed().as_secs_f64(), seconds(&bundled["downloaded_bytes"]));
    assert!(least > 0.5 && took > least - 0.3, "{took} {least}");
    let started = Instant::now();
    let done = gap.sandbox.json(&[&["unbundle", &medium, &gap.target()], &REMOTE[..], &limit].concat());
    let (took, least) = (started.elapsed().as_secs_f64(), seconds(&done["images"][0]["sent_bytes"]));
    assert!(least > 0.5 && took > least - 0.3, "{took} {least}");
    assert_eq!(gap.sandbox.run(&["inventory", "--limit-rate", "0"]).code, 2);
}

/// Starts the command again and again, and kills it a little later each time.
fn killed_at(gap: &Gap, args: &[&str]) {
    for wait in [150, 500, 900] {
        let mut command = gap.sandbox.command();
        command.args(args).args(REMOTE).args(["--limit-rate", "200K"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it was to be met at work");
    }
}

#[test]
fn a_run_that_is_killed_goes_on_on_either_side() {
    let mut gap = Gap::new();
    let one = gap.release(1);
    gap.sign(1, &one);
    let medium = gap.medium("medium");
    killed_at(&gap, &["bundle", &gap.os(1), "--to", &medium]);
    gap.bundle(&[&gap.os(1)], &["--to", &medium]);
    gap.sandbox.ok(&["verify", &medium]);
    let (archive, other) = (gap.medium("archive.tar"), gap.medium("archive.tar.gz"));
    fs::write(&other, "of somebody else").unwrap();
    killed_at(&gap, &["bundle", &gap.os(1), "--to", &archive]);
    gap.bundle(&[&gap.os(1)], &["--to", &archive]);
    // Nothing is left of either that is not the bundle.
    let names = |dir: &Path| fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
    let (medium_names, beside) = (names(Path::new(&medium)), names(gap.sandbox.dir.path()));
    for name in medium_names.chain(beside).map(|name| name.into_string().unwrap()) {
        assert!(!name.starts_with('.') && !name.ends_with(".part"), "{name}");
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
    let target = gap.target();
    killed_at(&gap, &["unbundle", &medium, &target]);
    assert_eq!(gap.unbundle(&medium)[0]["status"], "brought");
    assert_eq!(gap.digest_inside("org/os:1"), one);
    assert_eq!(gap.unbundle(&medium)[0]["status"], "present");
}

#[test]
fn a_full_disk_ends_the_work_and_the_next_run_goes_on() {
    let mut gap = Gap::new();
    let (_, two) = (gap.release(1), gap.release(2));
    gap.carry(1);
    let medium = gap.medium("medium");
    let full =
        |args: &[&str]| ended(gap.sandbox.limited_files(100).args(args).args(REMOTE).output().unwrap());
    let (os, have) = (gap.os(2), gap.have());
    let failed = full(&["bundle", &os, "--to", &medium]);
    assert_eq!(failed.code, 1, "{failed:#?}");
    assert!(!Path::new(&medium).join("index.json").exists());
    gap.bundle(&[&os], &["--to", &medium]);
    gap.sandbox.ok(&["verify", &medium]);
    // A layer that a delta makes does not fit here.
    let small = gap.medium("small");
    gap.bundle(&[&os], &["--have", &have, "--create", "--to", &small]);
    let target = gap.target();
    let failed = full(&["unbundle", &small, &target]);
    assert_eq!(failed.code, 1, "{failed:#?}");
    assert_eq!(gap.have(), have);
    assert!(!fs::read_to_string(gap.have()).unwrap().contains(&two), "nothing is written");
    assert_eq!(gap.unbundle(&small)[0]["status"], "brought");
    assert_eq!(gap.digest_inside("org/os:2"), two);
}

#[test]
fn podmans_storage_and_composefs_take_bundles() {
    let mut gap = Gap::new();
    let (_, two) = (gap.release(1), gap.release(2));
    let (first, second) = (gap.medium("first"), gap.medium("second"));
    gap.bundle(&[&gap.os(1)], &["--to", &first]);
    let bundled = gap.bundle(&[&gap.os(2)], &["--since", &gap.os(1), "--create", "--to", &second]);
    assert_eq!(bundled["images"][0]["deltas"], 1, "{bundled:#}");
    let storage = Podman::new(gap.sandbox.dir.path(), "storage", "vfs");
    let mut targets = vec![storage.reference("")];
    if cfg!(feature = "composefs") {
        let target = format!("composefs:{}", gap.medium("objects"));
        gap.sandbox.ok(&["init", &target, "--insecure"]);
        targets.push(target);
    }
    for target in &targets {
        // Without its base the update is not brought.
        let failed = gap.sandbox.run(&["unbundle", &second, target]);
        assert_eq!(failed.code, 3, "{target}: {failed:#?}");
        for medium in [&first, &second] {
            let done = gap.sandbox.json(&["unbundle", medium, target]);
            assert_eq!(done["images"][0]["status"], "brought", "{target}: {done:#}");
        }
        let again = gap.sandbox.json(&["unbundle", &second, target]);
        assert_eq!(again["images"][0]["status"], "present", "{target}: {again:#}");
        assert!(gap.sandbox.json(&["list", "--repo", target]).to_string().contains(&two), "{target}");
    }
    assert_eq!(storage.digest(&format!("{}/org/os:2", gap.outer.address)), two);
}
