//! Kills, full disks, rivals and broken registries: what goes wrong around a run.

use crate::support;

use std::process::Stdio;
use std::time::Duration;

use oci_delta_fetch::digest::digest_of;
use support::images::{noise, tar};
use support::running::Running;
use support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

/// Six layers of 3 MB that all change, so that a kill finds some finished and some not.
fn large(sandbox: &Sandbox) -> (OciDir, Image, Image) {
    let layer = |seed: u64, tail: &[u8]| {
        let mut content = noise(seed, 3_000_000);
        content.extend_from_slice(tail);
        Layer::gzip(tar(&[(&format!("data/{seed}"), &content)]))
    };
    let old = Image::new((0..6).map(|n| layer(n, b"old")).collect());
    let new = Image::new((0..6).map(|n| layer(n, b"newer")).collect());
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).delta("delta", &Delta::new(&old, &new));
    (dir, old, new)
}

/// What must hold after any end: only complete images, and after a rerun no leftovers.
fn converges(sandbox: &Sandbox, reference: &str, image: &Image) {
    for listed in sandbox.json(&["list"]).as_array().unwrap() {
        assert!(listed["config"].is_string());
    }
    sandbox.ok(&["verify"]);
    let report = sandbox.json(&[reference, "--tag", "new"]);
    assert_eq!(report["image"]["config"], image.config_digest().to_string());
    sandbox.ok(&["verify"]);
    for folder in ["tmp", "finished"] {
        let left = std::fs::read_dir(sandbox.repo().join(".oci-delta-fetch").join(folder)).unwrap().count();
        assert_eq!(left, 0, "left in {folder}");
    }
    assert_eq!(sandbox.json(&["gc"])["blobs"], 0, "left in blobs");
}

