//! Transfers that break, and what servers answer when they are asked for the rest.

use crate::support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::images::{MANIFEST, noise, tree};
use support::registry::put_manifest;
use support::relay::{Fault, Relay};
use support::{Ended, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];
/// Bytes of the one layer: some cuts fit in, and it is more than all buffers on the way.
const LARGE: usize = 10 << 20;
/// After so many bytes a connection is cut.
const CUT: usize = 3 << 20;
/// What a cut may cost.
const LOST: u64 = 1 << 20;

/// A registry with an image of one large layer as `os:1`.
struct Case {
    sandbox: Sandbox,
    registry: Registry,
    image: Image,
}

impl Case {
    fn with(registry: Registry) -> Self {
        let sandbox = Sandbox::new();
        let image = Image::new(vec![Layer::plain(tree(&[("usr/large", &noise(1, LARGE))]))]);
        let mut dir = OciDir::create(&sandbox.path("source"));
        dir.image("1", &image);
        registry.push(&dir.reference("1"), "os:1");
        Case { sandbox, registry, image }
    }

    fn fetch(&self, relay: &Relay) -> Ended {
        let reference = relay.reference("os:1");
        self.sandbox.run(&[&reference, "--json", "--stall-timeout", "5", REMOTE[0], REMOTE[1]])
    }

    /// Fetches, demands the right image and gives the bytes that the report says.
    fn downloaded(&self, relay: &Relay) -> u64 {
        let ended = self.fetch(relay);
        assert_eq!(ended.code, 0, "{ended:#?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report["image"]["manifest"], self.image.manifest_digest().to_string());
        self.sandbox.ok(&["verify"]);
        report["bytes"]["downloaded"].as_u64().unwrap()
    }

    /// A relay that cuts one answer, and answers by `lie` when it is asked for a range: where
    /// it begins, and the rest of the layer.
    fn lying(
        &self,
        lie: impl Fn(usize, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> (Relay, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, layer) = (asked.clone(), self.image.layers[0].blob.clone());
        let relay = Relay::watched(
            &self.registry.address,
            |_| Fault::FirstCut(CUT),
            move |head| {
                let first =
                    head.to_lowercase().split("range: bytes=").nth(1)?.split('-').next()?.parse().ok()?;
                count.fetch_add(1, Ordering::SeqCst);
                Some(lie(first, &layer))
            },
        );
        (relay, asked)
    }
}

fn partial(range: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 206 Partial Content\r\nConnection: close\r\n{range}\r\n");
    [head.as_bytes(), body].concat()
}

fn range(first: usize, size: usize) -> String {
    format!("Content-Range: bytes {first}-{}/{size}\r\n", size - 1)
}

#[test]
fn a_cut_costs_only_what_was_under_way() {
    let case = Case::with(Registry::start());
    let relay = Relay::faulty(&case.registry.address, |_| Fault::Cut(CUT));
    let downloaded = case.downloaded(&relay);
    let (_, bytes) = relay.take();
    assert_eq!(relay.cuts(), 3);
    let size = case.image.layers[0].blob.len() as u64;
    assert!(bytes <= size + relay.cuts() * LOST, "{bytes} bytes for {size}");
    assert!(size <= downloaded && downloaded <= bytes, "{downloaded} reported of {bytes}");
}

#[test]
fn a_server_that_ignores_ranges() {
    // ferro-oci-server does; and one that says so.
    let case = Case::with(Registry::with_referrers());
    let relay = Relay::faulty(&case.registry.address, |_| Fault::FirstCut(CUT));
    assert!(case.downloaded(&relay) > LARGE as u64 + LOST, "what was read before the cut counts");

    let case = Case::with(Registry::start());
    for status in ["200 OK", "416 Range Not Satisfiable", "404 Not Found", "403 Forbidden"] {
        let (relay, asked) = case.lying(move |_, layer| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", layer.len());
            [head.as_bytes(), layer].concat()
        });
        std::fs::remove_dir_all(case.sandbox.repo()).ok();
        case.downloaded(&relay);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{status}: it is asked once");
    }
}

#[test]
fn another_range_than_asked_for() {
    let case = Case::with(Registry::start());
    let lies: [fn(usize, usize) -> String; 5] = [
        |_, size| range(0, size),
        |first, size| range(first + 1, size),
        |first, size| range(first, size + 1),
        |first, size| range(first, size - 1),
        |_, _| String::new(),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let (relay, asked) =
            case.lying(move |first, layer| partial(&lie(first, layer.len()), &layer[first + 1..]));
        std::fs::remove_dir_all(case.sandbox.repo()).ok();
        case.downloaded(&relay);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "lie {number}");
    }
}

