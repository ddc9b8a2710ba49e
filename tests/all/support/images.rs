//! Builds images and deltas in code, as OCI layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use oci_delta_fetch::base::SourcePath;
use oci_delta_fetch::digest::{Digest, digest_of};
use oci_delta_fetch::tardiff::{OpWriter, Version, WriterOptions};
use serde_json::{Value, json};

pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const TAR_DIFF: &str = "application/vnd.tar-diff";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DELTA: &str = "application/vnd.io.github.containers.oci-delta.v1";
pub const KEY: &str = "io.github.containers.delta";

/// Files of a layer: path and content.
pub type Files<'a> = &'a [(&'a str, &'a [u8])];

/// A layer tar of regular files, the same bytes for the same input.
pub fn tar(files: Files<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The same with an entry for each directory before what is in it, which composefs wants.
pub fn tree(files: Files<'_>) -> Vec<u8> {
    let dirs: BTreeSet<&Path> =
        files.iter().flat_map(|(path, _)| Path::new(path).ancestors().skip(1)).collect();
    let mut builder = tar::Builder::new(Vec::new());
    for dir in dirs.into_iter().filter(|dir| !dir.as_os_str().is_empty()) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        builder.append_data(&mut header, dir, &b""[..]).unwrap();
    }
    let mut start = builder.into_inner().unwrap();
    start.truncate(start.len() - 1024);
    [start, tar(files)].concat()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A layer as it is stored: its tar, its blob and the blob's media type.
#[derive(Clone)]
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub media_type: String,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Self {
        Layer { blob: tar.clone(), tar, media_type: TAR.into() }
    }

    pub fn gzip(tar: Vec<u8>) -> Self {
        Layer { blob: gzip(&tar), tar, media_type: TAR_GZIP.into() }
    }

    pub fn zstd(tar: Vec<u8>) -> Self {
        Layer { blob: zstd::encode_all(&tar[..], 3).unwrap(), tar, media_type: TAR_ZSTD.into() }
    }
}

/// An image: its blobs, ready to be put into a layout.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::of_architecture(&oci_delta_fetch::platform::Platform::host().architecture, layers)
    }

    pub fn of_architecture(architecture: &str, layers: Vec<Layer>) -> Self {
        Self::configured(architecture, json!({}), layers)
    }

    /// One with labels of an image for bootc.
    pub fn for_bootc(layers: Vec<Layer>) -> Self {
        let architecture = oci_delta_fetch::platform::Platform::host().architecture;
        Self::configured(&architecture, json!({"Labels": {"containers.bootc": "1"}}), layers)
    }

    fn configured(architecture: &str, runtime: Value, layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|l| digest_of(&l.tar).to_string()).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": runtime,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let layer_list: Vec<Value> = layers.iter().map(|l| descriptor(&l.media_type, &l.blob)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layer_list,
            "annotations": {"org.example.kept": "yes ✓"},
        });
        Image { layers, config, manifest: serde_json::to_vec_pretty(&manifest).unwrap() }
    }

    pub fn manifest_digest(&self) -> Digest {
        digest_of(&self.manifest)
    }

    pub fn config_digest(&self) -> Digest {
        digest_of(&self.config)
    }

    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|l| digest_of(&l.tar).to_string()).collect()
    }
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest_of(blob).to_string(), "size": blob.len()})
}

/// An image index, as JSON.
pub fn index(entries: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
}

/// An index's entry for an image of a platform.
pub fn for_platform(image: &Image, architecture: &str) -> Value {
    let mut entry = descriptor(MANIFEST, &image.manifest);
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    entry
}

/// A delta artifact under construction; fields may be spoilt before it is written.
#[derive(Clone)]
pub struct Delta {
    pub manifest: Value,
    pub blobs: Vec<Vec<u8>>,
}

impl Delta {
    /// A patch for each layer that `old` does not have.
    pub fn new(old: &Image, new: &Image) -> Self {
        Self::with(old, new, |tar| (TAR_DIFF.to_owned(), patch(old, tar)))
    }

