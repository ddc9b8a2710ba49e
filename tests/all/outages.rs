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
use support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

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

/// A registry with all versions as `os:N` and deltas between some of them.
fn filled(sandbox: &Sandbox, random: &mut Random, images: &[Image]) -> Registry {
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    for (n, image) in images.iter().enumerate() {
        dir.image(&n.to_string(), image);
        registry.push(&dir.reference(&n.to_string()), &format!("os:{n}"));
    }
    for old in 0..images.len() {
        for new in 0..images.len() {
            if old != new && random.below(3) == 0 {
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
        let registry = filled(&sandbox, random, &images);
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

#[test]
fn broken_networks_end_well_or_clearly() {
    let source = Sandbox::new();
    let random = &mut Random(7);
    let images = versions(random, 2);
    let registry = filled(&source, random, &images);
    source.ok(&[&registry.reference("os:0"), REMOTE[0], REMOTE[1]]);
    let config = images[1].config_digest().to_string();
    let well = AtomicU64::new(0);
    each(cases(), |seed| {
        let sandbox = Sandbox::new();
        copy(&source.repo(), &sandbox.repo());
        let relay = Relay::faulty(&registry.address, move |number| fault(&mut Random(seed * 1000 + number)));
        let started = Instant::now();
        let limits = ["--timeout", "20", "--stall-timeout", "1", "--retries", "3", "--tag", "new"];
        let wanted = relay.reference("os:1");
        let ended = sandbox.run(&[&[&*wanted], &limits[..], &REMOTE].concat());
        assert!(started.elapsed().as_secs() < 30, "seed {seed}: {ended:#?}");
        match ended.code {
            0 => {
                let list = sandbox.json(&["list"]);
                let new = list.as_array().unwrap().iter().find(|i| i["name"] == "new").unwrap();
                assert_eq!(new["config"], config);
                well.fetch_add(1, Ordering::SeqCst);
            }
            5 => {}
            _ => panic!("seed {seed}: {ended:#?}"),
        }
        sandbox.ok(&["verify"]);
    });
    assert!(well.load(Ordering::SeqCst) > 0, "no run got through");
}
