//! What `create` does with bad input: a clear error, its exit code, no partial output.

use crate::support;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::images::{gzip, noise, tar};
use support::{Ended, Image, Layer, OciDir, Sandbox, oracle};

fn image(content: &[u8]) -> Image {
    Image::new(vec![Layer::gzip(tar(&[("file", content)]))])
}

struct Bench {
    sandbox: Sandbox,
    images: OciDir,
}

impl Bench {
    fn new(old: &Image, new: &Image) -> Self {
        let sandbox = Sandbox::new();
        let mut images = OciDir::create(&sandbox.path("images"));
        images.image("old", old).image("new", new);
        Bench { sandbox, images }
    }

    fn create(&self, out: &str) -> Ended {
        self.sandbox.run(&["create", &self.images.reference("old"), &self.images.reference("new"), out])
    }

    /// Fails with this exit code and these words, and leaves nothing behind.
    fn refused(&self, code: i32, words: &[&str]) {
        let dir = self.sandbox.path("out");
        fs::create_dir_all(&dir).unwrap();
        let ended = self.create(dir.join("delta.oci").to_str().unwrap());
        assert_eq!(ended.code, code, "{ended:#?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word}: {ended:#?}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "something was left behind");
    }
}

#[test]
fn a_layer_that_is_no_tar() {
    let mut broken = image(b"1");
    broken.layers = vec![Layer::gzip(noise(1, 10_000))];
    let new = Image::new(broken.layers);
    Bench::new(&image(b"0"), &new).refused(4, &["layer sha256:", "tar", "byte 0"]);
}

#[test]
fn a_truncated_blob() {
    let new = image(&noise(2, 100_000));
    let bench = Bench::new(&image(b"0"), &new);
    let path = bench.images.blob_path(oci_delta_fetch::digest::digest_of(&new.layers[0].blob).as_ref());
    let blob = fs::read(&path).unwrap();
    fs::write(&path, &blob[..blob.len() / 2]).unwrap();
    bench.refused(4, &["has", "its descriptor states"]);
}

#[test]
fn a_damaged_layer_in_either_image() {
    for which in ["old", "new"] {
        let (old, new) = (image(&noise(3, 100_000)), image(&noise(4, 100_000)));
        let bench = Bench::new(&old, &new);
        let damaged = if which == "old" { &old } else { &new };
        let path =
            bench.images.blob_path(oci_delta_fetch::digest::digest_of(&damaged.layers[0].blob).as_ref());
        let mut blob = fs::read(&path).unwrap();
        let middle = blob.len() / 2;
        blob[middle] ^= 0xff;
        fs::write(&path, blob).unwrap();
        bench.refused(4, &["layer sha256:"]);
    }
}

#[test]
fn a_layer_that_is_not_what_the_config_says() {
    let mut new = image(b"1");
    let other = Layer::gzip(tar(&[("file", b"other")]));
    let manifest: Value = serde_json::from_slice(&new.manifest).unwrap();
    let mut manifest = manifest;
    manifest["layers"][0] = support::images::descriptor(&other.media_type, &other.blob);
    new.layers = vec![other];
    new.manifest = serde_json::to_vec(&manifest).unwrap();
    Bench::new(&image(b"0"), &new).refused(4, &["diff_id mismatch"]);
}

#[test]
fn an_image_without_diff_ids() {
    let mut new = image(b"1");
    new.config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let mut manifest: Value = serde_json::from_slice(&new.manifest).unwrap();
    manifest["config"] = support::images::descriptor(support::images::CONFIG, &new.config);
    new.manifest = serde_json::to_vec(&manifest).unwrap();
    Bench::new(&image(b"0"), &new).refused(4, &["1 layers", "0 diff_ids"]);
}

#[test]
fn a_target_equal_to_the_source() {
    Bench::new(&image(b"0"), &image(b"0")).refused(2, &["are the same"]);
}

#[test]
fn a_delta_instead_of_an_image() {
    let (old, new) = (image(b"0"), image(&noise(5, 5000)));
    let bench = Bench::new(&old, &new);
    let delta = bench.sandbox.path("delta.oci");
    assert_eq!(bench.create(delta.to_str().unwrap()).code, 0);
    let ended =
        bench.sandbox.run(&["create", delta.to_str().unwrap(), &bench.images.reference("new"), "x.oci"]);
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.stderr.contains("not an image"));
}

