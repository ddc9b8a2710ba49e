//! Fresh streams of real tools: their recipes are found, and make them again.
//!
//! With `EXACT_TOOLS`, as `.ci/run` has it. `make test-tools` installs the tools, and a missing one is a failure.

mod common;

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, thread};

use common::original::pipe;
use common::{layer_like, sha256};
use exact_encoders::find::{MAX_TEXT, NotFound, find};
use exact_encoders::recipe::Rebuild;
use exact_encoders::zstd::libzstd;
use serde_json::{Value, json};

/// The plain bytes of a blob.
fn unpacked(name: &str, blob: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match blob {
        [0x1f, 0x8b, ..] => {
            flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut plain).expect("a stream of gzip")
        }
        _ => zstd::Decoder::new(blob)
            .expect("a decoder")
            .read_to_end(&mut plain)
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    };
    plain
}

/// Finds the recipe of a blob with two threads, and makes the blob again from its text with one.
fn check(name: &str, blob: &[u8]) -> Result<(), NotFound> {
    let plain = unpacked(name, blob);
    let two = NonZeroUsize::new(2).expect("two");
    let text = find(|| Ok(Cursor::new(blob)), || Ok(Cursor::new(&plain)), two, || false)?.to_string();
    assert!(text.len() <= MAX_TEXT, "{name}: {text}");
    let recipe = text.parse().expect("the text of a recipe");
    // With two threads it was made by the search.
    let mut rebuild = Rebuild::new(&recipe, None, NonZeroUsize::MIN, Vec::new()).expect("no fix");
    rebuild.write_all(&plain).expect("the blob");
    assert!(rebuild.finish().expect("the end") == blob, "{name}: {text}");
    Ok(())
}

/// Images and what the tools need, in a folder that goes away.
struct Desk(PathBuf);

