//! Images on this machine, however odd: what skopeo copies is taken, what is refused is named, and nothing hangs.

use crate::support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_delta_fetch::digest::digest_of;
use serde_json::{Value, json};
use support::cli::ended;
use support::images::{CONFIG, MANIFEST, TAR, TAR_GZIP, TAR_ZSTD, descriptor, gzip, noise, tar};
use support::registry::{put_manifest, try_skopeo};
use support::{Delta, Ended, Image, Layer, OciDir, Registry, Sandbox};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Runs Python over some bytes.
fn python(program: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn xz(data: &[u8]) -> Vec<u8> {
    python("import lzma,sys; sys.stdout.buffer.write(lzma.compress(sys.stdin.buffer.read()))", data)
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    python("import bz2,sys; sys.stdout.buffer.write(bz2.compress(sys.stdin.buffer.read()))", data)
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).unwrap()
}

fn image(version: u8) -> Image {
    let mut data = noise(7, 50_000);
    data[500] = version;
    Image::new(vec![Layer::gzip(tar(&[("data", &data)]))])
}

/// The parts of an image, to be spoilt.
#[derive(Clone)]
struct Parts {
    index: Value,
    manifest: Value,
    config: Value,
    layer: Vec<u8>,
}

impl Parts {
    fn sound() -> Self {
        let image = image(1);
        Parts {
            index: json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST}]}),
            manifest: serde_json::from_slice(&image.manifest).unwrap(),
            config: serde_json::from_slice(&image.config).unwrap(),
            layer: image.layers[0].blob.clone(),
        }
    }

    /// Writes the layout; digests and sizes are made to fit where nobody set them.
    fn write(&self, root: &Path, edit: impl Fn(&mut String)) {
        let dir = OciDir::create(root);
        let fill = |value: &mut Value, bytes: &[u8]| {
            let Some(object) = value.as_object_mut() else { return };
            object.entry("digest").or_insert_with(|| digest_of(bytes).to_string().into());
            object.entry("size").or_insert_with(|| bytes.len().into());
        };
        let mut manifest = self.manifest.clone();
        let config = self.config.to_string().into_bytes();
        for (part, bytes) in [("/config", &config), ("/layers/0", &self.layer)] {
            dir.blob(bytes);
            if let Some(part) = manifest.pointer_mut(part) {
                fill(part, bytes);
            }
        }
        let mut manifest = manifest.to_string();
        edit(&mut manifest);
        dir.blob(manifest.as_bytes());
        let mut index = self.index.clone();
        fill(&mut index["manifests"][0], manifest.as_bytes());
        let mut index = index.to_string();
        edit(&mut index);
        fs::write(root.join("index.json"), index).unwrap();
    }
}

/// A change of a part: `None` removes the field.
fn set(document: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match value {
        Some(value) => parent[name] = value,
        None => drop(parent.as_object_mut().unwrap().remove(name)),
    }
}