#[test]
fn images_and_outputs_that_are_not_there() {
    let bench = Bench::new(&image(b"0"), &image(b"1"));
    for out in ["/nowhere/at/all/delta.oci", "oci:/proc/delta"] {
        assert_eq!(bench.create(out).code, 1, "{out}");
    }
    let ended = bench.sandbox.run(&["create", "oci:/nowhere", &bench.images.reference("new"), "x.oci"]);
    assert!([1, 3].contains(&ended.code), "{ended:#?}");
    let ended = bench.create(&format!("dir:{}", bench.sandbox.path("d").display()));
    assert_eq!(ended.code, 2, "{ended:#?}");
}

#[test]
fn a_full_disk() {
    let bench = Bench::new(&image(b"0"), &image(&noise(6, 400_000)));
    let out = bench.sandbox.path("out");
    fs::create_dir(&out).unwrap();
    // A limit on the size of files stands for the full disk.
    let shell = format!(
        "trap '' XFSZ; ulimit -f 100; exec {} create {} {} {}",
        env!("CARGO_BIN_EXE_oci-delta-fetch"),
        bench.images.reference("old"),
        bench.images.reference("new"),
        out.join("delta.oci").display()
    );
    let output = std::process::Command::new("bash").args(["-c", &shell]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn an_existing_output_survives_a_kill_in_the_middle() {
    let bench = Bench::new(&image(&noise(7, 24 << 20)), &image(&noise(8, 24 << 20)));
    let out = bench.sandbox.path("delta.oci");
    fs::write(&out, b"the delta of yesterday").unwrap();
    for after in [50, 200, 400] {
        let mut child = bench
            .sandbox
            .command()
            .args(["create", &bench.images.reference("old"), &bench.images.reference("new")])
            .arg(&out)
            .args(["--preset", "best"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"the delta of yesterday");
    }
}

#[test]
fn a_signal_ends_it_soon() {
    let bench = Bench::new(&image(&noise(9, 64 << 20)), &image(&noise(10, 64 << 20)));
    let child = bench
        .sandbox
        .command()
        .args(["create", &bench.images.reference("old"), &bench.images.reference("new")])
        .arg(bench.sandbox.path("delta.oci"))
        .args(["--preset", "best"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!bench.sandbox.path("delta.oci").exists());
}

#[test]
fn repetitive_input_costs_no_more_than_other() {
    // Runs of one byte, short periods, and periods with a flaw: the worst for a search by content.
    let mut old = vec![0; 8 << 20];
    old.extend((0..4 << 20).map(|i| (i % 251) as u8));
    old.extend((0..4 << 20).map(|i: u32| if i.is_multiple_of(4096) { (i / 4096) as u8 } else { 7 }));
    let mut new = old.clone();
    new.iter_mut().step_by(1000).for_each(|b| *b = b.wrapping_add(1));
    new.rotate_left(12_345);
    let (old, new) = (image(&old), image(&new));
    let bench = Bench::new(&old, &new);
    let out = format!("oci:{}", bench.sandbox.path("delta").display());
    // Seconds would be many minutes if the search were quadratic.
    let begun = Instant::now();
    bench.sandbox.ok(&["create", &bench.images.reference("old"), &bench.images.reference("new"), &out]);
    assert!(begun.elapsed() < Duration::from_secs(120));
    oracle::check(&out, &old, &new);
}

#[test]
fn gzip_with_trailing_garbage_is_refused() {
    let tar = tar(&[("file", &noise(11, 10_000))]);
    let blob = [gzip(&tar), b"garbage".to_vec()].concat();
    let new = Image::new(vec![Layer { tar, blob, media_type: support::images::TAR_GZIP.into() }]);
    Bench::new(&image(b"0"), &new).refused(4, &["layer sha256:"]);
}
