//! The name of a fix.

use std::fmt;

use sha2::{Digest, Sha256};

const PREFIX: &str = "sha256:";

/// The SHA-256 of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FixDigest([u8; 32]);

impl FixDigest {
    /// That of these bytes.
    pub fn of(fix: &[u8]) -> Self {
        Self(Sha256::digest(fix).into())
    }

    /// The digest whose name is this: `sha256:`, and 64 hex digits of lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        let digits: &[u8; 64] = name.strip_prefix(PREFIX)?.as_bytes().try_into().ok()?;
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for FixDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
