//! What a compressed blob was made with: with its plain bytes, enough to make it again.
//!
//! A recipe is kept as a short text, which is described in the README of the crate. Names in it never
//! change their meaning.

mod error;
mod rebuild;
mod text;

use std::num::NonZeroUsize;

pub use self::error::RecipeError;
pub use self::rebuild::{Rebuild, RebuildError};
use crate::Encoder;
use crate::deflate::{go, kp, ng, zlib};
use crate::fix::FixDigest;
use crate::gzip::Gzip;
use crate::pgzip::{BlockSize, Pgzip};
use crate::pigz::{self, Pigz};
use crate::zstd::{klauspost as kp_zstd, libzstd};

/// The most bytes of a blob, of its plain bytes, and the last position of a flush: 1 TiB.
pub const MAX_SIZE: u64 = 1 << 40;
/// The most bytes of a header.
pub const MAX_HEADER: usize = 512;
/// The most flushes of a frame.
pub const MAX_FLUSHES: usize = 16;
/// The most bytes of a text that is read.
pub const MAX_TEXT: usize = 4096;

/// The most plain bytes in the blocks of all threads together: each holds one, whose size the recipe says.
const MOST_IN_BLOCKS: usize = 256 << 20;

/// How a blob is made from its plain bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    size: u64,
    method: Method,
    fix: Option<FixDigest>,
}

/// The encoder of a blob, with all that its output depends on besides the plain bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// One deflate stream.
    Deflate {
        /// What is around the stream.
        wrap: Wrap,
        /// Who makes it.
        encoder: Deflate,
    },
    /// One zstd frame of klauspost's encoder.
    Zstd {
        /// The releases of the library.
        family: kp_zstd::Family,
        /// The compression level.
        level: kp_zstd::Level,
        /// How the library was called.
        calls: kp_zstd::Calls,
    },
    /// One zstd frame of libzstd.
    Libzstd {
        /// What the library was told.
        settings: libzstd::Settings,
    },
}

/// What is around a deflate stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// Nothing.
    Raw,
    /// A gzip member.
    Gzip {
        /// Its header, as it is; at most [`MAX_HEADER`] bytes.
        header: Vec<u8>,
    },
}

/// The encoder of a deflate stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deflate {
    /// Go's `compress/flate` up to Go 1.26.
    Go {
        /// The compression level.
        level: go::Level,
    },
    /// klauspost's `flate`, and that of Go since 1.27.
    Kp {
        /// The versions of the encoder.
        version: KpVersion,
        /// The compression level.
        level: kp::Level,
        /// How floating point numbers are rounded.
        rounding: kp::Rounding,
        /// How the stream is cut.
        frame: Frame,
    },
    /// zlib.
    Zlib {
        /// What it was told.
        settings: zlib::Settings,
    },
    /// pigz, with zlib.
    Pigz {
        /// What it was told.
        settings: pigz::Settings,
    },
    /// GNU gzip.
    GnuGzip {
        /// The compression level.
        level: zlib::Level,
    },
    /// zlib-ng.
    ZlibNg {
        /// What it was told.
        settings: ng::Settings,
    },
    /// None: blocks and tokens are in a fix.
    Tokens,
}

/// How the stream of klauspost's `flate` is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not at all.
    Stream,
    /// In the blocks of pgzip.
    Pgzip(BlockSize),
}

/// Versions of klauspost's `flate`, as they are named in recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KpVersion {
    /// Releases of klauspost/compress.
    Family(kp::Family),
    /// Go since 1.27, which makes the same streams as [`kp::Family::C`].
    Go127,
}

impl KpVersion {
    /// The family of the encoder.
    pub const fn family(self) -> kp::Family {
        match self {
            Self::Family(family) => family,
            Self::Go127 => kp::Family::C,
        }
    }

    /// The name in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Family(family) => family.name(),
            Self::Go127 => "go1.27",
        }
    }

    /// The versions of a [`name`](Self::name), or `None` if there are none.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == Self::Go127.name() {
            return Some(Self::Go127);
        }
        kp::Family::from_name(name).map(Self::Family)
    }
}

impl Recipe {
    /// The recipe for a blob of `size` bytes.
    ///
    /// # Errors
    ///
    /// A number or the header is beyond its limit, or flushes are not in rising order.
    pub fn new(size: u64, method: Method) -> Result<Self, RecipeError> {
        within("size", size)?;
        match &method {
            Method::Deflate { wrap: Wrap::Gzip { header }, .. } if header.len() > MAX_HEADER => {
                return Err(RecipeError::limit("head", 0, MAX_HEADER as u64));
            }
            Method::Zstd { calls: kp_zstd::Calls::Whole { size }, .. } => within("plain", *size)?,
            Method::Zstd { calls: kp_zstd::Calls::Stream { flushes }, .. } => {
                if flushes.len() > MAX_FLUSHES {
                    return Err(RecipeError::limit("flush", 0, MAX_FLUSHES as u64));
                }
                flushes.iter().try_for_each(|flush| within("flush", *flush))?;
                if !flushes.is_sorted_by(|before, after| before < after) {
                    return Err(RecipeError::Contradiction("flushes that do not rise"));
                }
            }
            Method::Libzstd { settings } => check_libzstd(settings)?,
            Method::Deflate { .. } => {}
        }
        Ok(Self { size, method, fix: None })
    }