#[test]
fn what_skopeo_copies_is_taken() {
    let mut cases: Vec<(String, Parts)> = Vec::new();
    let mut case = |what: &str, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::sound();
        // Each layer and config descriptor without what `write` fills in.
        for part in ["/config", "/layers/0"] {
            for field in ["digest", "size"] {
                parts.manifest.pointer_mut(part).unwrap().as_object_mut().unwrap().remove(field);
            }
        }
        change(&mut parts);
        cases.push((what.to_owned(), parts));
    };
    let values = [None, Some(json!(null)), Some(json!("")), Some(json!(3)), Some(json!({})), Some(json!([]))];
    for value in values {
        for field in ["/schemaVersion", "/mediaType", "/annotations", "/unknown"] {
            case(&format!("index {field} {value:?}"), &|p| set(&mut p.index, field, value.clone()));
            case(&format!("manifest {field} {value:?}"), &|p| set(&mut p.manifest, field, value.clone()));
        }
        for field in ["mediaType", "size", "annotations", "platform", "urls", "artifactType", "data"] {
            let entry = format!("/manifests/0/{field}");
            case(&format!("entry {field} {value:?}"), &|p| {
                // The sizes that are missing are not to be filled in.
                let value = if field == "size" && value.is_none() { Some(json!(0)) } else { value.clone() };
                set(&mut p.index, &entry, value);
            });
            for part in ["config", "layers/0"] {
                case(&format!("{part} {field} {value:?}"), &|p| {
                    set(&mut p.manifest, &format!("/{part}/{field}"), value.clone());
                });
            }
        }
        for field in ["/os", "/architecture", "/variant", "/created", "/history", "/config", "/rootfs/type"] {
            case(&format!("config {field} {value:?}"), &|p| set(&mut p.config, field, value.clone()));
        }
        case(&format!("manifest /subject {value:?}"), &|p| set(&mut p.manifest, "/subject", value.clone()));
    }
    for (name, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd), ("xz", xz), ("bzip2", bzip2)]
    {
        for media_type in [TAR, TAR_GZIP, TAR_ZSTD] {
            case(&format!("a layer in {name}, called {media_type}"), &|p| {
                p.layer = pack(&image(1).layers[0].tar);
                p.manifest["layers"][0]["mediaType"] = media_type.into();
            });
        }
    }
    case("names in capitals", &|p| p.index["capitals"] = true.into());
    let sandbox = Sandbox::new();
    let mut refused = Vec::new();
    let mut copied = 0;
    for (at, (what, parts)) in cases.iter().enumerate() {
        let root = sandbox.path(&format!("l{at}"));
        let capitals = parts.index.get("capitals").is_some();
        parts.write(&root, |text| {
            if capitals {
                for name in ["mediaType", "digest", "layers", "config", "manifests", "annotations"] {
                    *text = text.replace(&format!("\"{name}\":"), &format!("\"{}\":", name.to_uppercase()));
                }
            }
        });
        let source = format!("oci:{}", root.display());
        let target = format!("oci:{}", sandbox.path("out").display());
        if try_skopeo(&["copy", "-q", &source, &target], sandbox.dir.path()).is_err() {
            continue;
        }
        copied += 1;
        let repo = sandbox.path(&format!("r{at}")).display().to_string();
        let ended = sandbox.run(&["--repo", &repo, &source, "--tag", "x"]);
        if ended.code != 0 {
            refused.push(format!("{what}: {}", ended.stderr.trim()));
        }
    }
    assert!(copied > 60, "{copied} of {} copied", cases.len());
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn what_is_refused_is_named() {
    let sandbox = Sandbox::new();
    for (pointer, value, named) in [
        ("/layers/0/digest", json!("sha256:x"), "layers[0].digest"),
        ("/layers/0/size", json!("9"), "layers[0].size"),
        ("/layers", json!({}), "layers: an object"),
        ("/config/digest", json!(3), "config.digest"),
    ] {
        let mut parts = Parts::sound();
        set(&mut parts.manifest, pointer, Some(value));
        let root = sandbox.path("named");
        let _ = fs::remove_dir_all(&root);
        parts.write(&root, |_| {});
        let ended = sandbox.run(&[&format!("oci:{}", root.display()), "--tag", "x"]);
        assert_eq!(ended.code, 4, "{ended:#?}");
        assert!(ended.stderr.contains(named), "{named}: {ended:#?}");
    }
}

