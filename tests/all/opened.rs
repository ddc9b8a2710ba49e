//! Compressed members of files: `create` looks into them, and whoever has the old layers makes them again, byte for byte.

use crate::extended::comes_by_its_extended_patch;
use crate::support;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::images::{noise, tree};
use support::{Image, Layer, OciDir, Registry, Sandbox};

const REMOTE: [&str; 2] = ["--tls-verify=false", "--insecure-policy"];

/// Some text; versions of it differ in a few words.
fn text(len: usize, version: usize) -> Vec<u8> {
    let mut seed = 7u32;
    let mut text = Vec::new();
    let mut line = 0;
    while text.len() < len {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let changed = if line % 97 == 96 { version } else { 0 };
        let word = ["members", "of an", "archive", "call"][(seed >> 30) as usize];
        text.extend(format!("{word} {changed} {:x},\n", seed >> 15).bytes());
        line += 1;
    }
    text
}

/// What a program makes of its input.
fn tool(command: &str, input: &[u8]) -> Vec<u8> {
    let words: Vec<&str> = command.split(' ').collect();
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("make test-tools");
    let mut stdin = child.stdin.take().unwrap();
    let mut output = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    });
    assert!(child.wait().unwrap().success(), "{command}");
    output
}

/// A zip archive of these files, which Python makes.
fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let program = "import sys, zipfile\n\
        with zipfile.ZipFile('out.zip', 'w', zipfile.ZIP_DEFLATED) as archive:\n\
        \x20   for name in sys.argv[1:]: archive.writestr(zipfile.ZipInfo(name), open(name, 'rb').read(), 8)\n";
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let names = files.iter().map(|(name, _)| name);
    let made = Command::new("python3").args(["-c", program]).args(names).current_dir(dir.path()).status();
    assert!(made.unwrap().success());
    std::fs::read(dir.path().join("out.zip")).unwrap()
}

/// An archive in the cpio format of an initramfs, of these files, in whole blocks.
fn cpio(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    for (name, content) in files.iter().chain(&[("TRAILER!!!", Vec::new())]) {
        let fields = [0, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(b"070701");
        fields.iter().for_each(|field| archive.extend(format!("{field:08X}").bytes()));
        archive.extend(name.bytes().chain([0]));
        pad(&mut archive);
        archive.extend(content);
        pad(&mut archive);
    }
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

/// Files with members of each coding, in one version.
pub fn files(version: usize) -> Vec<(&'static str, Vec<u8>)> {
    let plain = |len: usize| text(len, version);
    let module =
        |n: usize| tool("xz -T1 --check=crc32", &[&noise(n as u64, 3_000)[..], &plain(40_000 + n)].concat());
    vec![
        (
            "boot/initramfs",
            tool(
                "gzip -9n",
                &cpio(&[("a.ko.xz", module(1)), ("init", plain(9_000)), ("b.ko.xz", module(2))]),
            ),
        ),
        (
            "boot/vmlinuz",
            [
                &b"MZ"[..],
                &noise(5, 700),
                &tool("xz -T1 --check=crc32 --x86 --lzma2=dict=1MiB", &plain(2_000_000)),
                b"the end",
            ]
            .concat(),
        ),
        (
            "usr/lib/app.jar",
            zip(&[("A.class", plain(30_000)), ("B.class", text(20_000, 0)), ("C.class", plain(50_000))]),
        ),
        ("usr/share/big.gz", tool("gzip -n", &plain(3_000_000))),
        ("usr/share/doc/a.gz", tool("gzip -9n", &plain(20_000))),
        ("usr/share/doc/b.bz2", tool("bzip2 -9", &plain(30_000))),
        ("usr/share/doc/c.zst", zstd::encode_all(&plain(40_000)[..], 3).unwrap()),
        ("usr/share/doc/d.xz", tool("xz -T1 -6", &plain(50_000))),
        ("usr/share/doc/e.lzma", tool("xz --format=lzma", &plain(45_000))),
        ("usr/share/doc/unlike", tool("gzip -9n", &noise(50 + version as u64, 9_000))),
        ("usr/share/doc/version", format!("{version}\n").into_bytes()),
    ]
}

pub fn image(files: &[(&str, Vec<u8>)]) -> Image {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, &content[..])).collect();
    let shared = Layer::gzip(tree(&[("usr/lib/shared", &noise(9999, 50_000))]));
    Image::new(vec![shared, Layer::gzip(tree(&files))])
}

