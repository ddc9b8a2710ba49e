//! The image that comes out has its publisher's digest: layers that were compressed by real tools are made again.

use crate::support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::images::{noise, tree};
use support::registry::skopeo;
use support::{Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];
const RECIPES: &str = "io.github.oci-delta-fetch.exact";

/// Text that compresses, the same for the same seed.
fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len).into_iter().map(|byte| b"etaoin shrdlu\n"[usize::from(byte) % 14]).collect()
}

/// Version `n` of an image, its layers not compressed: one that stays, one that changes a little, one that is new.
fn version(n: u8) -> Image {
    let mut file = text(7, 1_500_000);
    for at in 0..usize::from(n) {
        file[at * 1000] = b'0' + n;
    }
    let layer = |path, data: &[u8]| Layer::plain(tree(&[(path, data)]));
    Image::new(vec![
        layer("usr/lib/stays", &text(1, 300_000)),
        layer("usr/lib/grows", &file),
        layer("usr/lib/version", &[n; 40]),
    ])
}

/// A registry with images that skopeo compressed, and deltas between them.
struct Case {
    sandbox: Sandbox,
    registry: Registry,
    dir: OciDir,
}

impl Case {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let dir = OciDir::create(&sandbox.path("source"));
        Case { sandbox, registry: Registry::start(), dir }
    }

    /// Puts version `n` into the registry as `os:n`, compressed by skopeo; gives its digest.
    fn release(&mut self, n: u8) -> String {
        let name = n.to_string();
        self.dir.image(&name, &version(n));
        self.registry.push_with(&["--dest-compress-format=gzip"], &self.dir.reference(&name), &self.name(n));
        self.digest(&self.os(n))
    }

    fn name(&self, n: u8) -> String {
        format!("os:{n}")
    }

    fn os(&self, n: u8) -> String {
        self.registry.reference(&self.name(n))
    }

    fn digest(&self, reference: &str) -> String {
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", reference], self.sandbox.dir.path());
        digest_of(raw.as_bytes()).to_string()
    }

    fn create(&self, old: u8, new: u8, output: &str) -> Value {
        self.sandbox.json(&[&["create", &self.os(old), &self.os(new), output], &REMOTE[..]].concat())
    }

    fn fetch(&self, reference: &str, options: &[&str]) -> Value {
        self.sandbox.json(&[&[reference], &REMOTE[..], options].concat())
    }

    /// A delta from 1 to 2 in a layout.
    fn delta(&self) -> DeltaDir {
        let root = self.sandbox.path("delta");
        self.create(1, 2, &format!("oci:{}:d", root.display()));
        DeltaDir { root }
    }
}

/// A delta in a layout that can be tampered with.
struct DeltaDir {
    root: PathBuf,
}

