//! Bases in ostree repositories, which Debian's `ostree` makes here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_delta_fetch::digest::digest_of;
use serde_json::Value;

use super::support::cli::ended;
use super::support::images::{noise, tar};
use super::support::podman::Podman;
use super::support::registry::skopeo;
use super::support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

const MODES: [&str; 4] = ["bare", "bare-user", "bare-user-only", "archive"];

/// As ostree-ext escapes `docker://registry.example/os:1`.
const REF: &str = "ostree/container/image/docker_3A__2F_/registry_2E_example/os_3A_1";

/// Runs `ostree` on a repository.
pub fn ostree(repo: &Path, args: &[&str]) {
    let output =
        Command::new("ostree").arg(args[0]).arg("--repo").arg(repo).args(&args[1..]).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Commits the files of an image as bootc does: etc and var have moved, and what is elsewhere is gone.
pub fn commit(repo: &Path, root: &Path, metadata: &[String]) {
    let mut args = vec!["commit", "--canonical-permissions", "-b", REF];
    args.extend(metadata.iter().map(String::as_str));
    args.push(root.to_str().unwrap());
    ostree(repo, &args);
}

pub fn manifest_of(image: &Image) -> Vec<String> {
    vec![format!("--add-metadata-string=ostree.manifest={}", String::from_utf8_lossy(&image.manifest))]
}

fn unpacked(sandbox: &Sandbox, image: &Image) -> PathBuf {
    let root = sandbox.path("root");
    for layer in &image.layers {
        tar::Archive::new(&layer.tar[..]).unpack(&root).unwrap();
    }
    fs::rename(root.join("etc"), root.join("usr/etc")).unwrap();
    fs::create_dir_all(root.join("usr/share/factory")).unwrap();
    fs::rename(root.join("var"), root.join("usr/share/factory/var")).unwrap();
    let _ = fs::remove_dir_all(root.join("opt"));
    symlink("usr/lib", root.join("lib")).unwrap();
    symlink("usr/tool", root.join("usr/link")).unwrap();
    root
}

fn image(seed: u64, make: fn(Vec<Layer>) -> Image) -> Image {
    let shared = tar(&[("usr/share/base", &noise(1, 3_000))]);
    let (tool, lib, conf, state) = (noise(2, 60_000), noise(3, 40_000), noise(4, 9_000), noise(5, 30_000));
    let more = noise(seed, 900);
    let with = |content: &[u8]| [content, &more].concat();
    let files: [(&str, &[u8]); 4] = [
        ("etc/conf", &with(&conf)),
        ("usr/lib/module.so", &with(&lib)),
        ("usr/tool", &with(&tool)),
        ("var/lib/state", &with(&state)),
    ];
    make(vec![Layer::gzip(shared), Layer::gzip(tar(&files))])
}

/// The object in a repository that has this content, and its checksum.
fn object(repo: &Path, suffix: &str, is: impl Fn(&[u8]) -> bool) -> PathBuf {
    let dirs = fs::read_dir(repo.join("objects")).unwrap().map(|entry| entry.unwrap().path());
    let files = dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
    let mut fitting = files.filter(|path| path.extension().is_some_and(|e| e == suffix));
    fitting.find(|path| fs::read(path).is_ok_and(|bytes| is(&bytes))).unwrap()
}

/// A delta between two releases, the old one in an ostree repository.
struct Case {
    sandbox: Sandbox,
    source: OciDir,
    old: Image,
    new: Image,
    root: PathBuf,
}

impl Case {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (old, new) = (image(6, Image::new), image(7, Image::new));
        let mut source = OciDir::create(&sandbox.path("source"));
        source.delta("delta", &Delta::new(&old, &new)).image("new", &new);
        let root = unpacked(&sandbox, &old);
        Case { sandbox, source, old, new, root }
    }

    fn repository(&self, mode: &str) -> PathBuf {
        let repo = self.sandbox.path(&format!("{mode}.ostree"));
        ostree(&repo, &["init", &format!("--mode={mode}")]);
        repo
    }

    fn with_image(&self, mode: &str) -> PathBuf {
        let repo = self.repository(mode);
        commit(&repo, &self.root, &manifest_of(&self.old));
        repo
    }

    /// Fails with this, and there is no image then.
    fn refused(&self, repo: &Path, code: i32, text: &str) {
        let repo = repo.to_str().unwrap();
        let delta = self.source.reference("delta");
        let ended = self.sandbox.run(&[&delta, "--delta-policy", "only", "--ostree-repo", repo]);
        assert_eq!(ended.code, code, "{text}: {ended:#?}");
        assert!(ended.stderr.contains(text), "{text}: {ended:#?}");
        let listed = self.sandbox.run(&["list"]);
        assert!(!listed.stdout.contains("sha256:"), "{text}: {listed:#?}");
    }
}

