//! Two registries with an air gap between them, and images that change a little.

use std::fs;
use std::path::{Path, PathBuf};

use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};

use super::images::{MANIFEST, noise, tree};
use super::registry::{put_manifest, skopeo};
use super::{Image, Layer, OciDir, Registry, Sandbox};

pub const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

pub fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len).into_iter().map(|byte| b"etaoin shrdlu\n"[usize::from(byte) % 14]).collect()
}

/// Version `n` of an image: a layer that stays and one that changes a little.
pub fn version(n: u8) -> Image {
    let mut file = text(7, 400_000);
    for at in 0..usize::from(n) {
        file[at * 1000] = b'0' + n;
    }
    let layer = |path, data: &[u8]| Layer::plain(tree(&[(path, data)]));
    Image::new(vec![layer("usr/lib/stays", &text(1, 90_000)), layer("usr/lib/grows", &file)])
}

/// The outer and the inner registry, and a folder for what is carried.
pub struct Gap {
    pub sandbox: Sandbox,
    pub outer: Registry,
    pub inner: Registry,
    pub dir: OciDir,
}

impl Gap {
    pub fn new() -> Self {
        Self::to(Registry::start())
    }

    pub fn to(inner: Registry) -> Self {
        let sandbox = Sandbox::new();
        let dir = OciDir::create(&sandbox.path("source"));
        Gap { sandbox, outer: Registry::start(), inner, dir }
    }

    /// Publishes version `n` as `org/os:n`, compressed by skopeo; gives its digest.
    pub fn release(&mut self, n: u8) -> String {
        let (name, tag) = (format!("org/os:{n}"), n.to_string());
        self.dir.image(&tag, &version(n));
        self.outer.push_with(&["--dest-compress-format=gzip"], &self.dir.reference(&tag), &name);
        digest_at(&self.outer, &name, &self.sandbox)
    }

    /// Signs version `n`, as cosign keeps a signature.
    pub fn sign(&self, n: u8, digest: &str) {
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &self.os(n)], self.sandbox.dir.path());
        let image: Value = serde_json::from_str(&raw).unwrap();
        let mut payload = image["layers"][0].clone();
        payload["mediaType"] = "application/vnd.dev.cosign.simplesigning.v1+json".into();
        let signature = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": image["config"],
            "layers": [payload], "annotations": {"of": digest}});
        let tag = format!("{}.sig", digest.replacen(':', "-", 1));
        let bytes = signature.to_string();
        let status = put_manifest(&self.outer.address, "org/os", &tag, MANIFEST, bytes.as_bytes());
        assert!(status.contains("201"), "{status}");
    }

    /// Carries it over whole, as before there were bundles.
    pub fn carry(&self, n: u8) {
        let (from, to) =
            (self.outer.reference(&format!("org/os:{n}")), self.inner.reference(&format!("org/os:{n}")));
        let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&["copy", "--preserve-digests", tls[0], tls[1], &from, &to], self.sandbox.dir.path());
    }

    pub fn os(&self, n: u8) -> String {
        self.outer.reference(&format!("org/os:{n}"))
    }

    pub fn medium(&self, name: &str) -> String {
        self.sandbox.path(name).display().to_string()
    }

    /// What the inner registry says that it has.
    pub fn have(&self) -> String {
        let path = self.medium("have.json");
        let list = self.sandbox.ok(&[&["inventory", &self.target()], &REMOTE[..]].concat());
        fs::write(&path, list.stdout).unwrap();
        path
    }

    pub fn bundle(&self, images: &[&str], options: &[&str]) -> Value {
        self.sandbox.json(&[&["bundle"], images, &REMOTE[..], options].concat())
    }

    pub fn target(&self) -> String {
        format!("docker://{}/", self.inner.address)
    }

    pub fn unbundle(&self, medium: &str) -> Vec<Value> {
        self.sandbox.json(&[&["unbundle", medium, &self.target()], &REMOTE[..]].concat())["images"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// An unbundle that fails: its exit code, its report, what it said.
    pub fn fails(&self, medium: &str) -> (i32, Value, String) {
        let ended =
            self.sandbox.run(&[&["unbundle", medium, &self.target(), "--json"], &REMOTE[..]].concat());
        (ended.code, serde_json::from_str(&ended.stdout).unwrap_or_default(), ended.stderr)
    }

    pub fn digest_inside(&self, name: &str) -> String {
        digest_at(&self.inner, name, &self.sandbox)
    }
}

pub fn digest_at(registry: &Registry, name: &str, sandbox: &Sandbox) -> String {
    let raw =
        skopeo(&["inspect", "--raw", "--tls-verify=false", &registry.reference(name)], sandbox.dir.path());
    digest_of(raw.as_bytes()).to_string()
}

pub fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.path().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push((entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    files.sort();
    files
}
