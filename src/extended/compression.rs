//! How a stream is compressed: in zstd, or in LZMA, which makes it smaller and takes longer to read.

use std::io::{self, Write};

use liblzma::stream as lzma;
use liblzma::write::XzEncoder;
use zstd::stream::raw::{self, Operation as _};
use zstd::zstd_safe::DParameter;

use crate::region::Region;
use crate::tardiff::WriterOptions;

/// What frames of zstd begin with; no stream of LZMA does, since its properties would make no sense.
const ZSTD: u8 = 0x28;

/// The length of matches that are good enough, in bytes, for all presets of liblzma: in sums, which are zeros for the most
/// part, and in numbers no shorter one is.
const GOOD_MATCH: u32 = 273;

/// In streams of up to so many bytes so many places are looked at for a match, which is what liblzma calls extreme; in larger
/// ones that takes long.
const DEEP_UP_TO: u64 = 16 << 20;
const DEPTH: u32 = 512;

/// Smaller streams are smaller in zstd: a stream of LZMA has a header of 13 bytes, and a mark at its end.
const LZMA_FROM: u64 = 256;

/// The smallest dictionary of liblzma, in bytes.
const LEAST_DICTIONARY: u32 = 4 << 10;

/// Memory of a decoder of LZMA beside its dictionary, in bytes.
const DECODER: u64 = 1 << 20;

/// For content: sums and literals.
#[derive(Debug, Clone, Copy)]
pub enum Compression {
    /// Frames of zstd.
    Zstd(WriterOptions),
    /// A bare stream of LZMA.
    Lzma {
        /// Most bytes of its dictionary.
        dictionary: u32,
        /// How hard matches are looked for.
        effort: Effort,
    },
}

/// How hard the encoder of LZMA searches: by this preset of liblzma.
#[derive(Debug, Clone, Copy)]
pub enum Effort {
    /// About as long as zstd at level 10.
    Quick = 1,
    /// As long as zstd at level 19.
    Thorough = 6,
}

impl Compression {
    /// Compresses a stream into `out`, which is left as it is when there is nothing in it.
    ///
    /// # Errors
    /// Those of reading and of `out`; bad options.
    pub(super) fn compress<W: Write>(&self, stream: &Region, out: W) -> io::Result<W> {
        match *self {
            _ if stream.len() == 0 => Ok(out),
            Compression::Zstd(options) => {
                let mut encoder = options.encoder(out)?;
                io::copy(&mut stream.reader(), &mut encoder)?;
                encoder.finish()
            }
            Compression::Lzma { .. } if stream.len() < LZMA_FROM => {
                Compression::Zstd(WriterOptions { window_log: 20, ..WriterOptions::default() })
                    .compress(stream, out)
            }
            Compression::Lzma { dictionary, effort } => {
                let wanted = stream.len().next_power_of_two().min(dictionary.into()) as u32;
                let mut options = lzma::LzmaOptions::new_preset(effort as u32)?;
                options.dict_size(wanted.max(LEAST_DICTIONARY)).position_bits(0).nice_len(GOOD_MATCH);
                if matches!(effort, Effort::Thorough) && stream.len() <= DEEP_UP_TO {
                    options.depth(DEPTH);
                }
                let mut encoder = XzEncoder::new_stream(out, lzma::Stream::new_lzma_encoder(&options)?);
                io::copy(&mut stream.reader(), &mut encoder)?;
                encoder.finish()
            }
        }
    }
}

/// Decompresses a stream.
pub(super) enum Decoder {
    Zstd(raw::Decoder<'static>),
    Lzma { stream: lzma::Stream, ended: bool },
}

/// One call of it.
pub(super) struct Step {
    pub read: usize,
    pub made: usize,
    /// May the stream end here?
    pub ended: bool,
}

impl Decoder {
    /// For a stream with this first byte, with a window of up to two to this power.
    pub fn new(first: u8, window_log: u32) -> io::Result<Self> {
        if first == ZSTD {
            let mut decoder = raw::Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(window_log))?;
            return Ok(Decoder::Zstd(decoder));
        }
        let stream = lzma::Stream::new_lzma_decoder((1 << window_log.min(62)) + DECODER)?;
        Ok(Decoder::Lzma { stream, ended: false })
    }

    /// # Errors
    /// What is wrong with the stream.
    pub fn step(&mut self, input: &[u8], out: &mut [u8]) -> io::Result<Step> {
        match self {
            Decoder::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, out)?;
                let (read, made) = (status.bytes_read, status.bytes_written);
                Ok(Step { read, made, ended: status.remaining == 0 })
            }
            Decoder::Lzma { ended: true, .. } if !input.is_empty() => {
                Err(io::Error::other("bytes behind its end"))
            }
            Decoder::Lzma { ended: true, .. } => Ok(Step { read: 0, made: 0, ended: true }),
            Decoder::Lzma { stream, ended } => {
                let before = (stream.total_in(), stream.total_out());
                *ended = stream.process(input, out, lzma::Action::Run)? == lzma::Status::StreamEnd;
                let (read, made) = (stream.total_in() - before.0, stream.total_out() - before.1);
                Ok(Step { read: read as usize, made: made as usize, ended: *ended })
            }
        }
    }
}