#[test]
fn a_signal_while_the_rest_is_awaited() {
    let case = Case::with(Registry::start());
    let (asked, told) = std::sync::mpsc::channel();
    let relay = Relay::watched(
        &case.registry.address,
        |_| Fault::FirstCut(CUT),
        move |head| {
            if head.to_lowercase().contains("range: bytes=") {
                asked.send(()).ok();
                std::thread::sleep(Duration::from_secs(60));
            }
            None
        },
    );
    let run = case
        .sandbox
        .command()
        .args([&relay.reference("os:1"), REMOTE[0], REMOTE[1]])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    told.recv_timeout(Duration::from_secs(30)).expect("the rest is asked for");
    let pid = run.id().to_string();
    let signalled = Instant::now();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let ended = support::cli::ended(run.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{ended:#?}");
    assert!(signalled.elapsed() < Duration::from_secs(10), "{:?}", signalled.elapsed());
    case.downloaded(&Relay::to(&case.registry.address));
}

#[test]
fn the_right_range_with_wrong_bytes() {
    let case = Case::with(Registry::start());
    for surplus in [0, 1000] {
        let (relay, asked) = case.lying(move |first, layer| {
            partial(&range(first, layer.len()), &vec![7; layer.len() - first + surplus])
        });
        let ended = case.fetch(&relay);
        assert_eq!(ended.code, 4, "{ended:#?}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(case.sandbox.json(&["list"]), serde_json::json!([]));
    }
}

#[test]
fn a_rest_that_breaks_off_is_gone_on_with() {
    let case = Case::with(Registry::start());
    let (relay, asked) = case.lying(|first, layer| {
        let end = layer.len().min(first + CUT);
        partial(&range(first, layer.len()), &layer[first..end])
    });
    let downloaded = case.downloaded(&relay);
    assert!(downloaded < LARGE as u64 + LOST, "{downloaded}");
    assert!(asked.load(Ordering::SeqCst) > 1);
}

#[test]
fn a_tag_that_moves_during_the_run() {
    let case = Case::with(Registry::start());
    let other = Image::new(vec![Layer::plain(tree(&[("usr/other", b"x")]))]);
    let mut dir = OciDir::create(&case.sandbox.path("other"));
    dir.image("2", &other);
    case.registry.push(&dir.reference("2"), "os:2");
    let (address, bytes) = (case.registry.address.clone(), other.manifest.clone());
    let resolved = Arc::new(AtomicUsize::new(0));
    let count = resolved.clone();
    // When the first blob is asked for, the tag moves. The cut makes skopeo open the image again.
    let relay = Relay::watched(
        &case.registry.address,
        |_| Fault::FirstCut(CUT),
        move |head| {
            count.fetch_add(head.matches("/manifests/1 ").count(), Ordering::SeqCst);
            if head.contains("/blobs/") {
                let status = put_manifest(&address, "os", "1", MANIFEST, &bytes);
                assert!(status.contains("201"), "{status}");
            }
            head.to_lowercase().contains("range: bytes=").then(|| b"HTTP/1.1 416 No\r\n\r\n".to_vec())
        },
    );
    case.downloaded(&relay);
    assert_eq!(relay.cuts(), 1);
    assert_eq!(resolved.load(Ordering::SeqCst), 1, "the tag is asked for once");
    assert_eq!(case.sandbox.json(&["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_only_skopeo_may_ask_is_not_gone_on_with() {
    let case = Case::with(Registry::start());
    let (relay, asked) = case.lying(|_, _| Vec::new());
    let conf = case.sandbox.path("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"nowhere.example\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        relay.address
    );
    std::fs::write(&conf, text).unwrap();
    let conf = conf.to_str().unwrap();
    case.sandbox.ok(&["docker://nowhere.example/os:1", "--registries-conf", conf, "--insecure-policy"]);
    assert_eq!((relay.cuts(), asked.load(Ordering::SeqCst)), (1, 0));
}
