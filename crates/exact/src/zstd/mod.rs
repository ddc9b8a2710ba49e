//! zstd frames (RFC 8878).

pub mod klauspost;
