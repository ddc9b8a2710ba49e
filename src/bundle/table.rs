//! The table of a bundle, which each of its parts has: what belongs to it, and where that is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Share;
use super::cut::MAX_PARTS;
use crate::digest::{Digest, digest_of, parse_digest};
use crate::error::{Error, Result};

/// Its file, beside `index.json`.
pub const TABLE: &str = "bundle.json";

/// Deepest row of things that point to each other, or list each other: a signature of an SBOM of an image.
pub const MAX_DEPTH: usize = 4;

/// Version of the format.
const VERSION: u32 = 1;

/// What belongs to a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    version: u32,
    /// Digest of the table without the number of the part: what parts of one bundle have in common.
    #[serde(default)]
    pub id: String,
    /// This part, counted from 1.
    pub part: usize,
    /// All of them.
    pub parts: usize,
    /// The images, in the order in which they were asked for.
    pub images: Vec<Bundled>,
    /// All blobs, by digest.
    pub blobs: BTreeMap<String, TableBlob>,
}

/// An image in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundled {
    /// Its name: `HOST/REPOSITORY:TAG`, or `HOST/REPOSITORY@DIGEST`.
    pub name: String,
    /// Digest of the image or index that the name means.
    pub digest: String,
    /// The images themselves: that one, or those of its platforms.
    pub manifests: Vec<BundledManifest>,
    /// What points to them: signatures, SBOMs, and the like.
    pub referrers: Vec<Referrer>,
}

/// An image of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundledManifest {
    /// Digest of the manifest.
    pub digest: String,
    /// Digest of the delta that makes its layers, where they are not whole here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<String>,
    /// Where the image that the delta starts from was on the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BundledBase>,
}

/// The image that a delta starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundledBase {
    /// Its name there.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: String,
    /// Digest of its config.
    pub config: String,
}

/// Something that points to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// Digest of its manifest.
    pub digest: String,
    /// The tag that it has, where it is found by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A blob, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableBlob {
    /// Bytes.
    pub size: u64,
    /// The part that has all of it, counted from 1, or those that have one stretch each, in their order.
    pub parts: Vec<Stretch>,
}

/// A stretch of a blob in a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The part, counted from 1.
    pub part: usize,
    /// Where it begins in the blob.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Its bytes, where that is not the whole blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's interface
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Table {
    /// Of these images, and blobs with their sizes and shares.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(images: Vec<Bundled>, blobs: &[(Digest, u64)], shares: &[Vec<Share>]) -> Result<Self> {
        let parts = shares.iter().flatten().map(|share| share.part + 1).max().unwrap_or(1);
        let stretch = |share: &Share, size: u64| Stretch {
            part: share.part + 1,
            offset: share.offset,
            len: (share.len != size).then_some(share.len),
        };
        let blob = |((digest, size), shares): (&(Digest, u64), &Vec<Share>)| {
            let parts = shares.iter().map(|share| stretch(share, *size)).collect();
            (digest.to_string(), TableBlob { size: *size, parts })
        };
        let blobs = blobs.iter().zip(shares).map(blob).collect();
        let mut table = Table { version: VERSION, id: String::new(), part: 0, parts, images, blobs };
        table.id = digest_of(&table.to_json()?).to_string();
        Ok(table)
    }

    /// The same, as part `part` has it, counted from 1.
    #[must_use]
    pub fn of_part(&self, part: usize) -> Self {
        Table { part, ..self.clone() }
    }

    /// As it is written.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| Error::local(format!("{TABLE}: {e}")))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads one; `what` is its file.
    ///
    /// # Errors
    /// Verification when it is none, or changed.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let broken = |why: String| Error::verification(format!("{what}: not the table of a bundle: {why}"));
        let table: Table = serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        if table.version != VERSION {
            return Err(broken(format!("version {}, expected {VERSION}", table.version)));
        }
        if table.parts == 0 || table.parts > MAX_PARTS || table.part == 0 || table.part > table.parts {
            return Err(broken(format!(
                "part {} of {}, expected at most {MAX_PARTS}",
                table.part, table.parts
            )));
        }
        let plain = Table { id: String::new(), part: 0, ..table.clone() };
        let found = digest_of(&plain.to_json()?).to_string();
        if found != table.id {
            return Err(broken(format!("it was changed: its digest is {found}, expected {}", table.id)));
        }
        for (digest, blob) in &table.blobs {
            parse_digest(digest, "blobs").map_err(|e| broken(e.to_string()))?;
            blob.check(table.parts).map_err(|why| broken(format!("blob {digest}: {why}")))?;
        }
        Ok(table)
    }
}

impl TableBlob {
    /// Do the stretches make up the blob?
    fn check(&self, parts: usize) -> Result<(), String> {
        let mut end = 0u64;
        for stretch in &self.parts {
            if stretch.part == 0 || stretch.part > parts {
                return Err(format!("part {} of {parts}", stretch.part));
            }
            if stretch.offset != end {
                return Err(format!("a stretch begins at {}, expected at {end}", stretch.offset));
            }
            end = end.saturating_add(stretch.len.unwrap_or(self.size));
        }
        if end == self.size {
            Ok(())
        } else {
            Err(format!("stretches of {end} bytes, expected {}", self.size))
        }
    }

    /// Is it in one piece?
    pub fn is_whole(&self) -> bool {
        self.parts.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let blobs = [(digest_of(b"a"), 10), (digest_of(b"b"), 3)];
        let whole = |part, len| vec![Share { part, offset: 0, len }];
        let cut = vec![Share { part: 0, offset: 0, len: 4 }, Share { part: 1, offset: 4, len: 6 }];
        Table::new(Vec::new(), &blobs, &[cut, whole(1, 3)]).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let part = table().of_part(2);
        assert_eq!(part.parts, 2);
        assert_eq!(Table::parse(&part.to_json().unwrap(), "t").unwrap(), part);
    }

    #[test]
    fn a_table_that_was_changed_is_refused() {
        let json = String::from_utf8(table().of_part(1).to_json().unwrap()).unwrap();
        for (from, to, named) in [
            ("\"size\": 10", "\"size\": 11", "it was changed"),
            ("\"parts\": 2", "\"parts\": 0", "part 1 of 0"),
            ("\"part\": 1,\n  \"parts\"", "\"part\": 3,\n  \"parts\"", "part 3 of 2"),
            ("\"version\": 1", "\"version\": 9", "version 9"),
        ] {
            let e = Table::parse(json.replacen(from, to, 1).as_bytes(), "t").unwrap_err().to_string();
            assert!(e.contains(named), "{from}: {e}");
        }
    }

    #[test]
    fn stretches_that_do_not_make_up_a_blob_are_refused() {
        let whole = |len, offset| Stretch { part: 1, offset, len };
        let blob = |parts| TableBlob { size: 10, parts };
        assert!(blob(vec![whole(None, 0)]).check(1).is_ok());
        assert!(blob(vec![]).check(1).is_err());
        assert!(blob(vec![whole(Some(4), 0)]).check(1).is_err());
        assert!(blob(vec![whole(Some(4), 0), whole(Some(6), 5)]).check(1).is_err());
        assert!(blob(vec![whole(Some(u64::MAX), 0), whole(Some(6), u64::MAX)]).check(1).is_err());
        assert!(blob(vec![whole(None, 0)]).check(0).is_err());
    }
}
