//! What a delta makes for a place that has the other layers: `apply`, `--reused omit`, and the program under the
//! reference tool's name.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use oci_delta_fetch::digest::digest_of;
use serde_json::Value;
use support::cli::{Ended, ended};
use support::images::{noise, tar, tree};
use support::{Delta, Image, Layer, OciDir, Sandbox};

/// Two images with three layers: the first stays, the second changes a little, the third is new. The old one also lies
/// unpacked in `root`.
struct Case {
    sandbox: Sandbox,
    old: Image,
    new: Image,
}

impl Case {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let layer = Layer::gzip;
        let mut file = noise(5, 100_000);
        let stays = layer(tar(&[("usr/lib/stays", &noise(6, 20_000))]));
        let before = tar(&[("usr/lib/grows", &file)]);
        file[50_000] ^= 1;
        let (after, more) = (tar(&[("usr/lib/grows", &file)]), tar(&[("usr/lib/new", &noise(7, 3000))]));
        let old = Image::new(vec![stays.clone(), layer(before)]);
        let new = Image::new(vec![stays, layer(after), layer(more)]);
        for layer in &old.layers {
            tar::Archive::new(&layer.tar[..]).unpack(sandbox.path("root")).unwrap();
        }
        let mut images = OciDir::create(&sandbox.path("images"));
        images.image("old", &old).image("new", &new);
        let case = Case { sandbox, old, new };
        case.sandbox.ok(&["create", &case.image("old"), &case.image("new"), &case.path("delta")]);
        case
    }

    fn path(&self, name: &str) -> String {
        self.sandbox.path(name).display().to_string()
    }

    fn image(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.path("images"))
    }

    fn oci_delta(&self, args: &[&str]) -> Ended {
        ended(self.sandbox.oci_delta().args(args).output().unwrap())
    }

    fn stays(&self) -> String {
        digest_of(&self.old.layers[0].blob).to_string()
    }
}

/// The members of an archive by their names as they stand there.
fn members(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(fs::File::open(archive).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, fs::File>>| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    };
    tar.entries().unwrap().map(read).collect()
}

/// The manifest that an archive's index names; every blob has its digest.
fn manifest_of(members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    for (name, content) in members {
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(digest_of(content).digest(), hex);
        }
    }
    let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    members[&blob(digest)].clone()
}

fn blob(digest: &str) -> String {
    digest.replacen("sha256:", "blobs/sha256/", 1)
}

/// Layers that their publisher compressed in a way that the delta tells keep the manifest as it was published.
#[test]
fn changed_layers_come_exact_and_reused_ones_stay_away() {
    let case = Case::new();
    let (root, out) = (case.path("root"), case.path("out.oci"));
    let report = case.sandbox.json(&["apply", "--directory", &root, &case.path("delta"), &out]);
    assert_eq!(report["image"]["fidelity"], "verbatim", "{report:#}");
    assert_eq!(report["image"]["name"], format!("oci-archive:{out}"));
    let actions: Vec<&Value> =
        report["layers"].as_array().unwrap().iter().map(|layer| &layer["action"]).collect();
    assert_eq!(actions, ["omitted", "patched", "copied"]);
    let members = members(Path::new(&out));
    assert_eq!(manifest_of(&members), case.new.manifest);
    assert!(members.contains_key(&blob(case.new.config_digest().as_ref())));
    for (at, layer) in case.new.layers.iter().enumerate() {
        assert_eq!(members.contains_key(&blob(digest_of(&layer.blob).as_ref())), at > 0, "layer {at}");
    }
}

