//! What the tests share.

#![allow(dead_code)]

use exact_encoders::Encoder;
use sha2::{Digest, Sha256};

/// The output for `plain`, pushed in pieces of `piece` bytes.
pub fn encode(mut encoder: Box<dyn Encoder>, plain: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in plain.chunks(piece) {
        encoder.push(part, &mut out);
    }
    encoder.finish(&mut out);
    out
}

/// The SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hex digits stand for.
pub fn hex_bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}
