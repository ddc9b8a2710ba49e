//! A user names an image, and the delta for it is found: real registries, through real skopeo.

use crate::support;

use base64::prelude::{BASE64_STANDARD as STANDARD, Engine};
use serde_json::Value;
use support::hostile::{V1, op, open, patch};
use support::images::{noise, tree};
use support::registry::put_manifest;
use support::relay::{Fault, Relay};
use support::tars::Entry::{File, Link};
use support::tars::tar_of;
use support::{Delta, Guard, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

/// Version `n` of an image: one layer that stays, one whose large file changes a little, one that is new each time.
fn version(n: u8) -> Image {
    let mut file = noise(7, 2_000_000);
    for at in 0..usize::from(n) {
        file[at * 1000] ^= 1 + n;
    }
    Image::new(vec![
        Layer::gzip(tree(&[("usr/lib/stays", &noise(1, 300_000))])),
        Layer::gzip(tree(&[("usr/lib/grows", &file)])),
        Layer::gzip(tree(&[("usr/lib/version", &[n; 40])])),
    ])
}

struct Case {
    sandbox: Sandbox,
    registry: Registry,
    dir: OciDir,
}

impl Case {
    fn new() -> Self {
        Self::with(Registry::start())
    }

    fn with(registry: Registry) -> Self {
        let sandbox = Sandbox::new();
        let dir = OciDir::create(&sandbox.path("source"));
        Case { sandbox, registry, dir }
    }

    /// Puts version `n` into the registry as `os:n`.
    fn release(&mut self, n: u8) -> Image {
        let (name, image) = (n.to_string(), version(n));
        self.dir.image(&name, &image);
        self.registry.push(&self.dir.reference(&name), &format!("os:{n}"));
        image
    }

    /// Publishes a delta with our own command.
    fn publish(&mut self, delta: &Delta) -> Value {
        let name = format!("delta-{}", oci_delta_fetch::digest::digest_of(&delta.bytes()).digest());
        self.dir.delta(&name, delta);
        self.json(&["push", &self.dir.reference(&name), &self.registry.reference("os")])
    }

    fn json(&self, args: &[&str]) -> Value {
        self.sandbox.json(&[args, &REMOTE].concat())
    }

    fn fetch(&self, n: u8, more: &[&str]) -> Value {
        self.json(&[&[&*self.registry.reference(&format!("os:{n}"))], more].concat())
    }
}

fn actions(report: &Value) -> Vec<&str> {
    report["layers"].as_array().unwrap().iter().map(|l| l["action"].as_str().unwrap()).collect()
}

#[test]
fn the_delta_for_a_tag_is_found_and_used() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    let pushed = case.publish(&Delta::new(&old, &new));
    assert_eq!(pushed["subject"], new.manifest_digest().to_string());
    assert_eq!(pushed["referrers_api"], false, "docker-registry has none: it is in the list");

    assert_eq!(case.fetch(1, &[])["fallback_reason"], "no-base", "the first image comes whole");
    let planned = case.fetch(2, &["--dry-run"]);
    let report = case.fetch(2, &[]);
    assert_eq!(planned["bytes"], report["bytes"]);
    assert_eq!(report["deltas"][0], pushed["digest"]);
    assert_eq!(report["fallback_reason"], Value::Null);
    // The tiny layer is no larger whole than as a patch.
    assert_eq!(actions(&report)[..2], ["reused", "patched"]);
    assert!(report["bytes"]["downloaded"].as_u64() < report["bytes"]["plain_pull"].as_u64());
    assert_eq!(report["image"]["target_manifest"], new.manifest_digest().to_string());
    case.sandbox.ok(&["verify"]);
}

