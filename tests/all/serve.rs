//! The mirror: real engines pull through it from a real registry, and others do what they should not.

use crate::offer::{Case, version};
use crate::ostree::{commit, ostree};
use crate::support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::images::{noise, tree};
use support::podman::{Podman, any_image, mirrored};
use support::registry::{CREDS, skopeo};
use support::relay::{Fault, Relay};
use support::running::Running;
use support::{Guard, Image, Layer, Registry};

/// A mirror in front of a registry whose requests are seen.
struct Mirror {
    case: Case,
    relay: Relay,
    seen: Arc<Mutex<Vec<String>>>,
    running: Running,
    address: String,
}

impl Mirror {
    fn new(case: Case) -> Self {
        Self::with(case, |_, _| {})
    }

    fn with(case: Case, set: impl FnOnce(&Case, &mut Command)) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = seen.clone();
        let watch = move |request: &str| {
            notes.lock().unwrap().extend(request.lines().next().map(str::to_owned));
            None
        };
        let relay = Relay::watched(&case.registry.address, |_| Fault::None, watch);
        let mut command = case.sandbox.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--tls-verify=false"]);
        set(&case, &mut command);
        let mut running = Running::start(&mut command);
        let line = running.wait_for_line("serving on ");
        let address = line.trim().trim_start_matches("serving on ").to_owned();
        Mirror { case, relay, seen, running, address }
    }

    fn blob(&self) -> String {
        format!("/v2/{}/os/blobs/{}", self.relay.address, self.case.changed().0)
    }

    fn manifest(&self) -> String {
        format!("/v2/{}/os/manifests/2", self.relay.address)
    }

    /// Asks with these further header lines, and reads all of the answer.
    fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";
        let text = format!("{method} {path} HTTP/1.1\r\n{host}{accept}Connection: close\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        Answer::read(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    /// Downloads of the changed layer from the registry.
    fn downloads(&self) -> usize {
        let end = format!("/v2/os/blobs/{} HTTP/1.1", self.case.changed().0);
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.starts_with("GET ") && line.ends_with(&end))
            .count()
    }

    /// Ends it, and gives the lines of its log.
    fn end(self) -> Vec<Value> {
        self.running.signal("TERM");
        let ended = self.running.end();
        assert_eq!(ended.code, 0, "{ended:#?}");
        let lines = ended.stderr.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // One that is cut ends as well.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Answer { status, head: head.to_lowercase(), body: bytes.get(end + 4..).unwrap_or_default().to_vec() }
    }
}

