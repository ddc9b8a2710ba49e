//! Podman's storage, real: as the place that is updated, as base, and as source of `create`.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::images::noise;
use support::podman::Podman;
use support::registry::skopeo;
use support::tars::record;
use support::{Image, Layer, OciDir, Registry, Sandbox};
use tar::EntryType;

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

/// Text that compresses, the same for the same seed.
fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len).into_iter().map(|byte| b"etaoin shrdlu\n"[usize::from(byte) % 14]).collect()
}

/// A PAX record before the next entry.
fn pax(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 2;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut line = format!("{length} {key}=").into_bytes();
    line.extend_from_slice(value);
    line.push(b'\n');
    record(out, EntryType::XHeader, b"PaxHeaders/x", b"", &line, 0o644);
}

/// A file of another user than root, who alone may read it.
fn theirs(out: &mut Vec<u8>, name: &[u8], data: &[u8]) {
    let start = out.len();
    record(out, EntryType::Regular, name, b"", data, 0o600);
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&out[start..start + 512]);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_cksum();
    out[start..start + 512].copy_from_slice(header.as_bytes());
}

/// A layer with all that a storage keeps in ways of its own; in each version the file `grows` differs in places.
fn odd_layer(number: u8, version: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let name = |name: &str| format!("usr/{name}").into_bytes();
    for dir in ["usr/", "usr/opaque/", "etc/"] {
        record(&mut out, EntryType::Directory, dir.as_bytes(), b"", b"", 0o755);
    }
    let mut file = text(u64::from(number), len);
    (0..usize::from(version)).for_each(|at| file[at * 900] = b'0' + version);
    record(&mut out, EntryType::Regular, &name(&format!("grows{number}")), b"", &file, 0o644);
    record(
        &mut out,
        EntryType::Link,
        &name(&format!("linked{number}")),
        &name(&format!("grows{number}")),
        b"",
        0o644,
    );
    pax(&mut out, "SCHILY.xattr.user.note", b"kept");
    record(&mut out, EntryType::Regular, &name("noted"), b"", b"with an attribute", 0o644);
    // CAP_NET_RAW, as the kernel keeps it (version 2).
    let capability = [&[1, 0, 0, 2, 0, 0x20, 0, 0][..], &[0; 12]].concat();
    pax(&mut out, "SCHILY.xattr.security.capability", &capability);
    record(&mut out, EntryType::Regular, &name("capable"), b"", b"#!/bin/sh\n", 0o755);
    record(&mut out, EntryType::Regular, &name("secret"), b"", &[number; 700], 0o600);
    theirs(&mut out, &name("theirs"), &[number; 900]);
    record(&mut out, EntryType::Symlink, b"lib", b"usr/lib", b"", 0o777);
    record(&mut out, EntryType::Regular, &name(".wh.gone"), b"", b"", 0o644);
    record(&mut out, EntryType::Regular, b"etc/.wh.linked", b"", b"", 0o644);
    record(&mut out, EntryType::Regular, b"usr/opaque/.wh..wh..opq", b"", b"", 0o644);
    record(&mut out, EntryType::Regular, b"usr/opaque/new", b"", &[number; 1200], 0o644);
    let long = format!("usr/{}/f", ["l"; 60].join("/"));
    record(&mut out, EntryType::GNULongName, b"././@LongLink", b"", format!("{long}\0").as_bytes(), 0o644);
    record(&mut out, EntryType::Regular, long.as_bytes(), b"", b"far", 0o644);
    out.resize((out.len() + 1024).next_multiple_of(10_240), 0);
    out
}

/// Version `n`: a layer that stays, and one that changes.
pub(crate) fn version(n: u8) -> Image {
    Image::new(vec![Layer::plain(odd_layer(1, 0, 200_000)), Layer::plain(odd_layer(2, n, 600_000))])
}

struct Case {
    // First, since its folder is mounted below the sandbox.
    storage: Podman,
    sandbox: Sandbox,
    registry: Registry,
    dir: OciDir,
}

impl Case {
    /// A registry with versions 1 and 2, compressed by skopeo, and a delta between them; version 1 in podman's storage.
    fn new(driver: &'static str) -> Self {
        let sandbox = Sandbox::new();
        let dir = OciDir::create(&sandbox.path("source"));
        let storage = Podman::new(sandbox.dir.path(), "storage", driver);
        let mut case = Case { sandbox, registry: Registry::start(), dir, storage };
        case.release(1);
        case.release(2);
        case.create();
        case.storage.podman(&["pull", "-q", "--tls-verify=false", &case.name(1)]);
        case
    }

