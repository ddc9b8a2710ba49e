//! The proxy against a fake skopeo that misbehaves, and against the real one.

use crate::support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_delta_fetch::digest::{Digest, digest_of};
use oci_delta_fetch::error::{Advice, Hint, Kind, Result};
use oci_delta_fetch::platform::Platform;
use oci_delta_fetch::proxy::{Attempts, Credentials, Proxy, ProxyOptions};
use support::blobs::Layout;
use support::fake::FakeSkopeo;
use support::images::noise;
use support::{Registry, Sandbox};

const PROTOCOLS: [&str; 2] = ["0.2.3", "0.2.8"];
/// Larger than any pipe, so that no transfer ends unread.
const LARGE: usize = 3 << 20;
/// Far above any wait that the tests allow, far below a hang.
const NO_HANG: Duration = Duration::from_secs(20);

/// Runs a test as the program does, and sees to it that neither it nor the end of the runtime hangs.
fn run<T>(future: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async { tokio::time::timeout(NO_HANG, future).await.expect("it hangs") });
    drop(runtime);
    assert!(started.elapsed() < NO_HANG, "the runtime hangs at its end");
    result
}

fn impatient(skopeo: &Path) -> ProxyOptions {
    ProxyOptions {
        skopeo: skopeo.to_owned(),
        inactivity_timeout: Duration::from_millis(1500),
        retries: 0,
        insecure_policy: true,
        tls_verify: false,
        ..Default::default()
    }
}

async fn read(proxy: &Proxy, (digest, size): &(Digest, u64)) -> Result<Vec<u8>> {
    let mut stream = proxy.open_blob(digest, *size).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        assert!(!chunk.is_empty() && chunk.len() <= 256 << 10);
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(stream.chunk().await?, None, "an end stays an end");
    Ok(bytes)
}

#[test]
fn manifests_and_blobs_arrive_as_they_are() {
    let blob = noise(1, LARGE);
    let layout = Layout::new(&[&blob, b"", b"small"]);
    for protocol in PROTOCOLS {
        let fake = FakeSkopeo::new(layout.path(), protocol, "", 0);
        run(async {
            let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
            let (digest, manifest) = proxy.manifest().await.unwrap();
            assert_eq!((digest, &manifest), (digest_of(&layout.manifest), &layout.manifest));
            assert!(read(&proxy, &layout.layers[0]).await.unwrap() == blob);
            assert_eq!(read(&proxy, &layout.layers[1]).await.unwrap(), b"");
            assert_eq!(read(&proxy, &layout.layers[2]).await.unwrap(), b"small");
        });
        assert_eq!(fake.record("pids").len(), 1, "one process serves all");
        fake.assert_gone();
    }
}

#[test]
fn faults_have_their_kinds_and_nothing_hangs() {
    let layout = Layout::new(&[&noise(1, LARGE)]);
    for (fault, old, new) in [
        ("stall", Some(Kind::Transient), Some(Kind::Transient)),
        ("stall-blob", Some(Kind::Transient), Some(Kind::Transient)),
        ("stall-open", Some(Kind::Transient), Some(Kind::Transient)),
        ("stall-start", Some(Kind::Transient), Some(Kind::Transient)),
        ("truncate", Some(Kind::Transient), Some(Kind::Transient)),
        ("cut", Some(Kind::Transient), Some(Kind::Transient)),
        ("die", Some(Kind::Transient), Some(Kind::Transient)),
        ("garbage", Some(Kind::Transient), Some(Kind::Transient)),
        ("err-retryable", Some(Kind::Transient), Some(Kind::Transient)),
        // A raw blob is for the consumer to hash.
        ("corrupt", Some(Kind::Verification), None),
        ("long", Some(Kind::Verification), Some(Kind::Verification)),
        ("reject", Some(Kind::Verification), Some(Kind::Verification)),
        ("err-404", Some(Kind::Misfit), Some(Kind::Misfit)),
        ("no-manifest", Some(Kind::Misfit), Some(Kind::Misfit)),
        ("unauthorized", Some(Kind::Local), Some(Kind::Local)),
        ("die-start", Some(Kind::Local), Some(Kind::Local)),
    ] {
        for (protocol, kind) in PROTOCOLS.into_iter().zip([old, new]) {
            let fake = FakeSkopeo::new(layout.path(), protocol, fault, u64::MAX);
            let result = run(async {
                let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
                read(&proxy, &layout.layers[0]).await
            });
            assert_eq!(result.err().map(|e| e.kind()), kind, "{fault} {protocol}");
            fake.assert_gone();
        }
    }
}

