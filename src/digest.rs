//! Digests: of blobs as stored ([`Digest`]) and of plain layer tars ([`DiffId`]).
//!
//! Readers and writers that hash what passes, and the only place that can make
//! a [`VerifiedLayer`], the token without which no store publishes a layer.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

pub use oci_spec::image::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::{Advice, Error, Result};

/// Digest of the uncompressed layer tar, as in an image config's `rootfs.diff_ids`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DiffId(Digest);

impl DiffId {
    /// Takes a digest that a config states, or that was computed over a plain tar.
    pub fn new(digest: Digest) -> Self {
        DiffId(digest)
    }

    /// The digest itself. It names a blob only where that blob is the plain tar.
    pub fn as_digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses a digest that we can compute: `sha256:` and 64 lower-case hex digits.
///
/// # Errors
/// [`Kind::Verification`](crate::error::Kind::Verification) for anything else; `what` names where it stood.
pub fn parse_digest(text: &str, what: &str) -> Result<Digest> {
    let shown: String = text.chars().take(100).collect();
    let digest = Digest::from_str(text)
        .map_err(|e| Error::verification(format!("{what}: {shown:?} is no digest")).with_source(e))?;
    require_sha256(&digest, what)?;
    Ok(digest)
}

/// Refuses digests of other algorithms than SHA-256, the only one that producers use.
///
/// # Errors
/// [`Kind::Misfit`](crate::error::Kind::Misfit) for another algorithm.
pub fn require_sha256(digest: &Digest, what: &str) -> Result<()> {
    if *digest.algorithm() == oci_spec::image::DigestAlgorithm::Sha256 {
        return Ok(());
    }
    Err(Error::misfit(format!(
        "{what}: digest algorithm {} is not supported, only sha256",
        digest.algorithm()
    )))
}

/// Computes the SHA-256 digest of `bytes`.
pub fn digest_of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Bytes that are hashed at once, while those two steps ahead come into the cache.
const STEP: usize = 1024;

/// Bytes of a cache line, as of most processors; where lines are longer, some are asked for twice.
const LINE: usize = 64;

/// A running SHA-256 with a byte count.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    state: Sha256,
    bytes: u64,
}

impl Hasher {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // What another core wrote is not in this one's cache, and a processor looks ahead within a
        // page only: without this, hashing takes an eighth longer, a third from memory.
        let mut ahead = bytes.chunks(STEP);
        ahead.by_ref().take(2).for_each(touch);
        for step in bytes.chunks(STEP) {
            if let Some(next) = ahead.next() {
                touch(next);
            }
            self.state.update(step);
        }
        self.bytes += bytes.len() as u64;
    }

    /// Bytes taken in so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the computation.
    pub fn finish(self) -> Digest {
        let text = format!("sha256:{}", base16ct::lower::encode_string(&self.state.finalize()));
        Digest::from_str(&text).expect("64 hex digits are a digest")
    }
}

/// Brings `bytes` into the cache.
fn touch(bytes: &[u8]) {
    let read = bytes.iter().step_by(LINE).fold(0, |all, byte| all | byte);
    std::hint::black_box(read);
}

/// A reader that hands out exactly the blob that a descriptor promises.
///
/// Content that is longer, shorter or different becomes an error *instead of*
/// end of file, so a consumer that reads to the end can trust what it read.
#[derive(Debug)]
pub struct VerifyReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
}

impl<R: Read> VerifyReader<R> {
    /// Wraps `inner`, which must yield `size` bytes with this digest.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        VerifyReader { inner, hasher: Some(Hasher::default()), expected, size }
    }

    /// Reads what is left, so that the digest is checked even if nobody wants the bytes.
    ///
    /// # Errors
    /// A mismatch, or what the inner reader says.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }

    /// Bytes not yet read, by the promised size.
    pub fn remaining(&self) -> u64 {
        self.hasher.as_ref().map_or(0, |h| self.size.saturating_sub(h.bytes()))
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let Some(hasher) = &mut self.hasher else { return Ok(0) };
        let n = self.inner.read(buf)?;
        hasher.update(&buf[..n]);
        let seen = hasher.bytes();
        if seen > self.size {
            return Err(Error::verification(format!(
                "blob {} is longer than the {} bytes its descriptor states",
                self.expected, self.size
            ))
            .into());
        }
        if n == 0 {
            if seen < self.size {
                return Err(Error::verification(format!(
                    "blob {} ends after {seen} bytes, its descriptor states {}",
                    self.expected, self.size
                ))
                .into());
            }
            let found = self.hasher.take().map(Hasher::finish);
            if found.as_ref() != Some(&self.expected) {
                let found = found.map(|d| d.to_string()).unwrap_or_default();
                return Err(Error::verification(format!(
                    "blob digest mismatch: expected {}, found {found}",
                    self.expected
                ))
                .into());
            }
        }
        Ok(n)
    }
}

