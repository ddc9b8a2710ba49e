//! Any process of a pull is killed in the middle of it: the others end, what is stored is right, and the next pull goes well.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};

use super::offer::Case;
use super::support::client::{Client, Reply};
use super::support::images::{noise, tree};
use super::support::podman::{any_image, mirrored};
use super::support::relay::{Fault, Relay};
use super::support::running::{Running, SOON, children, kill, wait_for, wait_for_end_of};
use super::support::{Image, Layer, Registry};

/// A layer that stays, and one with news: each takes a while over a slow line.
fn version(n: u8) -> Image {
    let layer = |path, data: &[u8]| Layer::plain(tree(&[(path, data)]));
    let file = [noise(7, 800_000), noise(n.into(), 500_000)].concat();
    Image::new(vec![layer("usr/lib/stays", &noise(1, 600_000)), layer("usr/lib/grows", &file)])
}

/// A registry behind a line that may be slow.
struct Line {
    case: Case,
    relay: Relay,
    is_slow: Arc<AtomicBool>,
}

impl Line {
    fn new() -> Self {
        let case = Case::of(version, Registry::start(), &[]);
        let is_slow = Arc::new(AtomicBool::new(true));
        let slow = is_slow.clone();
        let fault = move |_| if slow.load(Ordering::SeqCst) { Fault::Slow } else { Fault::None };
        let relay = Relay::faulty(&case.registry.address, fault);
        Line { case, relay, is_slow }
    }

    /// Of connections that begin from now on.
    fn slow(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::SeqCst);
        self.relay.take();
    }

    fn waits_for(&self, bytes: u64) {
        wait_for("bytes of layers", || self.relay.bytes() > bytes);
    }

    /// Layers as the manifest lists them: digest and size.
    fn layers(&self) -> [(String, u64); 2] {
        let manifest: Value = serde_json::from_str(&self.case.manifest).unwrap();
        [0, 1].map(|at| {
            let layer = &manifest["layers"][at];
            (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())
        })
    }

    fn digest(&self) -> String {
        digest_of(self.case.manifest.as_bytes()).to_string()
    }
}

