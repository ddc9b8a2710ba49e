//! A repository is an OCI layout, which skopeo, oras, cosign and podman write as well: what they put there is
//! listed, verified, kept and used, but not believed.

use crate::support;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_delta_fetch::Session;
use oci_delta_fetch::digest::digest_of;
use oci_delta_fetch::store::StoreRef;
use serde_json::{Value, json};
use support::images::{CONFIG, MANIFEST, TAR_GZIP, descriptor, for_platform, gzip, index, noise, tar, tree};
use support::registry::skopeo;
use support::{Delta, Image, Layer, OciDir, Sandbox};

fn image(architecture: &str, version: u8) -> Image {
    let mut data = noise(9, 40_000);
    data[100] = version;
    data[101] = architecture.as_bytes()[1];
    let shared = Layer::gzip(tar(&[("shared", &noise(4, 9_000))]));
    Image::of_architecture(architecture, vec![shared, Layer::gzip(tar(&[("data", &data)]))])
}

/// A repository into which others wrote, and a source beside it.
struct Shared {
    sandbox: Sandbox,
    source: OciDir,
}

impl Shared {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.ok(&["init"]);
        let source = OciDir::create(&sandbox.path("source"));
        Shared { sandbox, source }
    }

    /// As another tool does it: blobs, and an entry in the index.
    fn put(&self, blobs: &[&[u8]], entry: Value) {
        for blob in blobs {
            fs::write(self.blob_path(blob), blob).unwrap();
        }
        let path = self.sandbox.repo().join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["manifests"].as_array_mut().unwrap().push(entry);
        fs::write(path, index.to_string()).unwrap();
    }

    fn blob_path(&self, blob: &[u8]) -> std::path::PathBuf {
        self.sandbox.repo().join("blobs/sha256").join(digest_of(blob).digest())
    }

    /// An artifact about `subject`, as oras and cosign keep them; its manifest.
    fn attach(&self, subject: Option<&[u8]>, kind: &str, content: &[u8]) -> Vec<u8> {
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [descriptor(kind, content)],
        });
        if let Some(subject) = subject {
            manifest["artifactType"] = kind.into();
            manifest["subject"] = descriptor(MANIFEST, subject);
        }
        let manifest = manifest.to_string().into_bytes();
        self.put(&[b"{}", content, &manifest], descriptor(MANIFEST, &manifest));
        manifest
    }

    fn names(&self) -> Vec<(String, String)> {
        let list = self.sandbox.json(&["list"]);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        list.as_array().unwrap().iter().map(|row| (text(&row["kind"]), text(&row["name"]))).collect()
    }
}

#[test]
fn an_index_that_skopeo_puts_there_is_listed_verified_and_a_base() {
    let mut shared = Shared::new();
    let (amd, arm, next) = (image("amd64", 1), image("arm64", 1), image("arm64", 2));
    shared.source.image("a", &amd).image("b", &arm);
    shared.source.nested_index("multi", &[for_platform(&amd, "amd64"), for_platform(&arm, "arm64")]);
    shared.source.delta("delta", &Delta::new(&arm, &next));
    let sandbox = &shared.sandbox;
    let repo = format!("oci:{}:multi", sandbox.repo().display());
    skopeo(&["copy", "-q", "--all", &shared.source.reference("multi"), &repo], sandbox.dir.path());
    assert_eq!(shared.names(), [("index".to_owned(), "multi".to_owned())]);
    sandbox.ok(&["list"]);
    sandbox.ok(&["verify"]);
    sandbox.ok(&["gc", "--untagged"]);
    let report = sandbox.json(&[
        &shared.source.reference("delta"),
        "--tag",
        "new",
        "--delta-policy",
        "only",
        "--platform",
        "linux/arm64",
    ]);
    assert_eq!(report["image"]["config"], next.config_digest().to_string());
    // An image inside it is here, and may get a name.
    let present = sandbox.json(&[&shared.source.reference("b"), "--tag", "arm"]);
    assert_eq!(present["status"], "already-present");
    let output = format!("oci:{}", sandbox.path("made").display());
    sandbox.ok(&["create", "multi", "new", &output, "--platform", "linux/arm64"]);
    // Damage inside is told.
    let layer = shared.blob_path(&amd.layers[1].blob);
    fs::write(&layer, noise(1, amd.layers[1].blob.len())).unwrap();
    let damaged = sandbox.run(&["verify"]);
    assert_eq!(damaged.code, 4, "{damaged:#?}");
    assert!(damaged.stderr.contains("multi: "), "{damaged:#?}");
    fs::remove_file(shared.blob_path(&amd.manifest)).unwrap();
    assert_eq!(sandbox.run(&["verify"]).code, 4, "a manifest of it is gone");
    sandbox.ok(&["remove", "multi"]);
    assert!(!layer.exists());
    sandbox.ok(&["verify"]);
}

