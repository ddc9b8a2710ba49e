//! Encoders for deflate (RFC 1951), and what they share.

pub(crate) mod bits;
pub(crate) mod block;
pub mod go;
pub(crate) mod huffman;
pub mod kp;
pub(crate) mod links;
pub mod ng;
pub(crate) mod parallel;
pub mod parse;
pub(crate) mod source;
pub(crate) mod stream;
pub(crate) mod tables;
mod token;
pub(crate) mod words;
pub mod zlib;

pub use token::Token;
