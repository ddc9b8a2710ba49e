//! Why a fix can't be followed.

use std::fmt;

/// What is wrong with a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FixError {
    /// The recipe needs a fix, and there is none.
    Missing,
    /// There is a fix, and the recipe needs none.
    NotNeeded,
    /// It is none, or one of another version.
    Magic,
    /// It is larger than [`most`](super::most) allows.
    TooLarge {
        /// The most bytes.
        most: u64,
    },
    /// It is another one than the recipe names.
    OtherDigest,
    /// It ends too soon.
    CutOff,
    /// It goes on behind its end.
    Trailing,
    /// A part of a kind that is not known, or not possible with the recipe's encoder.
    Part,
    /// A number is beyond its limit.
    Limit {
        /// Of what.
        what: &'static str,
        /// The most.
        most: u64,
    },
    /// A match from before the start, of bytes that are not there, or beyond the end.
    Token,
    /// Code lengths that can't be sent, or a symbol without a code.
    Codes,
    /// The blocks of a member do not end with its plain bytes.
    Blocks,
    /// The parts take other plain bytes than there are.
    Plain,
}

impl fmt::Display for FixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Missing => "the recipe needs one, and there is none",
            Self::NotNeeded => "the recipe needs none",
            Self::Magic => "not a fix, or one of another version",
            Self::TooLarge { most } => {
                return write!(f, "fix: larger than the {most} bytes allowed for this blob");
            }
            Self::OtherDigest => "another digest than the recipe names",
            Self::CutOff => "it ends too soon",
            Self::Trailing => "it goes on behind its end",
            Self::Part => "a part of a kind that is not known for this encoder",
            Self::Limit { what, most } => return write!(f, "fix: more than {most} {what}"),
            Self::Token => "a match of bytes that are not there",
            Self::Codes => "code lengths that make no block",
            Self::Blocks => "the blocks of a member do not end with its plain bytes",
            Self::Plain => "its parts take other plain bytes than there are",
        };
        write!(f, "fix: {text}")
    }
}

impl std::error::Error for FixError {}