/// Waits for its end; did it go well?
fn ends(mut child: Child) -> bool {
    let started = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        assert!(started.elapsed() < SOON, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_pull_through_the_mirror() {
    let line = Line::new();
    let dir = line.case.sandbox.dir.path();
    let (policy, name) = (any_image(dir), format!("{}/os:2", line.relay.address));
    let serve = || {
        let mut command = line.case.sandbox.command();
        let mut running =
            Running::start(command.args(["serve", "--listen", "127.0.0.1:0", "--tls-verify=false"]));
        let said = running.wait_for_line("serving on ");
        let conf = mirrored(dir, &line.relay.address, said.trim().trim_start_matches("serving on "));
        (running, conf)
    };
    let podman = |storage: &str, conf: &Path, args: &[&str]| {
        let dir = dir.join(storage);
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("podman");
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command.args(["--storage-driver", "vfs"]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env("CONTAINERS_REGISTRIES_CONF", conf).env("HOME", &dir).env("XDG_RUNTIME_DIR", &dir);
        command.env("NO_PROXY", "127.0.0.1").spawn().expect("this test needs podman; `make test` installs it")
    };
    let pull = ["pull", "-q", "--signature-policy", &policy, &name];
    let is_right = |storage: &str, conf: &Path| {
        let inspect = podman(storage, conf, &["image", "inspect", "--format", "{{.Digest}}", &name]);
        let found = String::from_utf8(inspect.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(found.trim(), line.digest());
    };

    // The mirror goes: podman gets its image from the registry, or says that it does not.
    let (mirror, conf) = serve();
    let pulling = podman("first", &conf, &pull);
    line.waits_for(300_000);
    line.slow(false);
    mirror.signal("KILL");
    ends(pulling);
    let (mirror, conf) = serve();
    assert!(ends(podman("first", &conf, &pull)));
    is_right("first", &conf);
    mirror.signal("TERM");
    mirror.end();

    // Podman goes.
    fs::remove_dir_all(dir.join(".cache")).unwrap();
    line.slow(true);
    let (mirror, conf) = serve();
    let pulling = podman("second", &conf, &pull);
    line.waits_for(300_000);
    kill(&[pulling.id()]);
    assert!(!ends(pulling));
    assert!(ends(podman("second", &conf, &pull)));
    is_right("second", &conf);
    mirror.signal("TERM");
    assert_eq!(mirror.end().code, 0);
    let kept =
        files_below(&dir.join(".cache")).into_iter().filter(|path| path.parent().unwrap().ends_with("blobs"));
    let kept: Vec<PathBuf> = kept.collect();
    assert!(!kept.is_empty());
    for path in kept {
        assert_eq!(
            digest_of(&fs::read(&path).unwrap()).digest(),
            path.file_name().unwrap().to_str().unwrap()
        );
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    super::support::gap::files_below(dir).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn a_pull_through_the_helper() {
    let line = Line::new();
    let spool = line.case.sandbox.path("spool");
    fs::create_dir(&spool).unwrap();
    let left = || fs::read_dir(&spool).unwrap().count();
    let start = || {
        let mut command = line.case.sandbox.command();
        command.args(["experimental-image-proxy", "--tls-verify=false"]).env("TMPDIR", &spool);
        command.stderr(Stdio::null());
        let client = Client::start(command);
        let image = client.open(&line.relay.reference("os:2"));
        (client, image)
    };
    let [stays, changed] = line.layers();
    let ask = |client: &Client, image: u64, (digest, size): &(String, u64)| {
        client.try_ask("GetBlob", json!([image, digest, size]))
    };
    // In the middle of a layer that skopeo gives.
    for victim in ["skopeo", "helper", "client"] {
        let (mut client, image) = start();
        let Reply { pipe, files, .. } = ask(&client, image, &stays).unwrap();
        let [mut file] = <[File; 1]>::try_from(files).unwrap();
        file.read_exact(&mut [0; 100_000]).unwrap();
        let skopeo = children(client.proxy.id());
        match victim {
            "skopeo" => kill(&skopeo),
            "helper" => client.proxy.kill().unwrap(),
            _ => {
                drop(file);
                client.vanish();
                wait_for_end_of(&skopeo);
                assert_eq!(left(), 0);
                continue;
            }
        }
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert!(100_000 + (rest.len() as u64) < stays.1, "{victim}");
        let end = client.try_ask("FinishPipe", json!([pipe]));
        assert!(end.is_none_or(|end| !end.error.is_empty()), "{victim}");
        client.vanish();
        wait_for_end_of(&skopeo);
        assert_eq!(left(), usize::from(victim == "helper"));
    }
    // While a layer is made from a delta.
    for victim in ["skopeo", "helper"] {
        let (client, image) = start();
        line.relay.take();
        let (reply, skopeo) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&client, image, &changed));
            line.waits_for(100_000);
            let skopeo = children(client.proxy.id());
            match victim {
                "skopeo" => kill(&skopeo),
                _ => kill(&[client.proxy.id()]),
            }
            (asked.join().unwrap(), skopeo)
        });
        // What comes all the same is right.
        if let Some(Reply { pipe, files, .. }) = reply.filter(|reply| reply.error.is_empty()) {
            let [mut file] = <[File; 1]>::try_from(files).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let end = client.try_ask("FinishPipe", json!([pipe]));
            let is_right = digest_of(&bytes).to_string() == changed.0;
            assert!(is_right || end.is_none_or(|end| !end.error.is_empty()), "{victim}");
        }
        client.vanish();
        wait_for_end_of(&skopeo);
    }
    // The next one gets all of it, and takes away what is left.
    line.slow(false);
    let (client, image) = start();
    for layer in [&stays, &changed] {
        let bytes = client.read(ask(&client, image, layer).unwrap());
        assert_eq!(digest_of(&bytes).to_string(), layer.0);
    }
    assert_eq!(client.vanish(), Some(0));
    assert_eq!(left(), 0);
}

#[cfg(feature = "composefs")]
#[test]
fn a_composefs_repository_that_is_filled() {
    use super::support::cfsctl;
    let line = Line::new();
    let sandbox = &line.case.sandbox;
    let home = sandbox.path("home");
    fs::create_dir_all(home.join(".config/containers")).unwrap();
    let registries = [&line.relay.address, &line.case.registry.address]
        .map(|at| format!("[[registry]]\nlocation = \"{at}\"\ninsecure = true\n"));
    fs::write(home.join(".config/containers/registries.conf"), registries.concat()).unwrap();
    let pull = |repo: &Path, reference: &str| {
        let mut pull = Command::new(cfsctl::program());
        pull.arg("--repo").arg(repo).args(["oci", "pull", reference, "os"]);
        pull.env("HOME", &home).env("XDG_RUNTIME_DIR", &home).env("NO_PROXY", "127.0.0.1");
        pull.env("OCI_DELTA_FETCH_REPO", format!("composefs:{}", repo.display()));
        pull.env("PATH", super::helper::path(sandbox)).stdout(Stdio::null()).stderr(Stdio::null());
        pull.spawn().unwrap()
    };
    for victim in ["helper", "skopeo", "client"] {
        let repo = sandbox.path(victim);
        cfsctl::init(&repo, "sha512");
        assert!(ends(pull(&repo, &line.case.registry.reference("os:1"))));
        line.slow(true);
        let pulling = pull(&repo, &line.relay.reference("os:2"));
        line.waits_for(200_000);
        let helper = children(pulling.id());
        let skopeo: Vec<u32> = helper.iter().flat_map(|helper| children(*helper)).collect();
        assert_eq!(helper.len(), 1);
        line.slow(false);
        match victim {
            "helper" => kill(&helper),
            "skopeo" => kill(&skopeo),
            _ => kill(&[pulling.id()]),
        }
        ends(pulling);
        wait_for_end_of(&[helper, skopeo].concat());
        cfsctl::fsck(&repo);
        assert!(ends(pull(&repo, &line.relay.reference("os:2"))));
        cfsctl::fsck(&repo);
        let manifest = cfsctl::cfsctl(&repo, &["oci", "inspect", "--manifest", "os"]);
        assert_eq!(String::from_utf8(manifest.trim_ascii_end().to_vec()).unwrap(), line.case.manifest);
    }
}
