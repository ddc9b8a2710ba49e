//! What every store must do, run over each: an OCI layout, and composefs
//! repositories with either hash.

use crate::support;

use std::process::Stdio;
use std::time::Duration;

use oci_delta_fetch::Session;
use oci_delta_fetch::store::StoreRef;
use serde_json::Value;
use support::images::{noise, tree};
use support::{Delta, Image, Layer, OciDir, Sandbox};

/// A source with two images and a delta, beside the repository under test.
struct Case {
    sandbox: Sandbox,
    source: OciDir,
    old: Image,
    new: Image,
}

impl Case {
    /// One layer that both images have, and `changed` layers with an equal, a changed and a new file each.
    fn with_layers(sandbox: Sandbox, changed: u64) -> Self {
        let layer = |seed: u64, version: u8| {
            let mut file = noise(seed, 300_000);
            file[1000..1100].fill(version);
            let (kept, file_name, kept_name) =
                (noise(seed + 100, 400_000), format!("usr/f{seed}"), format!("usr/k{seed}"));
            Layer::gzip(tree(&[(&kept_name, &kept), (&file_name, &file), ("usr/small", &[version; 20])]))
        };
        let shared = Layer::gzip(tree(&[("usr/lib/shared", &noise(99, 90_000))]));
        let image = |version| {
            Image::new(
                std::iter::once(shared.clone()).chain((0..changed).map(|n| layer(n, version))).collect(),
            )
        };
        let (old, new) = (image(1), image(2));
        let mut source = OciDir::create(&sandbox.path("source"));
        source.image("old", &old).image("new", &new).delta("delta", &Delta::new(&old, &new));
        Case { sandbox, source, old, new }
    }

    fn each() -> impl Iterator<Item = Self> {
        Sandbox::of_each_store().into_iter().map(|sandbox| Self::with_layers(sandbox, 1))
    }

    fn pull(&self, name: &str) -> Value {
        self.sandbox.json(&[&self.source.reference(name), "--tag", name])
    }

    /// The names of all images, sorted; `-` for none.
    fn names(&self) -> Vec<String> {
        let list = self.sandbox.json(&["list"]);
        let name = |image: &Value| image["name"].as_str().unwrap_or("-").to_owned();
        let mut names: Vec<_> = list.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }
}

fn actions(report: &Value) -> Vec<&str> {
    report["layers"].as_array().unwrap().iter().map(|l| l["action"].as_str().unwrap()).collect()
}