#[test]
fn what_is_attached_stays_as_long_as_its_subject() {
    let mut shared = Shared::new();
    let (kept, gone) = (image("amd64", 1), image("amd64", 2));
    shared.source.image("kept", &kept).image("gone", &gone);
    for name in ["kept", "gone"] {
        let repo = format!("oci:{}:{name}", shared.sandbox.repo().display());
        skopeo(&["copy", "-q", &shared.source.reference(name), &repo], shared.sandbox.dir.path());
    }
    let about = |image: &Image| {
        let payload =
            json!({"critical": {"image": {"docker-manifest-digest": image.manifest_digest().to_string()}}});
        let statement =
            json!({"subject": [{"name": "x", "digest": {"sha256": image.manifest_digest().digest()}}]});
        let envelope = json!({"payloadType": "application/vnd.in-toto+json", "payload": STANDARD.encode(statement.to_string())});
        let sbom = shared.attach(Some(&image.manifest), "application/spdx+json", &image.config);
        vec![
            shared.attach(Some(&sbom), "application/vnd.example.signature", &image.config[1..]),
            sbom,
            shared.attach(
                None,
                "application/vnd.dev.cosign.simplesigning.v1+json",
                payload.to_string().as_bytes(),
            ),
            shared.attach(None, "application/vnd.dsse.envelope.v1+json", envelope.to_string().as_bytes()),
        ]
    };
    let (with_kept, with_gone) = (about(&kept), about(&gone));
    // A delta for the image, and something of nobody.
    let delta = Delta::new(&gone, &kept);
    shared.put(
        &delta.blobs.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        descriptor(MANIFEST, &delta.bytes()),
    );
    fs::write(shared.blob_path(&delta.bytes()), delta.bytes()).unwrap();
    let unknown: &[u8] = b"{\"some\":\"thing\"}";
    shared.put(&[unknown], descriptor("application/vnd.unknown+json", unknown));
    shared.sandbox.ok(&["verify"]);
    let exist = |manifests: &[Vec<u8>]| -> Vec<bool> {
        manifests.iter().map(|m| shared.blob_path(m).exists()).collect()
    };
    shared.sandbox.ok(&["gc"]);
    assert_eq!((exist(&with_kept), exist(&with_gone)), (vec![true; 4], vec![true; 4]));
    assert!(shared.blob_path(unknown).exists());
    shared.sandbox.ok(&["gc", "--untagged"]);
    assert_eq!((exist(&with_kept), exist(&with_gone)), (vec![true; 4], vec![true; 4]));
    assert!(shared.blob_path(&delta.bytes()).exists());
    assert!(!shared.blob_path(unknown).exists());
    assert_eq!(shared.names().iter().filter(|(kind, _)| kind == "artifact").count(), 9);
    shared.sandbox.ok(&["remove", "gone"]);
    shared.sandbox.ok(&["gc", "--untagged"]);
    assert_eq!((exist(&with_kept), exist(&with_gone)), (vec![true; 4], vec![false; 4]));
    assert!(shared.blob_path(&kept.layers[1].blob).exists());
    shared.sandbox.ok(&["verify"]);
}