#[test]
fn faults_of_the_manifest_have_their_kinds() {
    let layout = Layout::new(&[]);
    for (fault, kind) in [("stall-manifest", Kind::Transient), ("huge-manifest", Kind::Verification)] {
        let fake = FakeSkopeo::new(layout.path(), "0.2.3", fault, u64::MAX);
        let error = run(async {
            Proxy::new("docker://h/r:t", impatient(&fake.program())).manifest().await.unwrap_err()
        });
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("docker://h/r:t"), "{error}");
        fake.assert_gone();
    }
}

#[test]
fn a_missing_or_too_old_skopeo_is_named() {
    let layout = Layout::new(&[]);
    let fake = FakeSkopeo::new(layout.path(), "0.2.1", "", 0);
    for program in [Path::new("/nonexistent/skopeo").to_owned(), fake.program()] {
        let error =
            run(async { Proxy::new("docker://h/r", impatient(&program)).manifest().await.unwrap_err() });
        assert_eq!(error.kind(), Kind::Local, "{error}");
        let advice = matches!(error.hint(), Some(Hint::Advice(Advice::NameSkopeo | Advice::NewerSkopeo)));
        assert!(advice, "{error:?}");
    }
}

#[test]
fn transient_faults_pass_with_retries() {
    let blob = noise(1, LARGE);
    let layout = Layout::new(&[&blob]);
    for fault in ["stall", "stall-blob", "truncate", "cut", "die", "garbage", "err-retryable"] {
        for protocol in PROTOCOLS {
            let fake = FakeSkopeo::new(layout.path(), protocol, fault, 2);
            let bytes = run(async {
                let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
                Attempts::new(3).run(|| read(&proxy, &layout.layers[0])).await
            });
            assert!(bytes.unwrap() == blob, "{fault} {protocol}");
            fake.assert_gone();
        }
    }
}

#[test]
fn a_slow_blob_is_no_stall() {
    // Silent for longer than skopeo is trusted unasked, shorter than the patience.
    let blob = noise(1, LARGE);
    let layout = Layout::new(&[&blob]);
    for protocol in PROTOCOLS {
        let fake = FakeSkopeo::new(layout.path(), protocol, "slow", u64::MAX);
        let options =
            ProxyOptions { inactivity_timeout: Duration::from_millis(700), ..impatient(&fake.program()) };
        run(async {
            let proxy = Proxy::new("docker://h/r:t", options);
            assert!(read(&proxy, &layout.layers[0]).await.unwrap() == blob);
        });
        fake.assert_gone();
    }
}

#[test]
fn a_slow_consumer_does_not_block_another_blob() {
    let (a, b) = (noise(1, LARGE), noise(2, LARGE));
    let layout = Layout::new(&[&a, &b]);
    for protocol in PROTOCOLS {
        let fake = FakeSkopeo::new(layout.path(), protocol, "", 0);
        run(async {
            let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
            let (digest, size) = &layout.layers[0];
            let mut slow = proxy.open_blob(digest, *size).await.unwrap();
            let mut bytes = slow.chunk().await.unwrap().unwrap().to_vec();
            assert!(read(&proxy, &layout.layers[1]).await.unwrap() == b);
            while let Some(chunk) = slow.chunk().await.unwrap() {
                bytes.extend_from_slice(&chunk);
            }
            assert!(bytes == a);
            let (c, d) = tokio::join!(read(&proxy, &layout.layers[0]), read(&proxy, &layout.layers[1]));
            assert!(c.unwrap() == a && d.unwrap() == b);
        });
        assert_eq!(fake.record("pids").len(), 1);
        fake.assert_gone();
    }
}