#[test]
fn few_requests_and_never_more_bytes() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    case.publish(&Delta::new(&old, &new));
    // A machine that has not seen this registry.
    let relay = Relay::to(&case.registry.address);
    case.json(&[&relay.reference("os:1")]);
    let (requests, _) = relay.take();
    assert!(requests <= 3 + 1 + old.layers.len() as u64, "{requests} requests for a first pull");

    let report = case.json(&[&relay.reference("os:2")]);
    let (requests, _) = relay.take();
    let blobs = 1 + actions(&report).iter().filter(|a| **a != "reused").count() as u64;
    // The first pull found out that there is no API.
    assert!(requests <= 4 + blobs, "{requests} requests for {blobs} blobs");

    assert_eq!(case.json(&[&relay.reference("os:2")])["status"], "already-present");
    let (requests, _) = relay.take();
    assert!(requests <= 2, "{requests} requests to find that nothing is to be done");

    // An image for which there is no delta costs next to nothing more than without a search.
    let third = case.release(3);
    let searched = case.json(&[&relay.reference("os:3"), "--dry-run"]);
    assert_eq!(searched["fallback_reason"], "no-delta");
    let (bytes, plain) = (&searched["bytes"]["downloaded"], &searched["bytes"]["plain_pull"]);
    assert!(bytes.as_u64().unwrap() * 1000 <= plain.as_u64().unwrap() * 1001);
    assert!(plain.as_u64().unwrap() < third.layers.iter().map(|l| l.blob.len() as u64).sum());
}

#[test]
fn the_list_carries_the_manifest_of_a_delta_for_large_layers() {
    let mut case = Case::new();
    let large = |n: u8| Image::new(vec![Layer::plain(tree(&[("usr/lib/large", &vec![n; 40_000_000])]))]);
    let (old, new) = (large(1), large(2));
    for (name, image) in [("1", &old), ("2", &new)] {
        case.dir.image(name, image);
        case.registry.push(&case.dir.reference(name), &format!("os:{name}"));
    }
    let pushed = case.publish(&Delta::new(&old, &new));
    case.fetch(1, &[]);
    let relay = Relay::to(&case.registry.address);
    let report = case.json(&[&relay.reference("os:2")]);
    let (requests, bytes) = relay.take();
    assert_eq!(report["deltas"][0], pushed["digest"]);
    // Greeting, image, the API that is not there, the tag; the manifest of the delta came with that.
    assert!(requests <= 4 + 2, "{requests} requests");
    assert!(report["bytes"]["downloaded"].as_u64().unwrap() <= bytes);
    case.sandbox.ok(&["verify"]);
}

#[test]
fn policies_decide_what_happens_without_a_delta() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    case.fetch(1, &[]);
    let reference = case.registry.reference("os:2");
    let only = [&reference, "--delta-policy", "only", REMOTE[0], REMOTE[1]];
    let ended = case.sandbox.run(&only);
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.stderr.contains("there is no delta for image"), "{ended:#?}");
    case.publish(&Delta::new(&old, &new));
    let never = case.fetch(2, &["--delta-policy", "never", "--dry-run"]);
    assert_eq!(never["deltas"], serde_json::json!([]));
    assert_eq!(actions(&never), ["reused", "fetched", "fetched"]);
    case.sandbox.ok(&only);
    case.sandbox.ok(&["verify"]);
}

#[test]
fn a_delta_that_fails_costs_only_its_layers() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    let mut delta = Delta::new(&old, &new);
    // The patch of the large layer gives something else.
    let wrong = support::images::patch(&old, &tree(&[("usr/other", b"x")]));
    let entry = &mut delta.manifest["layers"][2];
    entry["digest"] = oci_delta_fetch::digest::digest_of(&wrong).to_string().into();
    entry["size"] = wrong.len().into();
    delta.blobs.push(wrong);
    case.publish(&delta);
    case.fetch(1, &[]);
    let report = case.fetch(2, &[]);
    assert_eq!(report["fallback_reason"], "patch-failed");
    assert_eq!(actions(&report)[1], "fetched");
    assert_eq!(report["image"]["target_manifest"], new.manifest_digest().to_string());
    case.sandbox.ok(&["verify"]);
}

#[test]
fn a_delta_whose_blob_is_gone_is_replaced_by_the_layer() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    let delta = Delta::new(&old, &new);
    case.publish(&delta);
    case.fetch(1, &[]);
    let blob = case.registry.blob_file(delta.manifest["layers"][2]["digest"].as_str().unwrap());
    std::fs::remove_file(blob).unwrap();
    let report = case.fetch(2, &["--retries", "0"]);
    assert_eq!(report["fallback_reason"], "patch-failed");
    // Nothing came of the patch, so nothing counts but the layer.
    assert_eq!(report["layers"][1]["bytes"], report["layers"][1]["target_bytes"]);
    assert_eq!(report["image"]["target_manifest"], new.manifest_digest().to_string());
}

