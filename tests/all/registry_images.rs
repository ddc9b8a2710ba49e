//! Kinds of images: multi-arch indexes, Docker manifests, bases in a registry.

use crate::support;

use std::fs;

use oci_delta_fetch::digest::digest_of;
use oci_delta_fetch::platform::Platform;
use serde_json::Value;
use support::fake::FakeSkopeo;
use support::images::{descriptor, for_platform, index, noise, tar};
use support::registry::skopeo;
use support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

const PLAIN: &str = "--tls-verify=false";

/// An image with a layer that all have and one of its own.
fn image(architecture: &str, seed: u64) -> Image {
    let shared = Layer::gzip(tar(&[("usr/lib/shared", &noise(1, 40_000))]));
    let own = Layer::gzip(tar(&[("usr/bin/own", &noise(seed, 20_000))]));
    Image::of_architecture(architecture, vec![shared, own])
}

fn host() -> String {
    Platform::host().architecture
}

/// An index over images for this machine and for s390x and ppc64le, and these images.
fn multi_arch(dir: &mut OciDir) -> Vec<(String, Image)> {
    let images: Vec<(String, Image)> = [("s390x", 2), (&*host(), 3), ("ppc64le", 4)]
        .into_iter()
        .map(|(architecture, seed)| (architecture.to_owned(), image(architecture, seed)))
        .collect();
    for (architecture, image) in &images {
        dir.image(&format!("only-{architecture}"), image);
    }
    let entries: Vec<Value> = images.iter().map(|(a, i)| for_platform(i, a)).collect();
    dir.nested_index("multi", &entries);
    let inner = index(&entries).to_string();
    dir.nested_index("nested", &[descriptor(support::images::INDEX, inner.as_bytes())]);
    images
}

fn config_of(sandbox: &Sandbox, reference: &str, platform: &str) -> Value {
    let options: &[&str] = if platform.is_empty() { &[] } else { &["--platform", platform] };
    sandbox.json(&[&[reference, PLAIN], options].concat())["image"]["config"].clone()
}

#[test]
fn the_platform_picks_from_an_index_wherever_it_is() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let images = multi_arch(&mut dir);
    registry.push_with(&["--all", "--preserve-digests"], &dir.reference("multi"), "os:multi");
    let archive = format!("oci-archive:{}", sandbox.path("archive").display());
    skopeo(&["copy", "--all", &dir.reference("multi"), &archive], sandbox.dir.path());

    for reference in
        [registry.reference("os:multi"), dir.reference("multi"), dir.reference("nested"), archive]
    {
        for (architecture, image) in &images {
            let found = config_of(&sandbox, &reference, &format!("linux/{architecture}"));
            assert_eq!(found, image.config_digest().to_string(), "{reference} {architecture}");
        }
        assert_eq!(config_of(&sandbox, &reference, ""), images[1].1.config_digest().to_string());
        let absent = sandbox.run(&[&reference, PLAIN, "--platform", "linux/riscv64"]);
        assert_eq!(absent.code, 3, "{absent:#?}");
        assert!(absent.stderr.contains("riscv64") && absent.stderr.contains("--platform"), "{absent:#?}");
    }
    sandbox.ok(&["verify"]);
}

#[test]
fn an_image_for_another_platform_is_taken_unless_one_is_asked_for() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let (old, new) = (image("s390x", 2), image("s390x", 3));
    dir.image("old", &old).delta("delta", &Delta::new(&old, &new));
    registry.push(&dir.reference("old"), "os:1");
    for reference in [registry.reference("os:1"), dir.reference("old"), dir.reference("delta")] {
        // Both before and after it is here.
        for platform in ["linux/ppc64le", "", "linux/s390x", "linux/ppc64le"] {
            let options: &[&str] = if platform.is_empty() { &[] } else { &["--platform", platform] };
            let ended = sandbox.run(&[&[&reference, PLAIN], options].concat());
            assert_eq!(ended.code, if platform == "linux/ppc64le" { 3 } else { 0 }, "{ended:#?}");
            assert!(ended.code == 0 || ended.stderr.contains("is for platform linux/s390x"), "{ended:#?}");
        }
    }
}