#[test]
fn kill_at_any_moment_loses_nothing() {
    for compress in ["none", "gzip:9"] {
        let sandbox = Sandbox::new();
        let (dir, _, new) = large(&sandbox);
        sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
        let reference = dir.reference("delta");
        let mut interrupted = 0;
        for delay in (0..24).map(|n| n * 12) {
            let mut run = sandbox
                .command()
                .args([&reference, "--tag", "new", "--compress", compress, "-j", "1"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            interrupted += u32::from(run.try_wait().unwrap().is_none());
            run.kill().unwrap();
            run.wait().unwrap();
            sandbox.ok(&["verify"]);
        }
        assert!(interrupted > 0, "no run was caught at work");
        converges(&sandbox, &reference, &new);
    }
}

#[test]
fn finished_layers_are_not_made_again() {
    let sandbox = Sandbox::new();
    let (mut dir, old, new) = large(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    // The last patch is damaged: the others are finished when the run fails.
    let mut broken = Delta::new(&old, &new);
    broken.manifest["layers"][7]["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    dir.delta("broken", &broken);
    let ended = sandbox.run(&[&dir.reference("broken"), "-j", "1"]);
    assert_eq!(ended.code, 3, "{ended:#?}");
    let report = sandbox.json(&[&dir.reference("delta"), "--tag", "new"]);
    let reused = report["layers"].as_array().unwrap().iter().filter(|l| l["action"] == "reused").count();
    assert!(reused >= 1, "{report:#}");
    sandbox.ok(&["verify"]);
}

#[test]
fn a_full_disk_is_said_and_leaves_the_repository_alone() {
    let sandbox = Sandbox::new();
    let (dir, ..) = large(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    let before = sandbox.snapshot();
    let mut limited = sandbox.limited_files(2000);
    limited.args([&dir.reference("delta"), "--tag", "new"]);
    let ended = support::cli::ended(limited.output().unwrap());
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.stderr.contains("File too large"), "{ended:#?}");
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn too_little_space_is_seen_before_the_start() {
    let sandbox = Sandbox::new();
    let mut image = Image::new(vec![Layer::gzip(tar(&[("a", b"b")]))]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["size"] = (8u64 << 40).into();
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("large", &image);
    // With a hole of 8 TiB behind it, which takes no room.
    let blob = dir.blob_path(digest_of(&image.layers[0].blob).as_ref());
    std::fs::File::options().write(true).open(blob).unwrap().set_len(8 << 40).unwrap();
    let ended = sandbox.run(&[&dir.reference("large")]);
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.stderr.contains("are needed"), "{ended:#?}");
}

#[test]
fn two_runs_at_once_do_not_harm_each_other() {
    let sandbox = Sandbox::new();
    let (dir, _, new) = large(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    let reference = dir.reference("delta");
    let start = |name: &str| {
        sandbox.command().args([&reference, "--tag", name]).stdout(Stdio::null()).spawn().unwrap()
    };
    let runs = [start("one"), start("two"), start("three")];
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    assert_eq!(sandbox.json(&["list"]).as_array().unwrap().len(), 4, "no name is lost");
    converges(&sandbox, &reference, &new);
}

#[test]
fn gc_waits_for_nobody_and_deletes_nothing_under_a_run() {
    let sandbox = Sandbox::new();
    let (dir, _, new) = large(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    let reference = dir.reference("delta");
    let mut run = sandbox
        .command()
        .args([&reference, "--tag", "new", "--compress", "gzip:9", "-j", "1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(150));
    let busy = run.try_wait().unwrap().is_none();
    let ended = sandbox.run(&["gc"]);
    assert!(run.wait().unwrap().success());
    assert!(busy, "the run was over too soon to test anything");
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.stderr.contains("another process"), "{ended:#?}");
    converges(&sandbox, &reference, &new);
}

#[test]
fn a_signal_ends_the_run_with_130() {
    let sandbox = Sandbox::new();
    let (dir, _, new) = large(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    let reference = dir.reference("delta");
    for signal in ["INT", "TERM"] {
        let args = [&reference, "--tag", "new", "--compress", "zstd:22", "-j", "1", "--progress", "json"];
        let mut run = Running::start(sandbox.command().args(args));
        run.wait_for_line("layer-start");
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.code, 130, "{ended:#?}");
        assert!(ended.stderr.contains("interrupted"), "{ended:#?}");
    }
    converges(&sandbox, &reference, &new);
}

#[test]
fn closed_output_is_quiet() {
    let sandbox = Sandbox::new();
    let (dir, ..) = large(&sandbox);
    sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
    let mut list = sandbox.command();
    list.arg("list").stdout(Stdio::piped()).stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    list.stdout(writer);
    let ended = support::cli::ended(list.output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (141, ""));
}

#[test]
fn registry_without_the_image_or_not_there_at_all() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let ended = sandbox.run(&[&registry.reference("absent:1"), REMOTE[0], REMOTE[1]]);
    assert_eq!(ended.code, 3, "{ended:#?}");
    let address = registry.reference("absent:1");
    drop(registry);
    let ended = sandbox.run(&[&address, REMOTE[0], REMOTE[1], "--retries", "1"]);
    assert_eq!(ended.code, 5, "{ended:#?}");
}

#[test]
fn registry_whose_blob_is_damaged_cut_or_gone() {
    for (fault, codes) in [("damaged", [4, 4]), ("cut", [4, 5]), ("gone", [3, 5])] {
        let sandbox = Sandbox::new();
        let registry = Registry::start();
        let (dir, old, new) = large(&sandbox);
        registry.push(&dir.reference("delta"), "os:delta");
        sandbox.ok(&[&dir.reference("old"), "--tag", "old"]);
        let delta = Delta::new(&old, &new);
        let file = registry.blob_file(delta.manifest["layers"][3]["digest"].as_str().unwrap());
        let mut bytes = std::fs::read(&file).unwrap();
        match fault {
            "damaged" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&file, bytes).unwrap();
            }
            "cut" => std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        let ended = sandbox.run(&[&registry.reference("os:delta"), REMOTE[0], REMOTE[1], "--retries", "1"]);
        assert!(codes.contains(&ended.code), "{fault}: {ended:#?}");
        assert_eq!(sandbox.json(&["list"]).as_array().unwrap().len(), 1, "nothing was published");
        sandbox.ok(&["verify"]);
    }
}

#[test]
fn skopeo_that_is_not_there() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["127.0.0.1:1/x", "--skopeo", "/nonexistent/skopeo"]);
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.stderr.contains("hint: "), "{ended:#?}");
}
