//! The transport helper: clients of skopeo's image proxy that know nothing of us.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containers_image_proxy::{ImageProxy, ImageProxyConfig};
use oci_delta_fetch::digest::{Digest, digest_of};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use super::ostree::{commit, manifest_of, ostree};
use super::support::fake::FakeSkopeo;
use super::support::images::{noise, tree};
use super::support::relay::Relay;
use super::support::running::wait_for;
use super::support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

/// The program in a directory for PATH, under skopeo's name.
fn shim(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.path("shim");
    fs::create_dir_all(&dir).unwrap();
    let _ = symlink(env!("CARGO_BIN_EXE_oci-delta-fetch"), dir.join("skopeo"));
    dir
}

/// PATH with that before all else.
fn path(sandbox: &Sandbox) -> String {
    format!("{}:{}", shim(sandbox).display(), std::env::var("PATH").unwrap())
}

/// The program as a client starts it; what it says goes into the file `log`.
fn command(sandbox: &Sandbox) -> Command {
    let log = sandbox.path("log").display().to_string();
    let mut command = sandbox.limited(&format!("exec 2>>'{log}'"));
    command.env("TMPDIR", sandbox.path("spool"));
    fs::create_dir_all(sandbox.path("spool")).unwrap();
    command
}

/// What was logged.
fn events(sandbox: &Sandbox) -> Vec<Value> {
    let text = fs::read_to_string(sandbox.path("log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a client sees of an image through `command`: manifest, config and layers as blobs.
fn pulled(
    command: Command,
    reference: &str,
    image: &Image,
    is_raw: fn(usize) -> bool,
) -> Result<Vec<Vec<u8>>, String> {
    let mut config = ImageProxyConfig::default();
    config.skopeo_cmd = Some(command);
    config.insecure_skip_tls_verification = Some(true);
    config.auth_anonymous = true;
    Runtime::new().unwrap().block_on(async {
        let proxy = ImageProxy::new_with_config(config).await.map_err(|e| e.to_string())?;
        let opened = proxy.open_image(reference).await.map_err(|e| e.to_string())?;
        let (digest, manifest) = proxy.fetch_manifest_raw_oci(&opened).await.map_err(|e| e.to_string())?;
        assert_eq!(digest, image.manifest_digest().to_string());
        let mut all = vec![manifest];
        let blobs = [&image.config].into_iter().chain(image.layers.iter().map(|layer| &layer.blob));
        for (at, blob) in blobs.enumerate() {
            let (digest, size): (Digest, u64) = (digest_of(blob), blob.len() as u64);
            let mut bytes = Vec::new();
            if is_raw(at) {
                let (found, mut file, end) =
                    proxy.get_raw_blob(&opened, &digest).await.map_err(|e| e.to_string())?;
                assert_eq!(found, Some(size));
                file.read_to_end(&mut bytes).await.unwrap();
                end.await.map_err(|e| e.to_string())?;
            } else {
                let (reader, end) =
                    proxy.get_blob(&opened, &digest, size).await.map_err(|e| e.to_string())?;
                let mut reader = reader.take(size);
                let (read, ended) = tokio::join!(reader.read_to_end(&mut bytes), end);
                read.unwrap();
                ended.map_err(|e| e.to_string())?;
            }
            all.push(bytes);
        }
        proxy.close_image(&opened).await.map_err(|e| e.to_string())?;
        proxy.finalize().await.map_err(|e| e.to_string())?;
        Ok(all)
    })
}

fn assert_right(pulled: &[Vec<u8>], image: &Image) {
    let blobs =
        [&image.manifest, &image.config].into_iter().chain(image.layers.iter().map(|layer| &layer.blob));
    assert_eq!(pulled.len(), 2 + image.layers.len());
    assert!(pulled.iter().zip(blobs).all(|(found, expected)| found == expected));
}

#[test]
fn a_client_gets_all_that_skopeo_says_by_any_version_of_the_protocol() {
    let sandbox = Sandbox::new();
    let image = Image::new(vec![Layer::gzip(tree(&[("usr/a", &noise(1, 900_000))]))]);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("os", &image);

    let found = pulled(command(&sandbox), &dir.reference("os"), &image, |_| false).unwrap();
    assert_right(&found, &image);
    let absent = pulled(command(&sandbox), &dir.reference("absent"), &image, |_| false).unwrap_err();
    assert!(absent.contains("absent"), "in skopeo's words: {absent}");

    type HasRaw = fn(usize) -> bool;
    let versions: [(_, HasRaw); 2] = [("0.2.3", |_| false), ("0.2.8", |_| true)];
    for (protocol, is_raw) in versions {
        let fake = FakeSkopeo::new(&sandbox.path("source"), protocol, "", 0);
        let mut command = command(&sandbox);
        command.env("OCI_DELTA_FETCH_SKOPEO", fake.program());
        let found = pulled(command, &dir.reference("os"), &image, is_raw).unwrap();
        assert_right(&found, &image);
        assert!(fake.record("args")[0].contains("experimental-image-proxy"), "{:?}", fake.record("args"));
        fake.assert_gone();
    }
}

#[test]
fn under_the_name_of_skopeo_it_is_skopeo() {
    let sandbox = Sandbox::new();
    let run = |path: &str, args: &[&str]| {
        let mut command = Command::new(shim(&sandbox).join("skopeo"));
        command.args(args).env("PATH", path).env("HOME", sandbox.path("home")).stdin(Stdio::null());
        command.output().unwrap()
    };
    let real = Command::new("skopeo").arg("--version").output().unwrap();
    let ours = run(&path(&sandbox), &["--version"]);
    assert_eq!(ours.stdout, real.stdout);
    let ours = run(&path(&sandbox), &["experimental-image-proxy", "--help"]);
    assert!(String::from_utf8_lossy(&ours.stdout).contains("--sockfd"), "no client is there: {ours:?}");
    let code = Command::new("skopeo").args(["copy", "nonsense"]).output().unwrap().status.code();
    assert_eq!(run(&path(&sandbox), &["copy", "nonsense"]).status.code(), code);

    let alone = run(&shim(&sandbox).display().to_string(), &["--version"]);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("no skopeo on PATH beside this"), "{alone:?}");
    let circle = sandbox.path("circle");
    fs::create_dir(&circle).unwrap();
    let script = format!("#!/bin/sh\nexec {}/skopeo \"$@\"\n", shim(&sandbox).display());
    fs::write(circle.join("skopeo"), script).unwrap();
    Command::new("chmod").arg("+x").arg(circle.join("skopeo")).status().unwrap();
    let lost = run(&format!("{}:/bin", circle.display()), &["--version"]);
    assert!(String::from_utf8_lossy(&lost.stderr).contains("leads back to this program"), "{lost:?}");
}

#[test]
fn whoever_is_killed_the_others_end() {
    let sandbox = Sandbox::new();
    let image = Image::new(vec![Layer::gzip(tree(&[("usr/a", b"a")]))]);
    OciDir::create(&sandbox.path("source")).image("os", &image);
    let kill = |pid: &str| assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    for victim in ["skopeo", "helper"] {
        let fake = FakeSkopeo::new(&sandbox.path("source"), "0.2.3", "stall-open", u64::MAX);
        let mut command = command(&sandbox);
        command.env("OCI_DELTA_FETCH_SKOPEO", fake.program());
        let client = std::thread::spawn({
            let reference = format!("oci:{}:os", sandbox.path("source").display());
            let image = image.clone();
            move || pulled(command, &reference, &image, |_| false)
        });
        wait_for("skopeo to be asked", || !fake.record("pids").is_empty());
        let skopeo = fake.record("pids")[0].clone();
        let stat = fs::read_to_string(format!("/proc/{skopeo}/stat")).unwrap();
        let helper = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
        kill(if victim == "skopeo" { &skopeo } else { &helper });
        client.join().unwrap().unwrap_err();
        fake.assert_gone();
        wait_for("the helper to end", || !Path::new(&format!("/proc/{helper}/exe")).exists());
    }
}

/// A registry with two releases and a delta between them.
struct Case {
    sandbox: Sandbox,
    source: OciDir,
    registry: Registry,
    old: Image,
    new: Image,
}

impl Case {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let release = |seed| {
            let file = [noise(7, 2_000_000), noise(seed, 500)].concat();
            // Layers that any recipe is for, and that composefs takes.
            Image::new(vec![
                Layer::gzip(tree(&[("usr/lib/stays", &noise(1, 300_000))])),
                Layer::plain(tree(&[("usr/lib/grows", &file)])),
            ])
        };
        let (old, new) = (release(2), release(3));
        let mut source = OciDir::create(&sandbox.path("source"));
        source.image("old", &old).image("new", &new);
        let registry = Registry::start();
        registry.push(&source.reference("new"), "os:2");
        Case { sandbox, source, registry, old, new }
    }

    fn publish(&mut self, delta: &Delta) {
        self.source.delta("delta", delta);
        let (delta, os) = (self.source.reference("delta"), self.registry.reference("os"));
        self.sandbox.ok(&["push", &delta, &os, "--tls-verify=false", "--insecure-policy"]);
    }

    fn have_old(&self) {
        self.sandbox.ok(&[&self.source.reference("old"), "--tag", "old"]);
    }

    /// Pulls `os:2`; how many bytes came from the registry.
    fn pull(&self, command: Command) -> u64 {
        self.pull_by(command, |_| false)
    }

    /// The same, some of the blobs by the newer of the two methods.
    fn pull_by(&self, command: Command, is_raw: fn(usize) -> bool) -> u64 {
        let relay = Relay::to(&self.registry.address);
        let found = pulled(command, &relay.reference("os:2"), &self.new, is_raw).unwrap();
        assert_right(&found, &self.new);
        let spool = fs::read_dir(self.sandbox.path("spool")).unwrap().count();
        assert_eq!(spool, 0, "nothing is left");
        relay.take().1
    }

    fn command(&self) -> Command {
        command(&self.sandbox)
    }

    fn events(&self) -> Vec<Value> {
        events(&self.sandbox)
    }
}

#[test]
fn a_layer_comes_from_a_delta_and_the_client_sees_no_difference() {
    let mut case = Case::new();
    let layer = case.new.layers[1].blob.len() as u64;
    let plain = case.pull(case.command());
    assert!(plain > layer, "without a base");
    case.have_old();
    assert!(case.pull(case.command()) > layer, "without a delta");
    assert!(case.events().iter().all(|event| event["event"] != "delta-answer"));

    case.publish(&Delta::new(&case.old, &case.new));
    let bytes = case.pull(case.command());
    assert!(bytes < plain - layer + 50_000, "{bytes} of {plain}");
    let events = case.events();
    let answer = events.iter().find(|event| event["event"] == "delta-answer").unwrap();
    assert_eq!(answer["blob"], digest_of(&case.new.layers[1].blob).to_string());
    assert_eq!(answer["bytes"], layer);
    assert!(answer["saved_bytes"].as_u64().unwrap() > layer - 50_000, "{answer}");

    // The older skopeo does not know this method, so it is not skopeo who answers.
    assert!(case.pull_by(case.command(), |at| at == 2) < plain - layer + 50_000);

    // By the name of skopeo, which our own requests must not find.
    let mut by_name = Command::new("sh");
    let log = case.sandbox.path("log").display().to_string();
    by_name
        .args(["-c", &format!("exec skopeo \"$@\" 2>>'{log}'"), "sh"])
        .envs(case.command().get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))));
    by_name.env("PATH", path(&case.sandbox));
    assert!(case.pull(by_name) < plain - layer + 50_000);
}

