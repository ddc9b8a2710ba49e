//! The transport helper: clients of skopeo's image proxy that know nothing of us.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containers_image_proxy::{ImageProxy, ImageProxyConfig};
use oci_delta_fetch::digest::{Digest, digest_of};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use super::ostree::{commit, manifest_of, ostree};
use super::support::client::{Client, Reply};
use super::support::fake::FakeSkopeo;
use super::support::images::{noise, tree};
use super::support::podman::Podman;
use super::support::registry::skopeo;
use super::support::relay::Relay;
use super::support::running::{children, wait_for, wait_for_end_of};
use super::support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

/// The program in a directory for PATH, under skopeo's name.
fn shim(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.path("shim");
    fs::create_dir_all(&dir).unwrap();
    let _ = symlink(env!("CARGO_BIN_EXE_oci-delta-fetch"), dir.join("skopeo"));
    dir
}

/// PATH with that before all else.
pub fn path(sandbox: &Sandbox) -> String {
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
    /// One whose changed layer any recipe is for, and composefs takes.
    fn new() -> Self {
        Self::with(Layer::plain, 500)
    }

    /// One whose changed layer is kept so, and has so much that is new.
    fn with(keep: fn(Vec<u8>) -> Layer, news: usize) -> Self {
        let sandbox = Sandbox::new();
        let release = |seed| {
            let file = [noise(7, 2_000_000), noise(seed, news)].concat();
            Image::new(vec![
                Layer::gzip(tree(&[("usr/lib/stays", &noise(1, 300_000))])),
                keep(tree(&[("usr/lib/grows", &file)])),
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

    /// The changed layer, as a client asks for it.
    fn changed(&self) -> (String, u64) {
        let blob = &self.new.layers[1].blob;
        (digest_of(blob).to_string(), blob.len() as u64)
    }

    /// The old image in ostree, the way the system has it.
    fn have_old_in_ostree(&self) -> PathBuf {
        let (root, repo) = (self.sandbox.path("root"), self.sandbox.path("ostree"));
        for layer in &self.old.layers {
            tar::Archive::new(&layer.tar[..]).unpack(&root).unwrap();
        }
        ostree(&repo, &["init", "--mode=bare-user"]);
        commit(&repo, &root, &manifest_of(&self.old));
        repo
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
fn the_base_may_be_in_ostree_or_in_podmans_storage() {
    let mut case = Case::new();
    case.publish(&Delta::new(&case.old, &case.new));
    let mut command = case.command();
    command.env("OCI_DELTA_FETCH_OSTREE_REPO", case.have_old_in_ostree());
    assert!(case.pull(command) < case.changed().1);

    let podman = Podman::new(case.sandbox.dir.path(), "storage", "vfs");
    let old = case.source.reference("old");
    skopeo(&["copy", "--quiet", &old, &podman.reference("old")], case.sandbox.dir.path());
    let conf = case.sandbox.path("storage.conf");
    let text = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
        podman.root,
        case.sandbox.path("run")
    );
    fs::write(&conf, text).unwrap();
    let mut command = case.command();
    command.env("CONTAINERS_STORAGE_CONF", conf);
    assert!(case.pull(command) < case.changed().1);
}

#[test]
fn a_client_over_ostree_gets_any_encoding_of_a_layer_that_cannot_be_exact() {
    type Kind = (fn(Vec<u8>) -> Layer, &'static [u8]);
    let kinds: [Kind; 2] = [(Layer::gzip, &[0x1f, 0x8b]), (Layer::zstd, &[0x28, 0xb5, 0x2f, 0xfd])];
    for (keep, magic) in kinds {
        let mut case = Case::with(keep, 500);
        // Without recipes.
        case.publish(&Delta::new(&case.old, &case.new));
        let repo = case.have_old_in_ostree();
        let relay = Relay::to(&case.registry.address);
        let (digest, size) = case.changed();
        let pull = |open: fn(&Client, &str) -> u64, method| {
            let mut command = case.command();
            command.arg("experimental-image-proxy").arg("--tls-verify=false");
            command.env("OCI_DELTA_FETCH_OSTREE_REPO", &repo);
            let client = Client::start(command);
            let image = open(&client, &relay.reference("os:2"));
            let reply = client.ask(method, json!([image, digest, size]));
            let bytes = client.read(reply);
            assert_eq!(client.vanish(), Some(0));
            (bytes, relay.take().1)
        };
        let (bytes, came) = pull(Client::open_for_ostree, "GetBlob");
        assert!(came < size / 10, "{came} of {size}");
        assert!(bytes.starts_with(magic) && bytes != case.new.layers[1].blob);
        assert_eq!(unpacked(&bytes), case.new.layers[1].tar);
        let answer = case.events().into_iter().find(|event| event["event"] == "delta-answer").unwrap();
        assert_eq!(answer["is_exact"], false);
        // Others, of whom it is not known, get what was published.
        let (bytes, came) = pull(Client::open, "GetBlob");
        assert!(came > size && bytes == case.new.layers[1].blob, "{came}");
    }
}

fn unpacked(blob: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    match blob.starts_with(&[0x1f, 0x8b]) {
        true => flate2::read::GzDecoder::new(blob).read_to_end(&mut tar).map(drop).unwrap(),
        false => zstd::stream::copy_decode(blob, &mut tar).unwrap(),
    }
    tar
}

#[test]
fn blobs_in_any_order_several_at_once_twice_and_closed_early() {
    let mut case = Case::new();
    case.have_old();
    case.publish(&Delta::new(&case.old, &case.new));
    let start = || {
        let mut command = case.command();
        command.arg("experimental-image-proxy").arg("--tls-verify=false");
        Client::start(command)
    };
    let client = start();
    let image = client.open(&case.registry.reference("os:2"));
    let ask = |client: &Client, method, blob: &[u8]| {
        client.ask(method, json!([image, digest_of(blob).to_string(), blob.len()]))
    };
    let [stays, changed] = [0, 1].map(|at| &case.new.layers[at].blob[..]);
    let wanted = [(changed, "GetBlob"), (stays, "GetBlob"), (changed, "GetRawBlob"), (changed, "GetBlob")];
    let replies = wanted.map(|(blob, method)| ask(&client, method, blob));
    let sizes: Vec<usize> = wanted.iter().map(|(blob, _)| blob.len()).collect();
    let read = |mut reply: Reply, size: usize| {
        let mut bytes = vec![0; size];
        reply.files[0].read_exact(&mut bytes).unwrap();
        (reply, digest_of(&bytes))
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = replies
            .into_iter()
            .zip(sizes)
            .map(|(reply, size)| scope.spawn(move || read(reply, size)))
            .collect();
        for (reader, (blob, method)) in readers.into_iter().zip(wanted).rev() {
            let (mut reply, digest) = reader.join().unwrap();
            assert_eq!(digest, digest_of(blob));
            match method {
                "GetRawBlob" => {
                    let mut fault = String::new();
                    reply.files[1].read_to_string(&mut fault).unwrap();
                    assert_eq!(fault, "");
                }
                _ => drop(client.ask("FinishPipe", json!([reply.pipe]))),
            }
        }
    });
    // One that is closed early says so, and does no harm.
    let Reply { pipe, files, .. } = ask(&client, "GetBlob", changed);
    drop(files);
    let end = client.try_ask("FinishPipe", json!([pipe])).unwrap();
    assert!(end.error.ends_with("broken pipe"), "{end:?}");
    assert!(client.try_ask("FinishPipe", json!([pipe])).is_none_or(|again| !again.error.is_empty()));
    assert_eq!(case.events().iter().filter(|event| event["event"] == "delta-answer").count(), 4);
    client.vanish();
    assert_eq!(fs::read_dir(case.sandbox.path("spool")).unwrap().count(), 0, "nothing is left");

    // Killed in the middle, it gives no end that looks well.
    let mut client = start();
    client.open(&case.registry.reference("os:2"));
    let Reply { pipe, files, .. } = ask(&client, "GetBlob", changed);
    let [mut file] = <[File; 1]>::try_from(files).unwrap();
    let skopeo = children(client.proxy.id());
    assert!(!skopeo.is_empty());
    client.proxy.kill().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() < changed.len());
    assert!(client.try_ask("FinishPipe", json!([pipe])).is_none());
    wait_for_end_of(&skopeo);
    client.vanish();
}

#[test]
fn an_update_costs_what_fetch_costs() {
    let mut case = Case::with(Layer::plain, 700_000);
    case.have_old();
    case.publish(&Delta::new(&case.old, &case.new));
    let relay = Relay::to(&case.registry.address);
    let repo = case.sandbox.path("other");
    let repo = ["--repo", repo.to_str().unwrap()];
    case.sandbox.ok(&[&[&*case.source.reference("old"), "--tag", "old"], &repo[..]].concat());
    let remote = ["--tls-verify=false", "--insecure-policy"];
    case.sandbox.ok(&[&[&*relay.reference("os:2")], &repo[..], &remote].concat());
    let (_, fetched) = relay.take();
    assert!(fetched > 700_000);
    let mut command = case.command();
    command.arg("experimental-image-proxy").arg("--tls-verify=false");
    let client = Client::start(command);
    let image = client.open(&relay.reference("os:2"));
    let (digest, size) = case.changed();
    client.read(client.ask("GetBlob", json!([image, digest, size])));
    let (_, bytes) = relay.take();
    assert!(bytes * 100 <= fetched * 101, "{bytes} instead of {fetched}");
    client.vanish();
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