    /// The recipe for a blob that needs a fix, too.
    pub fn with_fix(self, fix: FixDigest) -> Self {
        Self { fix: Some(fix), ..self }
    }

    /// The same encoder for another blob: of `size` bytes, out of `plain` bytes. Flushes stay where they are.
    ///
    /// # Errors
    ///
    /// A number is beyond its limit.
    pub fn for_sizes(&self, size: u64, plain: u64) -> Result<Self, RecipeError> {
        let method = self.method.of_member(self.method.header().to_vec(), plain);
        Ok(Self { fix: self.fix, ..Self::new(size, method)? })
    }

    /// The fix that is needed, if there is one.
    pub const fn fix(&self) -> Option<&FixDigest> {
        self.fix.as_ref()
    }

    /// The size of the blob in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The encoder of the blob.
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// An encoder for the whole blob, with what is around the stream, on so many threads.
    ///
    /// It does not hold back what is more than [`size`](Self::size); [`Rebuild`] does. There is none if the blob
    /// needs a [`fix`](Self::fix).
    pub fn encoder(&self, threads: NonZeroUsize) -> Option<Box<dyn Encoder>> {
        if self.fix.is_some() { None } else { self.method.encoder(threads) }
    }
}

impl Method {
    /// An encoder for one member, on so many threads, if there is one.
    pub(crate) fn encoder(&self, threads: NonZeroUsize) -> Option<Box<dyn Encoder>> {
        Some(match self {
            Self::Deflate { wrap: Wrap::Raw, encoder } => encoder.encoder(threads)?,
            Self::Deflate { wrap: Wrap::Gzip { header }, encoder } => {
                Box::new(Gzip::new(header.as_slice(), encoder.encoder(threads)?))
            }
            Self::Zstd { family, level, calls } => kp_zstd::encoder(*family, *level, calls.clone()),
            Self::Libzstd { settings } => libzstd::encoder_that_may_fail(*settings, threads),
        })
    }

    /// Whether the encoder can make use of several threads.
    pub const fn has_threads(&self) -> bool {
        match self {
            Self::Deflate { encoder, .. } => !matches!(encoder, Deflate::ZlibNg { .. } | Deflate::Tokens),
            Self::Zstd { .. } => false,
            Self::Libzstd { settings } => settings.jobs.is_some(),
        }
    }

    /// Whether members of gzip are made.
    pub(crate) const fn is_gzip(&self) -> bool {
        matches!(self, Self::Deflate { wrap: Wrap::Gzip { .. }, .. })
    }

    /// The header of gzip; nothing in other wrappers.
    pub(crate) fn header(&self) -> &[u8] {
        match self {
            Self::Deflate { wrap: Wrap::Gzip { header }, .. } => header,
            _ => &[],
        }
    }

    /// The method for a member with this header, and so many plain bytes. Without effect where there are none.
    pub(crate) fn of_member(&self, new_header: Vec<u8>, plain: u64) -> Self {
        let mut method = self.clone();
        match &mut method {
            Self::Deflate { wrap: Wrap::Gzip { header }, .. } => *header = new_header,
            Self::Zstd { calls: kp_zstd::Calls::Whole { size }, .. } => *size = plain,
            Self::Libzstd { settings } => settings.size = settings.size.and(Some(plain)),
            _ => {}
        }
        method
    }
}

impl Deflate {
    fn encoder(self, threads: NonZeroUsize) -> Option<Box<dyn Encoder>> {
        Some(match self {
            Self::Tokens => return None,
            Self::Go { level } => go::encoder(level, threads),
            Self::Kp { version, level, rounding, frame } => {
                let settings = kp::Settings { family: version.family(), level, rounding };
                match frame {
                    Frame::Stream => kp::encoder(settings, threads),
                    Frame::Pgzip(block) => {
                        // The output is the same with fewer.
                        let most = NonZeroUsize::new(MOST_IN_BLOCKS / block.get());
                        let threads = threads.min(most.unwrap_or(NonZeroUsize::MIN));
                        Box::new(Pgzip::new(settings, block, threads))
                    }
                }
            }
            Self::Zlib { settings } => zlib::encoder(settings, threads),
            Self::Pigz { settings } => Box::new(Pigz::new(settings, threads)),
            Self::GnuGzip { level } => zlib::gnu_encoder(level, threads),
            Self::ZlibNg { settings } => ng::encoder(settings),
        })
    }
}

/// The levels of libzstd in recipes. Those above have larger windows.
const LIBZSTD_LEVELS: (u8, u8) = (1, 19);
/// The logarithms of libzstd's windows in recipes: up to 8 MiB, that of level 19.
const LIBZSTD_WINDOWS: (u8, u8) = (10, 23);

fn check_libzstd(settings: &libzstd::Settings) -> Result<(), RecipeError> {
    let between = |field, number: i64, (least, most): (u8, u8)| {
        if (i64::from(least)..=i64::from(most)).contains(&number) {
            Ok(())
        } else {
            Err(RecipeError::limit(field, least.into(), most.into()))
        }
    };
    between("lvl", settings.level.into(), LIBZSTD_LEVELS)?;
    settings.window_log.map_or(Ok(()), |log| between("window", log.into(), LIBZSTD_WINDOWS))?;
    settings.size.map_or(Ok(()), |size| within("plain", size))
}

fn within(field: &'static str, number: u64) -> Result<(), RecipeError> {
    if number > MAX_SIZE { Err(RecipeError::limit(field, 0, MAX_SIZE)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
