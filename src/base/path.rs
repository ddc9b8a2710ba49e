//! The path of a base file, cleaned once.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};

/// Longest path in bytes; the limit of every tar-diff applier (`PATH_MAX` on Linux).
pub const MAX_PATH: usize = 4096;

/// A relative path below the root of the base image: no `.`, no `..`, no empty
/// component, no leading slash. Bytes, not UTF-8.
/// Clones share them: the maps of an image and of its open files have the same paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePath(Arc<[u8]>);

impl SourcePath {
    /// Cleans a path as tar-diff does: anchored at the root, `.` and `..`
    /// resolved by name alone (`..` at the root stays there), slashes collapsed.
    ///
    /// # Errors
    /// Verification when it is empty, longer than [`MAX_PATH`], or has a NUL byte.
    pub fn clean(raw: &[u8]) -> Result<Self> {
        if raw.len() > MAX_PATH {
            return Err(Error::verification(format!(
                "source path has {} bytes, at most {MAX_PATH} are allowed",
                raw.len()
            )));
        }
        if raw.contains(&0) {
            return Err(Error::verification("source path has a NUL byte"));
        }
        // As tars have them: `./usr/bin/`.
        let raw = raw.strip_prefix(b"./").unwrap_or(raw);
        let raw = raw.strip_suffix(b"/").unwrap_or(raw);
        let is_clean = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        if raw.split(|b| *b == b'/').all(is_clean) {
            return Ok(SourcePath(raw.into()));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if parts.is_empty() {
            return Err(Error::verification("source path names no file"));
        }
        Ok(SourcePath(parts.join(&b'/').into()))
    }

    /// The cleaned bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Maps are asked by bytes: the directories above a path are clean, too.
impl Borrow<[u8]> for SourcePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Something for each path. Asked for every directory above every file that a patch opens, so with a
/// fast hash; its seed is new in every run.
pub(crate) type Paths<V> = HashMap<SourcePath, V, RandomState>;

impl fmt::Display for SourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_beneath_the_root() {
        for (raw, clean) in [
            ("usr/bin/x", "usr/bin/x"),
            ("/usr//bin/./x", "usr/bin/x"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../b", "b"),
            ("./usr/bin/", "usr/bin"),
            ("././/usr/bin//", "usr/bin"),
        ] {
            assert_eq!(SourcePath::clean(raw.as_bytes()).unwrap().as_bytes(), clean.as_bytes());
        }
        for bad in ["", "/", "./", ".//", "..", "a/..", "a\0b"] {
            assert!(SourcePath::clean(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(SourcePath::clean(&[b'a'; MAX_PATH]).is_ok());
        assert!(SourcePath::clean(&[b'a'; MAX_PATH + 1]).is_err());
    }
}