    fn release(&mut self, n: u8) {
        let tag = n.to_string();
        self.dir.image(&tag, &version(n));
        self.registry.push_with(
            &["--dest-compress-format=gzip"],
            &self.dir.reference(&tag),
            &format!("os:{n}"),
        );
    }

    fn create(&self) {
        let os = self.registry.reference("os");
        self.sandbox.ok(&[&["create", &self.os(1), &self.os(2), &os], &REMOTE[..]].concat());
    }

    fn name(&self, n: u8) -> String {
        format!("{}/os:{n}", self.registry.address)
    }

    fn os(&self, n: u8) -> String {
        self.registry.reference(&format!("os:{n}"))
    }

    fn published(&self, n: u8) -> String {
        digest(&self.sandbox, &self.os(n))
    }

    /// Brings version `n` into podman's storage.
    fn update(&self, n: u8, options: &[&str]) -> support::Ended {
        let (os, storage) = (self.os(n), self.storage.reference(""));
        self.sandbox.run(&[&[&os, "--repo", &storage], &REMOTE[..], options].concat())
    }

    fn remove_layers(&self) {
        for n in [1, 2] {
            let raw =
                skopeo(&["inspect", "--raw", "--tls-verify=false", &self.os(n)], self.sandbox.dir.path());
            let manifest: Value = serde_json::from_str(&raw).unwrap();
            for layer in manifest["layers"].as_array().unwrap() {
                let _ = fs::remove_file(self.registry.blob_file(layer["digest"].as_str().unwrap()));
            }
        }
    }
}

fn digest(sandbox: &Sandbox, reference: &str) -> String {
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", reference], sandbox.dir.path());
    digest_of(raw.as_bytes()).to_string()
}

