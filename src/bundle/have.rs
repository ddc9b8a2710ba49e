//! The list of what a place has, which it writes itself and which goes to the other side of the gap.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, parse_digest};
use crate::error::{Error, Result};
use crate::platform::Platform;

/// Largest list in bytes: 64 MiB have room for 100,000 images of a dozen layers.
#[cfg(feature = "cli")]
pub const MAX_LIST: u64 = 64 << 20;

/// Version of the format.
const VERSION: u32 = 1;

/// What a place has.
#[derive(Debug, Clone, Default)]
pub struct Have {
    /// Its images, in the order in which they were found.
    pub images: Vec<HaveImage>,
    blobs: HashSet<Digest>,
    manifests: HashSet<Digest>,
}

/// An image that a place has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaveImage {
    /// Its name there: `HOST/REPOSITORY:TAG`, or `HOST/REPOSITORY@DIGEST`.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of its config.
    pub config: Digest,
    /// Digests of its layers, as blobs.
    pub layers: Vec<Digest>,
    /// The index that it is in, where the name means that.
    pub index: Option<Digest>,
    /// What that says of its platform.
    pub platform: Option<Platform>,
    /// Can a delta start from it, or is it a signature or the like?
    pub is_image: bool,
}

#[derive(Serialize, Deserialize)]
struct List {
    version: u32,
    images: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    manifest: String,
    config: String,
    layers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    image: bool,
}

fn yes() -> bool {
    true
}

/// Digits of a version by how many there are, and what stands between them.
type Run = (usize, String);

impl HaveImage {
    /// What orders names as versions: 1.10 after 1.9. Registries list tags in any order.
    pub fn version(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for c in self.name.chars() {
            let is_digit = c.is_ascii_digit();
            match runs.last_mut().filter(|(digits, _)| (*digits > 0) == is_digit) {
                Some((_, run)) if run == "0" && is_digit => *run = c.to_string(),
                Some((digits, run)) => {
                    *digits += usize::from(is_digit);
                    run.push(c);
                }
                None => runs.push((usize::from(is_digit), c.to_string())),
            }
        }
        runs
    }
}

impl Have {
    /// Adds an image.
    pub fn add(&mut self, image: HaveImage) {
        self.blobs.extend(image.layers.iter().chain([&image.config]).cloned());
        self.manifests.extend(image.index.iter().chain([&image.manifest]).cloned());
        self.images.push(image);
    }

    /// Has the place this layer or config?
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest)
    }

    /// Has the place this image, or index?
    pub fn has_manifest(&self, digest: &Digest) -> bool {
        self.manifests.contains(digest)
    }

    /// An image with this config.
    pub fn by_config(&self, config: &Digest) -> Option<&HaveImage> {
        self.images.iter().rev().find(|image| image.config == *config)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// Usage when it is none, naming what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let broken = |why: String| {
            Error::usage(format!("not a list of images: {why}"))
                .with_hint("oci-delta-fetch inventory docker://HOST writes one")
        };
        let list: List = serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        if list.version != VERSION {
            return Err(broken(format!("version {}, expected {VERSION}", list.version)));
        }
        let mut have = Have::default();
        for (at, entry) in list.images.into_iter().enumerate() {
            let digest = |text: &str, field: &str| {
                parse_digest(text, &format!("images[{at}].{field}")).map_err(|e| broken(e.to_string()))
            };
            let platform = entry.platform.as_deref().map(str::parse);
            have.add(HaveImage {
                manifest: digest(&entry.manifest, "manifest")?,
                config: digest(&entry.config, "config")?,
                layers: entry.layers.iter().map(|layer| digest(layer, "layers")).collect::<Result<_>>()?,
                index: entry.index.as_deref().map(|index| digest(index, "index")).transpose()?,
                platform: platform.transpose().map_err(|e| broken(format!("images[{at}].platform: {e}")))?,
                is_image: entry.image,
                name: entry.name,
            });
        }
        Ok(have)
    }

    /// The list as it is written.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let entry = |image: &HaveImage| Entry {
            name: image.name.clone(),
            manifest: image.manifest.to_string(),
            config: image.config.to_string(),
            layers: image.layers.iter().map(ToString::to_string).collect(),
            index: image.index.as_ref().map(ToString::to_string),
            platform: image.platform.as_ref().map(ToString::to_string),
            image: image.is_image,
        };
        let list = List { version: VERSION, images: self.images.iter().map(entry).collect() };
        let mut json =
            serde_json::to_vec_pretty(&list).map_err(|e| Error::local(format!("list of images: {e}")))?;
        json.push(b'\n');
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;

    fn image() -> HaveImage {
        HaveImage {
            name: "inner.example/app:1".into(),
            manifest: digest_of(b"m"),
            config: digest_of(b"c"),
            layers: vec![digest_of(b"l")],
            index: Some(digest_of(b"i")),
            platform: Some("linux/arm64".parse().unwrap()),
            is_image: false,
        }
    }

    #[test]
    fn names_are_in_the_order_of_versions() {
        let version = |tag: &str| HaveImage { name: format!("h:5000/app:{tag}"), ..image() }.version();
        let tags = ["1", "1.2", "1.9", "1.010", "1.11-rc", "2", "10", "latest"];
        assert!(tags.is_sorted_by(|a, b| version(a) < version(b)));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut have = Have::default();
        have.add(image());
        let read = Have::parse(&have.to_json().unwrap()).unwrap();
        assert_eq!(read.images, [image()]);
        assert!(
            read.has_blob(&digest_of(b"l"))
                && read.has_blob(&digest_of(b"c"))
                && !read.has_blob(&digest_of(b"m"))
        );
        assert!(read.has_manifest(&digest_of(b"m")) && read.has_manifest(&digest_of(b"i")));
        assert_eq!(read.by_config(&digest_of(b"c")), Some(&image()));
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (text, named) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (r#"{"version":2,"images":[]}"#, "version 2, expected 1"),
            (
                r#"{"version":1,"images":[{"name":"x","manifest":"y","config":"z","layers":[]}]}"#,
                "images[0].manifest",
            ),
        ] {
            let e = Have::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(named), "{text}: {e}");
        }
    }
}