#[test]
fn of_layers_that_are_not_exact_the_descriptors_alone_are_written_anew() {
    let case = Case::new();
    let (root, out) = (case.path("root"), format!("oci:{}:v2", case.path("out")));
    let args = ["apply", "--exact", "off", "--rootfs", &root, &case.path("delta"), &out];
    let report = case.sandbox.json(&args);
    assert_eq!(report["image"]["fidelity"], "rewritten");
    let dir = case.sandbox.path("out");
    let read = |digest: &str| fs::read(dir.join(blob(digest))).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "v2");
    let written: Value =
        serde_json::from_slice(&read(index["manifests"][0]["digest"].as_str().unwrap())).unwrap();
    let published: Value = serde_json::from_slice(&case.new.manifest).unwrap();
    assert_eq!(written["layers"][0], published["layers"][0], "a reused layer keeps its descriptor");
    assert_eq!(written["config"], published["config"]);
    assert_eq!(digest_of(&read(case.new.config_digest().as_ref())), case.new.config_digest());
    assert_eq!(written["layers"][1]["digest"], digest_of(&case.new.layers[1].tar).to_string());
    assert_eq!(
        digest_of(&read(written["layers"][1]["digest"].as_str().unwrap())),
        digest_of(&case.new.layers[1].tar)
    );
    assert!(!dir.join(blob(&case.stays())).exists());

    // Another run replaces the image, and leaves what else is there.
    case.sandbox.ok(&args);
    let again: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(again, index);
}

/// The base may be in the repository, or anywhere else.
#[test]
fn any_base_serves() {
    let case = Case::new();
    let (delta, out, old) = (case.path("delta"), case.path("out.oci"), case.image("old"));
    let nowhere = case.sandbox.run(&["apply", &delta, &out]);
    assert_eq!(nowhere.code, 3, "{nowhere:#?}");
    assert!(nowhere.stderr.contains("base image"), "{nowhere:#?}");
    assert!(!Path::new(&out).exists());
    case.sandbox.ok(&["apply", "--base", &old, &delta, &out]);
    let by_name = members(Path::new(&out));
    case.sandbox.ok(&[&old]);
    let before = case.sandbox.snapshot();
    case.sandbox.ok(&["apply", &delta, &out]);
    assert_eq!(members(Path::new(&out)), by_name);
    assert_eq!(case.sandbox.snapshot(), before, "the repository is only read");
    for (args, text) in [
        (&["apply", &delta, "dir:/x"][..], "into a layout or an archive"),
        (&["apply", "--rootfs", "/", "--base", &old, &delta, &out], "cannot be used with"),
    ] {
        let ended = case.sandbox.run(args);
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert!(ended.stderr.contains(text), "{ended:#?}");
    }
    let no_delta = case.sandbox.run(&["apply", &old, &out]);
    assert_eq!(
        (no_delta.code, no_delta.stderr.contains("not an oci-delta artifact")),
        (3, true),
        "{no_delta:#?}"
    );
}

/// A wrong root file system leaves nothing, not even a part of the output.
#[test]
fn a_failed_run_leaves_no_output() {
    let case = Case::new();
    fs::write(case.sandbox.path("root/usr/lib/grows"), noise(9, 100_000)).unwrap();
    let (root, out) = (case.path("root"), case.path("out.oci"));
    let ended = case.sandbox.run(&["apply", "--directory", &root, &case.path("delta"), &out]);
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert!(!Path::new(&out).exists());
    let ended = case.oci_delta(&["apply", "--directory", &root, &case.path("delta"), &out]);
    assert_eq!(ended.code, 1, "as the reference tool ends: {ended:#?}");
}

/// A layer that the image has twice is left out, or made, once.
#[test]
fn equal_layers_share_what_becomes_of_them() {
    let layer = |name, byte| Layer::gzip(tree(&[(name, &[byte; 5000])]));
    let (stays, new) = (layer("a/stays", 1), layer("a/new", 2));
    let old = Image::new(vec![stays.clone()]);
    let new = Image::new(vec![stays.clone(), new.clone(), stays, new]);
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).image("new", &new).delta("delta", &Delta::new(&old, &new));
    let out = sandbox.path("out.oci").display().to_string();
    let report = sandbox.json(&["apply", "--base", &dir.reference("old"), &dir.reference("delta"), &out]);
    let actions: Vec<&Value> =
        report["layers"].as_array().unwrap().iter().map(|layer| &layer["action"]).collect();
    assert_eq!((actions[0], actions[2]), (&"omitted".into(), &"omitted".into()), "{report:#}");
    assert!(!members(Path::new(&out)).contains_key(&blob(digest_of(&old.layers[0].blob).as_ref())));
}