#[test]
fn a_docker_image_is_fetched_once() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let (one, two) = (image(&host(), 2), image(&host(), 3));
    dir.image("one", &one).image("two", &two);
    for name in ["one", "two"] {
        registry.push_with(&["--format", "v2s2"], &dir.reference(name), &format!("docker:{name}"));
    }
    let raw = skopeo(&["inspect", "--raw", PLAIN, &registry.reference("docker:one")], sandbox.dir.path());
    assert!(raw.contains("vnd.docker.distribution.manifest.v2"), "{raw}");
    let pinned = registry.reference(&format!("docker@{}", digest_of(raw.as_bytes())));

    let planned = sandbox.json(&[&registry.reference("docker:one"), PLAIN, "--dry-run"]);
    let first = sandbox.json(&[&registry.reference("docker:one"), PLAIN]);
    assert_eq!(first["status"], "fetched");
    assert_eq!(first["resolved"], digest_of(raw.as_bytes()).to_string());
    assert_eq!(planned["bytes"], first["bytes"], "the dry run tells the exact bytes");
    for reference in [registry.reference("docker:one"), pinned.clone()] {
        let again = sandbox.json(&[&reference, PLAIN]);
        assert_eq!(
            (again["status"].as_str(), again["kind"].as_str()),
            (Some("already-present"), Some("image"))
        );
        assert_eq!(again["image"]["manifest"], first["image"]["manifest"]);
    }
    // Known under a further name, even when the first is gone.
    sandbox.ok(&["remove", registry.reference("docker:one").trim_start_matches("docker://")]);
    assert_eq!(sandbox.json(&[&pinned, PLAIN])["status"], "already-present");
    assert_eq!(sandbox.json(&["inspect", &pinned, PLAIN])["present"], true);

    let second = sandbox.json(&[&registry.reference("docker:two"), PLAIN, "--tag", "two"]);
    assert_eq!(second["layers"][0]["action"], "reused");
    assert_eq!(second["layers"][1]["action"], "fetched");
    sandbox.ok(&["verify"]);
    assert_eq!(sandbox.json(&["gc"])["blobs"], 0);
    let out = sandbox.path("out");
    let from = format!("oci:{}:two", sandbox.repo().display());
    skopeo(&["copy", &from, &format!("dir:{}", out.display())], sandbox.dir.path());
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    assert_eq!(digest_of(&manifest).to_string(), second["image"]["manifest"].as_str().unwrap());
}