impl DeltaDir {
    fn reference(&self) -> String {
        format!("oci:{}:d", self.root.display())
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// The recipes, a value for each layer of the target.
    fn recipes(&self) -> Vec<Value> {
        serde_json::from_str(self.manifest()["annotations"][RECIPES].as_str().unwrap()).unwrap()
    }

    fn manifest(&self) -> Value {
        let index: Value = serde_json::from_slice(&fs::read(self.root.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }

    /// Another recipe for each layer; `None` for no annotation.
    fn with_recipes(&self, recipes: Option<&str>) {
        let mut manifest = self.manifest();
        let annotations = manifest["annotations"].as_object_mut().unwrap();
        match recipes {
            Some(text) => drop(annotations.insert(RECIPES.into(), text.into())),
            None => drop(annotations.remove(RECIPES)),
        }
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = digest_of(&manifest).to_string();
        fs::write(self.blob(&digest), &manifest).unwrap();
        let path = self.root.join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["manifests"][0]["digest"] = digest.into();
        index["manifests"][0]["size"] = manifest.len().into();
        fs::write(&path, index.to_string()).unwrap();
    }
}

fn kept(report: &Value) -> Vec<&str> {
    report["layers"].as_array().unwrap().iter().map(|layer| layer["kept"].as_str().unwrap()).collect()
}

#[test]
fn an_image_that_skopeo_compressed_keeps_its_digest_on_all_its_ways() {
    let mut case = Case::new();
    let (one, two, three) = (case.release(1), case.release(2), case.release(3));
    let made = case.create(1, 2, &case.registry.reference("os"));
    for layer in made["layers"].as_array().unwrap() {
        let exact = &layer["exact"];
        if layer["carried"] != "original" {
            assert_eq!((&exact["encoder"], &exact["level"]), (&json!("kp-flate"), &json!(5)), "{made:#}");
            assert!(exact["bytes"].as_u64().unwrap() <= 400, "{made:#}");
        }
    }
    case.create(2, 3, &case.registry.reference("os"));

    assert_eq!(case.fetch(&case.os(1), &[])["image"]["manifest"], one);
    let planned = case.fetch(&case.os(2), &["--dry-run"]);
    assert_eq!(kept(&planned)[..2], ["verbatim", "exact"], "{planned:#}");
    let inspected = case.sandbox.json(&[&["inspect", &case.os(2)], &REMOTE[..]].concat());
    assert_eq!(inspected["layers"][1]["encoder"], planned["layers"][1]["encoder"], "{inspected:#}");
    let fetched = case.fetch(&case.os(2), &[]);
    assert_eq!(fetched["image"]["manifest"], two, "{fetched:#}");
    assert_eq!(fetched["image"]["fidelity"], "verbatim");
    assert_eq!(kept(&fetched), kept(&planned));
    assert!(fetched["layers"][1]["encoder"].as_str().unwrap().starts_with("kp-flate A"), "{fetched:#}");
    // What was made is a base like what was pulled, also at the start of a chain.
    case.sandbox.ok(&["remove", &two]);
    case.sandbox.ok(&["gc"]);
    let chain = case.fetch(&case.os(3), &[]);
    assert_eq!(chain["deltas"].as_array().unwrap().len(), 2, "{chain:#}");
    assert_eq!(chain["image"]["manifest"], three, "{chain:#}");
    let patched = case.fetch(&case.os(2), &[]);
    assert_eq!(patched["image"]["manifest"], two, "{patched:#}");
    case.sandbox.ok(&["verify"]);
    // The second run finds it.
    assert_eq!(case.fetch(&case.os(3), &["--exact", "require"])["status"], "already-present");
}

#[test]
fn what_is_kept_plain_becomes_exact_later() {
    let mut case = Case::new();
    let (_, two) = (case.release(1), case.release(2));
    let three = case.release(3);
    let delta = case.delta();
    case.fetch(&case.os(1), &[]);
    let plain = case.fetch(&delta.reference(), &["--exact", "off", "--tag", "two"]);
    assert_eq!(plain["image"]["fidelity"], "rewritten", "{plain:#}");
    // Its layers are not what was published; a delta that shares them has their recipes.
    let next = format!("oci:{}", case.sandbox.path("next").display());
    case.create(2, 3, &next);
    let whole = case.fetch(&next, &["--tag", "three"]);
    assert_eq!(whole["image"]["manifest"], three, "{whole:#}");
    // On demand the image itself does.
    let again = case.fetch(&delta.reference(), &["--exact", "require", "--tag", "two"]);
    assert_eq!(again["image"]["manifest"], two, "{again:#}");
    assert_eq!(again["layers"][1]["action"], "reused", "{again:#}");
    case.sandbox.ok(&["verify"]);
}

#[test]
fn an_image_leaves_a_plain_repository_as_it_was_published() {
    let mut case = Case::new();
    let (_, two) = (case.release(1), case.release(2));
    let delta = case.delta();
    case.fetch(&case.os(1), &[]);
    case.fetch(&delta.reference(), &["--exact", "off", "--tag", "two"]);
    case.sandbox.ok(&["gc"]);
    let path = |name: &str| case.sandbox.path(name).display().to_string();
    let second = Registry::start();
    let places = [
        format!("oci:{}:x", path("layout")),
        format!("oci-archive:{}:x", path("archive.oci")),
        format!("dir:{}", path("folder")),
        second.reference("copy/os:2"),
    ];
    for place in &places {
        let left = case.sandbox.json(&[&["export", "two", "--to", place], &REMOTE[..]].concat());
        assert_eq!((&left["manifest"], &left["fidelity"]), (&json!(two), &json!("verbatim")), "{left:#}");
        assert!(left["made_exact"].as_u64() > Some(0), "{left:#}");
        assert_eq!(case.digest(place), two, "{place}");
    }
    // The same in one go.
    let to = second.reference("copy/os:three");
    case.fetch(&delta.reference(), &["--exact", "require", "--tag", "two", "--to", &to]);
    assert_eq!(case.digest(&to), two);
    // A signature of the original is one of the copy: it is over the digest.
    let signed = sign(case.sandbox.dir.path(), &two);
    assert!(signed.verifies(&case.digest(&to)) && !signed.verifies(&case.digest(&case.os(1))));

    let odd = case.sandbox.run(&["export", "two", "--to", "ftp://x"]);
    assert_eq!(odd.code, 2, "{odd:#?}");
    let absent = case.sandbox.run(&["export", "nothing", "--to", &places[0]]);
    assert_eq!(absent.code, 3, "{absent:#?}");
}

/// The payload and signature that cosign's tag scheme keeps, by a key of our own.
struct Signed {
    payload: PathBuf,
    signature: PathBuf,
    key: PathBuf,
}

fn sign(dir: &Path, digest: &str) -> Signed {
    let at = |name: &str| dir.join(name);
    let (payload, signature, key) = (at("payload"), at("signature"), at("public"));
    let text = json!({"critical": {"identity": {"docker-reference": "h/os"}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature"}, "optional": null});
    fs::write(&payload, text.to_string()).unwrap();
    let run = |args: &[&str]| assert!(openssl(args), "openssl {args:?}");
    let private = at("private").display().to_string();
    run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
    run(&["ec", "-in", &private, "-pubout", "-out", &key.display().to_string()]);
    let (from, to) = (payload.display().to_string(), signature.display().to_string());
    run(&["dgst", "-sha256", "-sign", &private, "-out", &to, &from]);
    Signed { payload, signature, key }
}

impl Signed {
    /// Is it over the image with this digest, and by the key?
    fn verifies(&self, digest: &str) -> bool {
        let payload: Value = serde_json::from_slice(&fs::read(&self.payload).unwrap()).unwrap();
        let [key, signature, text] =
            [&self.key, &self.signature, &self.payload].map(|p| p.display().to_string());
        payload.pointer("/critical/image/docker-manifest-digest").unwrap() == digest
            && openssl(&["dgst", "-sha256", "-verify", &key, "-signature", &signature, &text])
    }
}

fn openssl(args: &[&str]) -> bool {
    Command::new("openssl").args(args).output().expect("these tests need openssl").status.success()
}

#[test]
fn podman_finds_nothing_to_download() {
    let mut case = Case::new();
    let (_, two) = (case.release(1), case.release(2));
    let delta = case.delta();
    case.fetch(&case.os(1), &[]);
    let store = |name: &str| case.sandbox.path(name).display().to_string();
    let (root, run) = (store("podman"), store("podman-run"));
    let pinned = format!("{}/os@{two}", case.registry.address);
    let to = format!("containers-storage:[vfs@{root}+{run}]{}/os:2", case.registry.address);
    case.fetch(&delta.reference(), &["--tag", "two", "--to", &to]);
    // Its layers are in the registry no longer.
    for layer in ["2", "1"].iter().flat_map(|tag| layers(&case, tag)) {
        fs::remove_file(case.registry.blob_file(&layer)).unwrap();
    }
    let podman = |args: &[&str]| {
        let storage = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        let ended = Command::new("podman")
            .args(storage)
            .args(args)
            .env("HOME", case.sandbox.dir.path())
            .env("XDG_RUNTIME_DIR", case.sandbox.dir.path())
            .output()
            .expect("this test needs podman (Debian package podman); `make test` installs it");
        assert!(ended.status.success(), "podman {args:?}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    };
    podman(&["pull", "--tls-verify=false", &pinned]);
    assert!(podman(&["images", "--digests", "--format", "{{.Digest}}"]).contains(&two));
}

/// The layers of `os:TAG` as its registry has them.
fn layers(case: &Case, tag: &str) -> Vec<String> {
    let reference = case.registry.reference(&format!("os:{tag}"));
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &reference], case.sandbox.dir.path());
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    let digest = |layer: &Value| layer["digest"].as_str().unwrap().to_owned();
    let all: Vec<String> = manifest["layers"].as_array().unwrap().iter().map(digest).collect();
    all.into_iter().filter(|layer| case.registry.blob_file(layer).exists()).collect()
}

/// What a hostile or unlucky delta may say; `expected` is in the report.
fn refused(name: &str, change: impl Fn(&mut Value), expected: &str) {
    let mut case = Case::new();
    let (_, two) = (case.release(1), case.release(2));
    let delta = case.delta();
    let mut recipes = delta.recipes();
    change(&mut recipes[1]);
    delta.with_recipes(Some(&Value::from(recipes).to_string()));
    case.fetch(&case.os(1), &[]);
    let before = case.sandbox.snapshot();
    let required = case.sandbox.run(&[&delta.reference(), "--exact", "require"]);
    assert_eq!(required.code, 3, "{name}: {required:#?}");
    assert!(required.stderr.contains(expected), "{name}: {required:#?}");
    let index = |files: &[(PathBuf, u64)]| files.iter().find(|(p, _)| p.ends_with("index.json")).cloned();
    assert_eq!(index(&case.sandbox.snapshot()), index(&before), "{name}: nothing is published");
    let fetched = case.fetch(&delta.reference(), &["--tag", "two"]);
    assert_eq!(fetched["layers"][1]["kept"], "rewritten", "{name}: {fetched:#}");
    assert!(fetched["layers"][1]["inexact"].as_str().unwrap().contains(expected), "{name}: {fetched:#}");
    assert_eq!(fetched["image"]["target_manifest"], two);
    assert_eq!(fetched["image"]["fidelity"], "rewritten");
    case.sandbox.ok(&["verify"]);
    // It cannot leave as it was published, but it can leave.
    let place = format!("dir:{}", case.sandbox.path("out").display());
    let stays = case.sandbox.run(&["export", "two", "--to", &place]);
    assert_eq!(stays.code, 3, "{name}: {stays:#?}");
    let left = case.sandbox.json(&["export", "two", "--to", &place, "--rewrite"]);
    assert_eq!(left["fidelity"], "rewritten", "{name}: {left:#}");
}

#[test]
fn a_recipe_that_makes_another_blob_is_never_published_as_exact() {
    refused("another level", |recipe| recipe["lvl"] = 6.into(), "recipe");
}

#[test]
fn a_recipe_that_promises_another_size_is_refused() {
    refused("less", |recipe| recipe["size"] = 100.into(), "its recipe is for 100 bytes");
}

#[test]
fn an_encoder_of_the_future_is_told_by_its_name() {
    refused("future", |recipe| recipe["enc"] = "zopfli-2".into(), "zopfli-2");
}

#[test]
fn a_header_that_is_none_gives_another_blob() {
    refused("header", |recipe| recipe["head"] = "00".into(), "recipe");
}

#[test]
fn a_delta_without_recipes_serves_as_before() {
    let mut case = Case::new();
    let (_, two) = (case.release(1), case.release(2));
    let delta = case.delta();
    case.fetch(&case.os(1), &[]);
    for recipes in [None, Some("{"), Some("[[[[7]]]]"), Some("[null,null,null,null,null,null]")] {
        delta.with_recipes(recipes);
        let required = case.sandbox.run(&[&delta.reference(), "--exact", "require"]);
        assert_eq!(required.code, 3, "{required:#?}");
        let fetched = case.fetch(&delta.reference(), &["--tag", "two"]);
        assert_eq!(fetched["image"]["target_manifest"], two, "{fetched:#}");
        case.sandbox.ok(&["remove", "two"]);
        case.sandbox.ok(&["gc"]);
    }
    // The registry has the layers as they were published.
    case.sandbox.ok(&[
        &["create", &case.os(1), &case.os(2), &case.registry.reference("os"), "--exact", "off"],
        &REMOTE[..],
    ]
    .concat());
    let whole = case.fetch(&case.os(2), &["--exact", "require"]);
    assert_eq!(whole["image"]["manifest"], two, "{whole:#}");
}

#[test]
fn creating_a_delta_can_demand_that_all_is_exact() {
    let case = Case::new();
    let mut dir = OciDir::create(&case.sandbox.path("odd"));
    let image = |n: u8| Image::new(vec![Layer::gzip(tree(&[("usr/f", &text(7, 400_000 + usize::from(n)))]))]);
    dir.image("1", &image(1)).image("2", &odd(image(2)));
    let output = format!("oci:{}", case.sandbox.path("out").display());
    let args = ["create", &dir.reference("1"), &dir.reference("2"), &output, "--exact"];
    let refused = case.sandbox.run(&[&args[..], &["require"]].concat());
    assert_eq!(refused.code, 3, "{refused:#?}");
    assert!(refused.stderr.contains("exactly as it was published"), "{refused:#?}");
    let made = case.sandbox.json(&[&args[..], &["auto"]].concat());
    assert!(made["layers"][0]["inexact"].is_string(), "{made:#}");
    let off = case.sandbox.json(&[&args[..], &["off"]].concat());
    assert!(off["layers"][0]["inexact"].is_null() && off["layers"][0]["exact"].is_null(), "{off:#}");
}

#[test]
fn a_layer_is_proven_once() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let layer = |seed, first| {
        let mut file = text(seed, 200_000);
        file[0] = first;
        Layer::zstd(tree(&[("usr/f", &file)]))
    };
    let image = |first| Image::new(vec![layer(1, b'0'), layer(2, first)]);
    dir.image("1", &image(b'1')).image("2", &image(b'2'));
    let levels = |name: &str| {
        let output = format!("oci:{}", sandbox.path(name).display());
        let made = sandbox.json(&["create", &dir.reference("1"), &dir.reference("2"), &output]);
        let level = |layer: &Value| layer["exact"]["level"].as_i64();
        made["layers"].as_array().unwrap().iter().map(level).collect::<Vec<_>>()
    };
    assert_eq!(levels("a"), [Some(3); 2]);
    let change = |from: &str, to: &str| {
        let notes = fs::read_dir(sandbox.path(".cache/oci-delta-fetch/recipes")).unwrap();
        let paths: Vec<PathBuf> = notes.map(|note| note.unwrap().path()).collect();
        assert_eq!(paths.len(), 2);
        for path in paths {
            let note = fs::read_to_string(&path).unwrap();
            assert!(note.contains(from), "{note}");
            fs::write(&path, note.replace(from, to)).unwrap();
        }
    };
    // Nothing is made again, or this would not pass; and all is where other encoders have proven it.
    change(r#""lvl":3"#, r#""lvl":4"#);
    assert_eq!(levels("b"), [Some(4); 2]);
    change(r#""encoders":"#, r#""encoders":9"#);
    assert_eq!(levels("c"), [Some(3); 2]);
}

/// The image with its layer compressed by a program whose streams cannot be made again.
fn odd(image: Image) -> Image {
    let mut layer = image.layers[0].clone();
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(&layer.tar).unwrap();
    layer.blob = encoder.finish().unwrap();
    Image::new(vec![layer])
}

/// A layer that no known encoder made: it is flushed in the middle, and something stands behind its end.
fn flushed(tar: Vec<u8>) -> Layer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5));
    for part in tar.chunks(tar.len() / 3 + 1) {
        encoder.write_all(part).unwrap();
        encoder.flush().unwrap();
    }
    let mut blob = encoder.finish().unwrap();
    blob.extend([0; 512]);
    Layer { blob, ..Layer::gzip(tar) }
}

#[test]
fn what_no_encoder_makes_comes_out_by_corrections() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let image = |n: u8| {
        let mut file = text(7, 400_000);
        file[usize::from(n) * 1000] = b'0' + n;
        Image::new(vec![flushed(tree(&[("usr/f", &file)]))])
    };
    let new = image(2);
    dir.image("1", &image(1)).image("2", &new);
    let delta = DeltaDir { root: sandbox.path("delta") };
    let made = sandbox.json(&["create", &dir.reference("1"), &dir.reference("2"), &delta.reference()]);
    let fix_bytes = made["layers"][0]["exact"]["fix_bytes"].as_u64().unwrap();
    assert!(fix_bytes > 0 && fix_bytes <= new.layers[0].blob.len() as u64 / 10, "{made:#}");
    sandbox.ok(&[&dir.reference("1")]);
    let planned = sandbox.json(&[&delta.reference(), "--dry-run"]);
    let fetched = sandbox.json(&[&delta.reference(), "--tag", "two"]);
    assert_eq!(fetched["image"]["manifest"], new.manifest_digest().to_string(), "{fetched:#}");
    assert_eq!(fetched["bytes"], planned["bytes"], "corrections count");
    assert!(fetched["layers"][0]["bytes"].as_u64().unwrap() > fix_bytes);
    // Who does not want it does not read them.
    let off = sandbox.json(&[
        &delta.reference(),
        "--dry-run",
        "--tag",
        "x",
        "--expect-digest",
        new.manifest_digest().as_ref(),
    ]);
    assert_eq!(off["status"], "already-present");
    sandbox.ok(&["remove", "two"]);
    sandbox.ok(&["gc"]);
    let off = sandbox.json(&[&delta.reference(), "--dry-run", "--exact", "off"]);
    assert_eq!(
        off["layers"][0]["bytes"].as_u64().unwrap() + fix_bytes,
        planned["layers"][0]["bytes"].as_u64().unwrap()
    );
    // Damaged, or gone, they cost nothing but the digest.
    let fix = |delta: &DeltaDir| {
        let layers = delta.manifest()["layers"].as_array().unwrap().clone();
        let is_fix =
            |layer: &&Value| layer["annotations"]["io.github.containers.delta.content"] == "exact-fix";
        delta.blob(layers.iter().find(is_fix).unwrap()["digest"].as_str().unwrap())
    };
    let path = fix(&delta);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    for damage in [Some(bytes), None] {
        match damage {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let required = sandbox.run(&[&delta.reference(), "--exact", "require"]);
        assert_eq!(required.code, 3, "{required:#?}");
        let fetched = sandbox.json(&[&delta.reference(), "--tag", "two"]);
        assert_eq!(fetched["layers"][0]["kept"], "rewritten", "{fetched:#}");
        assert!(fetched["layers"][0]["inexact"].as_str().unwrap().contains("corrections"), "{fetched:#}");
        sandbox.ok(&["remove", "two"]);
        sandbox.ok(&["gc"]);
    }
}