#[test]
fn copies_out_of_the_repository_may_miss_what_another_image_has() {
    let case = Case::new();
    case.sandbox.ok(&[&case.image("old")]);
    let out = case.path("out.oci");
    let (to, omit) = (format!("oci-archive:{out}:v2"), ["--reused", "omit"]);
    let delta = format!("oci-archive:{}", case.path("delta"));
    case.sandbox.ok(&[&[&*delta, "--tag", "v2", "--to", &to][..], &omit].concat());
    let fetched = members(Path::new(&out));
    assert_eq!(manifest_of(&fetched), case.new.manifest);
    assert!(!fetched.contains_key(&blob(&case.stays())));
    let report = case.sandbox.json(&[&["export", "v2", "--to", &to][..], &omit].concat());
    assert_eq!((&report["omitted"], &report["fidelity"]), (&1.into(), &"verbatim".into()));
    assert_eq!(members(Path::new(&out)), fetched);
    case.sandbox.ok(&["verify"]);

    // Whole where it is not asked for otherwise, and where the other image is gone.
    case.sandbox.ok(&["remove", "old"]);
    let report = case.sandbox.json(&[&["export", "v2", "--to", &to][..], &omit].concat());
    assert_eq!(report["omitted"], 0);
    assert!(members(Path::new(&out)).contains_key(&blob(&case.stays())));
    for args in [
        &["export", "v2", "--to", "docker://h.example/x:1", "--reused", "omit"][..],
        &["export", "v2", "--to", "containers-storage:x", "--reused", "omit"],
        &[&case.image("old"), "--reused", "omit"],
        &[&case.image("old"), "--to", "oci:/x", "--reused", "omit", "--rootfs", "/"],
    ] {
        assert_eq!(case.sandbox.run(args).code, 2, "{args:?}");
    }
}

#[test]
fn under_the_reference_tools_name_it_prints_and_ends_as_that() {
    let case = Case::new();
    let version = case.oci_delta(&["--version"]);
    assert_eq!((version.code, version.stdout), (0, format!("oci-delta {}\n", env!("CARGO_PKG_VERSION"))));
    let help = case.oci_delta(&["create", "--help"]).stdout;
    for flag in [
        "--jobs",
        "--signature",
        "--statistics",
        "--verbose",
        "--binary-diff",
        "--compression-level",
        "--zstd-diff-level",
        "--zstd-diff-window",
        "--max-zstd-diff-size",
        "--max-bsdiff-size",
        "--debug",
        "--log-level",
        "--quiet",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    for (args, code) in [(&["nonsense"][..], 1), (&[], 1), (&["--help"], 0), (&["list"], 1)] {
        assert_eq!(case.oci_delta(args).code, code, "{args:?}");
    }

    // Bare paths are archives; the account goes to standard output, everything else to standard error.
    let (old, new, delta) = (case.image("old"), case.image("new"), case.path("again.oci"));
    let silent = case.oci_delta(&["create", "--debug", &old, &new, &delta]);
    assert_eq!((silent.code, &*silent.stdout), (0, ""), "{silent:#?}");
    let told = case.oci_delta(&["create", "-v", &old, &new, &delta]);
    for line in ["Old image layers: 2", "Skipped layers:   1", "Processed layers: 2"] {
        assert!(told.stdout.contains(line), "{line} in {told:#?}");
    }
    let (root, out) = (case.path("root"), case.path("out.oci"));
    let directory = format!("--directory={root}");
    let applied = case.oci_delta(&["apply", &directory, &delta, &out]);
    assert_eq!((applied.code, &*applied.stdout), (0, ""), "{applied:#?}");
    let members = members(Path::new(&out));
    assert!(members.contains_key("index.json") && members.contains_key("oci-layout"), "{:?}", members.keys());
    assert_eq!(manifest_of(&members), case.new.manifest);
    let missing = case.oci_delta(&["apply", &directory, "absent.oci", &out]);
    assert_eq!(missing.code, 1, "{missing:#?}");
    assert!(missing.stderr.contains("absent.oci"), "a bare path is no name in a registry: {missing:#?}");
}

/// A storage as podman has it, used through a configuration of its own.
struct Storage<'a> {
    sandbox: &'a Sandbox,
    conf: String,
}

