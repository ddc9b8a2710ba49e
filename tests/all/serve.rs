//! The mirror: real engines pull through it from a real registry, and others do what they should not.

use crate::offer::Case;
use crate::support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::registry::CREDS;
use support::relay::{Fault, Relay};
use support::running::Running;
use support::{Guard, Registry};

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
        Self::with(case, &[])
    }

    fn with(case: Case, options: &[&str]) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = seen.clone();
        let watch = move |request: &str| {
            notes.lock().unwrap().extend(request.lines().next().map(str::to_owned));
            None
        };
        let relay = Relay::watched(&case.registry.address, |_| Fault::None, watch);
        let mut command = case.sandbox.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--tls-verify=false"]).args(options);
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

/// Podman with its own storage, which asks the mirror first.
fn podman(mirror: &Mirror, args: &[&str]) -> String {
    let dir = mirror.case.sandbox.path("podman");
    fs::create_dir_all(&dir).unwrap();
    let registry = &mirror.relay.address;
    let conf = format!(
        "[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}/{}\"\ninsecure = true\n",
        mirror.address,
        registry.replace(':', "__")
    );
    fs::write(dir.join("registries.conf"), conf).unwrap();
    let output = Command::new("podman")
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--runroot")
        .arg(dir.join("run"))
        .args(["--storage-driver", "vfs"])
        .args(args)
        .env("CONTAINERS_REGISTRIES_CONF", dir.join("registries.conf"))
        .env("HOME", &dir)
        .env("XDG_RUNTIME_DIR", &dir)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("this test needs podman; `make test` installs it");
    assert!(output.status.success(), "{args:?}: {output:#?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn podman_pulls_an_update_by_its_delta_and_does_not_know() {
    let mirror = Mirror::new(Case::new());
    let policy = mirror.case.sandbox.path("policy.json");
    fs::write(&policy, json!({"default": [{"type": "insecureAcceptAnything"}]}).to_string()).unwrap();
    let policy = policy.display().to_string();
    let name = |n: u8| format!("{}/os:{n}", mirror.relay.address);
    let pull = |n: u8| podman(&mirror, &["pull", "-q", "--signature-policy", &policy, &name(n)]);
    pull(1);
    mirror.relay.take();
    pull(2);
    let (_, bytes) = mirror.relay.take();
    let digest = podman(&mirror, &["image", "inspect", "--format", "{{.Digest}}", &name(2)]);
    assert_eq!(digest, digest_of(mirror.case.manifest.as_bytes()).to_string());
    assert_eq!(mirror.downloads(), 0, "{:#?}", mirror.seen.lock().unwrap());

    let fetched = mirror.case.sandbox.json(&[
        &*format!("docker://{}", name(2)),
        "--tls-verify=false",
        "--insecure-policy",
    ]);
    let (_, plain) = mirror.relay.take();
    assert_eq!(fetched["layers"][1]["action"], "patched");
    // Heads of answers, of which there are a few more, are all that is left of so small an update.
    assert!(bytes <= plain + 3000, "{bytes} instead of {plain}");

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
    assert!(fetched > 0 && fetched < size / 50, "{line}");
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
    assert_eq!((&line["fallback"], &line["bytes_sent"]), (&json!("patch-failed"), &json!(size)), "{line}");
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

    let none = support::Sandbox::new().run(&[&["doctor", &*name, "--json"], &remote[..]].concat());
    assert_eq!(none.code, 3, "{none:#?}");
    assert!(none.stderr.contains("no delta could be used: no-base"), "{none:#?}");
    assert_eq!(serde_json::from_str::<Value>(&none.stdout).unwrap()["usable"], false);
}