#[test]
fn a_delta_rebuilds_the_image_and_a_second_run_does_nothing() {
    for case in Case::each() {
        assert_eq!(case.pull("old")["status"], "fetched");
        let planned = case.sandbox.json(&[&case.source.reference("delta"), "--tag", "delta", "--dry-run"]);
        let report = case.pull("delta");
        assert_eq!(planned["bytes"], report["bytes"], "the dry run tells the exact bytes");
        assert_eq!(report["image"]["config"], case.new.config_digest().to_string());
        assert_eq!(report["image"]["target_manifest"], case.new.manifest_digest().to_string());
        assert_eq!(actions(&report), ["reused", "patched"]);
        let before = case.sandbox.snapshot();
        assert_eq!(case.pull("delta")["status"], "already-present");
        assert_eq!(case.sandbox.snapshot(), before);
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn a_plain_image_is_pulled_without_the_layers_that_are_here() {
    for case in Case::each() {
        case.pull("old");
        let report = case.pull("new");
        assert_eq!(actions(&report), ["reused", "fetched"]);
        assert_eq!(report["bytes"]["downloaded"].as_u64().unwrap(), {
            let layer = case.new.layers[1].blob.len() + case.new.config.len() + case.new.manifest.len();
            layer as u64
        });
        case.sandbox.ok(&["verify"]);
        assert_eq!(case.pull("delta")["status"], "already-present", "as the target of the delta, too");
    }
}

#[test]
fn rebuilt_images_are_a_base_for_the_next_delta() {
    for mut case in Case::each() {
        case.pull("old");
        case.pull("delta");
        let third =
            Image::new(vec![Layer::zstd(tree(&[("usr/f0", &noise(0, 310_000)), ("usr/small", b"3")]))]);
        case.source.delta("next", &Delta::new(&case.new, &third));
        assert_eq!(case.pull("next")["image"]["config"], third.config_digest().to_string());
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn images_are_listed_removed_and_collected() {
    for case in Case::each() {
        case.pull("old");
        case.pull("delta");
        assert_eq!(case.names(), ["delta", "old"]);
        case.sandbox.ok(&[&case.source.reference("delta"), "--tag", "old"]);
        assert_eq!(case.names(), ["-", "delta", "old"], "the name moved, the image stays");
        assert_eq!(case.sandbox.json(&["gc"])["removed"], 0);
        assert_eq!(case.sandbox.json(&["gc", "--untagged"])["removed"], 1);
        assert_eq!(case.names(), ["delta", "old"]);
        case.sandbox.ok(&["verify"]);
        case.sandbox.ok(&["remove", "old"]);
        case.sandbox.ok(&["verify", "delta"]);
        case.sandbox.ok(&["remove", "delta"]);
        case.sandbox.ok(&["gc"]);
        assert!(case.names().is_empty());
        assert_eq!(case.sandbox.json(&["gc"])["blobs"], 0, "the first gc left nothing");
        assert_eq!(case.sandbox.run(&["remove", "old"]).code, 3);
    }
}

#[test]
fn inspect_tells_whether_a_delta_fits() {
    for case in Case::each() {
        let inspect = || case.sandbox.json(&["inspect", &case.source.reference("delta")]);
        assert_eq!(inspect()["fits"], false);
        case.pull("old");
        let report = inspect();
        assert_eq!(report["fits"], true);
        assert!(report["download_bytes"].as_u64() < report["full_pull_bytes"].as_u64());
    }
}

#[test]
fn a_delta_without_its_base_is_refused() {
    for case in Case::each() {
        let ended = case.sandbox.run(&[&case.source.reference("delta"), "--delta-policy", "only"]);
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains(case.old.config_digest().as_ref()), "{ended:#?}");
        assert!(case.names().is_empty());
        assert_eq!(case.sandbox.json(&["gc"])["blobs"], 0, "nothing was written");
    }
}

#[test]
fn create_takes_images_of_the_repository() {
    for case in Case::each() {
        case.pull("old");
        case.pull("new");
        let out = format!("oci:{}:made", case.sandbox.path("made").display());
        case.sandbox.ok(&["create", "old", "new", &out]);
        case.sandbox.ok(&["remove", "new"]);
        case.sandbox.ok(&["gc"]);
        let report = case.sandbox.json(&[&out, "--tag", "again"]);
        assert_eq!(report["image"]["target_manifest"], case.new.manifest_digest().to_string());
        assert_eq!(actions(&report), ["reused", "patched"]);
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn a_wrong_result_gets_no_name() {
    for mut case in Case::each() {
        case.pull("old");
        let wrong = Delta::with(&case.old, &case.new, |_| {
            (
                support::images::TAR_DIFF.into(),
                support::images::patch(&case.old, &tree(&[("usr/other", b"x")])),
            )
        });
        case.source.delta("wrong", &wrong);
        let ended =
            case.sandbox.run(&[&case.source.reference("wrong"), "--tag", "old", "--delta-policy", "only"]);
        assert_eq!(ended.code, 4, "{ended:#?}");
        assert!(ended.stderr.contains(&case.new.diff_ids()[1]), "{ended:#?}");
        let listed = case.sandbox.json(&["list"]);
        assert_eq!(listed.as_array().unwrap().len(), 1);
        assert_eq!(listed[0]["config"], case.old.config_digest().to_string());
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn what_a_delta_fails_to_make_is_fetched_whole() {
    for mut case in Case::each() {
        let wrong = Delta::with(&case.old, &case.new, |_| {
            let other = support::images::patch(&case.old, &tree(&[("usr/other", b"x")]));
            (support::images::TAR_DIFF.into(), other)
        });
        case.source.delta("wrong", &wrong);
        for reason in ["no-base", "patch-failed"] {
            let report = case.pull("wrong");
            assert_eq!(report["fallback_reason"], reason);
            assert_eq!(report["image"]["target_manifest"], case.new.manifest_digest().to_string());
            assert_eq!(actions(&report).last(), Some(&"fetched"));
            case.sandbox.ok(&["verify"]);
            case.sandbox.ok(&["remove", "wrong"]);
            case.sandbox.ok(&["gc"]);
            case.pull("old");
        }
    }
}

#[test]
fn layers_that_a_failed_run_finished_are_reused() {
    for sandbox in Sandbox::of_each_store() {
        let mut case = Case::with_layers(sandbox, 4);
        case.pull("old");
        let mut broken = Delta::new(&case.old, &case.new);
        broken.manifest["layers"][5]["digest"] = format!("sha256:{}", "0".repeat(64)).into();
        case.source.delta("broken", &broken);
        let ended =
            case.sandbox.run(&[&case.source.reference("broken"), "-j", "1", "--delta-policy", "only"]);
        assert_eq!(ended.code, 3, "{ended:#?}");
        let report = case.pull("delta");
        let reused = actions(&report).iter().filter(|a| **a == "reused").count();
        assert!(reused >= 2, "the shared layer and those that were done: {report:#}");
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn kill_at_any_moment_loses_nothing() {
    for sandbox in Sandbox::of_each_store() {
        let case = Case::with_layers(sandbox, 8);
        case.pull("old");
        let reference = case.source.reference("delta");
        let mut interrupted = 0;
        for delay in (0..16).map(|n| n * 8) {
            let mut run = case
                .sandbox
                .command()
                .args([&reference, "--tag", "new", "-j", "1"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            interrupted += u32::from(run.try_wait().unwrap().is_none());
            run.kill().unwrap();
            run.wait().unwrap();
            case.sandbox.ok(&["verify"]);
        }
        assert!(interrupted > 0, "no run was caught at work");
        let report = case.sandbox.json(&[&reference, "--tag", "new"]);
        assert_eq!(report["image"]["config"], case.new.config_digest().to_string());
        case.sandbox.ok(&["gc"]);
        case.sandbox.ok(&["verify"]);
        assert_eq!(case.sandbox.json(&["gc"])["blobs"], 0, "nothing is left behind");
    }
}

#[test]
fn gc_deletes_nothing_under_a_run() {
    for sandbox in Sandbox::of_each_store() {
        let case = Case::with_layers(sandbox, 1);
        case.pull("old");
        // A source that never answers keeps the run at work.
        let fifo = case.sandbox.path("never.tar");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let mut run = case.sandbox.command();
        run.args([&format!("oci-archive:{}", fifo.display())]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = run.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let busy = run.try_wait().unwrap().is_none();
        let ended = case.sandbox.run(&["gc"]);
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(busy, "the run was over too soon to test anything");
        assert_eq!(ended.code, 1, "{ended:#?}");
        assert!(ended.stderr.contains("another process"), "{ended:#?}");
        case.sandbox.ok(&["gc"]);
    }
}

#[test]
fn a_damaged_repository_is_told() {
    for case in Case::each() {
        case.pull("old");
        let largest = case.sandbox.snapshot().into_iter().max_by_key(|(_, size)| *size).unwrap().0;
        let mut bytes = std::fs::read(&largest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&largest).unwrap();
        std::fs::write(&largest, bytes).unwrap();
        let ended = case.sandbox.run(&["verify"]);
        assert_eq!(ended.code, 4, "{ended:#?}");
        let name = largest.file_name().unwrap().to_str().unwrap();
        assert!(ended.stderr.contains(name), "no {name} in {ended:#?}");
    }
}

#[test]
fn a_gc_that_fails_keeps_what_others_must_not_take() {
    for sandbox in Sandbox::of_each_store() {
        let place: StoreRef = sandbox.repo_reference().parse().unwrap();
        let open = || place.open_or_create(&Session::new(sandbox.dir.path())).unwrap();
        let (one, other) = (open(), open());
        let refused = one.gc().unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(other);
        // The first one is still at work.
        let third = open();
        assert!(third.gc().is_err(), "{place}");
        drop(one);
        third.gc().unwrap();
        // After its gc it shares the repository again.
        assert!(open().gc().is_err(), "{place}");
    }
}