/// An image with Docker's media types and a config as `docker build` writes it, pushed as it is.
fn docker(sandbox: &Sandbox, registry: &Registry, name: &str, seed: u64) -> String {
    // A patch must save something, or the layer is carried whole.
    let own = [noise(9, 19_000), noise(seed, 1_000)].concat();
    let layers = vec![image(&host(), seed).layers.remove(0), Layer::gzip(tar(&[("usr/bin/own", &own)]))];
    let image = Image::of_architecture(&host(), layers);
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    config["container_config"] = serde_json::json!({"Hostname": "h", "Cmd": ["/bin/sh"]});
    config["docker_version"] = "20.10.7".into();
    let config = config.to_string().into_bytes();
    let typed =
        |media_type: &str, blob: &[u8]| descriptor(&format!("application/vnd.docker.{media_type}"), blob);
    let layers = image.layers.iter().map(|l| typed("image.rootfs.diff.tar.gzip", &l.blob));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": typed("container.image.v1+json", &config),
        "layers": layers.collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let folder = sandbox.path(&format!("docker-{name}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    fs::write(folder.join("manifest.json"), &manifest).unwrap();
    for blob in image.layers.iter().map(|l| &l.blob).chain([&config]) {
        fs::write(folder.join(digest_of(blob).digest()), blob).unwrap();
    }
    registry.push_with(
        &["--preserve-digests"],
        &format!("dir:{}", folder.display()),
        &format!("docker:{name}"),
    );
    digest_of(&manifest).to_string()
}

#[test]
fn a_docker_image_has_the_digest_of_its_registry_everywhere() {
    for sandbox in Sandbox::of_each_store() {
        let registry = Registry::start();
        docker(&sandbox, &registry, "one", 2);
        let digest = docker(&sandbox, &registry, "two", 3);
        let [one, two] = ["docker:one", "docker:two"].map(|name| registry.reference(name));
        let to = registry.reference("docker");
        let made = sandbox.json(&["create", &one, &two, &to, PLAIN]);
        assert_eq!(made["target_manifest"], *digest);
        let listed = sandbox.json(&["deltas", &two, PLAIN]);
        assert_eq!(listed["deltas"][0]["digest"], made["digest"], "{listed:#}");
        let folder = format!("dir:{}", sandbox.path("docker-one").display());
        for base in [&one, &folder] {
            sandbox.ok(&[base, PLAIN, "--tag", "one"]);
            let inspected = sandbox.json(&["inspect", &two, PLAIN]);
            assert_eq!(inspected["target_manifest"], *digest);
            assert_eq!(inspected["deltas"][0], made["digest"]);
            let by_delta = sandbox.json(&[&two, PLAIN, "--tag", "two", "--delta-policy", "only"]);
            assert_eq!(by_delta["deltas"][0], made["digest"], "{by_delta:#}");
            assert_eq!(by_delta["image"]["target_manifest"], *digest);
            assert_eq!(sandbox.json(&[&two, PLAIN, "--tag", "two"])["status"], "already-present");
            sandbox.ok(&["verify"]);
            sandbox.ok(&["remove", "two"]);
            sandbox.ok(&["gc"]);
            // The same as a plain pull.
            let plain = sandbox.json(&[&two, PLAIN, "--tag", "two", "--delta-policy", "never"]);
            assert_eq!(plain["image"]["target_manifest"], by_delta["image"]["target_manifest"]);
            assert_eq!(plain["image"]["config"], by_delta["image"]["config"]);
            assert_eq!(sandbox.json(&[&two, PLAIN, "--tag", "two"])["status"], "already-present");
            sandbox.ok(&["verify"]);
            for name in ["one", "two"] {
                sandbox.ok(&["remove", name]);
            }
            sandbox.ok(&["gc"]);
        }
    }
}

#[test]
fn a_docker_image_in_a_folder_is_fetched_once() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("one", &image(&host(), 2)).image("two", &image(&host(), 3));
    let folder = |name: &str| format!("dir:{}", sandbox.path(name).display());
    for name in ["one", "two"] {
        skopeo(&["copy", "--format", "v2s2", &dir.reference(name), &folder(name)], sandbox.dir.path());
    }
    let first = sandbox.json(&[&folder("one"), "--tag", "one"]);
    assert_eq!(
        (first["status"].as_str(), first["image"]["fidelity"].as_str()),
        (Some("fetched"), Some("rewritten"))
    );
    assert_eq!(sandbox.json(&[&folder("one"), "--tag", "one"])["status"], "already-present");
    let second = sandbox.json(&[&folder("two"), "--tag", "two"]);
    assert_eq!(second["layers"][0]["action"], "reused");
    sandbox.ok(&["verify"]);
    assert_eq!(sandbox.json(&["gc"])["blobs"], 0);
    for to in ["dir", "oci"] {
        let out = format!("{to}:{}", sandbox.path(&format!("out-{to}")).display());
        skopeo(&["copy", &format!("oci:{}:two", sandbox.repo().display()), &out], sandbox.dir.path());
    }
}

#[test]
fn a_docker_image_may_be_the_base() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("one", &image(&host(), 2));
    registry.push_with(&["--format", "v2s2"], &dir.reference("one"), "docker:one");
    // A delta is made from a copy, which is converted as ours is.
    let copy = sandbox.path("copy");
    let source = registry.reference("docker:one");
    skopeo(
        &["copy", "--src-tls-verify=false", &source, &format!("oci:{}:one", copy.display())],
        sandbox.dir.path(),
    );
    let index: Value = serde_json::from_slice(&fs::read(copy.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &Value| {
        fs::read(copy.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:")))
            .unwrap()
    };
    let manifest = blob(&index["manifests"][0]["digest"]);
    let config = blob(&serde_json::from_slice::<Value>(&manifest).unwrap()["config"]["digest"]);
    let old = Image { manifest, config, ..image(&host(), 2) };
    let new = image(&host(), 3);
    dir.delta("delta", &Delta::new(&old, &new));
    sandbox.ok(&[&source, PLAIN]);
    let report = sandbox.json(&[&dir.reference("delta")]);
    assert_eq!(report["image"]["config"], new.config_digest().to_string());
    sandbox.ok(&["verify"]);
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let (old, new) = (image(&host(), 2), image(&host(), 3));
    let delta = Delta::new(&old, &new);
    dir.delta("delta", &delta).image("old", &old);
    for (bytes, protocol) in [(&delta.bytes(), "0.2.3"), (&old.manifest, "0.2.8")] {
        let mut lone = OciDir::create(&sandbox.path(protocol));
        lone.manifest("it", bytes);
        let fake = FakeSkopeo::new(&lone.root, protocol, "lie", u64::MAX);
        let pinned = format!("registry.invalid/os@{}", digest_of(bytes));
        for reference in [&*pinned, "registry.invalid/os:1"] {
            let ended = sandbox.run(&[reference, "--skopeo", fake.program().to_str().unwrap()]);
            assert_eq!(ended.code, 4, "{ended:#?}");
            assert!(ended.stderr.contains("manifest digest mismatch"), "{ended:#?}");
        }
    }
}

#[test]
fn the_base_may_be_in_a_registry() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let (old, new, other) = (image(&host(), 2), image(&host(), 3), image(&host(), 4));
    dir.image("old", &old).image("other", &other).delta("delta", &Delta::new(&old, &new));
    for name in ["old", "other", "delta"] {
        registry.push(&dir.reference(name), &format!("os:{name}"));
    }
    let (delta, base) = (registry.reference("os:delta"), registry.reference("os:old"));

    // Nothing is changed by looking, and the hint is a command that works.
    let planned = sandbox.run(&[&delta, PLAIN, "--base", &base, "--dry-run"]);
    assert_eq!(planned.code, 3, "{planned:#?}");
    let hint = format!("oci-delta-fetch {base}");
    assert!(planned.stderr.contains(&hint), "{planned:#?}");
    let inspected = sandbox.json(&["inspect", &delta, PLAIN, "--base", &base]);
    assert_eq!(inspected["fits"], false);
    assert!(!sandbox.repo().exists());

    // A wrong one is found out before any of its layers is downloaded.
    for wrong in [registry.reference("os:other"), dir.reference("other")] {
        let ended = sandbox.run(&[&delta, PLAIN, "--base", &wrong]);
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains(&other.config_digest().to_string()), "{ended:#?}");
        assert!(ended.stderr.contains("hint: "), "{ended:#?}");
        let inspected = sandbox.json(&["inspect", &delta, PLAIN, "--base", &wrong]);
        assert_eq!(inspected["fits"], false);
    }
    assert_eq!(sandbox.json(&["list"]).as_array().unwrap().len(), 0);

    let report = sandbox.json(&[&delta, PLAIN, "--base", &base, "--tag", "new"]);
    assert_eq!(report["image"]["config"], new.config_digest().to_string());
    assert_eq!(report["layers"][0]["action"], "reused");
    assert_eq!(sandbox.json(&["list"])[0]["config"], old.config_digest().to_string());
    sandbox.ok(&["verify"]);

    // The base that is here is used, under whatever name.
    let fetched = Sandbox::new();
    fetched.ok(&[&dir.reference("old"), "--tag", "mine"]);
    assert_eq!(fetched.json(&["inspect", &delta, PLAIN, "--base", &base])["fits"], true);
    fetched.ok(&[&delta, PLAIN, "--base", &base]);
    assert_eq!(fetched.json(&["list"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_base_in_an_index_is_that_of_the_platform() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let images = multi_arch(&mut dir);
    let (architecture, old) = &images[0];
    dir.delta("delta", &Delta::new(old, &image(architecture, 9)));
    registry.push_with(&["--all", "--preserve-digests"], &dir.reference("multi"), "os:multi");
    for base in [registry.reference("os:multi"), dir.reference("multi")] {
        let delta = dir.reference("delta");
        let fresh = Sandbox::new();
        let platform = format!("linux/{architecture}");
        fresh.ok(&[&delta, PLAIN, "--base", &base, "--platform", &platform]);
        assert_eq!(Sandbox::new().run(&[&delta, PLAIN, "--base", &base]).code, 3, "the host's is another");
    }
}
