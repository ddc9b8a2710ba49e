//! How a member is made from what is in it: the text that patches carry.

use std::fmt;
use std::str::FromStr;

use exact_encoders::recipe::{Deflate, Frame, Method, Recipe as Blob, Wrap};
use serde::Deserialize;

use super::{Coding, Sizes, lzma, xz};

/// The most bytes of a text that is read; those that are found have at most 400.
pub const MAX_TEXT: usize = exact_encoders::recipe::MAX_TEXT;

/// The version of the texts.
const VERSION: u64 = 1;

/// How a member is made. As text, a line of JSON.
///
/// It says nothing of the member's own sizes, which a patch has elsewhere: thousands of members have one recipe, so a
/// patch needs each text only once. What a header of gzip says is in it; programs that pack for distributions
/// leave names and times out, so they share it as well.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe(pub(super) Encoding);

/// By encoder.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Encoding {
    /// Those of exact-encoders, for a blob without bytes.
    Exact(Box<Blob>),
    /// liblzma.
    Xz(xz::Settings),
    /// liblzma, a bare stream.
    Lzma(lzma::Settings),
    /// libbzip2.
    Bzip2 { level: u32 },
}

impl Recipe {
    /// Of a whole blob.
    pub(super) fn of_blob(blob: &Blob) -> Result<Self, String> {
        if blob.fix().is_some() {
            return Err("recipes of members have no corrections".to_owned());
        }
        let blob = blob.for_sizes(0, 0).map_err(|e| e.to_string())?;
        Ok(Recipe(Encoding::Exact(Box::new(blob))))
    }

    /// What it makes.
    pub fn coding(&self) -> Coding {
        match &self.0 {
            Encoding::Exact(blob) => match blob.method() {
                Method::Deflate { wrap: Wrap::Gzip { .. }, .. } => Coding::Gzip,
                Method::Deflate { wrap: Wrap::Raw, .. } => Coding::Deflate,
                Method::Zstd { .. } | Method::Libzstd { .. } => Coding::Zstd,
            },
            Encoding::Xz(_) => Coding::Xz,
            Encoding::Lzma(_) => Coding::Lzma,
            Encoding::Bzip2 { .. } => Coding::Bzip2,
        }
    }

    /// What an [`Encoder`](super::Encoder) of one thread holds in memory at most, in bytes, about; so whoever makes several
    /// members side by side can bound it.
    pub fn memory(&self, sizes: Sizes) -> u64 {
        match &self.0 {
            Encoding::Xz(settings) => settings.memory(sizes.plain),
            Encoding::Lzma(settings) => settings.memory(sizes.plain),
            Encoding::Bzip2 { .. } => 8 << 20,
            Encoding::Exact(blob) => match blob.method() {
                Method::Deflate { encoder: Deflate::Kp { frame: Frame::Pgzip(block), .. }, .. } => {
                    (16 << 20) + 2 * sizes.plain.min(block.get() as u64)
                }
                Method::Libzstd { settings } if settings.level > 8 || settings.jobs.is_some() => 96 << 20,
                _ => 16 << 20,
            },
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Encoding::Exact(blob) => blob.fmt(f),
            Encoding::Xz(settings) => write!(f, r#"{{"v":{VERSION},"wrap":"xz",{settings}}}"#),
            Encoding::Lzma(settings) => {
                let dictionary = settings.dictionary;
                write!(f, r#"{{"v":{VERSION},"wrap":"lzma","dict":{dictionary},{settings}}}"#)
            }
            Encoding::Bzip2 { level } => write!(f, r#"{{"v":{VERSION},"wrap":"bzip2","lvl":{level}}}"#),
        }
    }
}

/// What all texts begin with.
#[derive(Deserialize)]
struct Start {
    v: u64,
    wrap: String,
}

/// The rest of bzip2's.
#[derive(Deserialize)]
struct Bzip2 {
    lvl: u32,
}

impl FromStr for Recipe {
    type Err = String;

    /// The recipe of a text. Fields that are not known are ignored, as are the sizes of blobs.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("a recipe of {} bytes, more than {MAX_TEXT}", text.len()));
        }
        let malformed = |e: serde_json::Error| format!("a recipe that makes no sense: {e}");
        let start: Start = serde_json::from_str(text).map_err(malformed)?;
        if start.v != VERSION {
            return Err(format!("a recipe of version {}, known is {VERSION}", start.v));
        }
        match start.wrap.as_str() {
            "xz" => {
                let fields: xz::Text = serde_json::from_str(text).map_err(malformed)?;
                Ok(Recipe(Encoding::Xz(xz::Settings::try_from(fields)?)))
            }
            "lzma" => {
                let fields: lzma::Text = serde_json::from_str(text).map_err(malformed)?;
                Ok(Recipe(Encoding::Lzma(lzma::Settings::try_from(fields)?)))
            }
            "bzip2" => match serde_json::from_str(text).map_err(malformed)? {
                Bzip2 { lvl: level @ 1..=9 } => Ok(Recipe(Encoding::Bzip2 { level })),
                Bzip2 { lvl } => Err(format!("a recipe for level {lvl} of bzip2, which has 1 to 9")),
            },
            _ => Self::of_blob(&text.parse::<Blob>().map_err(|e| e.to_string())?),
        }
    }
}