#[test]
fn what_one_entry_gets_wrong_concerns_it_alone() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    let here = image(1);
    dir.image("good", &here);
    let mainframe = Image::of_architecture("s390x", here.layers.clone());
    dir.blob(&mainframe.config);
    dir.blob(&mainframe.manifest);
    let digest = digest_of(b"elsewhere").to_string();
    let odd = [
        json!(null),
        json!({}),
        json!({"mediaType": MANIFEST, "digest": "x", "size": 3}),
        json!({"mediaType": MANIFEST, "digest": digest, "size": "3"}),
        json!({"mediaType": MANIFEST, "digest": digest, "size": 3, "annotations": {"a": 1}}),
        json!({"mediaType": MANIFEST, "digest": digest, "size": 3, "platform": []}),
        json!({"mediaType": 3, "digest": digest, "size": 3}),
    ];
    let index_path = dir.root.join("index.json");
    for (at, entry) in odd.into_iter().enumerate() {
        let nested = format!("nested{at}");
        dir.nested_index(&nested, &[entry.clone(), support::images::for_platform(&mainframe, "s390x")]);
        let mut index: Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
        index["manifests"].as_array_mut().unwrap().insert(0, entry.clone());
        fs::write(&index_path, index.to_string()).unwrap();
        sandbox.ok(&[&dir.reference("good"), "--tag", "x"]);
        sandbox.ok(&[&dir.reference(&nested), "--dry-run", "--platform", "linux/s390x"]);
        let position = sandbox.run(&[&dir.reference("@0"), "--tag", "x"]);
        assert_ne!(position.code, 0, "{entry}: {position:#?}");
        assert!(position.stderr.contains("manifests[0]"), "{entry}: {position:#?}");
    }
}

#[test]
fn archives_come_compressed_and_through_pipes() {
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("v1", &image(1));
    let packed =
        Command::new("tar").args(["-C", dir.root.to_str().unwrap(), "-c", "."]).output().unwrap().stdout;
    let archives = [
        ("plain", packed.clone()),
        ("gzip", gzip(&packed)),
        ("zstd", zstd(&packed)),
        ("xz", xz(&packed)),
        ("bz2", bzip2(&packed)),
    ];
    for (kind, bytes) in archives {
        let file = sandbox.path(kind);
        fs::write(&file, &bytes).unwrap();
        sandbox.ok(&[
            "--repo",
            &sandbox.path("r").display().to_string(),
            &format!("oci-archive:{}:v1", file.display()),
        ]);
        for (at, path) in ["-", "/dev/stdin"].into_iter().enumerate() {
            let repo = sandbox.path(&format!("{kind}{at}"));
            let mut child = sandbox
                .command()
                .args(["--repo", repo.to_str().unwrap(), &format!("oci-archive:{path}:v1"), "--tag", "x"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&bytes).unwrap();
            let ended = ended(child.wait_with_output().unwrap());
            assert_eq!(ended.code, 0, "{kind} {path}: {ended:#?}");
            // A file as standard input, and a FIFO.
            let ended = self::ended(
                sandbox
                    .command()
                    .args([&format!("oci-archive:{path}:v1"), "--dry-run"])
                    .stdin(fs::File::open(&file).unwrap())
                    .output()
                    .unwrap(),
            );
            assert_eq!(ended.code, 0, "{kind} {path}: {ended:#?}");
        }
        let fifo = mkfifo(&sandbox.path(&format!("{kind}.fifo")));
        let writer = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::write(fifo, bytes).unwrap()
        });
        sandbox.ok(&[&format!("oci-archive:{}:v1", fifo.display()), "--dry-run"]);
        writer.join().unwrap();
    }
    let terminal =
        sandbox.command().args(["oci-archive:-", "--dry-run"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended(terminal).code, 3);
}

fn mkfifo(path: &Path) -> PathBuf {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    path.to_owned()
}

#[test]
fn what_does_not_exist_is_said_in_one_way() {
    let sandbox = Sandbox::new();
    let nowhere = sandbox.path("nowhere").display().to_string();
    for transport in ["oci:", "oci-archive:", "dir:"] {
        for args in [&["--dry-run"][..], &["--tag", "x"]] {
            let reference = format!("{transport}{nowhere}");
            let ended = sandbox.run(&[&[reference.as_str()], args].concat());
            assert_eq!(ended.code, 3, "{ended:#?}");
            assert!(ended.stderr.contains(&format!("{nowhere}: No such file or directory")), "{ended:#?}");
        }
    }
    // A thing of another sort leads to the right word.
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("v1", &image(1));
    let root = dir.root.display().to_string();
    for (reference, hint) in
        [(format!("oci-archive:{root}"), "oci:"), (format!("oci:{root}/index.json"), "oci-archive:")]
    {
        let ended = sandbox.run(&[&reference, "--dry-run"]);
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains(&format!("hint: {hint}")), "{ended:#?}");
    }
}