#[test]
fn deltas_may_live_elsewhere_or_be_named() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    case.dir.delta("delta", &Delta::new(&old, &new));
    case.json(&["push", &case.dir.reference("delta"), &case.registry.reference("deltas")]);
    case.fetch(1, &[]);
    let elsewhere = case.registry.reference("deltas");
    assert_eq!(case.fetch(2, &["--dry-run"])["fallback_reason"], "no-delta");
    assert_eq!(actions(&case.fetch(2, &["--dry-run", "--delta-repo", &elsewhere]))[1], "patched");
    let named = case.dir.reference("delta");
    assert_eq!(actions(&case.fetch(2, &["--dry-run", "--delta", &named]))[1], "patched");
    let report = case.fetch(2, &["--delta-repo", &elsewhere]);
    assert_eq!(report["image"]["target_manifest"], new.manifest_digest().to_string());
    case.sandbox.ok(&["verify"]);
}

/// An entry of a list that calls these bytes a delta from `old`.
fn claim(bytes: &[u8], old: &Image) -> Value {
    let mut entry = support::images::descriptor(support::images::MANIFEST, bytes);
    entry["artifactType"] = support::images::DELTA.into();
    entry["annotations"] = serde_json::json!({
        "io.github.containers.delta.source-config": old.config_digest().to_string(),
        "io.github.oci-delta-fetch.bytes": "1000",
    });
    entry
}

/// Version 2 is fetched whole, though the list under its fallback tag has this entry.
fn is_seen_through(case: &Case, new: &Image, entry: Value, said: &str) {
    let tag = new.manifest_digest().to_string().replace(':', "-");
    let list = support::images::index(&[entry]).to_string();
    let status = put_manifest(&case.registry.address, "os", &tag, support::images::INDEX, list.as_bytes());
    assert!(status.contains("201"), "{status}");
    case.fetch(1, &[]);
    let reference = case.registry.reference("os:2");
    let ended = case.sandbox.ok(&[&reference, REMOTE[0], REMOTE[1], "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["fallback_reason"], "no-delta");
    assert!(ended.stderr.contains(said), "{ended:#?}");
}

#[test]
fn a_listed_delta_is_for_another_image() {
    let mut case = Case::new();
    let (old, new, other) = (case.release(1), case.release(2), case.release(3));
    let mut foreign = Delta::new(&old, &other);
    foreign.manifest.as_object_mut().unwrap().remove("subject");
    foreign.manifest["annotations"].as_object_mut().unwrap().remove("io.github.containers.delta.target");
    case.dir.delta("foreign", &foreign);
    case.registry.push(&case.dir.reference("foreign"), "os:foreign");
    is_seen_through(&case, &new, claim(&foreign.bytes(), &old), "it rebuilds");
}

#[test]
fn what_is_listed_as_a_delta_is_none() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    is_seen_through(&case, &new, claim(&new.manifest, &old), "it is no delta");
}

#[test]
fn a_listed_digest_is_not_that_of_the_manifest_beside_it() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    let mut entry = claim(&new.manifest, &old);
    entry["data"] = STANDARD.encode(Delta::new(&old, &new).bytes()).into();
    is_seen_through(&case, &new, entry, "it is no delta");
}

#[test]
fn deltas_are_listed_and_pruned() {
    let mut case = Case::new();
    let (first, second, third) = (case.release(1), case.release(2), case.release(3));
    let from_first = case.publish(&Delta::new(&first, &third));
    let from_second = case.publish(&Delta::new(&second, &third));
    // The same from the first version, with the layers whole: larger, so superseded.
    let whole = Delta::with(&first, &third, |tar| (support::images::TAR.into(), tar.to_vec()));
    let superseded = case.publish(&whole);
    case.fetch(2, &[]);
    let reference = case.registry.reference("os:3");
    let list = case.json(&["deltas", &reference]);
    let of =
        |digest: &Value| list["deltas"].as_array().unwrap().iter().find(|d| d["digest"] == *digest).unwrap();
    assert_eq!(of(&from_first["digest"])["fits"], false);
    assert_eq!(of(&from_second["digest"])["fits"], true);
    assert!(of(&superseded["digest"])["share"].as_f64() > of(&from_first["digest"])["share"].as_f64());

    let pruned = case.json(&["prune", &reference, "--dry-run"]);
    assert_eq!(pruned["removed"], serde_json::json!([superseded["digest"]]));
    case.json(&["prune", &reference]);
    assert_eq!(case.json(&["deltas", &reference])["deltas"].as_array().unwrap().len(), 2);
    case.json(&["prune", &reference, "--keep", "1"]);
    let left = case.json(&["deltas", &reference]);
    assert_eq!(left["deltas"].as_array().unwrap().len(), 1);
    assert_eq!(left["deltas"][0]["digest"], from_second["digest"]);
}

