//! The surroundings of a registry: proxies, credential helpers, tokens that are withdrawn, blobs that are gone.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::cli::{Ended, ended};
use crate::support::images::{noise, tree};
use crate::support::relay::{Fault, Relay};
use crate::support::{Delta, Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];
const DEAD: &str = "http://127.0.0.1:1";

fn version(n: u8) -> Image {
    let mut file = noise(7, 400_000);
    file[usize::from(n)] ^= n;
    let parts = (0..3).map(|part| Layer::gzip(tree(&[(&format!("usr/part{part}"), &noise(part, 20_000))])));
    Image::new(parts.chain([Layer::gzip(tree(&[("usr/grows", &file)]))]).collect())
}

/// A registry with `os:1`, `os:2` and a listed delta between them.
fn filled(sandbox: &Sandbox) -> (Registry, Image) {
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let (old, new) = (version(1), version(2));
    dir.image("1", &old).image("2", &new).delta("delta", &Delta::new(&old, &new));
    for n in ["1", "2"] {
        registry.push(&dir.reference(n), &format!("os:{n}"));
    }
    sandbox.ok(&[&["push", &dir.reference("delta"), &registry.reference("os")], &REMOTE[..]].concat());
    (registry, new)
}

fn with(sandbox: &Sandbox, variables: &[(&str, &str)], args: &[&str]) -> Ended {
    let mut command = sandbox.command();
    command.env_remove("NO_PROXY").args(args).args(REMOTE);
    ended(command.envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn proxies_are_those_of_skopeo() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox);
    let near = registry.reference("os:2");
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        let ended = with(&sandbox, &[(variable, DEAD)], &["deltas", &near]);
        assert!(ended.code == 0 && ended.stdout.contains("sha256:"), "{variable}: {ended:#?}");
        assert!(!ended.stdout.contains("no deltas"), "{variable}: {ended:#?}");
    }
    // A server takes whole addresses, so a relay to one is a proxy to it.
    let proxy = Relay::to(&registry.address);
    let proxy = format!("http://{}", proxy.address);
    let far = "registry.test:5000/os:2";
    for (variables, reached) in [
        (&[("http_proxy", &*proxy)][..], true),
        (&[("HTTP_PROXY", ""), ("http_proxy", &proxy)], true),
        (&[("HTTP_PROXY", &proxy), ("http_proxy", DEAD)], true),
        (&[("HTTP_PROXY", DEAD), ("http_proxy", &proxy)], false),
        (&[("http_proxy", &proxy), ("NO_PROXY", "other.test,registry.test:5001")], true),
        (&[("http_proxy", &proxy), ("NO_PROXY", "registry.test")], false),
        (&[("http_proxy", &proxy), ("no_proxy", "*")], false),
    ] {
        let ended = with(&sandbox, variables, &["deltas", far, "--retries=0"]);
        assert_eq!(ended.code, if reached { 0 } else { 5 }, "{variables:?}: {ended:#?}");
        assert!(!reached || ended.stdout.contains("sha256:"), "{variables:?}: {ended:#?}");
    }
}

#[test]
fn a_failure_names_the_proxy() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox);
    let (image, elsewhere) = (registry.reference("os:2"), ["--delta-repo", "registry.test:5000/os"]);
    let proxy = [("HTTP_PROXY", "http://user:secret@127.0.0.1:1")];
    let ended = with(&sandbox, &proxy, &[&["deltas", &image, "--retries=0"], &elsewhere[..]].concat());
    assert_eq!(ended.code, 5, "{ended:#?}");
    assert!(ended.stderr.contains("by the proxy http://127.0.0.1:1"), "{ended:#?}");
    assert!(!ended.stderr.contains("secret"), "{ended:#?}");
}

#[test]
fn a_credential_helper_has_no_more_time_than_a_registry() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox);
    let script = |name: &str, text: &str| {
        let path = sandbox.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    // Only our own requests meet the helper: skopeo gets another home.
    let skopeo = script("skopeo", "#!/bin/sh\nHOME=/nonexistent exec skopeo \"$@\"\n");
    script("bin/docker-credential-sleepy", "#!/bin/sh\nexec sleep 1000\n");
    let helpers = json!({"credHelpers": {&registry.address: "sleepy"}});
    fs::create_dir_all(sandbox.path(".docker")).unwrap();
    fs::write(sandbox.path(".docker/config.json"), helpers.to_string()).unwrap();
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    let (reference, began) = (registry.reference("os:2"), Instant::now());
    let args = ["deltas", &reference, "--stall-timeout=3", "--skopeo", skopeo.to_str().unwrap()];
    let ended = with(&sandbox, &[("PATH", &path)], &args);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // Then it is skopeo that reads the list.
    assert!(ended.code == 0 && !ended.stdout.contains("no deltas"), "{ended:#?}");
}

/// A registry behind tokens: `revoke` tells by a request whether the token it brings is withdrawn.
fn behind_tokens(registry: &Registry, revoke: impl Fn(&str) -> bool + Send + Sync + 'static) -> Relay {
    let own = Arc::new(OnceLock::<String>::new());
    let (address, valid) = (own.clone(), Mutex::new((HashSet::<String>::new(), 0)));
    let relay = Relay::watched(
        &registry.address,
        |_| Fault::None,
        move |head| {
            let mut valid = valid.lock().unwrap();
            let answer = |status: &str, more: &str, body: &str| {
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n{more}"
                );
                Some(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
            };
            if head.starts_with("GET /token") {
                valid.1 += 1;
                let token = format!("t{}", valid.1);
                valid.0.insert(token.clone());
                return answer("200 OK", "", &json!({"token": token, "expires_in": 3600}).to_string());
            }
            let token =
                head.lines().find_map(|line| line.strip_prefix("Authorization: Bearer ")).unwrap_or("none");
            if revoke(head) {
                valid.0.remove(token);
            }
            if valid.0.contains(token) {
                return None;
            }
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"\r\n", address.get().unwrap());
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            answer("401 Unauthorized", &challenge, body)
        },
    );
    own.set(relay.address.clone()).unwrap();
    relay
}

#[test]
fn a_token_withdrawn_in_mid_run_is_fetched_anew() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox);
    let blobs = std::sync::atomic::AtomicU64::new(0);
    let second = move |head: &str| {
        head.contains("/blobs/") && blobs.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2
    };
    let relay = behind_tokens(&registry, second);
    let report = sandbox.json(&[&[&*relay.reference("os:1")], &REMOTE[..]].concat());
    assert_eq!(report["status"], "fetched");
}

#[test]
fn a_blob_that_stays_denied_is_named() {
    let sandbox = Sandbox::new();
    let (registry, new) = filled(&sandbox);
    let digest = digest_of_layer(&new, 1);
    let denied = digest.clone();
    let relay = behind_tokens(&registry, move |head| head.contains(&denied));
    let ended = sandbox.run(&[&[&*relay.reference("os:2")], &REMOTE[..]].concat());
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.stderr.contains(&digest) && ended.stderr.contains("skopeo login"), "{ended:#?}");
}

#[test]
fn a_blob_that_is_gone_is_named() {
    let sandbox = Sandbox::new();
    let (registry, new) = filled(&sandbox);
    let digest = digest_of_layer(&new, 1);
    fs::remove_file(registry.blob_file(&digest)).unwrap();
    let ended = sandbox.run(&[&[&*registry.reference("os:2")], &REMOTE[..]].concat());
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.stderr.contains(&digest), "{ended:#?}");
}

fn digest_of_layer(image: &Image, at: usize) -> String {
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][at]["digest"].as_str().unwrap().to_owned()
}
