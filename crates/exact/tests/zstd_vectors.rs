//! zstd frames of real encoders, from the folder that `EXACT_VECTORS` names.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fs, io};

use common::{encode, sha256};
use exact_encoders::zstd::klauspost::{self, Calls, Family, Level};
use exact_encoders::zstd::libzstd::{self, Checksum, Settings, SizeField};
use serde_json::Value;

/// Runs `check` on each vector with its plain bytes; it says whether the frame came out, or nothing if it has no
/// part in this. Fails if one did not, or none had a part.
fn each(mut check: impl FnMut(&Value, &[u8]) -> Option<bool>) {
    let Some(folder) = env::var_os("EXACT_VECTORS").map(PathBuf::from) else { return };
    let text = fs::read(folder.join("vectors.json")).expect("EXACT_VECTORS names a folder of vectors");
    let json: Value = serde_json::from_slice(&text).expect("vectors.json is JSON");
    let mut inputs = HashMap::new();
    let mut counts = BTreeMap::<String, (usize, usize)>::new();
    let mut wrong = Vec::new();
    for vector in json["vectors"].as_array().expect("a list of vectors") {
        let name = vector["input"].as_str().expect("an input's name").to_owned();
        let plain = inputs.entry(name.clone()).or_insert_with(|| {
            let packed = fs::read(folder.join("inputs").join(format!("{name}.zst"))).expect("an input");
            zstd::decode_all(&packed[..]).expect("a zstd input")
        });
        let Some(equal) = check(vector, plain) else { continue };
        let kind = format!("{} {} {}", vector["tool"], vector["version"], vector["params"]);
        let (equals, all) = counts.entry(kind).or_default();
        *all += 1;
        if equal {
            *equals += 1;
        } else {
            wrong.push(vector["name"].to_string());
        }
    }
    for (kind, (equals, all)) in &counts {
        writeln!(io::stderr(), "{equals} of {all}: {kind}").expect("standard error is open");
    }
    assert!(!counts.is_empty(), "no vectors for this test");
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

fn family(version: &str) -> Option<Family> {
    Some(match version {
        "v1.15.12" => Family::V1_15_9,
        "v1.17.11" | "v1.18.4" => Family::V1_17_8,
        "v1.19.1" => Family::V1_18_5,
        _ => return None,
    })
}

#[test]
fn klauspost_frames() {
    each(|vector, plain| {
        if vector["tool"] != "klauspost/compress/zstd" {
            return None;
        }
        let level = match vector["params"]["encoder_level"].as_i64() {
            Some(1) => Level::Fastest,
            Some(2) => Level::Default,
            _ => return None,
        };
        let version = vector["version"].as_str().expect("a version");
        let calls = match vector["params"]["call"].as_str().expect("the calls") {
            "EncodeAll" => Calls::Whole { size: plain.len() as u64 },
            "Write 32 KiB chunks, Close" => Calls::stream(),
            // The recorder of the others did not know these calls, and kept empty frames.
            _ if version == "v1.15.12" => Calls::containers_image(),
            _ => return None,
        };
        let encoder = klauspost::encoder(family(version).expect("a family for the version"), level, calls);
        Some(sha256(&encode(encoder, plain, 32_768)) == vector["blob_sha256"])
    });
}

#[test]
fn skopeo_frames() {
    each(|vector, plain| {
        if vector["tool"] != "skopeo copy --dest-compress-format zstd" {
            return None;
        }
        let encoder = klauspost::encoder(Family::V1_15_9, Level::Default, Calls::containers_image());
        Some(sha256(&encode(encoder, plain, 1_000)) == vector["blob_sha256"])
    });
}

#[test]
fn libzstd_frames() {
    each(|vector, plain| {
        let size_field = match (vector["tool"].as_str()?, vector["params"]["size"].as_bool()) {
            ("libzstd", Some(false)) if vector["version"] == libzstd::RELEASE => SizeField::Omitted,
            _ => return None,
        };
        let checksum = match vector["params"]["checksum"].as_bool()? {
            true => Checksum::Present,
            false => Checksum::Absent,
        };
        let level = vector["params"]["level"].as_i64().expect("a level") as i32;
        let settings = Settings { size_field, checksum, ..Settings::stream(level) };
        let encoder = libzstd::encoder(settings, NonZeroUsize::MIN).expect("settings of the library");
        Some(sha256(&encode(encoder, plain, 32_768)) == vector["blob_sha256"])
    });
}

/// Frames of the command `zstd` 1.5.4. That release cuts blocks otherwise, so only frames of one block are the
/// same; and at level 9 it looks elsewhere for matches.
#[test]
fn frames_of_an_older_command() {
    each(|vector, plain| {
        let level = vector["params"]["level"].as_i64()? as i32;
        if vector["tool"] != "zstd-cli" || plain.len() > 128 << 10 || level == 9 {
            return None;
        }
        let encoder =
            libzstd::encoder(Settings::command(level), NonZeroUsize::MIN).expect("settings of the library");
        Some(sha256(&encode(encoder, plain, 32_768)) == vector["blob_sha256"])
    });
}
