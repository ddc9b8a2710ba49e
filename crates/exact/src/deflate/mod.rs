//! Encoders for deflate (RFC 1951), and what they share.

#![allow(dead_code)] // until its users land

pub(crate) mod bits;
pub(crate) mod block;
pub(crate) mod huffman;
pub(crate) mod tables;
mod token;

pub use token::Token;