#[test]
fn the_base_may_be_in_ostree() {
    let mut case = Case::new();
    case.publish(&Delta::new(&case.old, &case.new));
    let (root, repo) = (case.sandbox.path("root"), case.sandbox.path("ostree"));
    for layer in &case.old.layers {
        tar::Archive::new(&layer.tar[..]).unpack(&root).unwrap();
    }
    ostree(&repo, &["init", "--mode=bare-user"]);
    commit(&repo, &root, &manifest_of(&case.old));
    let mut command = case.command();
    command.env("OCI_DELTA_FETCH_OSTREE_REPO", &repo);
    assert!(case.pull(command) < case.new.layers[1].blob.len() as u64);
}

#[test]
fn a_delta_that_is_wrong_is_not_noticed() {
    let mut case = Case::new();
    case.have_old();
    let mut delta = Delta::new(&case.old, &case.new);
    // It makes another file.
    let wrong = Delta::new(&case.old, &Image::new(vec![Layer::plain(tree(&[("usr/x", &noise(9, 9_000))]))]));
    let patch = wrong.blobs.iter().find(|blob| blob.starts_with(b"tardf1")).unwrap();
    let at = delta.blobs.iter().position(|blob| blob.starts_with(b"tardf1")).unwrap();
    let entry = super::support::images::descriptor(super::support::images::TAR_DIFF, patch);
    for field in ["digest", "size"] {
        delta.manifest["layers"][at][field] = entry[field].clone();
    }
    delta.blobs[at] = patch.clone();
    case.publish(&delta);
    assert!(case.pull(case.command()) > case.new.layers[1].blob.len() as u64);
    let events = case.events();
    assert!(events.iter().any(|event| event["event"] == "delta-fallback"), "{events:?}");
}

