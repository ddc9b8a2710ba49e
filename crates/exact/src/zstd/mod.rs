//! zstd frames (RFC 8878).
