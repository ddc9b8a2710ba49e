//! The transport helper: clients of skopeo's image proxy that know nothing of us.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containers_image_proxy::{ImageProxy, ImageProxyConfig};
use oci_delta_fetch::digest::{Digest, digest_of};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use super::support::fake::FakeSkopeo;
use super::support::images::{noise, tree};
use super::support::running::wait_for;
use super::support::{Image, Layer, OciDir, Sandbox};

/// The program in a directory for PATH, under skopeo's name.
fn shim(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.path("shim");
    fs::create_dir_all(&dir).unwrap();
    let _ = symlink(env!("CARGO_BIN_EXE_oci-delta-fetch"), dir.join("skopeo"));
    dir
}

/// PATH with that before all else.
fn path(sandbox: &Sandbox) -> String {
    format!("{}:{}", shim(sandbox).display(), std::env::var("PATH").unwrap())
}

/// The program as a client starts it; what it says goes into the file `log`.
fn command(sandbox: &Sandbox) -> Command {
    let log = sandbox.path("log").display().to_string();
    let mut command = sandbox.limited(&format!("exec 2>>'{log}'"));
    command.env("TMPDIR", sandbox.path("spool"));
    fs::create_dir_all(sandbox.path("spool")).unwrap();
    command
}

/// What a client sees of an image through `command`: manifest, config and layers as blobs.
fn pulled(command: Command, reference: &str, image: &Image, is_raw: bool) -> Result<Vec<Vec<u8>>, String> {
    let mut config = ImageProxyConfig::default();
    config.skopeo_cmd = Some(command);
    config.insecure_skip_tls_verification = Some(true);
    config.auth_anonymous = true;
    Runtime::new().unwrap().block_on(async {
        let proxy = ImageProxy::new_with_config(config).await.map_err(|e| e.to_string())?;
        let opened = proxy.open_image(reference).await.map_err(|e| e.to_string())?;
        let (digest, manifest) = proxy.fetch_manifest_raw_oci(&opened).await.map_err(|e| e.to_string())?;
        assert_eq!(digest, image.manifest_digest().to_string());
        let mut all = vec![manifest];
        for blob in [&image.config].into_iter().chain(image.layers.iter().map(|layer| &layer.blob)) {
            let (digest, size): (Digest, u64) = (digest_of(blob), blob.len() as u64);
            let mut bytes = Vec::new();
            if is_raw {
                let (found, mut file, end) =
                    proxy.get_raw_blob(&opened, &digest).await.map_err(|e| e.to_string())?;
                assert_eq!(found, Some(size));
                file.read_to_end(&mut bytes).await.unwrap();
                end.await.map_err(|e| e.to_string())?;
            } else {
                let (reader, end) =
                    proxy.get_blob(&opened, &digest, size).await.map_err(|e| e.to_string())?;
                let mut reader = reader.take(size);
                let (read, ended) = tokio::join!(reader.read_to_end(&mut bytes), end);
                read.unwrap();
                ended.map_err(|e| e.to_string())?;
            }
            all.push(bytes);
        }
        proxy.close_image(&opened).await.map_err(|e| e.to_string())?;
        proxy.finalize().await.map_err(|e| e.to_string())?;
        Ok(all)
    })
}

fn assert_right(pulled: &[Vec<u8>], image: &Image) {
    let blobs =
        [&image.manifest, &image.config].into_iter().chain(image.layers.iter().map(|layer| &layer.blob));
    assert_eq!(pulled.len(), 2 + image.layers.len());
    assert!(pulled.iter().zip(blobs).all(|(found, expected)| found == expected));
}

#[test]
fn a_client_gets_all_that_skopeo_says_by_any_version_of_the_protocol() {
    let sandbox = Sandbox::new();
    let image = Image::new(vec![Layer::gzip(tree(&[("usr/a", &noise(1, 900_000))]))]);
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("os", &image);

    let found = pulled(command(&sandbox), &dir.reference("os"), &image, false).unwrap();
    assert_right(&found, &image);
    let absent = pulled(command(&sandbox), &dir.reference("absent"), &image, false).unwrap_err();
    assert!(absent.contains("absent"), "in skopeo's words: {absent}");

    for (protocol, is_raw) in [("0.2.3", false), ("0.2.8", true)] {
        let fake = FakeSkopeo::new(&sandbox.path("source"), protocol, "", 0);
        let mut command = command(&sandbox);
        command.env("OCI_DELTA_FETCH_SKOPEO", fake.program());
        let found = pulled(command, &dir.reference("os"), &image, is_raw).unwrap();
        assert_right(&found, &image);
        assert!(fake.record("args")[0].contains("experimental-image-proxy"), "{:?}", fake.record("args"));
        fake.assert_gone();
    }
}

#[test]
fn under_the_name_of_skopeo_it_is_skopeo() {
    let sandbox = Sandbox::new();
    let run = |path: &str, args: &[&str]| {
        let mut command = Command::new(shim(&sandbox).join("skopeo"));
        command.args(args).env("PATH", path).env("HOME", sandbox.path("home")).stdin(Stdio::null());
        command.output().unwrap()
    };
    let real = Command::new("skopeo").arg("--version").output().unwrap();
    let ours = run(&path(&sandbox), &["--version"]);
    assert_eq!(ours.stdout, real.stdout);
    let ours = run(&path(&sandbox), &["experimental-image-proxy", "--help"]);
    assert!(String::from_utf8_lossy(&ours.stdout).contains("--sockfd"), "no client is there: {ours:?}");
    let code = Command::new("skopeo").args(["copy", "nonsense"]).output().unwrap().status.code();
    assert_eq!(run(&path(&sandbox), &["copy", "nonsense"]).status.code(), code);

    let alone = run(&shim(&sandbox).display().to_string(), &["--version"]);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("no skopeo on PATH beside this"), "{alone:?}");
    let circle = sandbox.path("circle");
    fs::create_dir(&circle).unwrap();
    let script = format!("#!/bin/sh\nexec {}/skopeo \"$@\"\n", shim(&sandbox).display());
    fs::write(circle.join("skopeo"), script).unwrap();
    Command::new("chmod").arg("+x").arg(circle.join("skopeo")).status().unwrap();
    let lost = run(&format!("{}:/bin", circle.display()), &["--version"]);
    assert!(String::from_utf8_lossy(&lost.stderr).contains("leads back to this program"), "{lost:?}");
}

#[test]
fn whoever_is_killed_the_others_end() {
    let sandbox = Sandbox::new();
    let image = Image::new(vec![Layer::gzip(tree(&[("usr/a", b"a")]))]);
    OciDir::create(&sandbox.path("source")).image("os", &image);
    let kill = |pid: &str| assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    for victim in ["skopeo", "helper"] {
        let fake = FakeSkopeo::new(&sandbox.path("source"), "0.2.3", "stall-open", u64::MAX);
        let mut command = command(&sandbox);
        command.env("OCI_DELTA_FETCH_SKOPEO", fake.program());
        let client = std::thread::spawn({
            let reference = format!("oci:{}:os", sandbox.path("source").display());
            let image = image.clone();
            move || pulled(command, &reference, &image, false)
        });
        wait_for("skopeo to be asked", || !fake.record("pids").is_empty());
        let skopeo = fake.record("pids")[0].clone();
        let stat = fs::read_to_string(format!("/proc/{skopeo}/stat")).unwrap();
        let helper = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
        kill(if victim == "skopeo" { &skopeo } else { &helper });
        client.join().unwrap().unwrap_err();
        fake.assert_gone();
        wait_for("the helper to end", || !Path::new(&format!("/proc/{helper}/exe")).exists());
    }
}
