//! The text of a recipe.

mod libzstd;
mod zlib;

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::{Deflate, Frame, KpVersion, MAX_FLUSHES, MAX_HEADER, MAX_SIZE, MAX_TEXT};
use super::{Method, Recipe, RecipeError, Wrap};
use crate::deflate::{go, kp};
use crate::fix::FixDigest;
use crate::pgzip::BlockSize;
use crate::zstd::klauspost as kp_zstd;

/// The version of the format.
const VERSION: u64 = 1;
/// The bytes of a block of pgzip that are the dictionary of the next. There are no others.
const TAIL: u64 = 16_384;

const GO: &str = "go-flate";
const GO_FAMILY: &str = "1.26";
const KP: &str = "kp-flate";
const KP_ZSTD: &str = "kp-zstd";
const TOKENS: &str = "tokens";
/// The version of what is told of blocks and tokens.
const TOKENS_FAMILY: &str = "1";

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All names are plain ASCII.
        write!(f, r#"{{"v":{VERSION},"size":{},"#, self.size)?;
        match &self.method {
            Method::Deflate { wrap, encoder } => {
                match wrap {
                    Wrap::Raw => f.write_str(r#""wrap":"raw","#)?,
                    Wrap::Gzip { header } => {
                        f.write_str(r#""wrap":"gzip","head":""#)?;
                        header.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                        f.write_str(r#"","#)?;
                    }
                }
                write_deflate(*encoder, f)?;
            }
            Method::Zstd { family, level, calls } => {
                let (family, level) = (family.name(), zstd_number(*level));
                write!(f, r#""wrap":"zstd","enc":"{KP_ZSTD}","fam":"{family}","lvl":{level},"frame":"#)?;
                match calls {
                    kp_zstd::Calls::Whole { size } => write!(f, r#"{{"kind":"whole","plain":{size}}}"#)?,
                    kp_zstd::Calls::Stream { flushes } => {
                        f.write_str(r#"{"kind":"zstd","flush":["#)?;
                        for (i, flush) in flushes.iter().enumerate() {
                            write!(f, "{}{flush}", if i == 0 { "" } else { "," })?;
                        }
                        f.write_str("]}")?;
                    }
                }
            }
            Method::Libzstd { settings } => libzstd::write(settings, f)?,
        }
        if let Some(fix) = &self.fix {
            write!(f, r#","fix":"{fix}""#)?;
        }
        f.write_str("}")
    }
}

fn write_deflate(encoder: Deflate, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match encoder {
        Deflate::Go { level } => {
            let level = level.number();
            write!(f, r#""enc":"{GO}","fam":"{GO_FAMILY}","lvl":{level},"frame":{{"kind":"stream"}}"#)
        }
        Deflate::Kp { version, level, rounding, frame } => {
            write!(f, r#""enc":"{KP}","fam":"{}","lvl":{},"frame":"#, version.name(), level.get())?;
            match frame {
                Frame::Stream => f.write_str(r#"{"kind":"stream"}"#)?,
                Frame::Pgzip(block) => {
                    write!(f, r#"{{"kind":"pgzip","block":{},"tail":{TAIL}}}"#, block.get())?;
                }
            }
            write!(f, r#","fma":{}"#, u8::from(rounding == kp::Rounding::Fused))
        }
        Deflate::Zlib { .. } | Deflate::Pigz { .. } | Deflate::GnuGzip { .. } | Deflate::ZlibNg { .. } => {
            zlib::write(encoder, f)
        }
        Deflate::Tokens => {
            write!(f, r#""enc":"{TOKENS}","fam":"{TOKENS_FAMILY}","lvl":0,"frame":{{"kind":"stream"}}"#)
        }
    }
}

/// The library's number for a level.
const fn zstd_number(level: kp_zstd::Level) -> i8 {
    match level {
        kp_zstd::Level::Fastest => 1,
        kp_zstd::Level::Default => 2,
    }
}

impl FromStr for Recipe {
    type Err = RecipeError;

    /// The recipe of a text. Fields that are not known are ignored.
    fn from_str(text: &str) -> Result<Self, RecipeError> {
        if text.len() > MAX_TEXT {
            return Err(RecipeError::TextTooLong);
        }
        let json: Value = serde_json::from_str(text).map_err(|_| RecipeError::NoObject)?;
        let Value::Object(fields) = &json else { return Err(RecipeError::NoObject) };
        let version = whole(fields, "v", u64::MAX)?;
        if version != VERSION {
            return Err(RecipeError::unknown("version", &version.to_string()));
        }
        let size = whole(fields, "size", MAX_SIZE)?;
        let wrap = string(fields, "wrap")?;
        if !["gzip", "zstd", "raw"].contains(&wrap) {
            return Err(RecipeError::unknown("wrapper", wrap));
        }
        let encoder = string(fields, "enc")?;
        let method = match encoder {
            GO | KP | TOKENS | zlib::NAME | zlib::GNU | zlib::NG => {
                Method::Deflate { wrap: deflate_wrap(fields, wrap)?, encoder: deflate(fields, encoder)? }
            }
            KP_ZSTD if wrap == "zstd" => zstd(fields)?,
            libzstd::NAME if wrap == "zstd" => libzstd::read(fields)?,
            KP_ZSTD | libzstd::NAME => {
                return Err(RecipeError::Contradiction("an encoder of zstd in another wrapper"));
            }
            name => return Err(RecipeError::unknown("encoder", name)),
        };
        let recipe = Self::new(size, method)?;
        match fields.contains_key("fix") {
            true => {
                let digest = FixDigest::from_name(string(fields, "fix")?);
                Ok(recipe.with_fix(digest.ok_or(RecipeError::Malformed("fix"))?))
            }
            false if encoder == TOKENS => Err(RecipeError::Missing("fix")),
            false => Ok(recipe),
        }
    }
}

fn deflate_wrap(fields: &Map<String, Value>, name: &str) -> Result<Wrap, RecipeError> {
    match name {
        "gzip" => Ok(Wrap::Gzip { header: hex(string(fields, "head")?)? }),
        "raw" => Ok(Wrap::Raw),
        _ => Err(RecipeError::Contradiction("an encoder of deflate in the wrapper of zstd")),
    }
}

fn deflate(fields: &Map<String, Value>, encoder: &str) -> Result<Deflate, RecipeError> {
    if [zlib::NAME, zlib::GNU, zlib::NG].contains(&encoder) {
        return zlib::read(fields, encoder);
    }
    let family = string(fields, "fam")?;
    let (frame, kind) = frame(fields)?;
    let level = number(fields, "lvl", -2, 9)?;
    let fused = fused(fields)?;
    if encoder == TOKENS {
        return match (family, kind, level, fused) {
            (TOKENS_FAMILY, "stream", 0, false) => Ok(Deflate::Tokens),
            (TOKENS_FAMILY, ..) => {
                Err(RecipeError::Contradiction("`tokens` with settings, which it has not"))
            }
            _ => Err(RecipeError::unknown("family of tokens", family)),
        };
    }
    if encoder == GO {
        if family != GO_FAMILY {
            return Err(RecipeError::unknown("family of go-flate", family));
        }
        if kind != "stream" {
            return Err(RecipeError::unknown("frame of go-flate", kind));
        }
        if fused {
            return Err(RecipeError::Contradiction("`fma` of an encoder that does without"));
        }
        // -1 is another name of 6: a recipe has one.
        let level = (level != -1).then(|| go::Level::new(level.into()).ok()).flatten();
        return Ok(Deflate::Go { level: level.ok_or(RecipeError::Malformed("lvl"))? });
    }
    let version = KpVersion::from_name(family);
    let frame = match kind {
        "stream" => Frame::Stream,
        "pgzip" => {
            whole_between(frame, "tail", TAIL, TAIL)?;
            let block = whole_between(frame, "block", BlockSize::MIN as u64, BlockSize::MAX as u64)?;
            let block = usize::try_from(block).ok().and_then(BlockSize::new);
            Frame::Pgzip(block.ok_or(RecipeError::Malformed("block"))?)
        }
        name => return Err(RecipeError::unknown("frame of kp-flate", name)),
    };
    Ok(Deflate::Kp {
        version: version.ok_or_else(|| RecipeError::unknown("family of kp-flate", family))?,
        level: kp::Level::new(level).ok_or(RecipeError::Malformed("lvl"))?,
        rounding: if fused { kp::Rounding::Fused } else { kp::Rounding::Twice },
        frame,
    })
}

fn zstd(fields: &Map<String, Value>) -> Result<Method, RecipeError> {
    let family = string(fields, "fam")?;
    let family = kp_zstd::Family::from_name(family)
        .ok_or_else(|| RecipeError::unknown("family of kp-zstd", family))?;
    let level = match number(fields, "lvl", 1, 2)? {
        1 => kp_zstd::Level::Fastest,
        _ => kp_zstd::Level::Default,
    };
    if fused(fields)? {
        return Err(RecipeError::Contradiction("`fma` of an encoder that does without"));
    }
    let (frame, kind) = frame(fields)?;
    let calls = match kind {
        "whole" => kp_zstd::Calls::Whole { size: whole(frame, "plain", MAX_SIZE)? },
        "zstd" => kp_zstd::Calls::Stream { flushes: flushes(frame)? },
        name => return Err(RecipeError::unknown("frame of kp-zstd", name)),
    };
    Ok(Method::Zstd { family, level, calls })
}

fn flushes(frame: &Map<String, Value>) -> Result<Vec<u64>, RecipeError> {
    let Some(Value::Array(list)) = frame.get("flush") else { return Err(RecipeError::Malformed("flush")) };
    if list.len() > MAX_FLUSHES {
        return Err(RecipeError::limit("flush", 0, MAX_FLUSHES as u64));
    }
    list.iter().map(|flush| flush.as_u64().ok_or(RecipeError::Malformed("flush"))).collect()
}

/// The frame, and its kind.
fn frame(fields: &Map<String, Value>) -> Result<(&Map<String, Value>, &str), RecipeError> {
    match fields.get("frame") {
        Some(Value::Object(frame)) => Ok((frame, string(frame, "kind")?)),
        Some(_) => Err(RecipeError::Malformed("frame")),
        None => Err(RecipeError::Missing("frame")),
    }
}

/// Whether `fma` is 1. It may be missing.
fn fused(fields: &Map<String, Value>) -> Result<bool, RecipeError> {
    if !fields.contains_key("fma") {
        return Ok(false);
    }
    Ok(whole(fields, "fma", 1)? == 1)
}

fn string<'a>(fields: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, RecipeError> {
    let field = fields.get(name).ok_or(RecipeError::Missing(name))?;
    field.as_str().ok_or(RecipeError::Malformed(name))
}

fn whole(fields: &Map<String, Value>, name: &'static str, most: u64) -> Result<u64, RecipeError> {
    whole_between(fields, name, 0, most)
}

fn whole_between(
    fields: &Map<String, Value>,
    name: &'static str,
    least: u64,
    most: u64,
) -> Result<u64, RecipeError> {
    let field = fields.get(name).ok_or(RecipeError::Missing(name))?;
    let bounds = RecipeError::limit(name, i64::try_from(least).unwrap_or(i64::MAX), most);
    match field.as_u64() {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        // Negative, or too large for 64 bits.
        _ if field.is_number() => Err(bounds),
        _ => Err(RecipeError::Malformed(name)),
    }
}

fn number(fields: &Map<String, Value>, name: &'static str, least: i8, most: i8) -> Result<i8, RecipeError> {
    let field = fields.get(name).ok_or(RecipeError::Missing(name))?;
    match field.as_i64().and_then(|number| i8::try_from(number).ok()) {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ if field.is_number() => Err(RecipeError::limit(name, least.into(), most.unsigned_abs().into())),
        _ => Err(RecipeError::Malformed(name)),
    }
}

/// The header that hex digits stand for.
fn hex(digits: &str) -> Result<Vec<u8>, RecipeError> {
    if digits.len() > 2 * MAX_HEADER {
        return Err(RecipeError::limit("head", 0, MAX_HEADER as u64));
    }
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    pairs.map(byte).collect::<Option<_>>().ok_or(RecipeError::Malformed("head"))
}

/// The value of a digit of lower case, as recipes are written.
const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}