#[test]
fn a_fifo_or_device_in_a_layout_hangs_nobody() {
    let sandbox = Sandbox::new();
    let one = image(1);
    let replace = |path: PathBuf, by: &str| {
        let _ = fs::remove_file(&path);
        match by {
            "fifo" => drop(mkfifo(&path)),
            device => std::os::unix::fs::symlink(device, path).unwrap(),
        }
    };
    for by in ["fifo", "/dev/zero", "/dev/tty"] {
        for odd in ["index.json", "manifest", "config", "layer", "dir manifest", "dir layer"] {
            let root = sandbox.path("odd");
            let _ = fs::remove_dir_all(&root);
            let mut dir = OciDir::create(&root);
            dir.image("v1", &one);
            let (manifest, config) = (digest_of(&one.manifest), digest_of(&one.config));
            let layer = digest_of(&one.layers[0].blob);
            let plain = root.join("plain");
            fs::create_dir(&plain).unwrap();
            fs::write(plain.join("manifest.json"), &one.manifest).unwrap();
            fs::write(plain.join(config.digest()), &one.config).unwrap();
            let mut reference = dir.reference("v1");
            match odd {
                "index.json" => replace(root.join("index.json"), by),
                "manifest" => replace(dir.blob_path(manifest.as_ref()), by),
                "config" => replace(dir.blob_path(config.as_ref()), by),
                "layer" => replace(dir.blob_path(layer.as_ref()), by),
                "dir manifest" => {
                    reference = format!("dir:{}", plain.display());
                    replace(plain.join("manifest.json"), by);
                }
                _ => {
                    reference = format!("dir:{}", plain.display());
                    replace(plain.join(layer.digest()), by);
                }
            }
            let started = Instant::now();
            let mut child = sandbox
                .command()
                .args([&reference, "--tag", "x"])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if started.elapsed() > Duration::from_secs(30) => {
                        child.kill().unwrap();
                        panic!("{by} as {odd}: hangs");
                    }
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            assert!(matches!(status.code(), Some(1 | 3 | 4)), "{by} as {odd}: {status}");
        }
    }
}

