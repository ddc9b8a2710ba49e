//! Deltas that `create` makes: they rebuild the target here and with the
//! `oci-delta` crate, are small, and are the same bytes however they were made.

use crate::support;

use std::path::PathBuf;

use serde_json::Value;
use support::images::{gzip, noise, tar};
use support::tars::Entry::{self, Dir, File, Link, Mode, Symlink};
use support::tars::tar_of;
use support::{Image, Layer, OciDir, Registry, Sandbox, oracle};

/// A sandbox with an old and a new image in a layout.
struct Pair {
    sandbox: Sandbox,
    images: OciDir,
    old: Image,
    new: Image,
}

impl Pair {
    fn new(old: Image, new: Image) -> Self {
        let sandbox = Sandbox::new();
        let mut images = OciDir::create(&sandbox.path("images"));
        images.image("old", &old).image("new", &new);
        Pair { sandbox, images, old, new }
    }

    fn of_layers(old: &[&[Entry<'_>]], new: &[&[Entry<'_>]]) -> Self {
        let image =
            |layers: &[&[Entry<'_>]]| Image::new(layers.iter().map(|l| Layer::gzip(tar_of(l))).collect());
        Pair::new(image(old), image(new))
    }

    fn delta(&self) -> PathBuf {
        self.sandbox.path("delta.oci")
    }

    fn reference(&self) -> String {
        format!("oci-archive:{}", self.delta().display())
    }

    /// Creates the delta and returns the report.
    fn create(&self, options: &[&str]) -> Value {
        let (old, new) = (self.images.reference("old"), self.images.reference("new"));
        let delta = self.delta();
        let mut args = vec!["create", &old, &new, delta.to_str().unwrap()];
        args.extend(options);
        self.sandbox.json(&args)
    }

    /// Applies the delta here and by the crate.
    fn check(&self) {
        oracle::check(&self.reference(), &self.old, &self.new);
        self.sandbox.ok(&[&self.images.reference("old")]);
        let report = self.sandbox.json(&[&self.reference(), "--tag", "new"]);
        assert_eq!(report["image"]["config"], self.new.config_digest().to_string());
        assert_eq!(report["image"]["target_manifest"], self.new.manifest_digest().to_string());
        self.sandbox.ok(&["verify"]);
    }

    fn patch_bytes(&self) -> u64 {
        let report = self.create(&[]);
        self.check();
        report["layers"].as_array().unwrap().iter().map(|l| l["bytes"].as_u64().unwrap()).sum()
    }
}

fn edited(bytes: &[u8], every: usize) -> Vec<u8> {
    let change = |(at, b): (usize, &u8)| if at % every == every / 2 { b.wrapping_add(3) } else { *b };
    bytes.iter().enumerate().map(change).collect()
}

#[test]
fn an_edited_file_costs_its_edits() {
    let content = noise(1, 3 << 20);
    let pair = Pair::of_layers(
        &[&[File(b"usr/bin/tool", &content)]],
        &[&[File(b"usr/bin/tool", &edited(&content, 100_000))]],
    );
    assert!(pair.patch_bytes() < 2_000);
}

#[test]
fn content_is_found_under_any_name() {
    let (a, b) = (noise(1, 400_000), noise(2, 400_000));
    let joined = [&b[..], &edited(&a, 50_000)].concat();
    let pair = Pair::of_layers(
        &[&[File(b"opt/tool-1.0/first", &a), File(b"opt/tool-1.0/second", &b)]],
        &[&[File(b"opt/tool-2.0/renamed", &a), File(b"srv/joined.bin", &joined)]],
    );
    assert!(pair.patch_bytes() < 2_000);
}

#[test]
fn insertions_and_moved_blocks_are_followed() {
    let content = noise(3, 1 << 20);
    let (head, tail) = content.split_at(300_000);
    let moved = [tail, b"something new in the middle", head].concat();
    let pair = Pair::of_layers(&[&[File(b"a", &content)]], &[&[File(b"a", &moved)]]);
    assert!(pair.patch_bytes() < 1_000);
}

#[test]
fn repetition_within_the_new_image_is_paid_once() {
    let fresh = noise(4, 600_000);
    let pair = Pair::of_layers(
        &[&[File(b"a", b"old")]],
        &[&[File(b"a", b"new"), File(b"copy1", &fresh), File(b"copy2", &fresh)]],
    );
    assert!(pair.patch_bytes() < 620_000);
}

#[test]
fn a_source_in_an_unchanged_layer_is_used() {
    let content = noise(5, 500_000);
    let base = Layer::gzip(tar_of(&[File(b"usr/lib/lib.so", &content)]));
    let old = Image::new(vec![base.clone(), Layer::gzip(tar_of(&[File(b"etc/v", b"1")]))]);
    let update = tar_of(&[File(b"etc/v", b"2"), File(b"usr/lib/lib.so", &edited(&content, 90_000))]);
    let pair = Pair::new(old, Image::new(vec![base, Layer::gzip(update)]));
    assert!(pair.patch_bytes() < 1_500);
}

#[test]
fn no_unchanged_layer_is_read_for_a_trifle() {
    let (trifle, fresh) = (noise(26, 700), noise(27, 3 << 20));
    let base = Layer::gzip(tar_of(&[File(b"usr/share/trifle", &trifle)]));
    let old = Image::new(vec![base.clone(), Layer::gzip(tar_of(&[File(b"app", b"1")]))]);
    let update = tar_of(&[File(b"app", &fresh), File(b"usr/share/trifle.copy", &trifle)]);
    let pair = Pair::new(old, Image::new(vec![base, Layer::gzip(update)]));
    let bytes = pair.patch_bytes();
    assert!(bytes > (3 << 20) + 700, "{bytes} bytes: the copy is literal");
}

// The six cases in which the reference tool names a file that the merged root does not have.

fn stale(upper: &[Entry<'_>]) {
    let content = noise(6, 200_000);
    let lower = [Dir(b"d"), File(b"d/victim", &content), File(b"other", b"a small file")];
    let new = [File(b"d/victim", &edited(&content, 9_000))];
    Pair::of_layers(&[&lower, upper], &[&new]).patch_bytes();
}

#[test]
fn no_source_below_a_symlink() {
    stale(&[Symlink(b"d/victim", b"../other")]);
}

#[test]
fn no_source_below_an_empty_file() {
    stale(&[File(b"d/victim", b"")]);
}

#[test]
fn no_source_below_an_unreadable_file() {
    stale(&[Mode(b"d/victim", &noise(7, 1000), 0o600)]);
}

#[test]
fn no_source_below_a_hard_link_to_a_lower_layer() {
    stale(&[Link(b"d/victim", b"other")]);
}

#[test]
fn no_source_below_a_file_over_its_directory() {
    stale(&[File(b"d", b"now a file")]);
}

#[test]
fn no_source_replaced_in_the_same_tar() {
    let content = noise(8, 200_000);
    let old = [File(b"victim", &content), File(b"other", b"x"), Symlink(b"victim", b"other")];
    let new = [File(b"victim", &edited(&content, 9_000))];
    let pair = Pair::of_layers(&[&old], &[&new]);
    pair.create(&[]);
    oracle::check(&pair.reference(), &pair.old, &pair.new);
}

#[test]
fn whiteouts_and_opaque_directories_hide_sources() {
    let (a, b, c) = (noise(9, 100_000), noise(10, 100_000), noise(11, 100_000));
    let lower = [File(b"d/a", &a), File(b"e/b", &b), File(b"f/c", &c)];
    let upper = [File(b"d/.wh.a", b""), File(b"e/.wh..wh..opq", b""), File(b".wh.f", b"")];
    let new = [File(b"d/a", &a), File(b"e/b", &b), File(b"f/c", &c), File(b"new", b"")];
    let bytes = Pair::of_layers(&[&lower, &upper], &[&new]).patch_bytes();
    assert!(bytes > 250_000, "{bytes}");
}

#[test]
fn files_that_other_appliers_cannot_name_are_no_sources() {
    let contents: Vec<Vec<u8>> = (20..24).map(|seed| noise(seed, 60_000)).collect();
    let old = [
        Mode(b"etc/shadow", &contents[0], 0o600),
        File(b"bad\xff/name", &contents[1]),
        File(b"sysroot/ostree/repo/objects/x.file", &contents[2]),
        Symlink(b"lib64", b"usr/lib64"),
        File(b"usr/share/good", &contents[3]),
    ];
    let new: Vec<Entry<'_>> =
        contents.iter().zip([&b"1"[..], b"2", b"3", b"4"]).map(|(c, n)| File(n, c)).collect();
    let bytes = Pair::of_layers(&[&old], &[&new]).patch_bytes();
    assert!((180_000..190_000).contains(&bytes), "three of four are literal: {bytes}");
}

#[test]
fn a_hard_link_name_of_a_deployed_file_serves() {
    let content = noise(25, 100_000);
    let old = [
        File(b"sysroot/ostree/repo/objects/x.file", &content),
        Link(b"usr/bin/x", b"sysroot/ostree/repo/objects/x.file"),
    ];
    let new = [File(b"usr/bin/x", &edited(&content, 30_000))];
    assert!(Pair::of_layers(&[&old], &[&new]).patch_bytes() < 1_000);
}

#[test]
fn reused_layers_stay_out_also_when_compressed_anew() {
    let shared = tar(&[("shared", &noise(30, 50_000))]);
    let old = Image::new(vec![Layer::gzip(shared.clone()), Layer::gzip(tar(&[("v", b"1")]))]);
    let new = Image::new(vec![Layer::zstd(shared), Layer::gzip(tar(&[("v", b"2")]))]);
    let pair = Pair::new(old, new);
    let report = pair.create(&[]);
    assert_eq!(report["layers"][0]["carried"], "reused");
    assert_eq!(report["layers"][0]["bytes"], 0);
    assert!(report["delta_bytes"].as_u64().unwrap() < 4_000);
    pair.check();
}

#[test]
fn a_layer_that_is_new_throughout_is_never_larger_than_itself() {
    for make in [Layer::gzip as fn(Vec<u8>) -> Layer, Layer::plain, Layer::zstd] {
        let old = Image::new(vec![Layer::gzip(tar(&[("a", b"1")]))]);
        let new = Image::new(vec![make(tar(&[("b", &noise(31, 100_000))]))]);
        let size = new.layers[0].blob.len() as u64;
        let pair = Pair::new(old, new);
        let bytes = pair.patch_bytes();
        // zstd is no form that every applier reads; a patch of such data is within 2 % of it.
        assert!(bytes <= size + size / 50, "{bytes} for {size}");
    }
}

#[test]
fn gzip_of_several_members_is_not_carried_whole() {
    let whole = tar(&[("b", &noise(32, 100_000))]);
    let (one, two) = whole.split_at(50_000);
    let blob = [gzip(one), gzip(two)].concat();
    let layer = Layer { tar: whole.clone(), blob, media_type: support::images::TAR_GZIP.into() };
    let pair = Pair::new(Image::new(vec![Layer::gzip(tar(&[("a", b"1")]))]), Image::new(vec![layer]));
    assert_eq!(pair.create(&[])["layers"][0]["carried"], "patch");
    pair.check();
}

#[test]
fn the_bytes_do_not_depend_on_threads_paths_or_locale() {
    let content = noise(40, 9 << 20);
    let new = edited(&content, 70_000);
    let pair = Pair::of_layers(
        &[&[File(b"big", &content), File(b"small", b"one")]],
        &[&[File(b"big", &new), File(b"small", b"two"), File(b"more", &noise(41, 100_000))]],
    );
    for preset in ["fast", "default", "best"] {
        let mut digests: Vec<Value> = ["1", "8"]
            .iter()
            .map(|jobs| pair.create(&["--preset", preset, "--jobs", jobs])["digest"].clone())
            .collect();
        digests.dedup();
        assert_eq!(digests.len(), 1, "{preset}");
    }
    pair.check();
}

#[test]
fn every_output_and_input_form_holds_the_same_delta() {
    let content = noise(50, 300_000);
    let pair = Pair::of_layers(&[&[File(b"f", &content)]], &[&[File(b"f", &edited(&content, 9_000))]]);
    let digest = pair.create(&[])["digest"].clone();
    let (old, new) = (pair.images.reference("old"), pair.images.reference("new"));
    let s = &pair.sandbox;
    let out = |name: &str| s.path(name).display().to_string();

    // Archives and directories, with and without a name.
    for out in [
        format!("oci-archive:{}:v2", out("named.oci")),
        format!("oci:{}", out("dir")),
        format!("oci:{}:v2", out("dir")),
    ] {
        assert_eq!(s.json(&["create", &old, &new, &out])["digest"], digest, "{out}");
        oracle_digest(s, &out, &digest);
    }
    // A registry, both ways.
    let registry = Registry::start();
    for name in ["old", "new"] {
        registry.push(&pair.images.reference(name), &format!("img:{name}"));
    }
    let (from, to) = (registry.reference("img:old"), registry.reference("img:new"));
    let delta = registry.reference("img:delta");
    let report = s.json(&["create", &from, &to, &delta, "--tls-verify=false"]);
    assert_eq!(report["digest"], digest);
    s.ok(&[&from, "--tls-verify=false"]);
    s.ok(&[&delta, "--tls-verify=false", "--tag", "img:new"]);
    // Names in the repository.
    let name = from.trim_start_matches("docker://");
    let report = s.json(&["create", name, "img:new", &out("again.oci")]);
    assert_eq!(report["base_config"], pair.old.config_digest().to_string());
    assert_eq!(
        report["target_manifest"],
        pair.new.manifest_digest().to_string(),
        "as published, not as kept here"
    );
    // A bare path to an archive.
    support::registry::skopeo(&["copy", &old, &format!("oci-archive:{}", out("old.oci"))], s.dir.path());
    assert_eq!(
        s.json(&["create", &out("old.oci"), &new, &out("bare.oci")])["target_manifest"],
        pair.new.manifest_digest().to_string()
    );
}

fn oracle_digest(sandbox: &Sandbox, reference: &str, digest: &Value) {
    let inspected = sandbox.json(&["inspect", reference, "--files"]);
    assert_eq!(inspected["resolved"], *digest);
    let patch = &inspected["patches"][0];
    assert_eq!(
        patch["total"]["bytes"],
        patch["headers"]["bytes"].as_u64().unwrap() + patch["files"][0]["bytes"].as_u64().unwrap()
    );
    assert_eq!(patch["files"][0]["path"], "f");
    assert_eq!(patch["files"][0]["literal"], 0);
    assert_eq!(patch["total"]["patch_bytes"], inspected["layers"][0]["bytes"]);
}

#[test]
fn a_link_named_oci_delta_takes_the_reference_tools_command_line() {
    let (old, new) = (noise(60, 5_000), edited(&noise(60, 5_000), 900));
    let pair = Pair::of_layers(
        &[&[File(b"same", b"same")], &[File(b"v", &old)]],
        &[&[File(b"same", b"same")], &[File(b"v", &new)]],
    );
    let link = pair.sandbox.path("oci-delta");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_oci-delta-fetch"), &link).unwrap();
    let flags = "-v -j 2 --binary-diff bsdiff --compression-level 3 --max-bsdiff-size 192 --max-zstd-diff-size 128 \
                 --zstd-diff-level -1 --zstd-diff-window 0 --debug --log-level info";
    let output = std::process::Command::new(link)
        .arg("create")
        .args(flags.split_whitespace())
        .args([pair.images.reference("old"), pair.images.reference("new")])
        .arg(pair.delta())
        .env("HOME", pair.sandbox.dir.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in
        ["Old image layers: 2", "Processed layers: 1", "Skipped layers:   1", "Original layer bytes:   0"]
    {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    pair.check();
}

#[test]
fn signatures_are_taken_along() {
    let pair = Pair::of_layers(&[&[File(b"v", b"1")]], &[&[File(b"v", b"2")]]);
    let signature = Image::new(vec![Layer::plain(b"payload".to_vec())]);
    let mut signatures = OciDir::create(&pair.sandbox.path("signature"));
    signatures.image("sig", &signature);
    pair.create(&["--signature", &signatures.reference("sig")]);
    let inspected = pair.sandbox.json(&["inspect", &pair.reference()]);
    assert_eq!(inspected["signatures"], 1);
    pair.check();
}

#[test]
fn version_2_uses_dictionary_frames_where_they_are_smaller() {
    // Short lines in another order: too short for operations, and what a frame is good at.
    let text = |version: usize| {
        let line = |n: usize| {
            noise((n * version % 10_007) as u64 + 1, 12)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        };
        (0..10_000).map(|n| line(n) + "\n").collect::<String>().into_bytes()
    };
    let pair = Pair::of_layers(&[&[File(b"conf", &text(1))]], &[&[File(b"conf", &text(7919))]]);
    let v1 = pair.create(&["--preset", "best"])["delta_bytes"].as_u64().unwrap();
    pair.check();
    let v2 = pair.create(&["--preset", "best", "--format", "v2"])["delta_bytes"].as_u64().unwrap();
    assert!(v2 < v1, "{v2} {v1}");
    oracle::check(&pair.reference(), &pair.old, &pair.new);
    // The reference tool's words for it.
    assert_eq!(pair.create(&["--preset", "best", "--binary-diff", "auto"])["delta_bytes"], v2);
}