/// Every file of a storage that says what is in it, and its bytes.
fn records(storage: &Podman) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![storage.root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap()) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && path.extension().is_none_or(|e| e != "lock") {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn an_image_is_updated_in_podmans_storage() {
    for driver in ["overlay", "vfs"] {
        let case = Case::new(driver);
        let storage = case.storage.reference("");
        let planned = case.update(2, &["--dry-run", "--json"]);
        let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
        let fetched = case.update(2, &["--json"]);
        assert_eq!(fetched.code, 0, "{fetched:#?}");
        let fetched: Value = serde_json::from_str(&fetched.stdout).unwrap();
        assert_eq!(fetched["bytes"], planned["bytes"], "{driver}");
        let actions = |report: &Value| [0, 1].map(|at| report["layers"][at]["action"].clone());
        assert_eq!(actions(&fetched), ["reused", "patched"], "{driver}: {fetched:#}");
        let published = case.published(2);
        assert_eq!(fetched["image"]["manifest"], published, "{driver}: {fetched:#}");
        assert_eq!(case.storage.digest(&case.name(2)), published, "{driver}");
        // It goes on as it was published, though the storage has no blobs.
        let to = format!("dir:{}", case.sandbox.path("copied").display());
        let out = case.sandbox.json(&["export", &case.name(2), "--repo", &storage, "--to", &to]);
        assert_eq!((&out["fidelity"], digest(&case.sandbox, &to)), (&"verbatim".into(), published.clone()));
        // Podman finds nothing to download.
        case.remove_layers();
        case.storage.podman(&["pull", "-q", "--tls-verify=false", &case.name(2)]);
        // Nor do we.
        let again = case.update(2, &["--json"]);
        assert!(again.stdout.contains("already-present"), "{driver}: {again:#?}");
        let renamed = case.update(2, &["--tag", "localhost/other:name"]);
        assert_eq!(renamed.code, 0, "{renamed:#?}");
        assert_eq!(case.storage.digest("localhost/other:name"), published);
        // Both images are what they were published as, also by podman's own account.
        let run = |args: &[&str]| case.sandbox.run(&[args, &["--repo", &storage]].concat());
        let verified = run(&["verify", "--json"]);
        assert!(verified.stdout.contains("\"images\": 2"), "{driver}: {verified:#?}");
        assert!(run(&["list"]).stdout.contains(&case.name(2)), "{driver}");
        for (words, hint) in [
            (&["remove", "x"][..], "podman rmi"),
            (&["gc"], "podman"),
            (&["gc", "--untagged"], "podman image prune"),
        ] {
            let refused = run(words);
            assert_eq!((refused.code, refused.stderr.contains(hint)), (2, true), "{refused:#?}");
        }
        assert_eq!(run(&["init"]).code, 2);
        assert_eq!(case.update(2, &["--tag", "Not a name"]).code, 2);
    }
}

#[test]
fn what_cannot_be_exact_is_told_and_what_must_be_is_refused() {
    let case = Case::new("overlay");
    let plain = format!("oci:{}", case.sandbox.path("plain").display());
    let (one, two) = (case.os(1), case.os(2));
    case.sandbox.ok(&[&["create", &one, &two, &plain, "--exact", "off"], &REMOTE[..]].concat());
    let storage = case.storage.reference("");
    let before = records(&case.storage);
    let named = ["--repo", &storage, "--tag", "localhost/os:2"];
    let required = case.sandbox.run(&[&[&plain, "--exact", "require"], &named[..]].concat());
    assert_eq!(required.code, 3, "{required:#?}");
    assert!(records(&case.storage) == before, "nothing is changed");
    let rewritten = case.sandbox.json(&[&[&plain[..]], &named[..]].concat());
    assert_eq!(rewritten["image"]["fidelity"], "rewritten", "{rewritten:#}");
    assert_eq!(json!(case.storage.digest("localhost/os:2")), rewritten["image"]["manifest"]);
    case.sandbox.ok(&["verify", "--repo", &storage]);
    // Without its blobs it leaves as plain tars, or not at all.
    let to = format!("dir:{}", case.sandbox.path("out").display());
    let leave = ["export", "localhost/os:2", "--repo", &storage, "--to", &to];
    assert_eq!(case.sandbox.run(&leave).code, 3);
    let left = case.sandbox.json(&[&leave[..], &["--rewrite"]].concat());
    assert_eq!(json!(digest(&case.sandbox, &to)), left["manifest"], "{left:#}");
}

#[test]
fn what_podman_built_is_old_and_new_and_a_base_for_every_target() {
    let sandbox = Sandbox::new();
    let storage = Podman::new(sandbox.dir.path(), "storage", "overlay");
    let context = sandbox.path("context");
    fs::create_dir(&context).unwrap();
    let path = context.display().to_string();
    for n in [1, 2] {
        let mut file = text(7, 300_000);
        (0..n).for_each(|at| file[at * 700] = b'0');
        fs::write(context.join("grows"), file).unwrap();
        fs::write(context.join("stays"), text(8, 50_000)).unwrap();
        let text = "FROM scratch\nCOPY stays /usr/lib/stays\nCOPY grows /usr/lib/grows\n";
        fs::write(context.join("Containerfile"), text).unwrap();
        storage.podman(&["build", "-q", "--layers", "-t", &format!("localhost/app:{n}"), &path]);
    }
    let delta = format!("oci:{}", sandbox.path("delta").display());
    // The name may be short, or the beginning of the id.
    let id = storage.podman(&["image", "inspect", "--format", "{{.Id}}", "localhost/app:1"]);
    sandbox.ok(&["create", &storage.reference(&id[..12]), &storage.reference("app:2"), &delta]);
    let published = storage.digest("localhost/app:2");
    let old = format!("oci:{}:old", sandbox.path("old").display());
    skopeo(&["copy", &storage.reference("localhost/app:1"), &old], sandbox.dir.path());
    let registry = Registry::start();
    for (number, base) in
        [&["--base", &old][..], &["--base", &storage.reference("app:1")], &[]].iter().enumerate()
    {
        let repo = sandbox.path(&format!("repo-{number}")).display().to_string();
        if base.is_empty() {
            sandbox.ok(&[&old, "--repo", &repo]);
        }
        let other = Podman::new(sandbox.dir.path(), &format!("other-{number}"), "vfs");
        let at = |name: &str| sandbox.path(&format!("{name}-{number}")).display().to_string();
        let targets = [
            registry.reference(&format!("app:{number}")),
            format!("oci:{}:x", at("layout")),
            format!("oci-archive:{}:x", at("archive")),
            format!("dir:{}", at("folder")),
            other.reference("localhost/app:2"),
        ];
        for target in &targets {
            let words = [&delta, "--repo", &repo, "--tag", "two", "--to", target, "--tls-verify=false"];
            let fetched = sandbox.json(&[&words, *base].concat());
            assert_eq!(fetched["image"]["manifest"], published, "{base:?} {target}");
            assert_eq!(digest(&sandbox, target), published, "{base:?} {target}");
            sandbox.ok(&["export", "two", "--repo", &repo, "--to", target, "--tls-verify=false"]);
        }
    }
    // The storage itself is updated and exported in one go; what was published plain can leave it.
    let empty = Podman::new(sandbox.dir.path(), "empty", "overlay");
    let (repo, folder) = (empty.reference(""), format!("dir:{}", sandbox.path("last").display()));
    sandbox.ok(&[&old, "--tag", "localhost/app:1", "--repo", &repo]);
    sandbox.ok(&[&delta, "--tag", "localhost/app:2", "--repo", &repo, "--to", &folder]);
    assert_eq!(digest(&sandbox, &folder), published);
    assert_eq!(empty.digest("localhost/app:2"), published);
}

#[test]
fn podman_may_be_busy_meanwhile() {
    let mut case = Case::new("overlay");
    case.release(3);
    let (one, repo) = (case.name(1), case.storage.reference(""));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for round in 0..3 {
                let tag = format!("localhost/busy:{round}");
                case.storage.podman(&["tag", &one, &tag]);
                case.storage.podman(&["pull", "-q", "--tls-verify=false", &case.name(3)]);
                case.storage.podman(&["rmi", &case.name(3)]);
                case.storage.podman(&["untag", &tag, &tag]);
            }
        });
        while !busy.is_finished() {
            let updated = case.update(2, &[]);
            assert_eq!(updated.code, 0, "{updated:#?}");
            case.sandbox.ok(&["verify", "--repo", &repo]);
            case.storage.podman(&["rmi", &case.name(2)]);
        }
        busy.join().unwrap();
    });
    assert_eq!(case.update(2, &[]).code, 0);
    for n in [1, 2] {
        assert_eq!(case.storage.digest(&case.name(n)), case.published(n));
    }
    case.sandbox.ok(&["verify", "--repo", &case.storage.reference("")]);
}

