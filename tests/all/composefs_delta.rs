//! Deltas by the reference tool's command line, pulled into a composefs repository by cfsctl, which has an applier of its own,
//! and by us: what composefs-rs tests of that tool, and that both come to the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use oci_delta_fetch::tardiff::{Limits, Op, OpReader, Version};

use super::support::cfsctl::{cfsctl, fsck, init};
use super::support::images::{noise, tree};
use super::support::{Image, Layer, OciDir, Sandbox};

/// Two images: a layer that both have, one with a file that changed in the middle and grew, and a new one.
struct Case {
    sandbox: Sandbox,
    new: Image,
}

impl Case {
    fn new() -> Self {
        let before = noise(3, 32 << 10);
        let mut after = before.clone();
        after[10_000..10_256].fill(0x5a);
        after.extend(b"what was not there before");
        let layer = |path, data: &[u8]| Layer::gzip(tree(&[(path, data)]));
        let (shared, more) =
            (layer("usr/bin/hello", b"#!/bin/sh\necho hello\n"), layer("opt/new", &noise(4, 2048)));
        let old = Image::new(vec![shared.clone(), layer("data/blob", &before)]);
        let new = Image::new(vec![shared, layer("data/blob", &after), more]);
        let sandbox = Sandbox::new();
        for (name, image) in [("old", &old), ("new", &new)] {
            OciDir::create(&sandbox.path(name)).image("image", image);
        }
        Case { sandbox, new }
    }

    fn layout(&self, name: &str) -> String {
        format!("oci:{}", self.sandbox.path(name).display())
    }

    /// What the delta is made of; none but the options that the reference tool has.
    fn create(&self, delta: &str, options: &[&str]) -> Vec<(Version, Vec<Op>)> {
        let mut command = self.sandbox.oci_delta();
        let places = [self.layout("old"), self.layout("new"), self.layout(delta)];
        assert!(command.arg("create").args(options).args(places).status().unwrap().success());
        let blobs = fs::read_dir(self.sandbox.path(delta).join("blobs/sha256")).unwrap();
        let blobs = blobs.map(|blob| fs::read(blob.unwrap().path()).unwrap());
        blobs.filter(|blob| blob.starts_with(b"tardf")).map(|patch| operations(&patch)).collect()
    }

    /// An empty repository with the old image, pulled by cfsctl.
    fn repository(&self, name: &str) -> String {
        let repo = self.sandbox.path(name);
        init(&repo, "sha256");
        cfsctl(&repo, &["oci", "pull", &self.layout("old"), "old"]);
        repo.display().to_string()
    }

    fn pull_by_cfsctl(&self, repo: &str, reference: &str) {
        cfsctl(Path::new(repo), &["oci", "pull", reference, "new"]);
    }

    fn pull_by_us(&self, repo: &str, reference: &str) {
        let repo = format!("composefs:{repo}");
        self.sandbox.ok(&[reference, "--repo", &repo, "--tag", "new", "--delta-policy", "only"]);
    }

    /// The new image is there as it was published.
    fn is_there(&self, repo: &str) {
        let repo = Path::new(repo);
        let manifest = cfsctl(repo, &["oci", "inspect", "--manifest", "new"]);
        assert_eq!(manifest.trim_ascii_end(), self.new.manifest);
        for (layer, diff_id) in self.new.layers.iter().zip(self.new.diff_ids()) {
            assert!(cfsctl(repo, &["oci", "layer", &diff_id]) == layer.tar);
        }
        fsck(repo);
    }
}

fn operations(patch: &[u8]) -> (Version, Vec<Op>) {
    let mut reader = OpReader::new(patch, &Limits::default()).unwrap();
    let mut operations = Vec::new();
    while let Some(op) = reader.next_op().unwrap() {
        let _ = std::io::copy(&mut reader.payload(), &mut std::io::sink());
        operations.push(op);
    }
    (reader.version(), operations)
}

#[test]
fn a_delta_is_pulled_from_a_layout_and_from_an_archive_and_twice() {
    let case = Case::new();
    let patches = case.create("delta", &[]);
    let copies = |(_, ops): &(Version, Vec<Op>)| ops.iter().any(|op| matches!(op, Op::Copy(_) | Op::Add(_)));
    assert!(patches.iter().any(copies), "a patch is a difference: {patches:?}");
    // As `tar -C delta -cf archive .` names the members.
    let archive = case.sandbox.path("archive");
    let tar = Command::new("tar")
        .arg("-C")
        .arg(case.sandbox.path("delta"))
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    let archive = format!("oci-archive:{}", archive.display());
    for (name, reference) in [("a", case.layout("delta")), ("b", archive)] {
        let (theirs, ours) =
            (case.repository(&format!("{name}-theirs")), case.repository(&format!("{name}-ours")));
        for _ in 0..2 {
            case.pull_by_cfsctl(&theirs, &reference);
            case.pull_by_us(&ours, &reference);
        }
        case.is_there(&theirs);
        case.is_there(&ours);
    }
}

#[test]
fn a_delta_with_differences_by_zstd_is_pulled() {
    let case = Case::new();
    let patches = case.create("delta", &["--binary-diff", "zstd"]);
    let by_zstd = |(version, ops): &(Version, Vec<Op>)| {
        *version == Version::V2 && ops.iter().any(|op| matches!(op, Op::Dictionary(_)))
    };
    assert!(patches.iter().any(by_zstd), "{patches:?}");
    let (theirs, ours) = (case.repository("theirs"), case.repository("ours"));
    case.pull_by_cfsctl(&theirs, &case.layout("delta"));
    case.pull_by_us(&ours, &case.layout("delta"));
    case.is_there(&theirs);
    case.is_there(&ours);
}