#[test]
fn two_images_under_one_name_are_told_apart() {
    let sandbox = Sandbox::new();
    let dir = OciDir::create(&sandbox.path("saved"));
    let mut entries = Vec::new();
    for (version, full) in [(1, "docker.io/library/x:1"), (2, "example.org/y:1")] {
        let image = image(version);
        image.layers.iter().for_each(|layer| dir.blob(&layer.blob));
        dir.blob(&image.config);
        dir.blob(&image.manifest);
        let mut entry = descriptor(MANIFEST, &image.manifest);
        entry["annotations"] =
            json!({"io.containerd.image.name": full, "org.opencontainers.image.ref.name": "1"});
        entries.push(entry);
    }
    let write = |entries: &[Value]| {
        fs::write(dir.root.join("index.json"), support::images::index(entries).to_string()).unwrap();
    };
    write(&entries);
    let ended = sandbox.run(&[&dir.reference("1"), "--tag", "x"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    assert!(ended.stderr.contains("2 images are named \"1\""), "{ended:#?}");
    assert!(ended.stderr.contains("docker.io/library/x:1, example.org/y:1"), "{ended:#?}");
    for (name, version) in
        [("docker.io/library/x:1", 1), ("x:1", 1), ("example.org/y:1", 2), ("@0", 1), ("@1", 2)]
    {
        let report = sandbox.json(&[&dir.reference(name), "--tag", "x"]);
        assert_eq!(report["image"]["config"], image(version).config_digest().to_string(), "{name}");
    }
    // As a base, as an input, and in our own repository it is no other.
    let base = sandbox.run(&["create", &dir.reference("1"), &dir.reference("@1"), "oci:out"]);
    assert_eq!(base.code, 2, "{base:#?}");
    // The same image twice is one.
    entries[1] = entries[0].clone();
    write(&entries);
    sandbox.ok(&[&dir.reference("1"), "--tag", "x"]);
    // A repository with two of a name removes neither in silence.
    let removed = sandbox.run(&["--repo", dir.root.to_str().unwrap(), "remove", "1"]);
    assert_eq!(removed.code, 0, "{removed:#?}");
}

/// A run that must fail without a word of deltas.
fn fails_without_delta(ended: &Ended) {
    assert!(matches!(ended.code, 3 | 4), "{ended:#?}");
    assert!(!ended.stderr.contains("delta"), "{ended:#?}");
}

/// Writes an image of one layer whose descriptor `change` spoils.
fn with_layer(root: &Path, blob: &[u8], change: impl Fn(&mut Value)) -> OciDir {
    let mut dir = OciDir::create(root);
    let config = image(1).config;
    let mut layer = descriptor(TAR_GZIP, blob);
    change(&mut layer);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": [layer]});
    dir.blob(&config);
    dir.blob(blob);
    dir.manifest("v1", manifest.to_string().as_bytes());
    dir
}

#[test]
fn what_is_wrong_with_a_whole_layer_is_named() {
    let sandbox = Sandbox::new();
    let encrypted = with_layer(&sandbox.path("encrypted"), &noise(3, 1000), |layer| {
        layer["mediaType"] = format!("{TAR_GZIP}+encrypted").into();
    });
    let other = with_layer(&sandbox.path("other"), &gzip(&tar(&[("other", b"x")])), |_| {});
    let urls = with_layer(&sandbox.path("urls"), &image(1).layers[0].blob, |layer| {
        layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
        layer["urls"] = json!(["http://127.0.0.1:1/x"]);
    });
    fs::remove_file(urls.blob_path(digest_of(&image(1).layers[0].blob).as_ref())).unwrap();
    for (dir, word) in
        [(encrypted, "is encrypted"), (other, "diff_id mismatch"), (urls, "only at its urls: http")]
    {
        let ended = sandbox.run(&[&dir.reference("v1"), "--tag", "x"]);
        fails_without_delta(&ended);
        assert!(ended.stderr.contains(word), "{word}: {ended:#?}");
        let created = sandbox.run(&["create", &dir.reference("v1"), &dir.reference("v1"), "oci:out"]);
        assert_ne!(created.code, 0, "{created:#?}");
    }
}

#[test]
fn a_layer_that_the_registry_does_not_have_is_told_from_an_image_that_is_gone() {
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    let mut dir = OciDir::create(&sandbox.path("source"));
    dir.image("v1", &image(1));
    let pushed = registry.reference("foreign:v1");
    registry.push(&dir.reference("v1"), "foreign:v1");
    let blob = &image(1).layers[0].blob;
    let layer = digest_of(blob);
    let mut manifest: Value = serde_json::from_slice(&image(1).manifest).unwrap();
    manifest["layers"][0]["urls"] = json!(["http://127.0.0.1:1/x"]);
    let answer = put_manifest(&registry.address, "foreign", "v1", MANIFEST, manifest.to_string().as_bytes());
    assert!(answer.contains("201"), "{answer}");
    fs::remove_file(registry.blob_file(layer.as_ref())).unwrap();
    let ended = sandbox.run(&[&pushed, "--tls-verify=false", "--retries", "0", "--tag", "x"]);
    fails_without_delta(&ended);
    assert!(ended.stderr.contains("only at its urls: http://127.0.0.1:1/x"), "{ended:#?}");
    assert!(!ended.stderr.contains("removed"), "{ended:#?}");
}

#[test]
fn docker_images_in_layouts_have_one_digest() {
    let (old, new) = (docker(image(1)), docker(image(2)));
    let sandbox = Sandbox::new();
    let dir = OciDir::create(&sandbox.path("source"));
    let mut entries = Vec::new();
    let delta = Delta::new(&old, &new);
    for image in [&old, &new] {
        dir.blob(&image.layers[0].blob);
        dir.blob(&image.config);
        dir.blob(&image.manifest);
        entries.push(descriptor(DOCKER_MANIFEST, &image.manifest));
    }
    let mut named = OciDir::create(&sandbox.path("delta"));
    named.delta("d", &delta);
    for (entry, name) in entries.iter_mut().zip(["old", "new"]) {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    fs::write(dir.root.join("index.json"), support::images::index(&entries).to_string()).unwrap();
    let plain = sandbox.path("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("manifest.json"), &old.manifest).unwrap();
    for blob in [&old.config, &old.layers[0].blob] {
        fs::write(plain.join(digest_of(blob).digest()), blob).unwrap();
    }
    for (at, source) in [dir.reference("old"), format!("dir:{}", plain.display())].iter().enumerate() {
        let repo = sandbox.path(&format!("repo{at}")).display().to_string();
        let digest = old.manifest_digest().to_string();
        let first = sandbox.json(&["--repo", &repo, source, "--tag", "x"]);
        assert_eq!(first["image"]["target_manifest"], digest, "{first}");
        let inspected = sandbox.json(&["--repo", &repo, "inspect", source]);
        assert!(inspected.to_string().contains(&digest), "{inspected}");
        let second = sandbox.json(&["--repo", &repo, source, "--tag", "x"]);
        assert_eq!(second["status"], "already-present", "{second}");
        // What a delta yields is what a plain pull yields.
        let made =
            sandbox.json(&["--repo", &repo, &named.reference("d"), "--tag", "y", "--delta-policy", "only"]);
        assert_eq!(made["image"]["target_manifest"], new.manifest_digest().to_string());
        let pulled = sandbox.json(&["--repo", &repo, &dir.reference("new"), "--tag", "z"]);
        assert_eq!(pulled["status"], "already-present", "{pulled}");
        sandbox.ok(&["--repo", &repo, "verify"]);
    }
}

/// The image in Docker's terms.
fn docker(image: Image) -> Image {
    let layers: Vec<Value> = image.layers.iter().map(|layer| descriptor(DOCKER_LAYER, &layer.blob)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, &image.config), "layers": layers});
    Image { manifest: manifest.to_string().into_bytes(), ..image }
}

/// Only files have content; composefs would take what follows for it, and lose its place.
#[cfg(feature = "composefs")]
#[test]
fn an_entry_with_a_size_that_it_may_not_have_is_named() {
    use tar::EntryType;
    for kind in [EntryType::Directory, EntryType::Link, EntryType::Symlink, EntryType::Char, EntryType::Fifo]
    {
        let mut odd = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(4096);
        header.set_mode(0o755);
        header.set_path("usr/odd").unwrap();
        header.set_link_name("usr/file").unwrap();
        header.set_cksum();
        let mut layer = tar(&[("usr/file", b"x")]);
        layer.truncate(layer.len() - 1024);
        layer.extend_from_slice(header.as_bytes());
        odd.append_data(&mut file_header(3), "usr/last", &b"abc"[..]).unwrap();
        layer.extend(odd.into_inner().unwrap());
        let image = Image::new(vec![Layer::gzip(layer.clone())]);
        for sandbox in Sandbox::of_each_store() {
            let mut dir = OciDir::create(&sandbox.path("source"));
            dir.image("v1", &image);
            let ended = sandbox.run(&[&dir.reference("v1"), "--tag", "x"]);
            if !sandbox.repo_reference().starts_with("composefs:") {
                assert_eq!(ended.code, 0, "{kind:?}: {ended:#?}");
                continue;
            }
            assert_eq!(ended.code, 3, "{kind:?}: {ended:#?}");
            let layer = format!("layer {}", digest_of(&layer));
            assert!(
                ended.stderr.contains(&layer) && ended.stderr.contains("usr/odd"),
                "{kind:?}: {ended:#?}"
            );
        }
    }
}

#[cfg(feature = "composefs")]
fn file_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
