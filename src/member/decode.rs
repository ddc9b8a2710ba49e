//! Decompresses one stream, told where it begins, and finds its end.

use std::io::Write;

use liblzma::stream as lzma;
use zlib_rs::{Inflate, InflateFlush, Status};
use zstd::stream::raw::{self, DParameter, Operation as _};

use super::Coding;
use crate::error::{Error, IoContext as _, Result};
use crate::region::Region;

/// Bytes read and written at once.
const PIECE: usize = 64 << 10;

/// The largest window of deflate, 2^15 bytes; 16 more asks zlib for a gzip header and trailer.
const WINDOW: u8 = 15;
const GZIP_WINDOW: u8 = WINDOW + 16;

/// The largest window of zstd, 2^23 bytes: recipes make no larger one.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// Most memory of liblzma to decompress, in bytes: for a dictionary of 128 MiB, that of kernels from 6.12 on. No more of
/// it is touched than the content has bytes.
const MAX_LZMA_MEMORY: u64 = 136 << 20;

/// What was done of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Bytes of the compressed stream.
    pub(super) read: u64,
    /// Bytes that were in it.
    pub(super) made: u64,
}

/// Decompresses the stream at the beginning of `content`, up to its own end.
///
/// # Errors
/// As [`open`](super::open), but for bytes behind the end.
pub(super) fn decode(content: &Region, coding: Coding, out: &mut dyn Write, max: u64) -> Result<Decoded> {
    let mut decoder = Decoder::new(coding).at("member")?;
    let broken = |what: &str| Error::verification(format!("broken {coding} stream: {what}"));
    let (mut input, mut output) = (vec![0; PIECE], vec![0; PIECE]);
    let mut waiting = 0..0;
    // What was taken into the buffer, and of that, by the decoder.
    let (mut taken, mut done) = (0, Decoded { read: 0, made: 0 });
    loop {
        if waiting.is_empty() {
            let n = content.read_at(&mut input, taken).at("member")?;
            taken += n as u64;
            waiting = 0..n;
        }
        let step = decoder.step(&input[waiting.clone()], &mut output).map_err(|e| broken(&e))?;
        waiting.start += step.read;
        done.read += step.read as u64;
        done.made += step.made as u64;
        if done.made > max {
            return Err(Error::verification(format!("a {coding} stream holds more than {max} bytes")));
        }
        out.write_all(&output[..step.made]).at("member")?;
        if step.ended {
            return Ok(done);
        }
        if step.read == 0 && step.made == 0 {
            // It got all there is, or does not go on with what it has.
            return Err(broken(if waiting.is_empty() { "it ends too soon" } else { "it makes no sense" }));
        }
    }
}

/// One call of a decoder.
struct Step {
    read: usize,
    made: usize,
    /// Was it the last one?
    ended: bool,
}

/// The libraries, which all work alike.
enum Decoder {
    Deflate(Box<Inflate>),
    Lzma(lzma::Stream),
    Zstd(raw::Decoder<'static>),
    Bzip2(bzip2::Decompress),
}

impl Decoder {
    fn new(coding: Coding) -> std::io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Decoder::Deflate(Box::new(Inflate::new(true, GZIP_WINDOW))),
            Coding::Deflate => Decoder::Deflate(Box::new(Inflate::new(false, WINDOW))),
            Coding::Xz => Decoder::Lzma(lzma::Stream::new_stream_decoder(MAX_LZMA_MEMORY, 0)?),
            Coding::Zstd => {
                let mut decoder = raw::Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW_LOG))?;
                Decoder::Zstd(decoder)
            }
            Coding::Lzma => Decoder::Lzma(lzma::Stream::new_lzma_decoder(MAX_LZMA_MEMORY)?),
            Coding::Bzip2 => Decoder::Bzip2(bzip2::Decompress::new(false)),
        })
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, String> {
        match self {
            Decoder::Deflate(inflate) => {
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, out, InflateFlush::NoFlush);
                let status = status.map_err(|e| inflate.error_message().unwrap_or(e.as_str()).to_owned())?;
                let after = (inflate.total_in(), inflate.total_out());
                Ok(Step::between(before, after, status == Status::StreamEnd))
            }
            Decoder::Lzma(stream) => {
                let before = (stream.total_in(), stream.total_out());
                let status = stream.process(input, out, lzma::Action::Run).map_err(|e| match e {
                    lzma::Error::MemLimit => {
                        format!("it needs more than {} MiB of memory", MAX_LZMA_MEMORY >> 20)
                    }
                    e => e.to_string(),
                })?;
                let after = (stream.total_in(), stream.total_out());
                Ok(Step::between(before, after, status == lzma::Status::StreamEnd))
            }
            Decoder::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, out).map_err(|e| e.to_string())?;
                let (read, made) = (status.bytes_read, status.bytes_written);
                Ok(Step { read, made, ended: status.remaining == 0 })
            }
            Decoder::Bzip2(stream) => {
                let before = (stream.total_in(), stream.total_out());
                let status = stream.decompress(input, out).map_err(|e| e.to_string())?;
                if status == bzip2::Status::MemNeeded {
                    return Err("there is no memory".to_owned());
                }
                let after = (stream.total_in(), stream.total_out());
                Ok(Step::between(before, after, status == bzip2::Status::StreamEnd))
            }
        }
    }
}

impl Step {
    /// By the totals before and after it.
    fn between(before: (u64, u64), after: (u64, u64), ended: bool) -> Self {
        Step { read: (after.0 - before.0) as usize, made: (after.1 - before.1) as usize, ended }
    }
}