#[test]
fn odd_entries_are_passed_over_and_kept() {
    let shared = Shared::new();
    let mut source = OciDir::create(&shared.sandbox.path("images"));
    let image = image("amd64", 1);
    source.image("v1", &image);
    shared.sandbox.ok(&[&source.reference("v1"), "--tag", "v1"]);
    let text: &[u8] = b"not json";
    let broken: &[u8] = br#"{"schemaVersion":2,"config":{"digest":"x"},"layers":[]}"#;
    for entry in [
        json!(null),
        json!({"digest": "x"}),
        json!({"digest": format!("sha512:{}", "0".repeat(128)), "mediaType": MANIFEST, "size": 3}),
        descriptor("application/vnd.unknown", text),
        json!({"digest": digest_of(text).to_string(), "annotations": {"a": 1}}),
        descriptor(MANIFEST, b"absent"),
    ] {
        shared.put(&[text], entry);
    }
    let names = shared.names();
    assert!(names.contains(&("image".to_owned(), "v1".to_owned())), "{names:?}");
    let again = shared.sandbox.json(&[&source.reference("v1"), "--tag", "v1"]);
    assert_eq!(again["status"], "already-present");
    shared.sandbox.ok(&["gc"]);
    assert!(shared.blob_path(text).exists());
    let verified = shared.sandbox.run(&["verify"]);
    assert_eq!(verified.code, 4, "{verified:#?}");
    assert!(verified.stderr.contains("manifests[1]"), "{verified:#?}");
    assert!(!verified.stderr.contains("v1: "), "{verified:#?}");
    shared.sandbox.ok(&["verify", "v1"]);
    // A manifest that cannot be read: nothing is deleted, and it is named.
    shared.put(&[broken], descriptor(MANIFEST, broken));
    shared.sandbox.ok(&["list"]);
    let gc = shared.sandbox.run(&["gc"]);
    assert_eq!(gc.code, 4, "{gc:#?}");
    assert!(gc.stderr.contains(digest_of(broken).digest()), "{gc:#?}");
    assert!(gc.stderr.contains("config.digest"), "{gc:#?}");
    shared.sandbox.ok(&["remove", digest_of(broken).as_ref()]);
}

/// Another's image says that its layer is the one that ours needs.
#[test]
fn layers_of_others_are_read_before_they_are_a_part_of_our_images() {
    let shared = Shared::new();
    let sandbox = &shared.sandbox;
    let (good, other) = (image("amd64", 1), image("amd64", 3));
    let mut source = OciDir::create(&sandbox.path("images"));
    source.image("good", &good).image("other", &other);
    // Config of the good image, layers of another; skopeo checks the blobs' own digests.
    let evil = gzip(&tar(&[("data", b"evil")]));
    let config = good.config.clone();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
        "layers": [descriptor(TAR_GZIP, &good.layers[0].blob), descriptor(TAR_GZIP, &evil)]});
    let manifest = manifest.to_string().into_bytes();
    let mut theirs = OciDir::create(&sandbox.path("theirs"));
    for blob in [&config, &evil, &good.layers[0].blob] {
        theirs.blob(blob);
    }
    theirs.manifest("evil", &manifest);
    let repo = format!("oci:{}:evil", sandbox.repo().display());
    skopeo(&["copy", "-q", &theirs.reference("evil"), &repo], sandbox.dir.path());
    let report = sandbox.json(&[&source.reference("good"), "--tag", "good"]);
    let actions: Vec<&str> =
        report["layers"].as_array().unwrap().iter().map(|l| l["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["reused", "fetched"], "the honest layer is used, the other is not");
    sandbox.ok(&["verify", "good"]);
    assert_eq!(sandbox.run(&["verify", "evil"]).code, 4);
    // What we published was read; that its image shares a layer with the next costs no reading.
    let shared_layer = shared.blob_path(&good.layers[0].blob);
    let notes = fs::read_dir(sandbox.repo().join(".oci-delta-fetch/verified")).unwrap().count();
    assert_eq!(notes, 1);
    let next = sandbox.json(&[&source.reference("other"), "--tag", "other"]);
    assert_eq!(next["layers"][0]["action"], "reused");
    assert!(shared_layer.exists());
    sandbox.ok(&["remove", "other"]);
    assert_eq!(fs::read_dir(sandbox.repo().join(".oci-delta-fetch/verified")).unwrap().count(), 1);
}

#[test]
fn two_images_of_one_name_are_not_removed_in_silence() {
    let shared = Shared::new();
    for version in [1, 2] {
        let image = image("amd64", version);
        let blobs: Vec<&[u8]> =
            image.layers.iter().map(|l| &l.blob[..]).chain([&image.config[..], &image.manifest]).collect();
        let mut entry = descriptor(MANIFEST, &image.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "v"});
        shared.put(&blobs, entry);
    }
    let created = shared.sandbox.run(&["create", "v", "v", "oci:out"]);
    assert_eq!(created.code, 2, "{created:#?}");
    assert!(created.stderr.contains(image("amd64", 2).manifest_digest().as_ref()), "{created:#?}");
    let removed = shared.sandbox.run(&["remove", "v"]);
    assert_eq!(removed.code, 2, "{removed:#?}");
    assert!(removed.stderr.contains(image("amd64", 2).manifest_digest().as_ref()), "{removed:#?}");
    shared.sandbox.ok(&["remove", image("amd64", 2).manifest_digest().as_ref()]);
    assert_eq!(shared.names(), [("image".to_owned(), "v".to_owned())]);
}

