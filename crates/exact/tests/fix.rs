//! What no encoder gives is told in a fix.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fmt, fs};

use common::{Numbers, encode, layer_like};
use exact_encoders::deflate::{go, kp};
use exact_encoders::find::{Found, NotFound, find_or_fix};
use exact_encoders::fix::{FixDigest, most};
use exact_encoders::pgzip::BlockSize;
use exact_encoders::recipe::{Deflate, Frame, KpVersion, Method, Rebuild, RebuildError, Recipe, Wrap};
use exact_encoders::zstd::klauspost as kp_zstd;
use serde_json::Value;

const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

fn search(blob: &[u8], plain: &[u8]) -> Result<Found, NotFound> {
    find_or_fix(|| Ok(Cursor::new(blob)), || Ok(Cursor::new(plain)), THREADS, || false)
}

/// The blob from its plain bytes, handed over in pieces.
fn rebuilt(found: &Found, plain: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let recipe: Recipe = found.recipe.to_string().parse().expect("the text of a recipe");
    let mut rebuild = Rebuild::new(&recipe, found.fix.clone(), THREADS, Vec::new())?;
    for piece in plain.chunks(piece) {
        rebuild.write_all(piece)?;
    }
    rebuild.finish()
}

/// Finds recipe and fix, and follows them. Returns the bytes of the fix.
fn found(blob: &[u8], plain: &[u8]) -> Result<(Found, usize), NotFound> {
    let found = search(blob, plain)?;
    let size = found.fix.as_ref().map_or(0, Vec::len);
    assert!(size as u64 <= most(blob.len() as u64));
    for piece in [plain.len().max(1), 10_007] {
        assert!(rebuilt(&found, plain, piece).expect("the blob") == blob, "{}", found.recipe);
    }
    Ok((found, size))
}

/// What became of the blobs of one tool.
#[derive(Default)]
struct Row {
    /// Recipes without a fix.
    alone: usize,
    /// Sizes of fixes to those of blobs.
    shares: Vec<f64>,
    /// Sizes of blobs without a recipe.
    refused: Vec<usize>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shares = self.shares.clone();
        shares.sort_by(f64::total_cmp);
        let percent = |share: Option<&f64>| 100. * share.unwrap_or(&0.);
        write!(
            f,
            "{} alone, {} with a fix of {:.1} % (median) and at most {:.1} %, {} refused, the largest of {} bytes",
            self.alone,
            shares.len(),
            percent(shares.get(shares.len() / 2)),
            percent(shares.last()),
            self.refused.len(),
            self.refused.iter().max().unwrap_or(&0)
        )
    }
}

