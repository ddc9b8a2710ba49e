//! Deflate streams (RFC 1951).
