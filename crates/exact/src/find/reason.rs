//! Why there is no recipe.

use std::{fmt, io};

use crate::deflate::parse::ParseError;
use crate::recipe::{Recipe, RecipeError};

/// Why no recipe was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotFound {
    /// The blob or the plain bytes can't be read.
    Io(io::Error),
    /// The search was told to stop.
    Cancelled,
    /// The blob ends too soon.
    CutOff,
    /// The header of gzip is longer than recipes hold.
    LongHeader,
    /// The deflate stream is none; of a blob without a wrapper, it is most likely not compressed.
    BrokenStream(ParseError),
    /// The zstd frame is none.
    BrokenFrame,
    /// The blob does not end with its first member or frame.
    Trailing,
    /// The blob says another size of its plain bytes: it has several members, or these are not its bytes.
    OtherSize,
    /// The plain bytes are not those of the blob.
    OtherBytes,
    /// What no encoder gives is too much of the blob: the fix would be larger than [`fix::most`](crate::fix::most).
    LongFix,
    /// The blob has more than [`MAX_PARTS`](crate::fix::MAX_PARTS) members.
    ManyParts,
    /// There is a recipe, but it is too long to be kept.
    LongRecipe,
    /// A limit of recipes.
    Recipe(RecipeError),
    /// None of the known encoders makes this blob.
    UnknownEncoder(Box<Seen>),
}

/// What was seen of a blob that none of the known encoders makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The header of gzip, if it is a gzip member.
    pub header: Option<Vec<u8>>,
    /// The plain bytes of the first blocks, as far as it is known without decoding them.
    pub blocks: Vec<u64>,
    /// How many recipes were tried.
    pub tried: usize,
    /// The recipe that came nearest.
    pub nearest: Option<Recipe>,
    /// For how many bytes of the blob it agrees.
    pub agreed: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some([_, _, _, flags, time @ .., extra, system]) =
            self.header.as_deref().and_then(|h| h.get(..10))
        {
            let time = <[u8; 4]>::try_from(time).map_or(0, u32::from_le_bytes);
            write!(f, "gzip flags {flags}, time {time}, extra flags {extra}, system {system}; ")?;
        }
        if !self.blocks.is_empty() {
            write!(f, "first blocks of {:?} bytes; ", self.blocks)?;
        }
        write!(f, "{} recipes tried", self.tried)?;
        if let Some(nearest) = &self.nearest {
            write!(f, ", the nearest agrees for {} bytes: {nearest}", self.agreed)?;
        }
        Ok(())
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "reading failed: {error}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::CutOff => f.write_str("the blob is cut off"),
            Self::LongHeader => f.write_str("the gzip header is too long for a recipe"),
            Self::BrokenStream(error) => write!(f, "not compressed, or broken: {error}"),
            Self::BrokenFrame => f.write_str("a broken zstd frame"),
            Self::Trailing => f.write_str("more than one gzip member or zstd frame"),
            Self::OtherSize => {
                f.write_str("not one member or frame of these plain bytes: the size it says differs")
            }
            Self::OtherBytes => f.write_str("the plain bytes are not those of the blob"),
            Self::LongFix => {
                write!(
                    f,
                    "not made by a known encoder, and a fix would be larger than 1/{} of the blob",
                    crate::fix::SHARE
                )
            }
            Self::ManyParts => write!(f, "more than {} members or frames", crate::fix::MAX_PARTS),
            Self::LongRecipe => f.write_str("the recipe is too long"),
            Self::Recipe(error) => error.fmt(f),
            Self::UnknownEncoder(seen) => write!(f, "not made by a known encoder: {seen}"),
        }
    }
}

impl std::error::Error for NotFound {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::BrokenStream(error) => Some(error),
            Self::Recipe(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for NotFound {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ParseError> for NotFound {
    fn from(error: ParseError) -> Self {
        Self::BrokenStream(error)
    }
}

impl From<RecipeError> for NotFound {
    fn from(error: RecipeError) -> Self {
        Self::Recipe(error)
    }
}