#[test]
fn two_pushers_at_once_lose_nothing() {
    let mut case = Case::new();
    let images: Vec<Image> = (1..=6).map(|n| case.release(n)).collect();
    let target = &images[5];
    for (n, old) in images[..5].iter().enumerate() {
        case.dir.delta(&format!("delta-{n}"), &Delta::new(old, target));
    }
    let pushers: Vec<_> = (0..5)
        .map(|n| {
            let mut command = case.sandbox.command();
            command.args([
                "push",
                &case.dir.reference(&format!("delta-{n}")),
                &case.registry.reference("os"),
            ]);
            command.args(REMOTE).stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut pusher in pushers {
        assert!(pusher.wait().unwrap().success());
    }
    let list = case.json(&["deltas", &case.registry.reference("os:6")]);
    assert_eq!(list["deltas"].as_array().unwrap().len(), 5);
}

#[test]
fn create_publishes_in_one_step() {
    let mut case = Case::new();
    case.release(1);
    let new = case.release(2);
    let (old_ref, new_ref) = (case.registry.reference("os:1"), case.registry.reference("os:2"));
    case.json(&["create", &old_ref, &new_ref, &case.registry.reference("os")]);
    case.fetch(1, &[]);
    let report = case.fetch(2, &[]);
    assert_eq!(actions(&report)[1], "patched");
    assert_eq!(report["image"]["target_manifest"], new.manifest_digest().to_string());
}

#[test]
fn anything_but_the_expected_digest_is_refused() {
    let mut case = Case::new();
    let image = case.release(1);
    let reference = case.registry.reference("os:1");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let ended = case.sandbox.run(&[&reference, "--expect-digest", &wrong, REMOTE[0], REMOTE[1]]);
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert!(ended.stderr.contains("digest mismatch"), "{ended:#?}");
    let right = image.manifest_digest().to_string();
    case.fetch(1, &["--expect-digest", &right]);
    let pinned = format!("{}@{right}", case.registry.reference("os"));
    assert_eq!(case.json(&[&pinned])["status"], "already-present");
}

#[test]
fn a_deadline_ends_the_run() {
    let mut case = Case::new();
    case.release(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("docker://{}/os:1", listener.local_addr().unwrap());
    let started = std::time::Instant::now();
    let ended = case.sandbox.run(&[&silent, "--timeout", "1", REMOTE[0], REMOTE[1]]);
    assert_eq!(ended.code, 5, "{ended:#?}");
    assert!(ended.stderr.contains("not done within 1 seconds"), "{ended:#?}");
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn with_the_referrers_api_the_registry_keeps_the_list() {
    let mut case = Case::with(Registry::with_referrers());
    let (old, new) = (case.release(1), case.release(2));
    let pushed = case.publish(&Delta::new(&old, &new));
    assert_eq!(pushed["referrers_api"], true);
    let relay = Relay::to(&case.registry.address);
    case.fetch(1, &[]);
    let report = case.json(&[&relay.reference("os:2")]);
    let (requests, _) = relay.take();
    assert_eq!(report["deltas"][0], pushed["digest"]);
    let blobs = 1 + actions(&report).iter().filter(|a| **a != "reused").count() as u64;
    assert!(requests <= 4 + blobs, "{requests} requests for {blobs} blobs");
    case.sandbox.ok(&["verify"]);

    let reference = case.registry.reference("os:2");
    assert_eq!(case.json(&["deltas", &reference])["deltas"][0]["digest"], pushed["digest"]);
    let superseded = Delta::with(&old, &new, |tar| (support::images::TAR.into(), tar.to_vec()));
    let superseded = case.publish(&superseded);
    assert_eq!(case.json(&["prune", &reference])["removed"][0], superseded["digest"]);
    assert_eq!(case.json(&["deltas", &reference])["deltas"].as_array().unwrap().len(), 1);
}

#[test]
fn a_chain_of_deltas_leads_over_images_that_are_not_here() {
    for sandbox in Sandbox::of_each_store() {
        let dir = OciDir::create(&sandbox.path("source"));
        let mut case = Case { sandbox, registry: Registry::start(), dir };
        let images: Vec<Image> = (1..=4).map(|n| case.release(n)).collect();
        let digests: Vec<Value> = images
            .windows(2)
            .map(|pair| case.publish(&Delta::new(&pair[0], &pair[1]))["digest"].clone())
            .collect();
        case.fetch(1, &[]);
        let planned = case.fetch(4, &["--dry-run"]);
        let report = case.fetch(4, &[]);
        assert_eq!(report["deltas"], Value::from(digests));
        assert_eq!(report["fallback_reason"], Value::Null);
        assert_eq!(planned["bytes"], report["bytes"]);
        assert_eq!(actions(&report)[..2], ["reused", "patched"]);
        assert!(report["bytes"]["downloaded"].as_u64() < report["bytes"]["plain_pull"].as_u64());
        assert_eq!(report["image"]["target_manifest"], images[3].manifest_digest().to_string());
        assert_eq!(
            case.sandbox.json(&["list"]).as_array().unwrap().len(),
            2,
            "no image in between is published"
        );
        case.sandbox.ok(&["verify"]);

        // A delta on the way that is damaged: the image is fetched whole.
        case.sandbox.ok(&["remove", &format!("{}/os:4", case.registry.address)]);
        case.sandbox.ok(&["gc"]);
        let middle = Delta::new(&images[1], &images[2]);
        let blob = case.registry.blob_file(middle.manifest["layers"][2]["digest"].as_str().unwrap());
        let mut bytes = std::fs::read(&blob).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&blob, bytes).unwrap();
        let report = case.fetch(4, &[]);
        assert_eq!(report["fallback_reason"], "patch-failed");
        assert_eq!(report["image"]["target_manifest"], images[3].manifest_digest().to_string());
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn a_chain_over_more_files_than_may_be_open() {
    for sandbox in Sandbox::of_each_store() {
        let dir = OciDir::create(&sandbox.path("source"));
        let mut case = Case { sandbox, registry: Registry::start(), dir };
        let images: Vec<Image> = (1..=3u8)
            .map(|n| {
                let mut contents: Vec<Vec<u8>> = (0..300).map(|at| noise(at, 8_000)).collect();
                contents.iter_mut().for_each(|content| content[usize::from(n)] ^= n);
                let names: Vec<String> = (0..300).map(|at| format!("files/{at}")).collect();
                let files: Vec<(&str, &[u8])> =
                    names.iter().zip(&contents).map(|(n, c)| (&**n, &**c)).collect();
                let image = Image::new(vec![Layer::gzip(tree(&files))]);
                case.dir.image(&n.to_string(), &image);
                case.registry.push(&case.dir.reference(&n.to_string()), &format!("os:{n}"));
                image
            })
            .collect();
        images.windows(2).for_each(|pair| drop(case.publish(&Delta::new(&pair[0], &pair[1]))));
        case.fetch(1, &[]);
        let mut command = case.sandbox.limited("ulimit -n 128");
        let reference = case.registry.reference("os:3");
        let ended = support::cli::ended(command.args([&*reference, "--json"]).args(REMOTE).output().unwrap());
        assert_eq!(ended.code, 0, "{ended:#?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report["fallback_reason"], Value::Null, "{report:#}");
        assert_eq!(report["deltas"].as_array().unwrap().len(), 2);
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn a_chain_over_an_ambiguous_file_finds_the_one_that_was_meant() {
    let content = noise(1, 300_000);
    for other in [&b"much shorter"[..], &noise(2, 300_000)] {
        let bottom = Layer::gzip(tar_of(&[File(b"f", &content), File(b"other", other)]));
        let linked = Layer::gzip(tar_of(&[Link(b"f", b"other")]));
        let with = |layers: &[&[u8]]| {
            let layers = layers.iter().map(|content| Layer::gzip(tar_of(&[File(b"made", content)])));
            Image::new([bottom.clone(), linked.clone()].into_iter().chain(layers).collect())
        };
        let (mut second, mut third) = (content.clone(), content.clone());
        second[7] ^= 1;
        third[9] ^= 1;
        let images = [with(&[]), with(&[&second]), with(&[&third])];
        // What the generator makes that sees `f` below the link.
        let patch_from = |path: &str, base: &[u8], tar: &[u8]| {
            let sums: Vec<u8> =
                tar[512..].iter().zip(base).map(|(new, old)| new.wrapping_sub(*old)).collect();
            let (sums, tail) = (op(3, 300_000, &sums), &tar[512 + 300_000..]);
            let ops = [op(0, 512, &tar[..512]), open(path), sums, op(0, tail.len() as u64, tail)];
            patch(V1, &ops.concat())
        };
        let mut case = Case::new();
        for (n, image) in images.iter().enumerate() {
            let name = (n + 1).to_string();
            case.dir.image(&name, image);
            case.registry.push(&case.dir.reference(&name), &format!("os:{name}"));
        }
        let kind = || support::images::TAR_DIFF.to_owned();
        let first = |tar: &[u8]| (kind(), patch_from("f", &content, tar));
        let then = |tar: &[u8]| (kind(), patch_from("made", &second, tar));
        case.publish(&Delta::with(&images[0], &images[1], first));
        case.publish(&Delta::with(&images[1], &images[2], then));
        case.fetch(1, &[]);
        let report = case.fetch(3, &[]);
        assert_eq!(report["fallback_reason"], Value::Null, "{report:#}");
        assert_eq!(actions(&report), ["reused", "reused", "patched"]);
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn whatever_the_blobs_of_a_delta_end_with_the_image_comes_whole() {
    for status in ["503 Service Unavailable", "401 Unauthorized", "403 Forbidden", "404 Not Found"] {
        let mut case = Case::new();
        let (old, new) = (case.release(1), case.release(2));
        let delta = Delta::new(&old, &new);
        case.publish(&delta);
        let patch = delta.manifest["layers"][2]["digest"].as_str().unwrap().to_owned();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let refuse = move |request: &str| request.contains(&patch).then(|| answer.clone().into_bytes());
        let relay = Relay::watched(&case.registry.address, |_| Fault::None, refuse);
        case.fetch(1, &[]);
        let (reference, run) = (relay.reference("os:2"), ["--tls-verify=false", "--retries", "0"]);
        let only = case.sandbox.run(&[&[&*reference, "--delta-policy", "only"], &run[..]].concat());
        assert_ne!(only.code, 0, "{status}: {only:#?}");
        let report = case.sandbox.json(&[&[&*reference], &run[..]].concat());
        assert_eq!(report["fallback_reason"], "patch-failed", "{status}");
        assert_eq!(actions(&report)[..2], ["reused", "fetched"], "{status}");
        assert_eq!(report["image"]["target_manifest"], new.manifest_digest().to_string());
        case.sandbox.ok(&["verify"]);
    }
}

#[test]
fn a_direct_delta_is_preferred_to_a_chain() {
    let mut case = Case::new();
    let images: Vec<Image> = (1..=3).map(|n| case.release(n)).collect();
    for (from, to) in [(0, 1), (1, 2), (0, 2)] {
        case.publish(&Delta::new(&images[from], &images[to]));
    }
    case.fetch(1, &[]);
    let report = case.fetch(3, &[]);
    assert_eq!(report["deltas"].as_array().unwrap().len(), 1, "{report:#}");
    // From the second version the last delta is enough.
    case.fetch(2, &["--delta-policy", "never"]);
    case.sandbox.ok(&["remove", &format!("{}/os:3", case.registry.address)]);
    assert_eq!(case.fetch(3, &[])["deltas"].as_array().unwrap().len(), 1);
}

#[test]
fn deltas_are_found_behind_passwords_and_certificates() {
    let guard = Guard { password: true, tls: true };
    let mut case = Case::with(Registry::guarded(guard));
    let (name, old, new) = ("1".to_owned(), version(1), version(2));
    case.dir.image(&name, &old).image("2", &new).delta("delta", &Delta::new(&old, &new));
    let certs = case.registry.cert_dir();
    let push = ["--dest-cert-dir", &certs, "--dest-tls-verify=true", "--preserve-digests"];
    for n in ["1", "2"] {
        case.registry.push_with(&push, &case.dir.reference(n), &format!("ns/os:{n}"));
    }
    // A key for a namespace, as `skopeo login host/ns` writes it; "user:secret" in base64.
    let authfile = case.sandbox.path("auth.json");
    let auths = serde_json::json!({"auths": {
        format!("{}/ns", case.registry.address): {"auth": "dXNlcjpzZWNyZXQ="},
        &case.registry.address: {"auth": "bm9ib2R5Onh4"},
    }});
    std::fs::write(&authfile, auths.to_string()).unwrap();
    let remote = ["--cert-dir", &certs, "--authfile", authfile.to_str().unwrap(), "--insecure-policy"];
    let run = |args: &[&str]| case.sandbox.json(&[args, &remote].concat());
    run(&["push", &case.dir.reference("delta"), &case.registry.reference("ns/os")]);
    run(&[&case.registry.reference("ns/os:1")]);
    let report = run(&[&case.registry.reference("ns/os:2"), "--delta-policy", "only"]);
    assert_eq!(actions(&report)[1], "patched");

    // The same with a credential helper.
    let helper = case.sandbox.path("docker-credential-test");
    std::fs::write(&helper, "#!/bin/sh\necho '{\"Username\":\"user\",\"Secret\":\"secret\"}'\n").unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let helpers = serde_json::json!({"credHelpers": {&case.registry.address: "test"}});
    std::fs::write(&authfile, helpers.to_string()).unwrap();
    let path = format!("{}:{}", case.sandbox.dir.path().display(), std::env::var("PATH").unwrap());
    let mut list = case.sandbox.command();
    list.env("PATH", path).args(["deltas", &case.registry.reference("ns/os:2"), "--json"]).args(remote);
    let ended = support::cli::ended(list.output().unwrap());
    assert_eq!(ended.code, 0, "{ended:#?}");
    let list: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(list["deltas"].as_array().unwrap().len(), 1);
}

#[test]
fn a_mirror_is_left_to_skopeo() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    case.publish(&Delta::new(&old, &new));
    // The image is asked for under a name that only the configuration leads to the registry.
    let conf = case.sandbox.path("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"nowhere.example\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        case.registry.address
    );
    std::fs::write(&conf, text).unwrap();
    let remote = ["--registries-conf", conf.to_str().unwrap(), "--insecure-policy"];
    let run = |n: u8| case.sandbox.json(&[&[&*format!("nowhere.example/os:{n}")], &remote[..]].concat());
    run(1);
    let report = run(2);
    assert_eq!(actions(&report)[1], "patched", "the fallback tag is read through skopeo: {report:#}");
}

#[test]
fn inspect_explains_what_a_fetch_of_an_image_would_do() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    case.publish(&Delta::new(&old, &new));
    let reference = case.registry.reference("os:2");
    let before = case.json(&["inspect", &reference]);
    assert_eq!(before["fallback_reason"], "no-base");
    case.fetch(1, &[]);
    let inspected = case.json(&["inspect", &reference]);
    let fetched = case.fetch(2, &[]);
    assert_eq!(inspected["download_bytes"], fetched["bytes"]["downloaded"]);
    assert_eq!(inspected["deltas"], fetched["deltas"]);
    assert_eq!(inspected["layers"][1]["action"], "patched");
}

#[test]
fn the_report_keeps_to_its_schema() {
    let mut case = Case::new();
    let (old, new) = (case.release(1), case.release(2));
    case.publish(&Delta::new(&old, &new));
    let schema: Value = serde_json::from_str(include_str!("../../docs/report.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("report.schema.json", schema.clone()).unwrap();
    let compiled = compiler.compile("report.schema.json", &mut schemas).unwrap();
    let reports = [
        case.fetch(1, &["--dry-run"]),
        case.fetch(1, &[]),
        case.fetch(2, &["--dry-run"]),
        case.fetch(2, &[]),
        case.fetch(2, &[]),
    ];
    for report in &reports {
        schemas.validate(report, compiled).unwrap_or_else(|e| panic!("{e:#} in {report:#}"));
    }
    // What the schema lists is there: nothing in it is forgotten or misspelt.
    fn covered(schema: &Value, report: &Value, path: &str) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            assert!(
                !report[name].is_null() || inner["type"].as_array().is_some(),
                "{path}/{name} is not in the report"
            );
            covered(inner, &report[name], &format!("{path}/{name}"));
        }
    }
    covered(&schema, &reports[3], "");
    assert_eq!(schema["required"].as_array().unwrap().len(), reports[3].as_object().unwrap().len());
}