#[test]
fn two_blobs_fail_together_without_a_panic() {
    let layout = Layout::new(&[&noise(1, LARGE), &noise(2, LARGE)]);
    for fault in ["die", "stall", "garbage"] {
        for protocol in PROTOCOLS {
            let fake = FakeSkopeo::new(layout.path(), protocol, fault, u64::MAX);
            run(async {
                let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
                let (a, b) = tokio::join!(read(&proxy, &layout.layers[0]), read(&proxy, &layout.layers[1]));
                for result in [a, b] {
                    assert_eq!(result.unwrap_err().kind(), Kind::Transient, "{fault} {protocol}");
                }
            });
            fake.assert_gone();
        }
    }
}

#[test]
fn what_is_dropped_midway_ends_its_skopeo() {
    let layout = Layout::new(&[&noise(1, LARGE)]);
    let (digest, size) = &layout.layers[0];
    for (fault, protocol) in [("", "0.2.3"), ("", "0.2.8"), ("stall", "0.2.3"), ("stall", "0.2.8")] {
        let fake = FakeSkopeo::new(layout.path(), protocol, fault, u64::MAX);
        run(async {
            let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
            let mut stream = proxy.open_blob(digest, *size).await.unwrap();
            stream.chunk().await.unwrap().unwrap();
            drop(stream);
            fake.assert_gone();
        });
    }
    for fault in ["stall-start", "stall-open", "stall-blob"] {
        let fake = FakeSkopeo::new(layout.path(), "0.2.8", fault, u64::MAX);
        run(async {
            let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
            let opened =
                tokio::time::timeout(Duration::from_millis(500), proxy.open_blob(digest, *size)).await;
            assert!(opened.is_err(), "{fault} answered");
            fake.assert_gone();
        });
    }
}

#[test]
fn skopeo_dies_with_us() {
    let layout = Layout::new(&[]);
    let fake = FakeSkopeo::new(layout.path(), "0.2.3", "stall-manifest", u64::MAX);
    let sandbox = Sandbox::new();
    let mut child =
        sandbox.command().args(["docker://h/r:t", "--skopeo"]).arg(fake.program()).spawn().unwrap();
    let started = Instant::now();
    while fake.record("opened").is_empty() {
        assert!(started.elapsed() < NO_HANG, "the fake was never asked");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fake.assert_gone();
}

#[test]
fn a_known_manifest_pins_later_connections() {
    let layout = Layout::new(&[&noise(1, LARGE)]);
    let fake = FakeSkopeo::new(layout.path(), "0.2.3", "die", 1);
    run(async {
        let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
        proxy.manifest().await.unwrap();
        Attempts::new(1).run(|| read(&proxy, &layout.layers[0])).await.unwrap();
    });
    let pinned = format!("docker://h/r@{}", digest_of(&layout.manifest));
    assert_eq!(fake.record("opened"), ["docker://h/r:t", &pinned]);
}

#[test]
fn options_reach_skopeo_but_the_password_does_not_show() {
    let layout = Layout::new(&[]);
    let fake = FakeSkopeo::new(layout.path(), "0.2.3", "", 0);
    let options = ProxyOptions {
        creds: Some(Credentials::parse("me:secret").unwrap()),
        cert_dir: Some("/certs".into()),
        registries_conf: Some("/r.conf".into()),
        platform: Some(Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: Some("v8".into()),
        }),
        tmpdir: Some("/tmp".into()),
        ..impatient(&fake.program())
    };
    run(async { Proxy::new("docker://h.example/r:t", options).manifest().await.unwrap() });
    assert_eq!(
        fake.record("args"),
        [
            r#"["--registries-conf", "/r.conf", "--tmpdir", "/tmp", "--override-os", "linux", "--override-arch", "arm64", "--override-variant", "v8", "experimental-image-proxy", "--authfile", "/proc/self/fd/100", "--cert-dir", "/certs", "--tls-verify=false", "--insecure-policy"]"#
        ]
    );
}

/// The tests with the real skopeo allow it more time.
fn real() -> ProxyOptions {
    ProxyOptions { inactivity_timeout: Duration::from_secs(8), ..impatient(Path::new("skopeo")) }
}

