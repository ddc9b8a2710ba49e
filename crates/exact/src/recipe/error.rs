//! Why a recipe can't be followed.

use std::fmt;

/// The most bytes of a foreign name that are told.
const MAX_NAME: usize = 40;

/// Why a text is no recipe, or none that can be followed here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeError {
    /// The text is longer than [`MAX_TEXT`](super::MAX_TEXT) bytes.
    TextTooLong,
    /// The text is no JSON object.
    NoObject,
    /// A field is missing.
    Missing(&'static str),
    /// A field is not what it should be.
    Malformed(&'static str),
    /// A number, or the length of a field, is out of bounds.
    Limit {
        /// The field.
        field: &'static str,
        /// The least that is possible.
        least: i64,
        /// The most.
        most: u64,
    },
    /// A name that is not known here: the blob can't be made.
    Unknown {
        /// What is named.
        what: &'static str,
        /// The name, cut if it is long.
        name: String,
    },
    /// Fields that do not go together.
    Contradiction(&'static str),
}

impl RecipeError {
    pub(super) fn limit(field: &'static str, least: i64, most: u64) -> Self {
        Self::Limit { field, least, most }
    }

    pub(super) fn unknown(what: &'static str, name: &str) -> Self {
        let name = name.chars().take(MAX_NAME).collect();
        Self::Unknown { what, name }
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TextTooLong => write!(f, "recipe: longer than {} bytes", super::MAX_TEXT),
            Self::NoObject => f.write_str("recipe: no JSON object"),
            Self::Missing(field) => write!(f, "recipe: `{field}` is missing"),
            Self::Malformed(field) => write!(f, "recipe: `{field}` is malformed"),
            Self::Limit { field, least, most } => {
                write!(f, "recipe: `{field}` is out of bounds, which are {least} and {most}")
            }
            // Quoted with escapes: the name may hold anything.
            Self::Unknown { what, name } => {
                write!(f, "recipe: cannot, the {what} {name:?} is not known here")
            }
            Self::Contradiction(what) => write!(f, "recipe: {what}"),
        }
    }
}

impl std::error::Error for RecipeError {}
