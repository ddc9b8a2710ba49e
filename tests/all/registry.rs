//! Ways to reach a registry: passwords, certificates, registries.conf, pinned digests.

use crate::support;

use std::fs;

use support::images::{noise, tar};
use support::registry::CREDS;
use support::{Delta, Ended, Guard, Image, Layer, OciDir, Registry, Sandbox};

fn pair() -> (Image, Image) {
    let (shared, old, new) = (noise(1, 50_000), noise(2, 80_000), noise(3, 1_000));
    let base = Layer::gzip(tar(&[("usr/lib/shared", &shared)]));
    let changed = [&old[..], &new].concat();
    (
        Image::new(vec![base.clone(), Layer::gzip(tar(&[("usr/bin/tool", &old)]))]),
        Image::new(vec![base, Layer::gzip(tar(&[("usr/bin/tool", &changed)]))]),
    )
}

/// A registry with `os:1` and `os:1-to-2`.
fn filled(sandbox: &Sandbox, guard: Guard) -> (Registry, Image, Image, Delta) {
    let registry = Registry::guarded(guard);
    let (old, new) = pair();
    let delta = Delta::new(&old, &new);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("old", &old).delta("delta", &delta);
    registry.push(&dir.reference("old"), "os:1");
    registry.push(&dir.reference("delta"), "os:1-to-2");
    (registry, old, new, delta)
}

fn refused(ended: &Ended, code: i32, cause: &str, hint: &str) {
    assert_eq!(ended.code, code, "{ended:#?}");
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.to_lowercase().contains(cause), "{cause}: {ended:#?}");
    let hints = ended.stderr.lines().filter_map(|line| line.strip_prefix("hint: ")).collect::<String>();
    assert!(hints.contains(hint), "{hint}: {ended:#?}");
}

#[test]
fn a_registry_with_a_password_wants_the_right_one() {
    let sandbox = Sandbox::new();
    let (registry, _, new, _) = filled(&sandbox, Guard { password: true, ..Guard::default() });
    let reference = registry.reference("os:1");
    let plain = "--tls-verify=false";

    refused(&sandbox.run(&[&reference, plain]), 1, "authentication required", "skopeo login");
    for wrong in ["user:wrong", "nobody:secret"] {
        let ended = sandbox.run(&[&reference, plain, "--creds", wrong]);
        refused(&ended, 1, "unauthorized", "--authfile");
        assert!(!ended.stderr.contains(wrong), "{ended:#?}");
    }
    let ended = sandbox.run(&[&reference, plain, "--authfile", "/nonexistent/auth.json"]);
    assert_eq!(ended.code, 1, "{ended:#?}");

    assert_eq!(sandbox.json(&[&reference, plain, "--creds", CREDS])["status"], "fetched");
    let authfile = sandbox.path("auth.json");
    // "user:secret" in base64.
    let auth = serde_json::json!({"auths": {&registry.address: {"auth": "dXNlcjpzZWNyZXQ="}}});
    fs::write(&authfile, auth.to_string()).unwrap();
    let authfile = authfile.to_str().unwrap();
    let delta = registry.reference("os:1-to-2");
    let report = sandbox.json(&[&delta, plain, "--authfile", authfile]);
    assert_eq!(report["image"]["config"], new.config_digest().to_string());
}

#[test]
fn a_password_typed_beats_the_environment() {
    let sandbox = Sandbox::new();
    let (registry, ..) = filled(&sandbox, Guard { password: true, ..Guard::default() });
    let mut command = sandbox.command();
    command.args([&registry.reference("os:1"), "--tls-verify=false", "--creds", CREDS]);
    let ended = support::cli::ended(command.env("REGISTRY_AUTH_FILE", "/nonexistent").output().unwrap());
    assert_eq!(ended.code, 0, "{ended:#?}");
}

