//! The library in another program, which runs it on a runtime of several threads.

use crate::support;

use std::process::Command;

use support::images::{noise, tar};
use support::{Delta, Ended, Image, Layer, OciDir, Registry, Sandbox};

fn embed(sandbox: &Sandbox, reference: &str) -> Ended {
    let mut command = Command::new(support::example("embed"));
    command.arg(reference).arg(sandbox.repo());
    command.env("HOME", sandbox.dir.path()).env("NO_PROXY", "127.0.0.1");
    support::cli::ended(command.output().unwrap())
}

#[test]
fn another_program_fetches_an_image_and_then_the_next_one_by_a_delta() {
    let sandbox = Sandbox::new();
    let (old, new) = (noise(2, 300_000), noise(3, 1_000));
    let shared = Layer::gzip(tar(&[("usr/lib/shared", &noise(1, 50_000))]));
    let next = [&old[..], &new].concat();
    let old = Image::new(vec![shared.clone(), Layer::gzip(tar(&[("usr/bin/tool", &old)]))]);
    let new = Image::new(vec![shared, Layer::gzip(tar(&[("usr/bin/tool", &next)]))]);
    let delta = Delta::new(&old, &new);
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).delta("delta", &delta);
    registry.push(&dir.reference("old"), "os:1");
    registry.push(&dir.reference("delta"), "os:1-to-2");

    let name =
        |tag: &str| registry.reference(&format!("os:{tag}")).trim_start_matches("docker://").to_owned();
    let first = embed(&sandbox, &name("1"));
    assert_eq!(first.code, 0, "{first:#?}");
    assert!(first.stdout.contains(&format!("image {}: Fetched", old.config_digest())), "{first:#?}");
    let second = embed(&sandbox, &name("1-to-2"));
    assert_eq!(second.code, 0, "{second:#?}");
    assert!(second.stdout.contains(&format!("image {}: Fetched", new.config_digest())), "{second:#?}");
    assert!(second.stdout.contains(" reused\n") && second.stdout.contains(" patched\n"), "{second:#?}");
    assert!(!sandbox.path(".cache").exists(), "nothing is noted that nobody asked for");

    let absent = embed(&sandbox, &name("none"));
    assert_ne!(absent.code, 0, "{absent:#?}");
}