/// The finished layers that wait beside the storage of a sandbox.
fn waiting(sandbox: &Sandbox) -> usize {
    let stages = fs::read_dir(sandbox.path(".cache/oci-delta-fetch/podman")).unwrap();
    stages.map(|stage| fs::read_dir(stage.unwrap().path().join("blobs/sha256")).unwrap().count()).sum()
}

#[test]
fn a_run_that_broke_goes_on_from_the_finished_layers() {
    let sandbox = Sandbox::new();
    let storage = Podman::new(sandbox.dir.path(), "storage", "vfs");
    let (registry, mut dir) = (Registry::start(), OciDir::create(&sandbox.path("source")));
    let layer = |seed, grows: usize| {
        let mut file = noise(seed, 60_000);
        // The patch of the second layer is the larger one.
        let new = if seed == 2 { 9000 } else { 500 };
        file[..new * grows].fill(grows as u8);
        Layer::gzip(support::images::tar(&[(&format!("usr/f{seed}"), &file)]))
    };
    let images = [1, 2].map(|n| Image::new(vec![layer(1, 0), layer(2, n), layer(3, n)]));
    for (tag, image) in ["1", "2"].iter().zip(&images) {
        dir.image(tag, image);
        registry.push(&dir.reference(tag), &format!("os:{tag}"));
    }
    let [one, two, os] = ["os:1", "os:2", "os"].map(|name| registry.reference(name));
    let made = sandbox.json(&[&["create", &one, &two, &os], &REMOTE[..]].concat());
    let repo = storage.reference("");
    sandbox.ok(&[&[&one, "--repo", &repo], &REMOTE[..]].concat());
    // The smaller blob of the delta comes last.
    let delta = format!("{os}@{}", made["digest"].as_str().unwrap());
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &delta], sandbox.dir.path());
    let delta: Value = serde_json::from_str(&raw).unwrap();
    let mut blobs = delta["layers"].as_array().unwrap().iter();
    let smallest = blobs.find(|blob| blob["size"] == made["layers"][2]["bytes"]).unwrap();
    let file = registry.blob_file(smallest["digest"].as_str().unwrap());
    let (blob, before) = (fs::read(&file).unwrap(), records(&storage));
    fs::remove_file(&file).unwrap();
    let update = [
        &two,
        "--repo",
        &repo,
        "--delta-policy",
        "only",
        "--jobs",
        "1",
        "--retries",
        "0",
        REMOTE[0],
        REMOTE[1],
    ];
    let broken = sandbox.run(&update);
    assert_ne!(broken.code, 0, "{broken:#?}");
    assert!(records(&storage) == before, "nothing is changed");
    assert_eq!(waiting(&sandbox), 1);
    fs::write(&file, blob).unwrap();
    let planned = sandbox.json(&[&update[..], &["--dry-run"]].concat());
    let done = sandbox.json(&update);
    assert_eq!(done["bytes"], planned["bytes"]);
    let actions = [0, 1, 2].map(|at| done["layers"][at]["action"].clone());
    assert_eq!(actions, ["reused", "reused", "patched"], "{done:#}");
    assert_eq!(storage.digest(two.trim_start_matches("docker://")), digest(&sandbox, &two));
    assert_eq!(waiting(&sandbox), 0);
    sandbox.ok(&["verify", "--repo", &repo]);
}