    /// Each changed layer is carried as `make` says: media type and blob.
    pub fn with(old: &Image, new: &Image, make: impl Fn(&[u8]) -> (String, Vec<u8>)) -> Self {
        let have = old.diff_ids();
        let mut blobs = vec![new.manifest.clone(), new.config.clone()];
        let mut layers = vec![
            content(descriptor(MANIFEST, &new.manifest), "image-manifest"),
            content(descriptor(CONFIG, &new.config), "image-config"),
        ];
        for layer in &new.layers {
            if have.contains(&digest_of(&layer.tar).to_string()) {
                continue;
            }
            let (media_type, blob) = make(&layer.tar);
            let mut entry = content(descriptor(&media_type, &blob), "image-layer");
            entry["annotations"][format!("{KEY}.to")] = digest_of(&layer.blob).to_string().into();
            layers.push(entry);
            blobs.push(blob);
        }
        blobs.push(b"{}".to_vec());
        let manifest = json!({
            "schemaVersion": 2,
            "artifactType": DELTA,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": layers,
            "subject": descriptor(MANIFEST, &new.manifest),
            "annotations": {
                format!("{KEY}.source"): old.manifest_digest().to_string(),
                format!("{KEY}.source-config"): old.config_digest().to_string(),
                format!("{KEY}.target"): new.manifest_digest().to_string(),
            },
        });
        Delta { manifest, blobs }
    }

    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.manifest).unwrap()
    }
}

fn content(mut descriptor: Value, kind: &str) -> Value {
    descriptor["annotations"] = json!({format!("{KEY}.content"): kind});
    descriptor
}

/// A patch that copies equal files, adds to files of the same path, and carries the rest.
pub fn patch(old: &Image, new_tar: &[u8]) -> Vec<u8> {
    let mut by_path = BTreeMap::new();
    for layer in &old.layers {
        for (path, _, data) in members(&layer.tar) {
            by_path.insert(path, data);
        }
    }
    let by_content: BTreeMap<&Vec<u8>, &Vec<u8>> = by_path.iter().map(|(p, d)| (d, p)).collect();
    let mut ops = OpWriter::new(Vec::new(), Version::V1, WriterOptions::default()).unwrap();
    let mut done = 0;
    for (path, offset, data) in members(new_tar) {
        ops.data(&new_tar[done..offset]).unwrap();
        done = offset + data.len();
        if data.is_empty() {
            continue;
        }
        if let Some(source) = by_content.get(&data) {
            ops.open(&SourcePath::clean(source).unwrap()).unwrap();
            ops.copy(data.len() as u64).unwrap();
        } else if let Some(base) = by_path.get(&path) {
            let common = base.len().min(data.len());
            ops.open(&SourcePath::clean(&path).unwrap()).unwrap();
            let sums: Vec<u8> =
                data[..common].iter().zip(&base[..common]).map(|(n, o)| n.wrapping_sub(*o)).collect();
            ops.add_data(&sums).unwrap();
            ops.data(&data[common..]).unwrap();
        } else {
            ops.data(&data).unwrap();
        }
    }
    ops.data(&new_tar[done..]).unwrap();
    ops.finish().unwrap()
}

/// Path, offset and content of each regular file in a tar.
fn members(tar: &[u8]) -> Vec<(Vec<u8>, usize, Vec<u8>)> {
    use std::io::Read;
    let mut found = Vec::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let offset = entry.raw_file_position() as usize;
        let path = entry.path_bytes().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        found.push((path, offset, data));
    }
    found
}

/// An OCI layout directory being filled.
pub struct OciDir {
    pub root: PathBuf,
    entries: Vec<Value>,
}

impl OciDir {
    pub fn create(root: &Path) -> Self {
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let layout = OciDir { root: root.to_owned(), entries: Vec::new() };
        layout.write_index();
        layout
    }

    pub fn blob(&self, bytes: &[u8]) {
        fs::write(self.blob_path(digest_of(bytes).as_ref()), bytes).unwrap();
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    pub fn image(&mut self, name: &str, image: &Image) -> &mut Self {
        for layer in &image.layers {
            self.blob(&layer.blob);
        }
        self.blob(&image.config);
        self.manifest(name, &image.manifest)
    }

    pub fn delta(&mut self, name: &str, delta: &Delta) -> &mut Self {
        for blob in &delta.blobs {
            self.blob(blob);
        }
        self.manifest(name, &delta.bytes())
    }

    pub fn manifest(&mut self, name: &str, manifest: &[u8]) -> &mut Self {
        self.entry(name, MANIFEST, manifest)
    }

    /// Puts an image index over `entries` into the layout.
    pub fn nested_index(&mut self, name: &str, entries: &[Value]) -> &mut Self {
        self.entry(name, INDEX, index(entries).to_string().as_bytes())
    }

    fn entry(&mut self, name: &str, media_type: &str, bytes: &[u8]) -> &mut Self {
        self.blob(bytes);
        let mut entry = descriptor(media_type, bytes);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        // As any tool does it: a name moves on.
        self.entries.retain(|other| other["annotations"] != entry["annotations"]);
        self.entries.push(entry);
        self.write_index();
        self
    }

    fn write_index(&self) {
        fs::write(self.root.join("index.json"), index(&self.entries).to_string()).unwrap();
    }

    pub fn reference(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.root.display())
    }
}
