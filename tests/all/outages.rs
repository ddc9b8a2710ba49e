//! Many random runs: images and chains of deltas, and networks that break. `OCI_DELTA_FETCH_CASES`
//! sets how many; a few are enough for every day.

use crate::support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value;
use support::images::{noise, tree};
use support::relay::{Fault, Relay};
use support::{Delta, Ended, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];
/// Bytes of a layer: a thousandth of one is more than the heads of the answers to a search.
const LAYER: usize = 4_500_000;
/// Cases at once. They wait for servers and for each other's processes more than they compute.
const AT_ONCE: usize = 8;

fn cases() -> u64 {
    std::env::var("OCI_DELTA_FETCH_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

/// Does `work` for each number below `count`, several at a time.
fn each(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < count) {
                    work(number);
                }
            });
        }
    });
}

/// Makes `to` a copy of the directory `from`, which may not exist.
fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).ok();
    std::fs::create_dir_all(from).unwrap();
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Versions of an image of some layers; each changes some of them, a little or altogether.
fn versions(random: &mut Random, count: usize) -> Vec<Image> {
    let mut contents: Vec<Vec<u8>> =
        (0..2 + random.below(3)).map(|_| noise(random.below(1 << 30), LAYER)).collect();
    let mut images = Vec::new();
    for _ in 0..count {
        for content in &mut contents {
            match random.below(4) {
                0 => {}
                1 => *content = noise(random.below(1 << 30), LAYER),
                _ => (0..20).for_each(|_| {
                    content[random.below(LAYER as u64) as usize] ^= 1 + random.below(255) as u8
                }),
            }
        }
        let layer =
            |(n, content): (usize, &Vec<u8>)| Layer::gzip(tree(&[(&format!("usr/file{n}"), content)]));
        images.push(Image::new(contents.iter().enumerate().map(layer).collect()));
    }
    images
}

/// A registry with all versions as `os:N` and a delta between two of them in one of `rarely` cases.
fn filled(sandbox: &Sandbox, random: &mut Random, images: &[Image], rarely: u64) -> Registry {
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    for (n, image) in images.iter().enumerate() {
        dir.image(&n.to_string(), image);
        registry.push(&dir.reference(&n.to_string()), &format!("os:{n}"));
    }
    for old in 0..images.len() {
        for new in 0..images.len() {
            if old != new && random.below(rarely) == 0 {
                let name = format!("{old}-{new}");
                dir.delta(&name, &Delta::new(&images[old], &images[new]));
                let to = registry.reference("os");
                sandbox.ok(&["push", &dir.reference(&name), &to, REMOTE[0], REMOTE[1]]);
            }
        }
    }
    registry
}

/// Fetches through the relay and gives the report and the bytes that passed.
fn counted(sandbox: &Sandbox, relay: &Relay, repo: &Path, image: &str, policy: &str) -> (Value, u64) {
    relay.take();
    let wanted = relay.reference(image);
    let repo = repo.to_str().unwrap();
    let args = [&*wanted, "--repo", repo, "--delta-policy", policy, REMOTE[0], REMOTE[1]];
    (sandbox.json(&args), relay.take().1)
}

#[test]
fn never_more_than_a_plain_pull() {
    each(cases().div_ceil(4), |seed| {
        let random = &mut Random(seed);
        let sandbox = Sandbox::new();
        let count = 3 + random.below(2) as usize;
        let images = versions(random, count);
        let registry = filled(&sandbox, random, &images, 3);
        let relay = Relay::to(&registry.address);
        for _ in 0..4 {
            std::fs::remove_dir_all(sandbox.repo()).ok();
            for n in 0..images.len() {
                if random.below(3) == 0 {
                    let base = registry.reference(&format!("os:{n}"));
                    sandbox.ok(&[&base, "--delta-policy", "never", REMOTE[0], REMOTE[1]]);
                }
            }
            let plain_repo = sandbox.path("copy");
            copy(&sandbox.repo(), &plain_repo);
            let image = format!("os:{}", random.below(images.len() as u64));
            let (_, plain) = counted(&sandbox, &relay, &plain_repo, &image, "never");
            let (report, bytes) = counted(&sandbox, &relay, &sandbox.repo(), &image, "auto");
            assert!(bytes * 1000 <= plain * 1001, "seed {seed}: {bytes} of {plain}: {report:#}");
            sandbox.ok(&["verify"]);
        }
    });
}