#[test]
fn an_image_in_a_repository_of_any_mode_is_a_base() {
    let case = Case::new();
    for mode in MODES {
        let repo = case.with_image(mode);
        let before = fs::read_dir(&repo).unwrap().count();
        let delta = case.source.reference("delta");
        let report = case.sandbox.json(&[&delta, "--ostree-repo", repo.to_str().unwrap(), "--tag", mode]);
        assert_eq!(
            report["image"]["base_config"],
            case.old.config_digest().to_string(),
            "{mode}: {report:#}"
        );
        assert_eq!(report["image"]["config"], case.new.config_digest().to_string());
        assert_eq!(report["layers"][0]["action"], "fetched", "it is in no base of files");
        assert_eq!(report["layers"][1]["action"], "patched", "{mode}: {report:#}");
        case.sandbox.ok(&["verify"]);
        case.sandbox.ok(&["remove", mode]);
        case.sandbox.ok(&["gc"]);
        assert_eq!(fs::read_dir(&repo).unwrap().count(), before, "it is read only");
    }

    // For `bootc switch --transport oci`: what is here already stays away.
    let (repo, to) = (case.sandbox.path("bare.ostree"), case.sandbox.path("out"));
    let (delta, out) = (case.source.reference("delta"), format!("oci:{}", to.display()));
    let report = case.sandbox.json(&["apply", &delta, &out, "--ostree-repo", repo.to_str().unwrap()]);
    let actions: Vec<_> = report["layers"].as_array().unwrap().iter().map(|layer| &layer["action"]).collect();
    assert_eq!(actions, ["omitted", "patched"]);
    assert!(to.join("index.json").exists());
}

#[test]
fn what_a_repository_must_have() {
    let case = Case::new();
    case.sandbox.ok(&[&case.source.reference("new"), "--tag", "another"]);
    case.sandbox.ok(&["remove", "another"]);
    case.sandbox.ok(&["gc"]);

    case.refused(&case.sandbox.path("nowhere"), 1, "nowhere");
    case.refused(&case.root, 3, "no ostree repository");
    let other = case.repository("archive");
    case.refused(&other, 3, "(0 images)");
    let config = fs::read_to_string(other.join("config")).unwrap();
    fs::write(other.join("config"), config.replace("archive-z2", "bare-split-xattrs")).unwrap();
    case.refused(&other, 3, "core.mode is \"bare-split-xattrs\"");

    let repo = case.repository("bare-user");
    commit(&repo, &case.root, &[]);
    case.refused(&repo, 3, "has no ostree.manifest");
    commit(&repo, &case.root, &["--add-metadata-string=ostree.manifest={\"config\": 3}".to_owned()]);
    case.refused(&repo, 3, "not an image manifest");
    commit(&repo, &case.root, &manifest_of(&case.new));
    case.refused(&repo, 3, "(1 images)");
    fs::write(repo.join("refs/heads").join(REF), "nonsense\n").unwrap();
    case.refused(&repo, 3, "it names no commit");
    fs::write(repo.join("refs/heads").join(REF), "../../../etc/passwd\n").unwrap();
    case.refused(&repo, 3, "it names no commit");
}

#[test]
fn damaged_objects_are_told() {
    let case = Case::new();
    for mode in MODES {
        let repo = case.with_image(mode);
        let tool = &noise(2, 60_000);
        let object = match mode {
            "archive" => object(&repo, "filez", |bytes| bytes.len() > 55_000),
            _ => object(&repo, "file", |bytes| bytes.starts_with(tool)),
        };
        let name = object.file_stem().unwrap().to_str().unwrap();
        let mut bytes = fs::read(&object).unwrap();
        let at = bytes.len() - 500;
        bytes[at] ^= 1;
        fs::write(&object, bytes).unwrap();
        case.refused(&repo, 4, name);
        fs::remove_file(&object).unwrap();
        case.refused(&repo, 3, &format!("{name}.{} is missing", object.extension().unwrap().display()));
    }
    let repo = case.sandbox.path("bare-user.ostree");
    let table = object(&repo, "dirtree", |bytes| bytes.windows(4).any(|name| name == b"tool"));
    let mut bytes = fs::read(&table).unwrap();
    bytes[3] ^= 1;
    fs::write(&table, bytes).unwrap();
    case.refused(&repo, 4, ".dirtree is damaged: its checksum is");
    let table = object(&repo, "commit", |_| true);
    fs::write(&table, b"\0\0\0").unwrap();
    case.refused(&repo, 3, ".commit is damaged: its checksum is");
}

