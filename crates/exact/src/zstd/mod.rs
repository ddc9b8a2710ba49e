//! zstd frames (RFC 8878).

pub mod klauspost;
pub mod libzstd;