/// What becomes of a connection.
fn fault(random: &mut Random) -> Fault {
    random.below(1 << 30);
    let bytes = random.below(LAYER as u64 / 2) as usize;
    match random.below(9) {
        0 => Fault::Cut(bytes),
        1 => Fault::Stall(bytes),
        2 => Fault::Status("503 Service Unavailable"),
        3 => Fault::Status("429 Too Many Requests"),
        4 => Fault::Cut(0),
        _ => Fault::None,
    }
}

/// Two versions in a registry with a delta between them, and the old one in a repository.
fn updated(source: &Sandbox) -> (Registry, Image) {
    let random = &mut Random(7);
    let mut images = versions(random, 2);
    let registry = filled(source, random, &images, 1);
    source.ok(&[&registry.reference("os:0"), REMOTE[0], REMOTE[1]]);
    (registry, images.remove(1))
}

/// Fetches the new version through the relay, into a copy of the repository. What is in it then must be whole.
fn update(source: &Sandbox, relay: &Relay, new: &Image, options: &[&str]) -> Ended {
    let sandbox = Sandbox::new();
    copy(&source.repo(), &sandbox.repo());
    let limits = ["--timeout", "120", "--stall-timeout", "1", "--tag", "new"];
    let ended = sandbox.run(&[&[&*relay.reference("os:1")], &limits[..], &REMOTE, options].concat());
    let list = sandbox.json(&["list"]);
    let named = list.as_array().unwrap().iter().find(|image| image["name"] == "new");
    assert_eq!(named.is_some(), ended.code == 0, "{ended:#?}");
    if let Some(named) = named {
        assert_eq!(named["config"], new.config_digest().to_string());
    }
    sandbox.ok(&["verify"]);
    ended
}

#[test]
fn a_network_that_recovers_fails_nobody() {
    let source = Sandbox::new();
    let (registry, new) = updated(&source);
    // Fewer bad connections than tries, as a busy machine lets some stand still by itself.
    let bad = 4;
    each(cases(), |seed| {
        let faults = move |number| match number < bad {
            true => fault(&mut Random(seed * 1000 + number)),
            false => Fault::None,
        };
        let relay = Relay::faulty(&registry.address, faults);
        let ended = update(&source, &relay, &new, &["--retries", "6"]);
        assert_eq!(ended.code, 0, "seed {seed}: {ended:#?}");
    });
}

#[test]
fn a_network_that_stays_broken_is_said_in_time() {
    let source = Sandbox::new();
    let (registry, new) = updated(&source);
    let faults = [
        Fault::Cut(0),
        Fault::Cut(1000),
        Fault::Stall(0),
        Fault::Stall(1000),
        Fault::Status("503 Service Unavailable"),
        Fault::Status("500 Internal Server Error"),
    ];
    each(faults.len() as u64, |at| {
        let fault = faults[at as usize];
        let relay = Relay::faulty(&registry.address, move |_| fault);
        let started = Instant::now();
        let ended = update(&source, &relay, &new, &["--retries", "1"]);
        assert_eq!(ended.code, 5, "{fault:?}: {ended:#?}");
        assert!(ended.stderr.contains("tried 2 times"), "{fault:?}: {ended:#?}");
        assert!(started.elapsed().as_secs() < 30, "{fault:?}: {:?}", started.elapsed());
    });
}

#[test]
fn a_network_that_breaks_now_and_then_leaves_whole_images() {
    let source = Sandbox::new();
    let (registry, new) = updated(&source);
    each(cases(), |seed| {
        let relay = Relay::faulty(&registry.address, move |number| fault(&mut Random(seed * 1000 + number)));
        let ended = update(&source, &relay, &new, &["--retries", "3"]);
        assert!([0, 5].contains(&ended.code), "seed {seed}: {ended:#?}");
    });
}