/// Podman or buildah with its own storage, which asks the mirror first.
fn engine(name: &str, mirror: &Mirror, args: &[&str]) -> String {
    let dir = mirror.case.sandbox.path(name);
    fs::create_dir_all(&dir).unwrap();
    let output = Command::new(name)
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--runroot")
        .arg(dir.join("run"))
        .args(["--storage-driver", "vfs"])
        .args(args)
        .env("CONTAINERS_REGISTRIES_CONF", registries_conf(mirror))
        .env("HOME", &dir)
        .env("XDG_RUNTIME_DIR", &dir)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap_or_else(|e| panic!("this test needs {name}; `make test` installs it: {e}"));
    assert!(output.status.success(), "{args:?}: {output:#?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What leads container engines to the mirror.
fn registries_conf(mirror: &Mirror) -> PathBuf {
    mirrored(mirror.case.sandbox.dir.path(), &mirror.relay.address, &mirror.address)
}

/// A policy that takes every image.
fn policy(mirror: &Mirror) -> String {
    any_image(mirror.case.sandbox.dir.path())
}

/// With news enough that heads of answers are few bytes beside them.
fn with_news(n: u8) -> Image {
    let layer = |path, data: &[u8]| Layer::plain(tree(&[(path, data)]));
    let file = [noise(7, 1_500_000), noise(n.into(), 700_000)].concat();
    Image::new(vec![layer("usr/lib/stays", &noise(1, 100_000)), layer("usr/lib/grows", &file)])
}

#[test]
fn podman_pulls_an_update_by_its_delta_and_does_not_know() {
    let mirror = Mirror::new(Case::of(with_news, Registry::start(), &[]));
    let policy = policy(&mirror);
    let name = |n: u8| format!("{}/os:{n}", mirror.relay.address);
    let pull = |n: u8| engine("podman", &mirror, &["pull", "-q", "--signature-policy", &policy, &name(n)]);
    pull(1);
    mirror.relay.take();
    pull(2);
    let (_, bytes) = mirror.relay.take();
    let digest = engine("podman", &mirror, &["image", "inspect", "--format", "{{.Digest}}", &name(2)]);
    assert_eq!(digest, digest_of(mirror.case.manifest.as_bytes()).to_string());
    assert_eq!(mirror.downloads(), 0, "{:#?}", mirror.seen.lock().unwrap());

    let fetched = mirror.case.sandbox.json(&[
        &*format!("docker://{}", name(2)),
        "--tls-verify=false",
        "--insecure-policy",
    ]);
    let (_, plain) = mirror.relay.take();
    assert_eq!(fetched["layers"][1]["action"], "patched");
    assert!(plain > 700_000 && bytes * 100 <= plain * 101, "{bytes} instead of {plain}");

    let (layer, size) = mirror.case.changed();
    let lines = mirror.end();
    let line = lines.iter().find(|line| line["layer"] == layer.to_string()).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["image", "layer", "bytes_sent", "bytes_fetched", "chain", "seconds", "fallback", "message"]
    );
    assert_eq!(
        (&line["bytes_sent"], &line["chain"], &line["fallback"]),
        (&json!(size), &json!(1), &Value::Null)
    );
    assert!(line["image"].as_str().unwrap().ends_with(&digest), "{line}");
    let fetched = line["bytes_fetched"].as_u64().unwrap();
    assert!(fetched > 700_000 && fetched < size / 2, "{line}");
}

#[test]
fn skopeo_and_buildah_pull_an_update_by_its_delta() {
    let mirror = Mirror::new(Case::new());
    let policy = policy(&mirror);
    let (_, size) = mirror.case.changed();
    let name = |n: u8| format!("{}/os:{n}", mirror.relay.address);
    let to = mirror.case.sandbox.path("copied");
    let copy = |n: u8| {
        let (from, to) = (format!("docker://{}", name(n)), format!("oci:{}", to.display()));
        let conf = registries_conf(&mirror).display().to_string();
        skopeo(&["--registries-conf", &conf, "copy", "--quiet", &from, &to], mirror.case.sandbox.dir.path());
    };
    copy(1);
    mirror.relay.take();
    copy(2);
    assert!(mirror.relay.take().1 < size / 10);
    let manifest = to.join("blobs/sha256").join(digest_of(mirror.case.manifest.as_bytes()).digest());
    assert_eq!(fs::read_to_string(manifest).unwrap(), mirror.case.manifest);

    let pull = |n: u8| engine("buildah", &mirror, &["pull", "-q", "--signature-policy", &policy, &name(n)]);
    pull(1);
    mirror.relay.take();
    let id = pull(2);
    assert!(mirror.relay.take().1 < size / 10);
    let config = serde_json::from_str::<Value>(&mirror.case.manifest).unwrap()["config"]["digest"].clone();
    assert_eq!(json!(format!("sha256:{id}")), config);
    assert_eq!(mirror.downloads(), 0, "{:#?}", mirror.seen.lock().unwrap());
    mirror.end();
}

/// The old image in ostree.
fn old_in_ostree(case: &Case) -> PathBuf {
    let (root, repo) = (case.sandbox.path("root"), case.sandbox.path("ostree"));
    for layer in &version(1).layers {
        tar::Archive::new(&layer.tar[..]).unpack(&root).unwrap();
    }
    let inspect = ["inspect", "--raw", "--tls-verify=false", &case.registry.reference("os:1")];
    let manifest = skopeo(&inspect, case.sandbox.dir.path());
    ostree(&repo, &["init", "--mode=bare-user"]);
    commit(&repo, &root, &[format!("--add-metadata-string=ostree.manifest={manifest}")]);
    repo
}

#[test]
fn the_base_may_be_in_podmans_storage_or_in_ostree() {
    let in_storage = |case: &Case, command: &mut Command| {
        let podman = Podman::new(case.sandbox.dir.path(), "storage", "vfs");
        let one = case.registry.reference("os:1");
        let copy = ["copy", "--quiet", "--src-tls-verify=false", &one, &podman.reference("os:1")];
        skopeo(&copy, case.sandbox.dir.path());
        let (conf, run) = (case.sandbox.path("storage.conf"), case.sandbox.path("run"));
        let root = &podman.root;
        let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {root:?}\nrunroot = {run:?}\n");
        fs::write(&conf, text).unwrap();
        command.env("CONTAINERS_STORAGE_CONF", conf);
        // What the repository has of it would have to be unpacked, and is not looked at.
        for blob in fs::read_dir(case.sandbox.repo().join("blobs/sha256")).unwrap().flatten() {
            if blob.metadata().unwrap().len() > 50_000 {
                fs::write(blob.path(), "no layer").unwrap();
            }
        }
    };
    let in_ostree = |case: &Case, command: &mut Command| {
        command.env("OCI_DELTA_FETCH_REPO", case.sandbox.path("none"));
        command.arg("--ostree-repo").arg(old_in_ostree(case));
    };
    for put in [&in_storage as &dyn Fn(&Case, &mut Command), &in_ostree] {
        let mirror = Mirror::with(Case::new(), put);
        mirror.get(&mirror.manifest());
        let blob = mirror.get(&mirror.blob());
        assert_eq!(digest_of(&blob.body), mirror.case.changed().0);
        assert_eq!(mirror.downloads(), 0, "{:#?}", mirror.seen.lock().unwrap());
        mirror.end();
    }
}

/// With a socket from somebody else, as the units in contrib/serve have it.
#[test]
fn systemd_may_open_the_socket() {
    let case = support::Sandbox::new();
    let unit = fs::read_to_string("contrib/serve/oci-delta-fetch.service").unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    assert!(words.next().unwrap().ends_with("/oci-delta-fetch"));
    let cache = case.path("cache").display().to_string();
    let words: Vec<String> = words.map(|word| word.replace("/var/cache/oci-delta-fetch", &cache)).collect();
    assert!(words.contains(&cache), "{words:?}");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let ours = case.command();
    command.args(["-c", script, "sh"]).arg(ours.get_program()).args(words);
    command.envs(ours.get_envs().filter_map(|(key, value)| Some((key, value?))));
    // Who comes before it runs waits.
    let mut early = TcpStream::connect(address).unwrap();
    early.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut running = Running::with_input(&mut command, OwnedFd::from(socket).into());
    assert!(running.wait_for_line("serving on ").contains(&address.to_string()));
    assert_eq!(Answer::read(early).status, 401);
    running.signal("TERM");
    assert_eq!(running.end().code, 0);
}

/// Where a registry leads on to another host, nobody's password goes there.
#[test]
fn another_host_in_a_redirect_gets_no_credentials() {
    let registry = Registry::guarded(Guard { password: true, tls: false });
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = told.clone();
    let elsewhere = Relay::watched(
        &registry.address,
        |_| Fault::None,
        move |request| {
            notes.lock().unwrap().push(request.to_lowercase());
            Some(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nblob".to_vec())
        },
    );
    let place = format!("http://localhost:{}/bucket/blob", elsewhere.address.rsplit_once(':').unwrap().1);
    let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n");
    let leads_on = Relay::watched(
        &registry.address,
        |_| Fault::None,
        move |request| request.contains("/blobs/sha256:").then(|| answer.clone().into_bytes()),
    );
    let case = support::Sandbox::new();
    let mut running =
        Running::start(case.command().args(["serve", "--listen", "127.0.0.1:0", "--tls-verify=false"]));
    let line = running.wait_for_line("serving on ");
    let mut stream = TcpStream::connect(line.trim().trim_start_matches("serving on ")).unwrap();
    let (path, creds) = (
        format!("/v2/{}/os/blobs/sha256:{}", leads_on.address, "0".repeat(64)),
        BASE64_STANDARD.encode(CREDS),
    );
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {creds}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let blob = Answer::read(stream);
    assert_eq!((blob.status, &blob.body[..]), (200, &b"blob"[..]), "{}", blob.head);
    let told = told.lock().unwrap();
    assert!(told.iter().any(|request| request.starts_with("get /bucket/blob")), "{told:?}");
    assert!(told.iter().all(|request| !request.contains("authorization")), "{told:?}");
    assert!(!blob.head.contains("location"), "{}", blob.head);
    running.signal("TERM");
    running.end();
}

#[test]
fn a_layer_is_made_once_for_clients_of_all_kinds() {
    let mirror = Mirror::new(Case::new());
    let (digest, size) = mirror.case.changed();
    let manifest = mirror.get(&mirror.manifest());
    assert_eq!(
        (manifest.status, digest_of(&manifest.body)),
        (200, digest_of(mirror.case.manifest.as_bytes()))
    );
    // One that goes away at once, one that asks for a part, and three for all of it.
    let mut gone = TcpStream::connect(&mirror.address).unwrap();
    gone.write_all(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", mirror.blob()).as_bytes()).unwrap();
    gone.shutdown(Shutdown::Both).unwrap();
    thread::scope(|scope| {
        let part = scope.spawn(|| mirror.ask("GET", &mirror.blob(), &["Range: bytes=1000-1999"]));
        let whole = [0; 3].map(|_| scope.spawn(|| mirror.get(&mirror.blob())));
        let wholes = whole.map(|whole| whole.join().unwrap());
        for whole in &wholes {
            assert_eq!((whole.status, digest_of(&whole.body)), (200, digest.clone()), "{}", whole.head);
            assert!(whole.head.contains(&format!("content-length: {size}")), "{}", whole.head);
        }
        let part = part.join().unwrap();
        assert_eq!((part.status, &part.body[..]), (206, &wholes[0].body[1000..2000]));
        assert!(part.head.contains(&format!("content-range: bytes 1000-1999/{size}")), "{}", part.head);
    });
    let head = mirror.ask("HEAD", &mirror.blob(), &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains(&format!("content-length: {size}")), "{}", head.head);
    assert_eq!(mirror.downloads(), 0);
    // In containerd's way, and what is not made here.
    let space = mirror.get(&format!("/v2/os/blobs/{digest}?ns={}", mirror.relay.address));
    assert_eq!(digest_of(&space.body), digest);
    let tags: Value =
        serde_json::from_slice(&mirror.get(&format!("/v2/{}/os/tags/list", mirror.relay.address)).body)
            .unwrap();
    assert!(tags["tags"].as_array().unwrap().contains(&json!("2")), "{tags}");
    let other = format!("/v2/{}/os/blobs/sha256:{}", mirror.relay.address, "0".repeat(64));
    assert_eq!(mirror.get(&other).status, 404);
    let lines = mirror.end();
    let fetched: Vec<u64> = lines
        .iter()
        .filter(|l| l["layer"].is_string())
        .map(|l| l["bytes_fetched"].as_u64().unwrap())
        .collect();
    // Those that read along share what came meanwhile.
    let sum: u64 = fetched.iter().sum();
    assert!(sum > 0 && sum < size / 300, "the patch counts once: {lines:#?}");
}

#[test]
fn a_delta_that_fails_on_the_way_is_replaced_by_the_registry() {
    let case = Case::new();
    case.spoil_the_ends_of_patches();
    let mirror = Mirror::new(case);
    let (digest, size) = mirror.case.changed();
    mirror.get(&mirror.manifest());
    let blob = mirror.get(&mirror.blob());
    assert_eq!((blob.status, digest_of(&blob.body)), (200, digest.clone()), "{}", blob.head);
    // Nobody tries again.
    assert_eq!(digest_of(&mirror.get(&mirror.blob()).body), digest);
    assert_eq!(mirror.downloads(), 2);
    let lines = mirror.end();
    let line = lines.iter().find(|line| line["layer"].is_string()).unwrap();
    assert_eq!(line["fallback"], "patch-failed", "{line}");
    // If it fails before anybody was sent anything, the registry answers.
    assert!([json!(0), json!(size)].contains(&line["bytes_sent"]), "{line}");
    assert!(line["bytes_fetched"].as_u64().unwrap() < size, "what was sent is not asked for again: {line}");
}

#[test]
fn what_a_client_may_not_have_it_does_not_get() {
    let registry = Registry::guarded(Guard { password: true, tls: false });
    let mirror = Mirror::new(Case::with(registry, &["--creds", CREDS]));
    let (digest, _) = mirror.case.changed();
    let basic = |creds: &str| format!("Authorization: Basic {}", BASE64_STANDARD.encode(creds));
    let (good, bad, none) = (basic(CREDS), basic("user:wrong"), basic(":"));
    assert_eq!(mirror.ask("GET", &mirror.manifest(), &[&good]).status, 200);
    assert_eq!(digest_of(&mirror.ask("GET", &mirror.blob(), &[&good]).body), digest);
    for header in [&[&*bad][..], &[&*none], &[], &["Authorization: Basic !"]] {
        for path in [mirror.blob(), mirror.manifest()] {
            let refused = mirror.ask("GET", &path, header);
            assert_eq!(refused.status, 401, "{header:?}: {}", refused.head);
            assert!(refused.head.contains("www-authenticate: basic"), "{}", refused.head);
        }
    }
    let space = format!("/v2/os/blobs/{digest}?ns={}", mirror.relay.address);
    assert_eq!(mirror.get(&space).status, 401);
    assert_eq!(digest_of(&mirror.ask("GET", &space, &[&good]).body), digest);
    mirror.end();
}

#[test]
fn clients_that_do_what_they_should_not_are_refused() {
    let case = Case::new();
    let mirror = Mirror::new(case);
    let ping = mirror.get("/v2/");
    assert_eq!(ping.status, 401);
    assert_eq!(mirror.ask("GET", "/v2/", &["Authorization: Basic Og=="]).status, 200);
    let long = format!("X-Long: {}", "x".repeat(64 << 10));
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let path = mirror.manifest();
    for (method, path, headers, status) in [
        ("POST", &*path, &[][..], 405),
        ("DELETE", &path, &[], 405),
        ("PUT", "/v2/x/blobs/uploads/", &[], 405),
        ("GET", "/v2/quay.io/../x/manifests/1", &[], 400),
        ("GET", "/v2/quay.io/a%2Fb/manifests/1", &[], 400),
        ("GET", "/", &[], 404),
        ("GET", &path, &["Host: example.com"], 421),
        ("GET", &path, &["Via: 1.1 other, 1.1 oci-delta-fetch"], 508),
        ("GET", &path, &[&long], 431),
        ("GET", &path, &many, 431),
        ("GET", &format!("/v2/{}/x/manifests/1", mirror.address), &[], 508),
    ] {
        let answer = mirror.ask(method, path, headers);
        assert_eq!(answer.status, status, "{method} {path} {:.100}", answer.head);
    }
    assert!(mirror.seen.lock().unwrap().is_empty(), "none of it reaches a registry");
    // A host that is not there is trouble of that host.
    assert_eq!(mirror.get("/v2/127.0.0.1:1/x/manifests/1").status, 502);
    // A flood.
    let mut stream = TcpStream::connect(&mirror.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let flood = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1200);
    let (mut writer, flood) = (stream.try_clone().unwrap(), flood);
    let wrote = thread::spawn(move || writer.write_all(flood.as_bytes()));
    let mut answers = String::new();
    let mut some = [0; 64 << 10];
    while !answers.contains(" 429 ") {
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0, "no request was too much");
        answers.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    drop(stream);
    let _ = wrote.join();
    mirror.end();
}

#[test]
fn it_says_what_it_opens() {
    let case = support::Sandbox::new();
    let open = case.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(open.code, 2, "{open:#?}");
    assert!(open.stderr.contains("--upstream"), "{open:#?}");
    let mut running =
        Running::start(case.command().args(["serve", "--listen", "0.0.0.0:0", "--upstream", "quay.io"]));
    let line = running.wait_for_line("whoever reaches this machine");
    assert!(line.contains("quay.io"), "{line}");
    running.wait_for_line("serving on ");
    running.signal("TERM");
    assert_eq!(running.end().code, 0);
    let text = |engine: &str| case.ok(&["serve", "--print-config", engine, "--upstream", "quay.io"]).stdout;
    assert!(text("podman").ends_with(
        "\n[[registry]]\nlocation = \"quay.io\"\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:5050/quay.io\"\ninsecure = true\n"
    ));
    assert!(text("containerd").ends_with(
        "server = \"https://quay.io\"\n\n[host.\"http://127.0.0.1:5050\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    ));
    assert!(text("crio").contains("systemctl reload crio"));
}

#[test]
fn the_doctor_tells_whether_a_delta_could_be_used() {
    let case = Case::new();
    let remote = ["--tls-verify=false", "--insecure-policy"];
    let name = case.registry.reference("os:2");
    let report = case.sandbox.json(&[&["doctor", &*name], &remote[..]].concat());
    assert_eq!(report["usable"], true, "{report:#}");
    assert_eq!(report["skopeo"]["trouble"], Value::Null, "{report:#}");
    assert!(report["skopeo"]["protocol"].as_str().unwrap().starts_with("0.2."), "{report:#}");
    assert_eq!((&report["stores"][0]["kind"], &report["stores"][0]["images"]), (&json!("oci"), &json!(1)));
    assert_eq!(report["image"]["deltas"][0], case.delta["digest"], "{report:#}");
    assert_eq!(report["image"]["referrers_api"], false);
    let text = case.sandbox.ok(&[&["doctor", &*name], &remote[..]].concat()).stdout;
    assert!(text.contains("lists deltas under fallback tags\ndelta     1 in a row: "), "{text}");

    // An image in ostree is a base as well.
    let (other, repo) = (support::Sandbox::new(), old_in_ostree(&case).display().to_string());
    let report = other.json(&[&["doctor", &*name, "--ostree-repo", &repo], &remote[..]].concat());
    assert_eq!(report["usable"], true, "{report:#}");
    let store = report["stores"].as_array().unwrap().last().unwrap();
    assert_eq!(store, &json!({"place": repo, "kind": "ostree", "images": 1, "trouble": null}));

    let none = support::Sandbox::new().run(&[&["doctor", &*name, "--json"], &remote[..]].concat());
    assert_eq!(none.code, 3, "{none:#?}");
    assert!(none.stderr.contains("no delta could be used: no-base"), "{none:#?}");
    assert_eq!(serde_json::from_str::<Value>(&none.stdout).unwrap()["usable"], false);
}
