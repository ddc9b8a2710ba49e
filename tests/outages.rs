//! Many random runs: images and chains of deltas, and networks that break. `OCI_DELTA_FETCH_CASES`
//! sets how many; a few are enough for every day.
#![allow(missing_docs)]

mod support;

use std::time::Instant;

use serde_json::Value;
use support::images::{noise, tree};
use support::relay::{Fault, Relay};
use support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

fn cases() -> u64 {
    std::env::var("OCI_DELTA_FETCH_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
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
        (0..2 + random.below(3)).map(|_| noise(random.below(1 << 30), 1_500_000)).collect();
    let mut images = Vec::new();
    for _ in 0..count {
        for content in &mut contents {
            match random.below(4) {
                0 => {}
                1 => *content = noise(random.below(1 << 30), 1_500_000),
                _ => (0..20)
                    .for_each(|_| content[random.below(1_500_000) as usize] ^= 1 + random.below(255) as u8),
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

#[test]
fn never_more_than_a_plain_pull() {
    for seed in 0..cases().div_ceil(4) {
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
                    sandbox.ok(&[
                        &registry.reference(&format!("os:{n}")),
                        "--delta-policy",
                        "never",
                        REMOTE[0],
                        REMOTE[1],
                    ]);
                }
            }
            let copy = sandbox.path("copy");
            std::fs::remove_dir_all(&copy).ok();
            let wanted = relay.reference(&format!("os:{}", random.below(images.len() as u64)));
            std::process::Command::new("cp").arg("-a").arg(sandbox.repo()).arg(&copy).status().unwrap();
            let fetch = |repo: &std::path::Path, policy: &str| -> (Value, u64) {
                std::fs::create_dir_all(repo).unwrap();
                relay.take();
                let report = sandbox.json(&[
                    &wanted,
                    "--repo",
                    repo.to_str().unwrap(),
                    "--delta-policy",
                    policy,
                    REMOTE[0],
                    REMOTE[1],
                ]);
                (report, relay.take().1)
            };
            let (_, plain) = fetch(&copy, "never");
            let (report, bytes) = fetch(&sandbox.repo(), "auto");
            assert!(bytes * 1000 <= plain * 1001, "seed {seed}: {bytes} of {plain}: {report:#}");
            sandbox.ok(&["verify"]);
        }
    }
}

#[test]
fn broken_networks_end_well_or_clearly() {
    let sandbox = Sandbox::new();
    let random = &mut Random(7);
    let images = versions(random, 2);
    let registry = filled(&sandbox, random, &images);
    let mut ends = [0, 0];
    for seed in 0..cases() {
        let relay = Relay::faulty(&registry.address, move |number| {
            let mut random = Random(seed * 1000 + number);
            random.below(1 << 30);
            let bytes = random.below(600_000) as usize;
            match random.below(9) {
                0 => Fault::Cut(bytes),
                1 => Fault::Stall(bytes),
                2 => Fault::Status("503 Service Unavailable"),
                3 => Fault::Status("429 Too Many Requests"),
                4 => Fault::Cut(0),
                _ => Fault::None,
            }
        });
        std::fs::remove_dir_all(sandbox.repo()).ok();
        sandbox.ok(&[&registry.reference("os:0"), REMOTE[0], REMOTE[1]]);
        let started = Instant::now();
        let limits = ["--timeout", "20", "--stall-timeout", "1", "--retries", "3", "--tag", "new"];
        let wanted = relay.reference("os:1");
        let ended = sandbox.run(&[&[&*wanted], &limits[..], &REMOTE].concat());
        assert!(started.elapsed().as_secs() < 30, "seed {seed}: {ended:#?}");
        match ended.code {
            0 => {
                let list = sandbox.json(&["list"]);
                let new = list.as_array().unwrap().iter().find(|i| i["name"] == "new").unwrap();
                assert_eq!(new["config"], images[1].config_digest().to_string());
                ends[0] += 1;
            }
            5 => ends[1] += 1,
            _ => panic!("seed {seed}: {ended:#?}"),
        }
        sandbox.ok(&["verify"]);
    }
    assert!(ends[0] > 0, "no run got through: {ends:?}");
}