/// Proof that a plain layer tar with this diff_id went through a [`LayerHasher`].
#[derive(Debug, Clone)]
pub struct VerifiedLayer {
    diff_id: DiffId,
    size: u64,
}

impl VerifiedLayer {
    /// The diff_id that was checked.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// Size of the plain tar in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A writer that passes a layer tar on, bounds it, and checks its diff_id at the end.
#[derive(Debug)]
pub struct LayerHasher<W> {
    inner: W,
    hasher: Hasher,
    limit: u64,
}

impl<W: Write> LayerHasher<W> {
    /// Passes at most `limit` bytes to `inner`.
    pub fn new(inner: W, limit: u64) -> Self {
        LayerHasher { inner, hasher: Hasher::default(), limit }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Compares the digest of all that was written with `expected`.
    ///
    /// # Errors
    /// [`Kind::Verification`](crate::error::Kind::Verification) when they differ.
    pub fn finish(mut self, expected: &DiffId) -> Result<(W, VerifiedLayer)> {
        self.inner.flush().map_err(|e| Error::from_io(e, format!("layer {expected}")))?;
        let size = self.hasher.bytes();
        let found = DiffId(self.hasher.finish());
        if found != *expected {
            return Err(Error::verification(format!(
                "layer diff_id mismatch: expected {expected}, found {found} ({size} bytes)"
            )));
        }
        Ok((self.inner, VerifiedLayer { diff_id: found, size }))
    }
}

impl<W: Write> Write for LayerHasher<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_all(buf)?;
        Ok(buf.len())
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        let left = self.limit - self.hasher.bytes();
        if buf.len() as u64 > left {
            return Err(Error::verification(format!(
                "layer grows beyond the {} bytes its target manifest allows",
                self.limit
            ))
            .with_hint(Advice::RaiseLayerLimit)
            .into());
        }
        self.hasher.update(buf);
        self.inner.write_all(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn read(bytes: &[u8], digest: Digest, size: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        VerifyReader::new(bytes, digest, size)
            .read_to_end(&mut out)
            .map(|_| out)
            .map_err(|e| Error::from_io(e, "blob"))
    }

    #[test]
    fn a_true_blob_passes_and_false_ones_are_named() {
        let digest = digest_of(b"hello");
        assert_eq!(read(b"hello", digest.clone(), 5).unwrap(), b"hello");
        for (bytes, size, part) in
            [(&b"hell"[..], 5, "ends after 4"), (b"hello!", 5, "longer than"), (b"jello", 5, "mismatch")]
        {
            let e = read(bytes, digest.clone(), size).unwrap_err();
            assert_eq!(e.kind(), Kind::Verification);
            assert!(e.to_string().contains(part), "{e}");
        }
    }

    #[test]
    fn digest_strings_with_slashes_or_other_algorithms_are_refused() {
        for bad in
            ["sha256:../../x", "sha256:", "", "sha256", "sha256:ABCD", "md5:d41d8cd98f00b204e9800998ecf8427e"]
        {
            assert!(parse_digest(bad, "test").is_err(), "{bad}");
        }
        assert_eq!(digest_of(b"").digest().len(), 64);
    }

    #[test]
    fn no_byte_is_left_out_or_hashed_twice() {
        let content: Vec<u8> = (0..4 * STEP + 7).map(|i| (i * 7 + i / STEP) as u8).collect();
        for len in [0, 1, STEP - 1, STEP, STEP + 1, 2 * STEP, 2 * STEP + 1, 3 * STEP, content.len()] {
            let (first, second) = content[..len].split_at(len / 3);
            let mut hasher = Hasher::default();
            hasher.update(first);
            hasher.update(second);
            assert_eq!(hasher.bytes(), len as u64);
            let expected = base16ct::lower::encode_string(&Sha256::digest(&content[..len]));
            assert_eq!(hasher.finish().digest(), expected, "{len}");
        }
    }

    #[test]
    fn a_layer_is_bounded_and_checked() {
        let diff_id = DiffId::new(digest_of(b"abc"));
        let mut w = LayerHasher::new(Vec::new(), 3);
        w.write_all(b"abc").unwrap();
        assert!(w.write_all(b"d").is_err());
        let (out, layer) = w.finish(&diff_id).unwrap();
        assert_eq!((out, layer.size()), (b"abc".to_vec(), 3));
        let w = LayerHasher::new(Vec::new(), 3);
        assert_eq!(w.finish(&diff_id).unwrap_err().kind(), Kind::Verification);
    }
}
