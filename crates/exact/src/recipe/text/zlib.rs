//! The text of recipes for zlib, and for what is near to it.

use std::fmt;

use serde_json::{Map, Value};

use super::{Deflate, RecipeError, frame, string, whole_between};
use crate::deflate::{ng, zlib};
use crate::pigz::{self, BlockSize, Cut, Dictionary};

pub(super) const NAME: &str = "zlib";
pub(super) const GNU: &str = "gnu-gzip";
pub(super) const NG: &str = "zlib-ng";

/// The family of [`NAME`] and [`GNU`].
const FAMILY: &str = "1";
/// The family of [`NG`].
const NG_FAMILY: &str = "2.3";

pub(super) fn write(encoder: Deflate, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match encoder {
        Deflate::Go { .. } | Deflate::Kp { .. } | Deflate::Tokens => Ok(()),
        Deflate::Zlib { settings: zlib::Settings { level, memory } } => {
            begin(NAME, FAMILY, level, f)?;
            if memory != zlib::Memory::default() {
                write!(f, r#""mem":{},"#, memory.get())?;
            }
            f.write_str(r#""frame":{"kind":"stream"}"#)
        }
        Deflate::Pigz { settings: pigz::Settings { level, block, dictionary, cut } } => {
            begin(NAME, FAMILY, level, f)?;
            let dictionary = if dictionary == Dictionary::Present { pigz::DICTIONARY } else { 0 };
            let rsync = u8::from(cut == Cut::Rsyncable);
            write!(
                f,
                r#""frame":{{"kind":"pigz","block":{},"dict":{dictionary},"rsync":{rsync}}}"#,
                block.get()
            )
        }
        Deflate::GnuGzip { level } => {
            begin(GNU, FAMILY, level, f)?;
            f.write_str(r#""frame":{"kind":"stream"}"#)
        }
        Deflate::ZlibNg { settings: ng::Settings { level, piece } } => {
            begin(NG, NG_FAMILY, level, f)?;
            write!(f, r#""frame":{{"kind":"stream","piece":{}}}"#, piece.get())
        }
    }
}

fn begin(name: &str, family: &str, level: zlib::Level, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, r#""enc":"{name}","fam":"{family}","lvl":{},"#, level.get())
}

/// The encoder of one of the three names.
pub(super) fn read(fields: &Map<String, Value>, name: &str) -> Result<Deflate, RecipeError> {
    let family = string(fields, "fam")?;
    if family != if name == NG { NG_FAMILY } else { FAMILY } {
        return Err(RecipeError::unknown("family of zlib, gnu-gzip or zlib-ng", family));
    }
    if super::fused(fields)? {
        return Err(RecipeError::Contradiction("`fma` of an encoder that does without"));
    }
    let level = whole_between(fields, "lvl", 1, 9)?;
    let level = u8::try_from(level).ok().and_then(zlib::Level::new).ok_or(RecipeError::Malformed("lvl"))?;
    let memory = match fields.get("mem").map(|_| whole_between(fields, "mem", 8, 9)).transpose()? {
        Some(9) => zlib::Memory::Most,
        _ => zlib::Memory::Usual,
    };
    let (frame, kind) = frame(fields)?;
    match (name, kind) {
        (NAME, "stream") => Ok(Deflate::Zlib { settings: zlib::Settings { level, memory } }),
        _ if memory != zlib::Memory::Usual => {
            Err(RecipeError::Contradiction("`mem` of an encoder that has no choice"))
        }
        (NAME, "pigz") => Ok(Deflate::Pigz { settings: pigz(frame, level)? }),
        (GNU, "stream") => Ok(Deflate::GnuGzip { level }),
        (NG, "stream") => {
            let piece = size(frame, "piece", ng::Piece::MIN, ng::Piece::MAX)?;
            let piece = ng::Piece::new(piece).ok_or(RecipeError::Malformed("piece"))?;
            Ok(Deflate::ZlibNg { settings: ng::Settings { level, piece } })
        }
        (_, kind) => Err(RecipeError::unknown("frame of zlib, gnu-gzip or zlib-ng", kind)),
    }
}

fn pigz(frame: &Map<String, Value>, level: zlib::Level) -> Result<pigz::Settings, RecipeError> {
    let block = size(frame, "block", BlockSize::MIN, BlockSize::MAX)?;
    let dictionary = match size(frame, "dict", 0, pigz::DICTIONARY)? {
        0 => Dictionary::Absent,
        pigz::DICTIONARY => Dictionary::Present,
        _ => return Err(RecipeError::Malformed("dict")),
    };
    let cut = match size(frame, "rsync", 0, 1)? {
        0 => Cut::Even,
        _ => Cut::Rsyncable,
    };
    let block = BlockSize::new(block).ok_or(RecipeError::Malformed("block"))?;
    Ok(pigz::Settings { level, block, dictionary, cut })
}

/// A number that fits in memory.
fn size(
    frame: &Map<String, Value>,
    name: &'static str,
    least: usize,
    most: usize,
) -> Result<usize, RecipeError> {
    let number = whole_between(frame, name, least as u64, most as u64)?;
    usize::try_from(number).map_err(|_| RecipeError::Malformed(name))
}