/// Of layers that a delta carries whole nobody knows how they were compressed; on the way they are there.
#[test]
fn what_came_whole_goes_on_as_it_came() {
    let sandbox = Sandbox::new();
    let storage = Podman::new(sandbox.dir.path(), "storage", "vfs");
    let layer = |seed, len| support::images::tar(&[(&format!("usr/f{seed}"), &noise(seed, len)[..])]);
    let old = Image::new(vec![Layer::plain(layer(1, 9000))]);
    let new = Image::new(vec![Layer::plain(layer(1, 9000)), Layer::gzip(layer(2, 7000))]);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).image("new", &new);
    let delta = format!("oci:{}", sandbox.path("delta").display());
    sandbox.ok(&["create", &dir.reference("old"), &dir.reference("new"), &delta, "--exact", "off"]);
    let repo = storage.reference("");
    sandbox.ok(&[&dir.reference("old"), "--tag", "localhost/app:1", "--repo", &repo]);
    let folder = format!("dir:{}", sandbox.path("out").display());
    sandbox.ok(&[&delta, "--tag", "localhost/app:2", "--repo", &repo, "--to", &folder]);
    let published = new.manifest_digest().to_string();
    assert_eq!(digest(&sandbox, &folder), published);
    assert_eq!(storage.digest("localhost/app:2"), published);
    assert_eq!(waiting(&sandbox), 0);
    // Also where the copy failed before, and the image went.
    storage.podman(&["rmi", "localhost/app:2"]);
    let again = [&delta, "--tag", "localhost/app:2", "--repo", &repo, "--to"];
    let failed = sandbox.run(&[&again[..], &["docker://127.0.0.1:1/x", "--retries", "0"]].concat());
    assert_ne!(failed.code, 0, "{failed:#?}");
    assert_eq!(waiting(&sandbox), 1);
    storage.podman(&["rmi", "localhost/app:2"]);
    sandbox.ok(&[&again[..], &[&folder]].concat());
    assert_eq!(waiting(&sandbox), 0);
    // Later it is gone.
    let late = sandbox.run(&["export", "localhost/app:2", "--repo", &repo, "--to", &folder]);
    assert_eq!((late.code, late.stderr.contains("cannot be made exactly")), (3, true), "{late:#?}");
}

/// The file that a storage's records of `what` are in.
fn json_of(storage: &Podman, what: &str) -> PathBuf {
    storage.root.join(format!("overlay-{what}/{what}.json"))
}

/// The id of the layer that `grows2` is in.
fn changed_layer(storage: &Podman) -> String {
    let layers: Value = serde_json::from_slice(&fs::read(json_of(storage, "layers")).unwrap()).unwrap();
    layers[1]["id"].as_str().unwrap().to_owned()
}

