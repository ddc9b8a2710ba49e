//! The text of recipes for libzstd.

use std::fmt;

use serde_json::{Map, Value};

use super::{Method, RecipeError, frame, string, whole, whole_between};
use crate::recipe::{LIBZSTD_LEVELS, LIBZSTD_WINDOWS, MAX_SIZE};
use crate::zstd::libzstd::{Checksum, Jobs, RELEASE, Settings, SizeField};

pub(super) const NAME: &str = "libzstd";

/// The kind of its frames.
const KIND: &str = "frame";
/// The kind of those that are made in [`Jobs`].
const JOBS: &str = "jobs";

pub(super) fn write(settings: &Settings, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Settings { level, size, size_field, checksum, window_log, jobs } = settings;
    let kind = if jobs.is_some() { JOBS } else { KIND };
    write!(f, r#""wrap":"zstd","enc":"{NAME}","fam":"{RELEASE}","lvl":{level},"#)?;
    write!(f, r#""frame":{{"kind":"{kind}","sum":{}"#, u8::from(*checksum == Checksum::Present))?;
    if let Some(size) = size {
        write!(f, r#","plain":{size}"#)?;
    }
    if *size_field == SizeField::Omitted {
        f.write_str(r#","told":0"#)?;
    }
    if let Some(log) = window_log {
        write!(f, r#","window":{log}"#)?;
    }
    if let Some(jobs) = jobs {
        write!(f, r#","job":{},"overlap":{}"#, jobs.size(), jobs.overlap_log())?;
    }
    f.write_str("}")
}

pub(super) fn read(fields: &Map<String, Value>) -> Result<Method, RecipeError> {
    let family = string(fields, "fam")?;
    if family != RELEASE {
        return Err(RecipeError::unknown("family of libzstd", family));
    }
    if super::fused(fields)? {
        return Err(RecipeError::Contradiction("`fma` of an encoder that does without"));
    }
    let number = |fields: &Map<String, Value>, name, (least, most): (u8, u8)| {
        whole_between(fields, name, least.into(), most.into())
    };
    let level = number(fields, "lvl", LIBZSTD_LEVELS)? as i32;
    let (frame, kind) = frame(fields)?;
    let jobs = match kind {
        KIND => None,
        JOBS => {
            let size = whole_between(frame, "job", Jobs::MIN.into(), Jobs::MAX.into())?;
            let overlap = number(frame, "overlap", (1, Jobs::MAX_OVERLAP))?;
            Some(Jobs::new(size as u32, overlap as u8).ok_or(RecipeError::Malformed("job"))?)
        }
        _ => return Err(RecipeError::unknown("frame of libzstd", kind)),
    };
    let has = |name: &str| frame.contains_key(name);
    let size = has("plain").then(|| whole(frame, "plain", MAX_SIZE)).transpose()?;
    let window = has("window").then(|| number(frame, "window", LIBZSTD_WINDOWS)).transpose()?;
    let is_told = !has("told") || whole(frame, "told", 1)? == 1;
    Ok(Method::Libzstd {
        settings: Settings {
            level,
            size,
            size_field: if is_told { SizeField::Written } else { SizeField::Omitted },
            checksum: if whole(frame, "sum", 1)? == 1 { Checksum::Present } else { Checksum::Absent },
            window_log: window.map(|log| log as u32),
            jobs,
        },
    })
}