impl<'a> Storage<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let conf = sandbox.path("storage.conf").display().to_string();
        let place = |name| sandbox.path(name).display().to_string();
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            place("graph"),
            place("run")
        );
        fs::write(&conf, text).unwrap();
        Storage { sandbox, conf }
    }

    fn skopeo(&self, args: &[&str]) -> Vec<u8> {
        let mut skopeo = Command::new("skopeo");
        let output =
            skopeo.args(args).env("CONTAINERS_STORAGE_CONF", &self.conf).env("HOME", self.sandbox.dir.path());
        let output = output.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        output.stdout
    }

    fn copy(&self, from: &str, name: &str) {
        self.skopeo(&["--insecure-policy", "copy", "-q", from, &format!("containers-storage:{name}")]);
    }

    fn manifest(&self, name: &str) -> Vec<u8> {
        self.skopeo(&["inspect", "--raw", &format!("containers-storage:{name}")])
    }

    fn oci_delta(&self, args: &[&str]) -> Ended {
        let mut command = self.sandbox.oci_delta();
        ended(command.args(args).env("CONTAINERS_STORAGE_CONF", &self.conf).output().unwrap())
    }
}

/// The manifest is the publisher's where the storage knows the layers by the publisher's digests; the id in any case.
#[test]
fn deltas_are_imported_into_the_storage_that_has_their_base() {
    let case = Case::new();
    let storage = Storage::new(&case.sandbox);
    let (delta, id) = (case.path("delta"), format!("{}\n", case.new.config_digest().digest()));
    let absent = storage.oci_delta(&["import", "-t", "localhost/os:2", &delta]);
    assert_eq!(absent.code, 1, "{absent:#?}");
    assert!(absent.stderr.contains("the delta is for a base image with config"), "{absent:#?}");
    storage.copy(&case.image("old"), "localhost/os:1");
    let imported = storage.oci_delta(&["import", "-t", "localhost/os:2", &delta]);
    assert_eq!((imported.code, &imported.stdout), (0, &id), "{imported:#?}");
    assert_eq!(storage.manifest("localhost/os:2"), case.new.manifest);

    // The next delta is made of two images in the storage, for the one that was imported.
    let more = Layer::gzip(tar(&[("usr/lib/new", &noise(8, 3000))]));
    let third = Image::new([&case.new.layers[..2], &[more]].concat());
    OciDir::create(&case.sandbox.path("third")).image("third", &third);
    storage.copy(&format!("oci:{}:third", case.path("third")), "localhost/os:3");
    let (stored, next) = ("containers-storage:localhost/os", case.path("next.oci"));
    let made = storage.oci_delta(&["create", &format!("{stored}:2"), &format!("{stored}:3"), &next]);
    assert_eq!(made.code, 0, "{made:#?}");
    storage.skopeo(&["delete", &format!("{stored}:3")]);
    let imported = storage.oci_delta(&["import", "--tag", "localhost/os:3", &next]);
    let expected = format!("{}\n", third.config_digest().digest());
    assert_eq!((imported.code, imported.stdout.clone()), (0, expected), "{imported:#?}");

    // A base in other encodings, as if it had been built there. No tag: the id is the name.
    let plain = Image::new(case.old.layers.iter().map(|layer| Layer::plain(layer.tar.clone())).collect());
    OciDir::create(&case.sandbox.path("plain")).image("old", &plain);
    let other = Case { sandbox: Sandbox::new(), old: plain, new: case.new.clone() };
    let built = Storage::new(&other.sandbox);
    built.copy(&format!("oci:{}:old", case.path("plain")), "localhost/built:1");
    let imported = built.oci_delta(&["import", &delta]);
    assert_eq!((imported.code, &imported.stdout), (0, &id), "{imported:#?}");
    let manifest: Value = serde_json::from_slice(&built.manifest(&format!("@{}", id.trim()))).unwrap();
    assert_eq!(manifest["config"]["digest"], case.new.config_digest().to_string());

    // The storage's root may be named; only the delta's layers come out.
    let (root, out) = (case.path("graph"), case.path("out.oci"));
    let applied = storage.oci_delta(&["apply", "--container-storage", &root, &delta, &out]);
    assert_eq!((applied.code, &*applied.stdout), (0, ""), "{applied:#?}");
    let members = members(Path::new(&out));
    assert_eq!(manifest_of(&members), case.new.manifest);
    assert!(!members.contains_key(&blob(&case.stays())));
}