/// With `EXACT_VECTORS`: recorded blobs of all tools, and the largest share of a fix by tool.
#[test]
fn recorded_blobs_are_fixed() {
    let Some(folder) = env::var_os("EXACT_VECTORS").map(PathBuf::from) else { return };
    let text = fs::read(folder.join("vectors.json")).expect("EXACT_VECTORS names a folder of vectors");
    let json: Value = serde_json::from_slice(&text).expect("vectors.json is JSON");
    let mut inputs = HashMap::new();
    let mut rows = BTreeMap::<String, Row>::new();
    for vector in json["vectors"].as_array().expect("a list of vectors") {
        let Some(file) = vector["file"].as_str() else { continue };
        let blob = fs::read(folder.join(file)).expect("a blob");
        let name = vector["input"].as_str().expect("an input's name").to_owned();
        let plain = inputs.entry(name.clone()).or_insert_with(|| {
            let packed = fs::read(folder.join("inputs").join(format!("{name}.zst"))).expect("an input");
            zstd::decode_all(&packed[..]).expect("a zstd input")
        });
        let row = rows.entry(format!("{} {}", vector["tool"], vector["version"])).or_default();
        match found(&blob, plain) {
            Ok((_, 0)) => row.alone += 1,
            Ok((_, size)) => row.shares.push(size as f64 / blob.len() as f64),
            Err(_) => row.refused.push(blob.len()),
        }
    }
    for (tool, row) in &rows {
        writeln!(io::stderr(), "{tool}: {row}").expect("standard error is open");
    }
    for (tool, least) in [
        (r#""libdeflate" "1.14""#, 11),
        (r#""klauspost/compress/gzip" "v1.15.9""#, 7),
        (r#""klauspost/pgzip HEAD + compress v1.15.9" "v1.15.9""#, 13),
    ] {
        assert!(rows.get(tool).is_some_and(|row| row.shares.len() >= least), "{tool}");
    }
}

fn go_method(head: Vec<u8>, level: i32) -> Method {
    let encoder = Deflate::Go { level: go::Level::new(level).expect("a level") };
    Method::Deflate { wrap: Wrap::Gzip { header: head }, encoder }
}

fn made(method: Method, plain: &[u8]) -> Vec<u8> {
    let recipe = Recipe::new(0, method).expect("a method");
    encode(recipe.encoder(NonZeroUsize::MIN).expect("an encoder"), plain, 100_000)
}

fn header(extra: &[u8]) -> Vec<u8> {
    let mut header = vec![0x1f, 0x8b, 8, if extra.is_empty() { 0 } else { 4 }, 0, 0, 0, 0, 0, 255];
    if !extra.is_empty() {
        header.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        header.extend_from_slice(extra);
    }
    header
}

/// Pieces of plain bytes as of files.
fn files(plain: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut numbers = Numbers::new(seed);
    let mut rest = plain;
    let mut files = Vec::new();
    while !rest.is_empty() {
        let most = if numbers.below(3) == 0 { 60_000 } else { 3000 };
        let (file, later) = rest.split_at((1 + numbers.below(most)).min(rest.len()));
        files.push(file);
        rest = later;
    }
    files
}

#[test]
fn estargz_comes_out_again() {
    let plain = layer_like(20, 900_000);
    for (version, footer) in
        [(Deflate::Go { level: go::Level::new(9).expect("a level") }, 51), (kp_encoder(9), 48)]
    {
        let head = header(&[]);
        let each = Method::Deflate { wrap: Wrap::Gzip { header: head }, encoder: version };
        let mut blob: Vec<u8> =
            files(&plain, 3).into_iter().flat_map(|file| made(each.clone(), file)).collect();
        let extra = header(b"SG\x16\x000000000000012345STARGZ");
        let stored = match version {
            Deflate::Go { .. } => made(go_method(extra, 0), &[]),
            _ => made(Method::Deflate { wrap: Wrap::Gzip { header: extra }, encoder: kp_encoder(0) }, &[]),
        };
        assert_eq!(stored.len(), footer);
        blob.extend(stored);
        let (found, size) = found(&blob, &plain).expect("a recipe");
        let Method::Deflate { encoder, .. } = found.recipe.method() else { panic!("no deflate") };
        assert_eq!(*encoder, version);
        assert!(size < blob.len() / 200, "{size} of {}", blob.len());
    }
}

fn kp_encoder(level: i8) -> Deflate {
    let level = kp::Level::new(level).expect("a level");
    Deflate::Kp { version: KpVersion::Go127, level, rounding: kp::Rounding::Twice, frame: Frame::Stream }
}

#[test]
fn chunked_zstd_comes_out_again() {
    let plain = layer_like(21, 900_000);
    let (family, level) = (kp_zstd::Family::V1_18_5, kp_zstd::Level::Default);
    let frame = |calls, plain: &[u8]| made(Method::Zstd { family, level, calls }, plain);
    let skipped = |size: u32| {
        let mut frame = vec![0x50, 0x2a, 0x4d, 0x18];
        frame.extend_from_slice(&size.to_le_bytes());
        frame.extend((0..size).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8));
        frame
    };
    let mut blob = Vec::new();
    for file in files(&plain, 4) {
        blob.extend(frame(kp_zstd::Calls::stream(), file));
    }
    blob.extend([skipped(3000), skipped(40)].concat());
    let (found, size) = found(&blob, &plain).expect("a recipe");
    assert!(matches!(found.recipe.method(), Method::Zstd { .. }));
    assert!(size < 3048 + blob.len() / 200, "{size} of {}", blob.len());

    // A frame of another tool among them, and a frame that is skipped at the beginning.
    let (first, second) = plain.split_at(890_000);
    let mut blob = skipped(9);
    blob.extend(frame(kp_zstd::Calls::Whole { size: 890_000 }, first));
    blob.extend(zstd::encode_all(second, 19).expect("a frame"));
    self::found(&blob, &plain).expect("a recipe");
}

#[test]
fn bytes_behind_the_trailer_come_out_again() {
    let plain = layer_like(22, 300_000);
    let pgzip = Frame::Pgzip(BlockSize::new(1 << 16).expect("a size"));
    let mut pgzip_encoder = kp_encoder(5);
    if let Deflate::Kp { frame, .. } = &mut pgzip_encoder {
        *frame = pgzip;
    }
    for encoder in [pgzip_encoder, Deflate::Go { level: go::Level::DEFAULT }] {
        let method = Method::Deflate { wrap: Wrap::Gzip { header: header(&[]) }, encoder };
        for tail in [vec![0; 10_240], b"\x1f\x8b\x08 not a member".to_vec(), vec![7]] {
            let mut blob = made(method.clone(), &plain);
            blob.extend(tail);
            let (found, size) = found(&blob, &plain).expect("a recipe");
            assert!(!found.recipe.to_string().contains("tokens"));
            assert!(size < 100, "{size}");
        }
    }
}

#[test]
fn long_headers_come_out_again() {
    let plain = layer_like(23, 400_000);
    for length in [100, 500, 513, 9000] {
        let blob = made(go_method(header(&[]), 6), &plain);
        let head = header(&vec![b'x'; length]);
        let blob = [&head, &blob[10..]].concat();
        let (found, size) = found(&blob, &plain).expect("a recipe");
        assert!(matches!(found.recipe.method(), Method::Deflate { encoder: Deflate::Go { .. }, .. }));
        assert!(size < 600, "{size}");
    }
}

/// A fix with a changed byte makes another blob, or none, and never one that is too large.
#[test]
fn changed_fixes_do_no_harm() {
    let plain = layer_like(29, 120_000);
    let each = go_method(header(&[]), 6);
    let (first, second) = plain.split_at(20_000);
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    writer.write_all(second).expect("a stream");
    writer.flush().expect("a stream");
    let foreign = writer.finish().expect("a stream");
    let several = [made(each.clone(), first), made(each, &[]), foreign.clone(), vec![0; 100]].concat();
    for (blob, plain) in [(&foreign, second), (&several, &plain[..])] {
        let (found, size) = found(blob, plain).expect("a recipe");
        assert!(size > 0);
        let fix = found.fix.expect("a fix");
        for at in (6..fix.len()).step_by(fix.len() / 60) {
            let mut changed = fix.clone();
            changed[at] ^= 1 << (at % 8);
            let recipe = found.recipe.clone().with_fix(FixDigest::of(&changed));
            let mut rebuild = Rebuild::new(&recipe, Some(changed), THREADS, Vec::new()).expect("a fix");
            let made = rebuild.write_all(plain).and_then(|()| rebuild.finish());
            match made {
                // The last bits may say nothing.
                Ok(made) => assert!(made != *blob || at + 4 > fix.len(), "{at}"),
                Err(error) => {
                    assert!(error.get_ref().is_some_and(|error| error.is::<RebuildError>()), "{error}")
                }
            }
        }
    }
}

/// Streams of an encoder that is not known.
#[test]
fn foreign_streams_come_out_again() {
    let plain = layer_like(24, 600_000);
    let noise = layer_like(25, 200_000);
    let noise: Vec<u8> = noise.iter().enumerate().map(|(i, byte)| byte ^ (i * i / 8) as u8).collect();
    for plain in [plain, noise] {
        for level in 1..=9 {
            let mut writer = flate2::GzBuilder::new()
                .filename("layer.tar")
                .mtime(level)
                .write(Vec::new(), flate2::Compression::new(level));
            for (i, piece) in plain.chunks(150_000).enumerate() {
                writer.write_all(piece).expect("a stream");
                if i % 2 == 1 {
                    writer.flush().expect("a stream");
                }
            }
            let blob = writer.finish().expect("a stream");
            match found(&blob, &plain) {
                Ok((found, _)) => {
                    let is_tokens =
                        |method: &Method| matches!(method, Method::Deflate { encoder: Deflate::Tokens, .. });
                    assert!(is_tokens(found.recipe.method()), "level {level}");
                }
                Err(error) => panic!("level {level}: {error}"),
            }
        }
    }
}

#[test]
fn members_of_several_encoders_come_out_again() {
    let plain = layer_like(26, 700_000);
    let (first, rest) = plain.split_at(600_000);
    let mut blob = made(go_method(header(&[]), 6), first);
    let mut writer = flate2::write::GzEncoder::new(blob, flate2::Compression::new(6));
    writer.write_all(rest).expect("a stream");
    blob = writer.finish().expect("a stream");
    blob.extend(made(go_method(header(b"other"), 6), &[]));
    let (found, _) = found(&blob, &plain).expect("a recipe");
    assert_eq!(*found.recipe.method(), go_method(header(&[]), 6));
}

#[test]
fn other_plain_bytes_are_found_out() {
    let mut plain = layer_like(27, 300_000);
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    writer.write_all(&plain).expect("a stream");
    let blob = writer.finish().expect("a stream");
    plain[200_000] ^= 1;
    assert!(matches!(search(&blob, &plain), Err(NotFound::OtherBytes)));
    assert!(search(&blob, &plain[1..]).is_err());
}

#[test]
fn searches_for_a_fix_stop_when_they_are_told() {
    let plain = layer_like(28, 300_000);
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    writer.write_all(&plain).expect("a stream");
    let blob = writer.finish().expect("a stream");
    let mut calls = 0;
    let mut cancel_at = |most: u32| {
        calls = 0;
        let cancelled = || {
            calls += 1;
            calls >= most
        };
        (find_or_fix(|| Ok(Cursor::new(&blob)), || Ok(Cursor::new(&plain)), THREADS, cancelled), calls)
    };
    let (found, all) = cancel_at(u32::MAX);
    assert!(found.is_ok());
    for most in [1, all / 2, all - 9, all - 4, all] {
        assert!(matches!(cancel_at(most).0, Err(NotFound::Cancelled)), "{most} of {all}");
    }
}
