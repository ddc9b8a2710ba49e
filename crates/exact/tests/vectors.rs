//! Streams of real encoders, from the folder that `EXACT_VECTORS` names: `vectors.json`, `inputs/`, `blobs/`.

mod common;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fs};

use common::{encode, hex_bytes, sha256};
use exact_encoders::Encoder;
use exact_encoders::deflate::{go, kp, ng, zlib};
use exact_encoders::gzip::Gzip;
use exact_encoders::pgzip::{BlockSize, Pgzip};
use exact_encoders::pigz;
use serde_json::Value;

/// The vectors of one tool, and a way to their inputs.
struct Vectors {
    folder: PathBuf,
    all: Vec<Value>,
    inputs: HashMap<String, Vec<u8>>,
}

impl Vectors {
    /// Nothing without the variable. With it, what cannot be read is a failure.
    fn open() -> Option<Self> {
        let folder = PathBuf::from(env::var_os("EXACT_VECTORS")?);
        let text = fs::read(folder.join("vectors.json")).expect("EXACT_VECTORS names a folder of vectors");
        let json: Value = serde_json::from_slice(&text).expect("vectors.json is JSON");
        let all = json["vectors"].as_array().expect("a list of vectors").clone();
        Some(Self { folder, all, inputs: HashMap::new() })
    }

    fn input(&mut self, name: &str) -> &[u8] {
        let folder = &self.folder;
        self.inputs.entry(name.to_owned()).or_insert_with(|| {
            let packed = fs::read(folder.join("inputs").join(format!("{name}.zst"))).expect("an input");
            zstd::decode_all(&packed[..]).expect("a zstd input")
        })
    }
}

/// Checks all vectors that `encoder` has an encoder for, with so many threads; there must be `expected`.
fn check(expected: usize, encoder: impl Fn(&Value, NonZeroUsize) -> Option<Box<dyn Encoder>>) {
    let Some(mut vectors) = Vectors::open() else { return };
    let all = std::mem::take(&mut vectors.all);
    let mut wrong = Vec::new();
    let mut count = 0;
    for vector in &all {
        for threads in [1, 3] {
            let Some(encoder) = encoder(vector, NonZeroUsize::new(threads).unwrap()) else { continue };
            count += usize::from(threads == 1);
            let header = hex_bytes(&vector["header"].as_str().expect("a header")[..20]);
            let plain = vectors.input(vector["input"].as_str().expect("an input's name"));
            let blob = encode(Box::new(Gzip::new(header, encoder)), plain, 32_768);
            if sha256(&blob) != vector["blob_sha256"].as_str().expect("a digest") {
                wrong.push(format!("{} with {threads} threads", vector["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ: {wrong:#?}", wrong.len());
    assert_eq!(count, expected, "vectors found");
}

/// The level of a vector, with `default` for -1.
fn level(vector: &Value, default: i64) -> i64 {
    match vector["params"]["level"].as_i64() {
        None | Some(-1) => default,
        Some(level) => level,
    }
}

#[test]
fn go_gzip() {
    check(132, |vector, threads| {
        if vector["tool"] != "Go compress/gzip" || vector["version"] != "1.26.6" {
            return None;
        }
        let level = go::Level::new(level(vector, 6) as i32).expect("a level of Go");
        Some(go::encoder(level, threads))
    });
}

/// The settings of a vector of klauspost's encoders or Go's since 1.27, if they are supported.
fn kp_settings(vector: &Value) -> Option<kp::Settings> {
    let (family, default) = match vector["version"].as_str()? {
        "v1.17.9" => (kp::Family::A, 5),
        "v1.18.1" => (kp::Family::B, 5),
        "v1.19.1" => (kp::Family::C, 5),
        "1.27.3" => (kp::Family::C, 6),
        version if version.contains("klauspost 1.15.12") => (kp::Family::A, 5),
        _ => return None,
    };
    let level = level(vector, default);
    // The original wrote a broken header here, which no reader takes.
    if family == kp::Family::B && level == 9 && vector["input"] == "zeros-300k" {
        return None;
    }
    Some(kp::Settings::new(family, kp::Level::new(level as i8)?))
}

#[test]
fn klauspost_gzip_and_go_since_1_27() {
    check(4 * 132 - 1, |vector, threads| {
        let tool = vector["tool"].as_str()?;
        let known = ["klauspost/compress/gzip", "Go compress/gzip"].contains(&tool);
        known.then(|| kp_settings(vector)).flatten().map(|settings| kp::encoder(settings, threads))
    });
}

#[test]
fn klauspost_pgzip_and_skopeo() {
    check(3 * 143 - 1 + 3, |vector, threads| {
        let tool = vector["tool"].as_str()?;
        if !tool.starts_with("klauspost/pgzip") && tool != "skopeo copy --dest-compress-format gzip" {
            return None;
        }
        let block = vector["params"]["block"].as_u64().unwrap_or(1 << 20);
        let block = BlockSize::new(block as usize).expect("a block size of pgzip");
        Some(Box::new(Pgzip::new(kp_settings(vector)?, block, threads)))
    });
}

fn zlib_level(vector: &Value) -> zlib::Level {
    zlib::Level::new(level(vector, 6) as u8).expect("a level of zlib")
}

#[test]
fn stock_zlib() {
    check(121, |vector, threads| {
        if vector["tool"] != "zlib" {
            return None;
        }
        let memory = match vector["params"]["memLevel"].as_u64() {
            Some(9) => zlib::Memory::Most,
            _ => zlib::Memory::Usual,
        };
        Some(zlib::encoder(zlib::Settings { level: zlib_level(vector), memory }, threads))
    });
}

#[test]
fn gnu_gzip() {
    check(99, |vector, threads| {
        (vector["tool"] == "gnu-gzip").then(|| zlib::gnu_encoder(zlib_level(vector), threads))
    });
}

#[test]
fn pigz_with_its_options() {
    check(143, |vector, threads| {
        if vector["tool"] != "pigz" {
            return None;
        }
        let options: Vec<&str> = vector["params"]["opt"].as_str()?.split(' ').collect();
        let block = match options.iter().find_map(|option| option.strip_prefix("-b")) {
            Some(kib) => pigz::BlockSize::new(kib.parse::<usize>().expect("a number") << 10),
            None => Some(pigz::BlockSize::DEFAULT),
        };
        let mut settings = pigz::Settings::new(zlib_level(vector));
        settings.block = block.expect("a block size of pigz");
        if options.contains(&"-i") {
            settings.dictionary = pigz::Dictionary::Absent;
        }
        if options.contains(&"-R") {
            settings.cut = pigz::Cut::Rsyncable;
        }
        Some(Box::new(pigz::Pigz::new(settings, threads)))
    });
}

#[test]
fn zlib_ng() {
    // What the library does not give.
    let others =
        [(5, "cross-1150k"), (6, "cross-1150k"), (5, "mixed-280k.tar"), (5, "text-200k"), (6, "text-200k")];
    check(99 - others.len(), |vector, _| {
        if vector["tool"] != "zlib-ng" {
            return None;
        }
        let level = zlib_level(vector);
        let is_other = others.iter().any(|other| *other == (level.get(), vector["input"].as_str().unwrap()));
        (!is_other).then(|| ng::encoder(ng::Settings { level, piece: ng::Piece::DEFAULT }))
    });
}