/// A delta between two images; gives the report of `create`.
pub fn create(sandbox: &Sandbox, images: &OciDir, options: &[&str]) -> Value {
    let (old, new, delta) = (images.reference("1"), images.reference("2"), sandbox.path("delta.oci"));
    let mut args = vec!["create", &old, &new, delta.to_str().unwrap()];
    args.extend(options);
    sandbox.json(&args)
}

pub fn images(sandbox: &Sandbox, old: &Image, new: &Image) -> OciDir {
    let mut images = OciDir::create(&sandbox.path("images"));
    images.image("1", old).image("2", new);
    images
}

/// Bytes of the extended patch of the upper layer, and of the standard one.
pub fn sizes(report: &Value) -> (u64, u64) {
    let layer = &report["layers"][1];
    (layer["extended_bytes"].as_u64().unwrap(), layer["bytes"].as_u64().unwrap())
}

#[test]
fn members_of_all_codings_are_looked_into_wherever_the_base_lies() {
    let (old, new) = (image(&files(1)), image(&files(2)));
    for sandbox in Sandbox::of_each_store() {
        let images = images(&sandbox, &old, &new);
        let (extended, standard) = sizes(&create(&sandbox, &images, &[]));
        assert!(extended < standard / 10, "{extended} of {standard}");
        comes_by_its_extended_patch(&sandbox, &images.reference("1"), [&old, &new], extended);
    }
}

#[test]
fn each_coding_alone_is_worth_it() {
    let sandbox = Sandbox::new();
    for (old, new) in files(1).into_iter().zip(files(2)) {
        let (name, bytes) = (old.0, new.1.len() as u64);
        let images = images(&sandbox, &image(&[old]), &image(&[new]));
        let report = create(&sandbox, &images, &["--format", "extended"]);
        let layer = &report["layers"][1];
        match name {
            "usr/share/doc/unlike" => assert!(layer["bytes"].as_u64() > Some(bytes), "{layer:#}"),
            "usr/share/doc/version" => {}
            _ => {
                assert_eq!(layer["carried"], "extended-patch", "{name}: {layer:#}");
                assert!(layer["bytes"].as_u64() < Some(bytes / 5), "{name}: {bytes} {layer:#}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let sandbox = Sandbox::new();
    let images = images(&sandbox, &image(&files(1)), &image(&files(2)));
    let made = ["1", "2", "5"].map(|jobs| create(&sandbox, &images, &["--jobs", jobs])["digest"].clone());
    assert!(made.iter().all(|digest| *digest == made[0]), "{made:?}");
}

#[test]
fn a_chain_leads_over_members_that_are_made_on_the_way() {
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let mut dir = OciDir::create(&sandbox.path("images"));
    let releases: Vec<Image> = (1..=3).map(|version| image(&files(version))).collect();
    for (release, version) in releases.iter().zip(["1", "2", "3"]) {
        dir.image(version, release);
        registry.push(&dir.reference(version), &format!("os:{version}"));
    }
    for (old, new) in [("1", "2"), ("2", "3")] {
        let to = registry.reference("os:delta");
        let args = ["create", &dir.reference(old), &dir.reference(new), &to, "--format", "extended"];
        sandbox.json(&[&args[..], &REMOTE].concat());
    }
    let fetch = |version: &str| {
        sandbox.json(&[&[&*registry.reference(&format!("os:{version}"))], &REMOTE[..]].concat())
    };
    fetch("1");
    let report = fetch("3");
    assert_eq!(report["deltas"].as_array().unwrap().len(), 2, "{report:#}");
    assert_eq!(report["layers"][1]["action"], "patched");
    assert_eq!(report["image"]["target_manifest"], releases[2].manifest_digest().to_string());
    sandbox.ok(&["verify"]);
}