#[test]
fn the_real_skopeo_reads_a_layout() {
    let blobs = [noise(1, LARGE), noise(2, 10)];
    let layout = Layout::new(&[&blobs[0], &blobs[1]]);
    run(async {
        let proxy = Proxy::new(&format!("oci:{}", layout.path().display()), real());
        assert_eq!(proxy.manifest().await.expect("is skopeo installed?").1, layout.manifest);
        let (a, b) = tokio::join!(read(&proxy, &layout.layers[0]), read(&proxy, &layout.layers[1]));
        assert!(a.unwrap() == blobs[0] && b.unwrap() == blobs[1]);
        let missing = read(&proxy, &(digest_of(b"nothing"), 7)).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::Misfit, "{missing}");
    });
}

#[test]
fn the_real_skopeo_reads_a_registry() {
    let registry = Registry::start();
    let blobs = [noise(1, LARGE), noise(2, LARGE)];
    let layout = Layout::new(&[&blobs[0], &blobs[1]]);
    registry.push(&format!("oci:{}", layout.path().display()), "a/delta:1");
    let reference = registry.reference("a/delta:1");
    run(async {
        let proxy = Proxy::new(&reference, real());
        let (digest, manifest) = proxy.manifest().await.unwrap();
        assert_eq!((digest, &manifest), (digest_of(&layout.manifest), &layout.manifest));
        let (a, b) = tokio::join!(read(&proxy, &layout.layers[0]), read(&proxy, &layout.layers[1]));
        assert!(a.unwrap() == blobs[0] && b.unwrap() == blobs[1]);
    });
}

#[test]
fn faults_of_a_real_registry_have_their_kinds() {
    let registry = Registry::start();
    let blobs = [noise(1, LARGE), noise(2, LARGE), noise(3, LARGE)];
    let layout = Layout::new(&[&blobs[0], &blobs[1], &blobs[2]]);
    registry.push(&format!("oci:{}", layout.path().display()), "delta:1");
    let reference = registry.reference("delta:1");
    let file = |i: usize| registry.blob_file(layout.layers[i].0.digest());
    let mut bad = blobs[0].clone();
    bad[LARGE / 2] ^= 1;
    fs::write(file(0), bad).unwrap();
    fs::remove_file(file(1)).unwrap();
    run(async {
        let proxy = Proxy::new(&reference, real());
        // A newer skopeo leaves the digest to the consumer.
        match read(&proxy, &layout.layers[0]).await {
            Ok(bytes) => assert_ne!(digest_of(&bytes), layout.layers[0].0),
            Err(e) => assert_eq!(e.kind(), Kind::Verification, "{e}"),
        }
        let missing = read(&proxy, &layout.layers[1]).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::Misfit, "{missing}");
        assert!(read(&proxy, &layout.layers[2]).await.unwrap() == blobs[2], "the connection still serves");
        let absent =
            Proxy::new(&reference.replace(":1", ":no-such-tag"), real()).manifest().await.unwrap_err();
        assert_eq!(absent.kind(), Kind::Misfit, "{absent}");
        let refused = Proxy::new("docker://127.0.0.1:1/r:t", real()).manifest().await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Transient, "{refused}");
    });
}

#[test]
fn a_withdrawn_token_is_renewed_for_all_blobs_under_way() {
    let layout = Layout::new(&[&noise(1, LARGE), &noise(2, LARGE)]);
    // What the first skopeo has is no longer taken.
    let fake = FakeSkopeo::new(layout.path(), "0.2.8", "withdrawn", 1);
    run(async {
        let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
        let once = async |at: usize| Attempts::new(1).run(|| read(&proxy, &layout.layers[at])).await;
        let (one, other) = tokio::join!(once(0), once(1));
        assert_eq!((one.unwrap().len(), other.unwrap().len()), (LARGE, LARGE));
    });
    assert_eq!(fake.record("pids").len(), 2);
    // A new one is not taken either.
    let fake = FakeSkopeo::new(layout.path(), "0.2.8", "withdrawn", 100);
    run(async {
        let proxy = Proxy::new("docker://h/r:t", impatient(&fake.program()));
        let once = async |at: usize| Attempts::new(5).run(|| read(&proxy, &layout.layers[at])).await;
        let (one, other) = tokio::join!(once(0), once(1));
        for error in [one.unwrap_err(), other.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Local, "{error}");
            assert!(error.hint().is_some());
        }
    });
    assert_eq!(fake.record("pids").len(), 2, "one more try, not as many as for faults that pass");
}