#[test]
fn a_password_shows_in_no_command_line_of_skopeo() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let (registry, ..) = filled(&sandbox, Guard { password: true, ..Guard::default() });
    // What the kernel shows of the process to everybody, taken as it starts.
    let (script, shown) = (sandbox.path("skopeo"), sandbox.path("shown"));
    let text = format!(
        "#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >>{}\nexec skopeo \"$@\"\n",
        shown.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let with = ["--tls-verify=false", "--creds", CREDS, "--skopeo", script.to_str().unwrap()];
    sandbox.ok(&[&[&*registry.reference("os:1")], &with[..]].concat());
    let shown = String::from_utf8_lossy(&fs::read(shown).unwrap()).into_owned();
    assert!(shown.contains("experimental-image-proxy"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("dXNlcjpzZWNyZXQ"), "{shown}");
}

#[test]
fn a_registry_with_an_unknown_certificate_is_refused() {
    let sandbox = Sandbox::new();
    let (registry, ..) = filled(&sandbox, Guard { tls: true, ..Guard::default() });
    let reference = registry.reference("os:1");
    let refusal = sandbox.run(&[&reference]);
    refused(&refusal, 1, "certificate signed by unknown authority", "--cert-dir");
    let report = sandbox.json(&[&reference, "--cert-dir", &registry.cert_dir()]);
    assert_eq!(report["status"], "fetched");
    let delta = registry.reference("os:1-to-2");
    assert_eq!(sandbox.json(&[&delta, "--cert-dir", &registry.cert_dir()])["status"], "fetched");
    let trusting = Sandbox::new();
    assert_eq!(trusting.json(&[&reference, "--tls-verify=false"])["status"], "fetched");
}

#[test]
fn a_registry_without_tls_is_refused_unless_allowed() {
    let sandbox = Sandbox::new();
    let (registry, ..) = filled(&sandbox, Guard::default());
    let reference = registry.reference("os:1");
    refused(&sandbox.run(&[&reference]), 1, "http response to https client", "--tls-verify=false");
    refused(&sandbox.run(&[&reference, "--tls-verify"]), 1, "http response", "--tls-verify=false");
    assert_eq!(sandbox.json(&[&reference, "--tls-verify=false"])["status"], "fetched");
}

#[test]
fn registries_conf_leads_elsewhere() {
    let sandbox = Sandbox::new();
    let (registry, _, new, _) = filled(&sandbox, Guard::default());
    let conf = sandbox.path("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"example.invalid/team\"\nlocation = \"{0}\"\ninsecure = true\n\n\
         [[registry]]\nlocation = \"mirrored.invalid\"\n\
         [[registry.mirror]]\nlocation = \"{0}\"\ninsecure = true\n",
        registry.address
    );
    fs::write(&conf, text).unwrap();
    let conf = ["--registries-conf", conf.to_str().unwrap()];
    let report = sandbox.json(&["example.invalid/team/os:1", conf[0], conf[1]]);
    assert_eq!(report["image"]["name"], "example.invalid/team/os:1");
    let report = sandbox.json(&["docker://mirrored.invalid/os:1-to-2", conf[0], conf[1]]);
    assert_eq!(report["image"]["config"], new.config_digest().to_string());
    assert_eq!(sandbox.run(&["mirrored.invalid/os:1", "--retries=0"]).code, 5, "without it nobody is there");
}

#[test]
fn a_delta_is_found_by_its_digest() {
    let sandbox = Sandbox::new();
    let (registry, _, new, delta) = filled(&sandbox, Guard::default());
    let digest = oci_delta_fetch::digest::digest_of(&delta.bytes());
    sandbox.ok(&[&registry.reference("os:1"), "--tls-verify=false"]);
    let bare = format!("{}/os@{digest}", registry.address);
    for reference in
        [bare.clone(), format!("docker://{bare}"), format!("{}/os:any@{digest}", registry.address)]
    {
        let report = sandbox.json(&[&reference, "--tls-verify=false"]);
        assert_eq!(report["resolved"], digest.to_string());
        assert_eq!(report["image"]["config"], new.config_digest().to_string());
    }
    let absent = format!("{}/os@{}", registry.address, oci_delta_fetch::digest::digest_of(b"absent"));
    refused(&sandbox.run(&[&absent, "--tls-verify=false"]), 3, "manifest unknown", "check the name");
}
