//! The wrapper of gzip (RFC 1952).

use std::fmt;

use crate::Encoder;

/// A gzip member: a header, a deflate stream, and a trailer with the CRC-32 and the size of the plain bytes.
pub struct Gzip {
    /// The header, until it is written.
    header: Vec<u8>,
    deflate: Box<dyn Encoder>,
    checksum: crc32fast::Hasher,
    /// Plain bytes so far, modulo 2^32.
    size: u32,
}

impl Gzip {
    /// A member with these header bytes, which are written as they are, around a stream of `deflate`.
    pub fn new(header: impl Into<Vec<u8>>, deflate: Box<dyn Encoder>) -> Self {
        Self { header: header.into(), deflate, checksum: crc32fast::Hasher::new(), size: 0 }
    }
}

impl Encoder for Gzip {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.header);
        self.checksum.update(plain);
        self.size = self.size.wrapping_add(plain.len() as u32);
        self.deflate.push(plain, out);
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) {
        out.append(&mut self.header);
        self.deflate.finish(out);
        out.extend_from_slice(&self.checksum.finalize().to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("size", &self.size).finish_non_exhaustive()
    }
}