#[cfg(feature = "composefs")]
#[test]
fn a_composefs_client_asks_for_no_layer() {
    use super::support::cfsctl;
    let mut case = Case::new();
    case.publish(&Delta::new(&case.old, &case.new));
    let repo = case.sandbox.path("composefs");
    cfsctl::init(&repo, "sha512");
    cfsctl::cfsctl(&repo, &["oci", "pull", &case.source.reference("old"), "old"]);
    let relay = Relay::to(&case.registry.address);
    let home = case.sandbox.path("home");
    fs::create_dir_all(home.join(".config/containers")).unwrap();
    let registries = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", relay.address);
    fs::write(home.join(".config/containers/registries.conf"), registries).unwrap();
    let mut pull = Command::new(cfsctl::program());
    pull.arg("--repo").arg(&repo).args(["oci", "pull", &relay.reference("os:2"), "new"]);
    pull.env("HOME", &home).env("XDG_RUNTIME_DIR", &home).env("NO_PROXY", "127.0.0.1");
    pull.env("OCI_DELTA_FETCH_REPO", format!("composefs:{}", repo.display()))
        .env("PATH", path(&case.sandbox));
    let output = pull.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(relay.take().1 < 100_000, "all layers were there: {output:?}");
    cfsctl::fsck(&repo);
    let manifest = cfsctl::cfsctl(&repo, &["oci", "inspect", "--manifest", "new"]);
    assert_eq!(manifest.trim_ascii_end(), case.new.manifest);
}