#[test]
fn damage_is_told_and_nothing_changes() {
    let case = Case::new("overlay");
    let storage = &case.storage;
    let (id, root) = (changed_layer(storage), storage.root.clone());
    let tar_split = storage.overlay_layers().join(format!("{id}.tar-split.gz"));
    let grows = root.join("overlay").join(&id).join("diff/usr/grows2");
    let spoil = |path: &Path, with: Option<&[u8]>| {
        let before = fs::read(path).unwrap();
        match with {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        before
    };
    let gzip = support::images::gzip(b"{\"type\":7}\n");
    for (path, with, code, expected) in [
        (&tar_split, Some(&b"no gzip"[..]), 4, "not a tar-split file"),
        (&tar_split, Some(&gzip), 4, "type 7 is unknown"),
        (&tar_split, None, 3, "is not there"),
        (&grows, None, 3, "usr/grows2 is not there"),
        (&grows, Some(b"short"), 4, "its layer says"),
        (&json_of(storage, "layers"), Some(b"{"), 4, "not a list of podman's layers"),
        (&json_of(storage, "images"), Some(b"7"), 4, "not a list of podman's images"),
    ] {
        let original = spoil(path, with);
        let before = records(storage);
        let failed = case.update(2, &["--delta-policy", "only"]);
        assert_eq!((failed.code, failed.stderr.contains(expected)), (code, true), "{expected}: {failed:#?}");
        assert!(failed.stderr.contains("hint: "), "{failed:#?}");
        assert!(records(storage) == before, "{expected}: nothing is changed");
        let verified = case.sandbox.run(&["verify", "--repo", &storage.reference("")]);
        assert_eq!((verified.code, verified.stderr.contains(expected)), (4, true), "{verified:#?}");
        fs::write(path, original).unwrap();
    }
    // What a file of the base cannot give, the registry does.
    let content = spoil(&grows, None);
    let whole = case.update(2, &["--json"]);
    let whole: Value = serde_json::from_str(&whole.stdout).unwrap();
    assert_eq!(whole["fallback_reason"], "patch-failed", "{whole:#}");
    assert_eq!(storage.digest(&case.name(2)), case.published(2));
    fs::write(&grows, content).unwrap();
    // Storages that are none, or of another sort.
    let other = case.sandbox.path("zfs");
    fs::create_dir_all(other.join("zfs-layers")).unwrap();
    for (place, code, expected) in [
        (format!("containers-storage:[{}]", other.display()), 3, "\"zfs\", only overlay and vfs"),
        (format!("containers-storage:[zfs@{}]", root.display()), 3, "\"zfs\", only overlay and vfs"),
        ("containers-storage:[/nowhere]".to_owned(), 3, "no storage in /nowhere"),
        ("containers-storage:[overlay@x]".to_owned(), 2, "absolute path"),
        ("containers-storage:x".to_owned(), 2, "names an image"),
    ] {
        let failed = case.sandbox.run(&["list", "--repo", &place]);
        assert_eq!((failed.code, failed.stderr.contains(expected)), (code, true), "{failed:#?}");
    }
}

#[test]
fn storage_conf_says_where_and_which_further_stores_there_are() {
    let case = Case::new("overlay");
    let at = |name: &str| case.sandbox.path(name).display().to_string();
    let text = format!(
        "[storage]\ndriver = 'overlay'\ngraphroot = '{}'\nrunroot = '{}'\n[storage.options]\nadditionalimagestores = ['{}']\n",
        at("own"),
        at("own-run"),
        case.storage.root.display()
    );
    fs::write(case.sandbox.path("storage.conf"), text).unwrap();
    let mut command = case.sandbox.command();
    command.env("CONTAINERS_STORAGE_CONF", at("storage.conf")).arg(case.os(2)).args(REMOTE);
    let fetched = command.args(["--repo", "containers-storage:", "--json"]).output().unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
    let fetched: Value = serde_json::from_slice(&fetched.stdout).unwrap();
    assert_eq!(fetched["layers"][1]["action"], "patched", "{fetched:#}");
    let shown = Command::new("podman")
        .args(["image", "inspect", "--format", "{{.Digest}}", &case.name(2)])
        .env("CONTAINERS_STORAGE_CONF", at("storage.conf"))
        .env("HOME", case.sandbox.dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), case.published(2), "{shown:?}");
    assert!(fs::read_dir(at("own/overlay-images")).unwrap().count() > 0);
    assert!(!records(&case.storage).iter().any(|(path, _)| path.ends_with("x")), "the other is only read");
}
