//! A layout with one artifact of given blobs, for the proxy alone.

use std::fs;
use std::path::Path;

use oci_delta_fetch::digest::{Digest, digest_of};
use serde_json::json;
use tempfile::TempDir;

/// An OCI layout with one artifact whose layers are the given blobs.
#[derive(Debug)]
pub struct Layout {
    dir: TempDir,
    /// Digest and size of each layer.
    pub layers: Vec<(Digest, u64)>,
    /// The manifest, with odd white space that must survive.
    pub manifest: Vec<u8>,
}

impl Layout {
    pub fn new(layers: &[&[u8]]) -> Layout {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        let describe = |kind: &str, bytes: &[u8]| {
            let digest = write_blob(dir.path(), bytes);
            json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
        };
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "artifactType": "application/vnd.example.test",
            "config": describe("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": layers.iter().map(|b| describe("application/vnd.example.blob", b)).collect::<Vec<_>>(),
            "annotations": { "note": "ünïcödé" },
        });
        let manifest = format!("{manifest:#}\n").into_bytes();
        let index = json!({ "schemaVersion": 2, "manifests": [describe(manifest_type, &manifest)] });
        fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let layers = layers.iter().map(|b| (digest_of(b), b.len() as u64)).collect();
        Layout { dir, layers, manifest }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Puts a blob into a layout and returns its digest.
pub fn write_blob(layout: &Path, bytes: &[u8]) -> String {
    let digest = digest_of(bytes);
    fs::write(layout.join("blobs/sha256").join(digest.digest()), bytes).unwrap();
    digest.to_string()
}
