//! Encoders for gzip and zstd streams whose output is that of a named program, byte for byte.
//!
//! A compressor is deterministic, but two compressors seldom agree. What is here makes the stream that
//! one of them has made again, from the plain bytes and the name of the encoder, its family and its level.

pub mod deflate;
pub mod find;
pub mod fix;
pub mod gzip;
pub mod pgzip;
pub mod pigz;
pub mod recipe;
mod workers;
pub mod zstd;

/// Raised with every change of what an encoder here makes: what was proven by another revision is to be proven again.
pub const REVISION: u32 = 1;

/// One compressed stream in the making.
///
/// The output does not depend on how the input is cut into calls.
pub trait Encoder: Send {
    /// Takes the next plain bytes, and appends to `out` what is ready.
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>);

    /// Waits for what threads of its own make of whole parts that were pushed, and appends it to `out`.
    ///
    /// The output depends on it where the last part is not whole.
    fn settle(&mut self, _out: &mut Vec<u8>) {}

    /// Ends the stream: appends to `out` all that is left.
    fn finish(self: Box<Self>, out: &mut Vec<u8>);
}