#[test]
fn create_into_a_repository_waits_for_other_publishers() {
    const WRITERS: usize = 5;
    let shared = Shared::new();
    let mut source = OciDir::create(&shared.sandbox.path("images"));
    source.image("old", &image("amd64", 1)).image("new", &image("amd64", 2));
    let repo = shared.sandbox.repo().display().to_string();
    let mut children = Vec::new();
    for n in 0..WRITERS {
        let delta = format!("oci:{repo}:delta{n}");
        let create =
            ["create", &source.reference("old"), &source.reference("new"), &delta, "-q"].map(str::to_owned);
        let fetch = [&source.reference("old"), "--tag", &format!("image{n}"), "-q"].map(str::to_owned);
        for args in [&create[..], &fetch] {
            let child =
                shared.sandbox.command().args(args).stdout(std::process::Stdio::null()).spawn().unwrap();
            children.push(child);
        }
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let names: Vec<String> = shared.names().into_iter().map(|(_, name)| name).collect();
    for n in 0..WRITERS {
        assert!(names.contains(&format!("delta{n}")) && names.contains(&format!("image{n}")), "{names:?}");
    }
    // A delta without a name takes the place of one, and of no image.
    let unnamed = format!("oci:{repo}");
    for _ in 0..2 {
        shared.sandbox.ok(&["create", &source.reference("old"), &source.reference("new"), &unnamed]);
    }
    shared.sandbox.ok(&["remove", "image0"]);
    shared.sandbox.ok(&["verify"]);
}

#[test]
fn create_leaves_what_others_have_in_a_layout() {
    let sandbox = Sandbox::new();
    let mut source = OciDir::create(&sandbox.path("images"));
    source.image("old", &image("amd64", 1)).image("new", &image("amd64", 2));
    let path = source.root.join("index.json");
    let text = fs::read_to_string(&path).unwrap();
    let odd = json!({"mediaType": "x/y", "digest": digest_of(b"x").to_string(), "size": 1, "odd": [1]});
    let mut changed: Value = serde_json::from_str(&text).unwrap();
    changed["manifests"].as_array_mut().unwrap().push(odd.clone());
    fs::write(&path, changed.to_string()).unwrap();
    let target = format!("oci:{}", source.root.display());
    for _ in 0..2 {
        sandbox.ok(&["create", &source.reference("old"), &source.reference("new"), &target]);
    }
    let now: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let entries = now["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{entries:#?}");
    assert_eq!(entries[2], odd);
    assert!(!source.root.join(".oci-delta-fetch").exists());
}

/// A gc that fails must leave others shut out of the same things as before.
#[test]
fn a_failed_gc_holds_and_frees_the_repository_as_before() {
    for sandbox in Sandbox::of_each_store() {
        let mut source = OciDir::create(&sandbox.path("images"));
        let image = Image::new(vec![Layer::gzip(tree(&[("data", &noise(1, 5_000))]))]);
        source.image("v1", &image);
        sandbox.ok(&[&source.reference("v1"), "--tag", "v1"]);
        let place: StoreRef = sandbox.repo_reference().parse().unwrap();
        let (first, second) = (
            place.open_or_create(&Session::new(sandbox.dir.path())).unwrap(),
            place.open_or_create(&Session::new(sandbox.dir.path())).unwrap(),
        );
        assert!(second.gc().is_err(), "the first one is at work");
        drop(first);
        let third = place.open_or_create(&Session::new(sandbox.dir.path())).unwrap();
        assert!(third.gc().is_err(), "{place}: the second one is still at work");
        drop(second);
        third.gc().unwrap();
        // One that fails on its way gives the exclusive lock up.
        let index = sandbox.repo().join("index.json");
        if index.exists() {
            fs::write(&index, "{").unwrap();
            assert!(third.gc().is_err());
            fs::write(&index, json!({"manifests": []}).to_string()).unwrap();
        }
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            sender.send(place.open_or_create(&Session::new(sandbox.dir.path())).is_ok())
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(true), "third holds it shared");
        drop(third);
    }
}

#[test]
fn a_layout_without_its_marker_is_a_repository() {
    let sandbox = Sandbox::new();
    let mut repo = OciDir::create(&sandbox.repo());
    repo.image("v1", &image("amd64", 1));
    fs::remove_file(sandbox.repo().join("oci-layout")).unwrap();
    sandbox.ok(&["list"]);
    sandbox.ok(&[&repo.reference("v1"), "--tag", "v2"]);
    sandbox.ok(&["verify"]);
    assert!(sandbox.repo().join("oci-layout").exists());
    assert_eq!(index(&[])["schemaVersion"], 2);
}
