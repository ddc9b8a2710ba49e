//! Streams of real encoders, from the folder that `EXACT_VECTORS` names: `vectors.json`, `inputs/`, `blobs/`.

mod common;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fs};

use common::{encode, hex_bytes, sha256};
use exact_encoders::deflate::go::{self, Level};
use exact_encoders::gzip::Gzip;
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

#[test]
fn go_gzip() {
    let Some(mut vectors) = Vectors::open() else { return };
    let all = std::mem::take(&mut vectors.all);
    let mut wrong = Vec::new();
    let mut count = 0;
    for vector in &all {
        if vector["tool"] != "Go compress/gzip" || vector["version"] != "1.26.6" {
            continue;
        }
        count += 1;
        let level = vector["params"]["level"].as_i64().expect("a level") as i32;
        let level = Level::new(level).expect("a level of Go");
        let header = hex_bytes(&vector["header"].as_str().expect("a header")[..20]);
        let plain = vectors.input(vector["input"].as_str().expect("an input's name"));
        for threads in [1, 3] {
            let deflate = go::encoder(level, NonZeroUsize::new(threads).unwrap());
            let blob = encode(Box::new(Gzip::new(header.clone(), deflate)), plain, 32_768);
            if sha256(&blob) != vector["blob_sha256"].as_str().expect("a digest") {
                wrong.push(format!("{} with {threads} threads", vector["name"]));
            }
        }
    }
    assert!(count > 0, "no vectors of Go");
    assert!(wrong.is_empty(), "{} of {count} differ: {wrong:#?}", wrong.len());
}
