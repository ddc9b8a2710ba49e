//! zstd frames of real encoders, from the folder that `EXACT_VECTORS` names.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::{env, fs, io};

use common::{encode, sha256};
use exact_encoders::zstd::klauspost::{self, Calls, Family, Level};
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