impl Desk {
    fn new() -> Self {
        let desk = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join("fresh"));
        let _ = fs::remove_dir_all(&desk.0);
        fs::create_dir_all(&desk.0).expect("a folder");
        let policy = json!({"default": [{"type": "insecureAcceptAnything"}]});
        fs::write(desk.path("policy.json"), policy.to_string()).expect("a file");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs a command, cut at spaces, in the folder; what it prints.
    fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a command"));
        command.args(words).current_dir(&self.0).env("HOME", &self.0).env("XDG_RUNTIME_DIR", &self.0);
        let ended = command.output().unwrap_or_else(|error| {
            panic!("{line}: {error}; `make test-tools` installs what this test needs")
        });
        assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("text").trim().to_owned()
    }

    /// Puts a blob into a layout, and describes it.
    fn put(&self, layout: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        let folder = self.path(layout).join("blobs/sha256");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(&digest), bytes).expect("a file");
        let media_type = format!("application/vnd.oci.image.{media_type}");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    /// A layout with the image `a`, of one layer with one file.
    fn image(&self, layout: &str, file: &[u8]) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(file.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, "file", file).expect("a tar");
        let layer = self.put(layout, "layer.v1.tar", &tar.into_inner().expect("a tar"));
        let config = json!({"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
        let config = self.put(layout, "config.v1+json", config.to_string().as_bytes());
        let manifest = "manifest.v1+json";
        let media_type = format!("application/vnd.oci.image.{manifest}");
        let image = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
        let mut image = self.put(layout, manifest, image.to_string().as_bytes());
        image["annotations"] = json!({"org.opencontainers.image.ref.name": "a"});
        let index = json!({"schemaVersion": 2, "manifests": [image]}).to_string();
        fs::write(self.path(layout).join("index.json"), index).expect("a file");
        let version = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        fs::write(self.path(layout).join("oci-layout"), version).expect("a file");
    }

    /// Copies the image of a layout with skopeo, and gives its last layer.
    fn copied(&self, layout: &str, options: &str) -> Vec<u8> {
        let to = "copied";
        self.run(&format!("skopeo --insecure-policy copy -q {options} oci:{layout}:a dir:{to}"));
        self.last_layer(to)
    }

    /// The last layer of the image in a folder of skopeo's kind `dir:`, which is removed.
    fn last_layer(&self, folder: &str) -> Vec<u8> {
        let folder = self.path(folder);
        let manifest = File::open(folder.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_reader(manifest).expect("a manifest");
        let last = manifest["layers"].as_array().and_then(|layers| layers.last()).expect("a layer");
        let digest = last["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let blob = fs::read(folder.join(digest.expect("a digest"))).expect("a blob");
        fs::remove_dir_all(folder).expect("it was there");
        blob
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What skopeo, buildah, podman and umoci make of layers.
fn layers(streams: &mut Vec<(String, Vec<u8>)>) {
    let desk = Desk::new();
    desk.image("small", &layer_like(51, 2_500_000));
    desk.image("large", &layer_like(52, 52 << 20));
    let formats = ["--dest-compress-format gzip", "--dest-compress-format zstd"];
    let [gzip, zstd] = formats.map(|format| format!("--dest-compress {format}"));
    for options in [&gzip, &zstd, &format!("{gzip} --dest-compress-level 1")] {
        streams.push((format!("skopeo {options}"), desk.copied("small", options)));
    }
    streams.push(("skopeo, 52 MiB".into(), desk.copied("large", &gzip)));
    for (tool, options) in [("buildah", "--compression-format zstd"), ("podman", "--compress")] {
        let store = format!("--root {0}/store --runroot {0}/run --storage-driver vfs", desk.0.display());
        let policy = "--signature-policy policy.json";
        let id = desk.run(&format!("{tool} {store} pull -q {policy} oci:small:a"));
        desk.run(&format!("{tool} {store} push -q {policy} {options} {id} dir:pushed"));
        streams.push((format!("{tool} push {options}"), desk.last_layer("pushed")));
    }
    fs::write(desk.path("file"), layer_like(53, 1_500_000)).expect("a file");
    desk.run("umoci insert --rootless --image small:a file /file");
    streams.push(("umoci insert".into(), desk.copied("small", "")));
}

const ZLIB: &str = "import sys, zlib
c = zlib.compressobj(int(sys.argv[1]), zlib.DEFLATED, 31)
sys.stdout.buffer.write(c.compress(sys.stdin.buffer.read()) + c.flush())";

const LIBZSTD: &str = "import sys, zstandard
level, threads, known = map(int, sys.argv[1:])
plain = sys.stdin.buffer.read()
c = zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True)
c = c.compressobj(size=len(plain)) if known else c.compressobj()
sys.stdout.buffer.write(c.compress(plain) + c.flush())";

/// What tools make that take a pipe.
fn pipes(streams: &mut Vec<(String, Vec<u8>)>) {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let go = tools.join("go-gzip");
    assert!(go.exists(), "{} is missing: `EXACT_TOOLS=1 make test-tools` makes it", go.display());
    let go = go.to_str().expect("a path in UTF-8");
    let (small, long) = (layer_like(54, 2_500_000), layer_like(55, 17 << 20));
    let mut add = |line: &str, plain: &[u8]| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = match words[0] {
            "zlib" => Command::new("python3"),
            "libzstd" => Command::new("python3"),
            "go" => Command::new(go),
            tool => Command::new(tool),
        };
        match words[0] {
            "zlib" => command.args(["-c", ZLIB]),
            "libzstd" => command.args(["-c", LIBZSTD]).env("PYTHONPATH", tools.join("python")),
            _ => &mut command,
        };
        streams.push((line.to_owned(), pipe(command.args(&words[1..]), plain)));
    };
    for version in ["1.26", "1.27"] {
        for level in [-2, 0, 1, 4, 6, 9] {
            add(&format!("go {version} {level}"), &small);
        }
    }
    for line in ["pigz -9 -n", "pigz -6", "pigz -1 -i -b 256", "gzip -n -9", "gzip -6", "gzip -1"] {
        add(line, &small);
    }
    for line in ["zlib 1", "zlib 6", "zlib 9", "libzstd 3 0 1", "libzstd 3 1 0", "libzstd 9 2 1"] {
        add(line, &small);
    }
    for line in ["go 1.26 6", "go 1.27 6", "libzstd 3 2 0", "libzstd 1 1 1"] {
        add(line, &long);
    }
}

#[test]
fn streams_of_real_tools_are_found() {
    if env::var_os("EXACT_TOOLS").is_none() {
        return;
    }
    let (mut of_layers, mut of_pipes) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| layers(&mut of_layers));
        scope.spawn(|| pipes(&mut of_pipes));
    });
    let all = of_layers.iter().chain(&of_pipes);
    let wrong: Vec<String> = all
        .filter_map(|(name, blob)| check(name, blob).err().map(|error| format!("{name}: {error}")))
        .collect();
    assert!(wrong.is_empty(), "no recipes: {wrong:#?}");
}

/// The command `zstd` of this machine is found if it is of the release that is known, and else never taken for it.
#[test]
fn frames_of_the_command_zstd_are_told_by_release() {
    if env::var_os("EXACT_TOOLS").is_none() {
        return;
    }
    let version =
        Command::new("zstd").arg("--version").output().expect("zstd: `make test-tools` installs it");
    let is_known = String::from_utf8_lossy(&version.stdout).contains(&format!("v{}", libzstd::RELEASE));
    let plain = layer_like(56, 10 << 20);
    for options in [&["-q"][..], &["-q", "-1", "-T0"], &["-q", "--single-thread"]] {
        let frame = pipe(Command::new("zstd").args(options), &plain);
        match check("zstd", &frame) {
            Ok(()) => {}
            Err(NotFound::UnknownEncoder(_)) if !is_known => {}
            Err(error) => panic!("zstd {options:?}: {error}"),
        }
    }
}