#[test]
fn a_delta_for_bootc_takes_what_ostree_keeps() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let data = noise(8, 200_000);
    let layers = |kept: &str, seed| {
        let content = [&data[..], &noise(seed, 700)].concat();
        let files: [(&str, &[u8]); 4] =
            [("etc/x", b"x"), ("opt/data.bin", &data), (kept, &content), ("var/y", b"y")];
        vec![Layer::gzip(tar(&files))]
    };
    let mut source = OciDir::create(&sandbox.path("source"));
    let (old, new) = (Image::for_bootc(layers("usr/a", 1)), Image::for_bootc(layers("usr/b", 2)));
    source.image("old", &old).image("new", &new);
    let root = unpacked(&sandbox, &old);
    let repo = sandbox.path("ostree");
    ostree(&repo, &["init", "--mode=bare-user"]);
    commit(&repo, &root, &manifest_of(&old));
    let repo = repo.to_str().unwrap();

    registry.push(&source.reference("new"), "os:2");
    let target = registry.reference("os:2");
    let make = |to: &str, whom: &str| {
        let (old, new) = (source.reference("old"), source.reference("new"));
        sandbox.ok(&["create", &old, &new, to, "--for", whom, "--tls-verify=false", "--insecure-policy"]);
    };
    let any = format!("oci:{}", sandbox.path("any").display());
    make(&any, "any");
    let report = sandbox.json(&[
        &target,
        "--delta",
        &any,
        "--ostree-repo",
        repo,
        "--tls-verify=false",
        "--insecure-policy",
    ]);
    assert_eq!(report["fallback_reason"], "patch-failed", "it copies opt/data.bin: {report:#}");
    sandbox.ok(&["remove", report["image"]["name"].as_str().unwrap()]);
    sandbox.ok(&["gc"]);

    // Found in the registry, for a base that is nowhere but in ostree.
    make(&registry.reference("os"), "auto");
    let report = sandbox.json(&[&target, "--ostree-repo", repo, "--tls-verify=false", "--insecure-policy"]);
    assert_eq!(report["layers"][0]["action"], "patched", "{report:#}");
    assert_eq!(report["image"]["config"], new.config_digest().to_string());
    sandbox.ok(&["verify"]);

    // From such a base to every place.
    let storage = Podman::new(sandbox.dir.path(), "storage", "vfs");
    let at = |name: &str| sandbox.path(name).display().to_string();
    let targets = [
        registry.reference("copied:2"),
        format!("oci:{}:x", at("layout")),
        format!("oci-archive:{}:x", at("archive")),
        format!("dir:{}", at("folder")),
        storage.reference("localhost/os:2"),
    ];
    for (number, place) in targets.iter().enumerate() {
        let own = at(&format!("own-{number}"));
        let words = [&target, "--repo", &own, "--to", place, "--delta-policy", "only", "--ostree-repo", repo];
        sandbox.ok(&[&words[..], &["--tls-verify=false", "--insecure-policy"]].concat());
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", place], sandbox.dir.path());
        assert_eq!(digest_of(raw.as_bytes()), new.manifest_digest(), "{place}");
    }
    let (name, own) = (target.trim_start_matches("docker://"), storage.reference(""));
    let words = [&target, "--repo", &own, "--delta-policy", "only", "--ostree-repo", repo];
    sandbox.ok(&[&words[..], &["--tls-verify=false", "--insecure-policy"]].concat());
    assert_eq!(storage.digest(name), new.manifest_digest().to_string());
}

/// What a manager of fleets has its server and its agents call, in its words.
#[test]
fn an_agent_applies_what_skopeo_copied() {
    let mut case = Case::new();
    case.source.image("old", &case.old);
    let (sandbox, registry) = (&case.sandbox, Registry::start());
    let at = |name: &str| sandbox.path(name).display().to_string();
    let oci_delta = |args: &[&str]| {
        let ended = ended(sandbox.oci_delta().args(args).output().unwrap());
        assert_eq!(ended.code, 0, "{args:?}: {ended:#?}");
    };
    let made = format!("oci:{}:img", at("made"));
    oci_delta(&["create", "--debug", &case.source.reference("old"), &case.source.reference("new"), &made]);
    let delta = registry.reference("os:delta");
    skopeo(&["copy", "--dest-tls-verify=false", &made, &delta], sandbox.dir.path());
    // By this the agent's search knows a delta for what it has.
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &delta], sandbox.dir.path());
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    let annotations = manifest["annotations"].as_object().unwrap();
    let source = annotations.iter().find(|(key, _)| key.ends_with("delta.source")).unwrap();
    assert_eq!(*source.1, case.old.manifest_digest().to_string());
    let (copied, out) = (format!("oci:{}", at("copied")), format!("oci:{}", at("out")));
    skopeo(&["copy", "--src-tls-verify=false", &delta, &copied], sandbox.dir.path());
    let repo = case.with_image("bare-user");
    oci_delta(&["apply", "--ostree-repo", repo.to_str().unwrap(), &copied, &out]);
    // What bootc switches to has the digest of the registry, which it is asked for next.
    let raw = skopeo(&["inspect", "--raw", &out], sandbox.dir.path());
    assert_eq!(digest_of(raw.as_bytes()), case.new.manifest_digest());
}
