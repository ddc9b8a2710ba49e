//! Recipes of blobs are found, from the blob and its plain bytes alone.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fs};

use common::{encode, layer_like};
use exact_encoders::deflate::{go, kp, ng, zlib};
use exact_encoders::find::{MAX_TEXT, NotFound, find, find_like};
use exact_encoders::pgzip::BlockSize;
use exact_encoders::pigz;
use exact_encoders::recipe::{Deflate, Frame, KpVersion, Method, Rebuild, Recipe, Wrap};
use exact_encoders::zstd::{klauspost as kp_zstd, libzstd};
use serde_json::Value;
use zlib_rs::{Deflate as Raw, DeflateConfig, DeflateFlush};

fn search(blob: &[u8], plain: &[u8]) -> Result<Recipe, NotFound> {
    let threads = NonZeroUsize::new(2).unwrap();
    find(|| Ok(Cursor::new(blob)), || Ok(Cursor::new(plain)), threads, || false)
}

/// Finds the recipe of a blob, and follows it as it is read from its text.
fn found(blob: &[u8], plain: &[u8]) -> Result<Recipe, NotFound> {
    let text = search(blob, plain)?.to_string();
    assert!(text.len() <= MAX_TEXT, "{text}");
    let recipe: Recipe = text.parse().expect("the text of a recipe");
    let mut rebuild = Rebuild::new(&recipe, None, NonZeroUsize::MIN, Vec::new()).expect("no fix");
    rebuild.write_all(plain).expect("the blob");
    assert!(rebuild.finish().expect("the end of the blob") == blob, "{text}");
    Ok(recipe)
}

fn made(method: &Method, plain: &[u8]) -> Vec<u8> {
    let recipe = Recipe::new(0, method.clone()).expect("a method");
    encode(recipe.encoder(NonZeroUsize::MIN).expect("an encoder"), plain, 100_000)
}

fn gzip(extra: u8, encoder: Deflate) -> Method {
    let header = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255];
    Method::Deflate { wrap: Wrap::Gzip { header }, encoder }
}

fn kp(version: KpVersion, level: i8, frame: Frame) -> Deflate {
    let level = kp::Level::new(level).expect("a level");
    Deflate::Kp { version, level, rounding: kp::Rounding::Twice, frame }
}

/// The plain bytes of our own blobs: a little more than a trial takes.
const LENGTH: usize = 1_400_000;

/// Methods whose streams tell them apart from all others, but for versions.
fn methods() -> Vec<Method> {
    let family = |family| KpVersion::Family(family);
    let go = |level| Deflate::Go { level: go::Level::new(level).expect("a level") };
    let blocks = |size| Frame::Pgzip(BlockSize::new(size).expect("a size"));
    let zstd =
        |family, level, flushes| Method::Zstd { family, level, calls: kp_zstd::Calls::Stream { flushes } };
    let mut all: Vec<_> = (-2..=9).filter(|level| *level != -1).map(|level| gzip(0, go(level))).collect();
    all.extend([
        gzip(4, go(1)),
        gzip(0, kp(KpVersion::Go127, 6, Frame::Stream)),
        gzip(2, kp(KpVersion::Go127, 9, Frame::Stream)),
        gzip(0, kp(family(kp::Family::A), 5, Frame::Stream)),
        gzip(0, kp(family(kp::Family::A118), 4, Frame::Stream)),
        gzip(0, kp(family(kp::Family::A), 5, blocks(1 << 20))),
        gzip(0, kp(family(kp::Family::A), 4, blocks(1 << 18))),
        gzip(0, kp(family(kp::Family::C), 5, blocks(1 << 18))),
        gzip(0, kp(family(kp::Family::C), 1, blocks(250_000))),
        gzip(0, kp(family(kp::Family::C), 6, blocks(1_350_000))),
        gzip(0, kp(family(kp::Family::C), 8, blocks(2 << 20))),
        Method::Deflate { wrap: Wrap::Raw, encoder: go(4) },
        zstd(kp_zstd::Family::V1_18_5, kp_zstd::Level::Fastest, vec![]),
        zstd(kp_zstd::Family::V1_18_5, kp_zstd::Level::Default, vec![8]),
        zstd(kp_zstd::Family::V1_18_5, kp_zstd::Level::Default, vec![8, LENGTH as u64]),
        Method::Zstd {
            family: kp_zstd::Family::V1_18_5,
            level: kp_zstd::Level::Default,
            calls: kp_zstd::Calls::Whole { size: LENGTH as u64 },
        },
    ]);
    all
}

/// Methods of zlib and what is near to it, and of libzstd.
fn c_methods(length: usize) -> Vec<Method> {
    let level = |number| zlib::Level::new(number).expect("a level");
    let pigz = |number, block, dictionary, cut| Deflate::Pigz {
        settings: pigz::Settings {
            level: level(number),
            block: pigz::BlockSize::new(block).expect("a size"),
            dictionary,
            cut,
        },
    };
    let mut encoders = Vec::new();
    for number in [1, 3, 6, 9] {
        let level = level(number);
        for memory in zlib::Memory::ALL {
            encoders.push(Deflate::Zlib { settings: zlib::Settings { level, memory } });
        }
        encoders.push(Deflate::GnuGzip { level });
        encoders.push(Deflate::ZlibNg { settings: ng::Settings { level, piece: ng::Piece::DEFAULT } });
    }
    let (present, absent) = (pigz::Dictionary::Present, pigz::Dictionary::Absent);
    encoders.extend([
        pigz(9, 128 << 10, present, pigz::Cut::Even),
        pigz(6, 128 << 10, absent, pigz::Cut::Even),
        pigz(6, 100 << 10, present, pigz::Cut::Even),
        pigz(1, 512 << 10, present, pigz::Cut::Even),
        pigz(6, 128 << 10, present, pigz::Cut::Rsyncable),
        pigz(2, 128 << 10, absent, pigz::Cut::Rsyncable),
    ]);
    let mut all: Vec<Method> = Vec::new();
    for encoder in encoders {
        let system = if all.len().is_multiple_of(2) { 3 } else { 255 };
        let header = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, system];
        all.push(Method::Deflate { wrap: Wrap::Gzip { header }, encoder });
    }
    for level in [1, 3, 9] {
        let command = libzstd::Settings::command(level);
        all.push(Method::Libzstd { settings: command });
        all.push(Method::Libzstd { settings: libzstd::Settings { size: Some(length as u64), ..command } });
        all.push(Method::Libzstd { settings: libzstd::Settings::stream(level) });
    }
    all.push(Method::Libzstd { settings: libzstd::Settings::command(19) });
    // More than one piece of a job.
    for size in [None, Some(length as u64)].into_iter().filter(|_| length > 512 << 10) {
        let command = libzstd::Settings { size, ..libzstd::Settings::command(3) };
        all.push(Method::Libzstd {
            settings: libzstd::Settings { jobs: libzstd::Jobs::new(8 << 20, 6), ..command },
        });
    }
    all
}

#[test]
fn blobs_of_zlib_and_libzstd_are_found() {
    let plain = layer_like(15, 900_000);
    for method in c_methods(plain.len()) {
        let recipe =
            found(&made(&method, &plain), &plain).unwrap_or_else(|error| panic!("{method:?}: {error}"));
        assert_eq!(*recipe.method(), method);
    }
}

#[test]
fn short_blobs_of_zlib_and_libzstd_are_found() {
    let plain = layer_like(16, 140_000);
    for length in [0, 1, 100, 131_072, 131_073] {
        let plain = &plain[..length];
        for method in c_methods(length) {
            // Several make the same.
            found(&made(&method, plain), plain)
                .unwrap_or_else(|error| panic!("{length} {method:?}: {error}"));
        }
    }
}

#[test]
fn jobs_of_libzstd_are_found() {
    let plain = layer_like(17, 5 << 20);
    for (level, job, checksum) in
        [(1, 2 << 20, libzstd::Checksum::Present), (2, 4 << 20, libzstd::Checksum::Absent)]
    {
        let jobs = libzstd::Jobs::new(job, 6);
        let settings = libzstd::Settings { jobs, checksum, ..libzstd::Settings::stream(level) };
        for length in [job as usize - 1, job as usize, job as usize + 1, plain.len()] {
            let plain = &plain[..length];
            let recipe = found(&made(&Method::Libzstd { settings }, plain), plain).expect("a recipe");
            // Of a job alone, both ways may make the same.
            if length > job as usize {
                assert_eq!(*recipe.method(), Method::Libzstd { settings });
            }
        }
    }
}

/// The method with one version for all: several often make the same blob.
fn nameless(method: &Method) -> Method {
    let mut method = method.clone();
    if let Method::Deflate { encoder: Deflate::Kp { version, .. }, .. } = &mut method {
        *version = KpVersion::Go127;
    }
    method
}

#[test]
fn our_own_blobs_are_found() {
    let plain = layer_like(5, LENGTH);
    for method in methods() {
        let recipe =
            found(&made(&method, &plain), &plain).unwrap_or_else(|error| panic!("{method:?}: {error}"));
        assert_eq!(nameless(recipe.method()), nameless(&method));
    }
}

#[test]
fn borders_of_blocks_are_found() {
    let plain = layer_like(6, (1 << 19) + 1);
    let blocks = |size| Frame::Pgzip(BlockSize::new(size).expect("a size"));
    for size in [1 << 16, 1 << 18] {
        for length in [0, 1, 100, size - 1, size, size + 1, 2 * size] {
            let plain = &plain[..length.min(plain.len())];
            let method = gzip(0, kp(KpVersion::Family(kp::Family::C), 5, blocks(size)));
            found(&made(&method, plain), plain).unwrap_or_else(|error| panic!("{length}: {error}"));
            for level in [1, 6] {
                let method = gzip(0, Deflate::Go { level: go::Level::new(level).expect("a level") });
                found(&made(&method, plain), plain).unwrap_or_else(|error| panic!("{length}: {error}"));
            }
            for family in kp_zstd::Family::ALL {
                let calls = kp_zstd::Calls::containers_image();
                let blob = made(&Method::Zstd { family, level: kp_zstd::Level::Default, calls }, plain);
                // Old releases make no frame of nothing.
                if !blob.is_empty() {
                    found(&blob, plain).unwrap_or_else(|error| panic!("{length} {family:?}: {error}"));
                }
            }
        }
    }
}

#[test]
fn large_blocks_are_found() {
    let size = 1_400_000;
    let plain = layer_like(11, 2 * size);
    for length in [size - 1, size, size + 1, 2 * size] {
        let frame = Frame::Pgzip(BlockSize::new(size).expect("a size"));
        let method = gzip(0, kp(KpVersion::Family(kp::Family::C), 5, frame));
        let plain = &plain[..length];
        found(&made(&method, plain), plain).unwrap_or_else(|error| panic!("{length}: {error}"));
    }
}

#[test]
fn rare_rounding_is_found_if_it_differs() {
    let plain = layer_like(7, LENGTH);
    let mut encoder = kp(KpVersion::Family(kp::Family::C), 5, Frame::Pgzip(BlockSize::DEFAULT));
    if let Deflate::Kp { rounding, .. } = &mut encoder {
        *rounding = kp::Rounding::Fused;
    }
    found(&made(&gzip(0, encoder), &plain), &plain).expect("a recipe");
}

/// A stream with blocks of 8191 tokens, as no encoder that is known makes it.
fn foreign(plain: &[u8], level: i32) -> Vec<u8> {
    let config = DeflateConfig { level, mem_level: 7, window_bits: 31, ..DeflateConfig::default() };
    let mut blob = vec![0; plain.len() + 1000];
    let mut raw = Raw::new_with_config(config);
    raw.compress(plain, &mut blob, DeflateFlush::Finish).expect("a gzip stream");
    blob.truncate(raw.total_out() as usize);
    blob
}

#[test]
fn foreign_blobs_are_refused() {
    let plain = layer_like(8, LENGTH);
    for level in [1, 6, 9] {
        let reason = search(&foreign(&plain, level), &plain).expect_err("no recipe");
        let NotFound::UnknownEncoder(seen) = &reason else { panic!("{reason}") };
        assert!(seen.tried >= 22 && seen.nearest.is_some(), "{seen}");
        assert!(
            reason.to_string().starts_with("not made by a known encoder: gzip flags 0, time 0,"),
            "{reason}"
        );
    }
    let blob = zstd::encode_all(&plain[..], -5).expect("a frame");
    assert!(matches!(search(&blob, &plain), Err(NotFound::UnknownEncoder(_))));
}

#[test]
fn blobs_that_are_none_are_refused() {
    let plain = layer_like(9, 100_000);
    let methods = methods();
    let blob = made(&methods[6], &plain);
    let mut longer = blob.clone();
    longer.extend_from_slice(&plain.len().to_le_bytes()[..4]);
    assert!(matches!(search(&longer, &plain), Err(NotFound::Trailing)));
    longer.extend_from_slice(b"more");
    assert!(matches!(search(&longer, &plain), Err(NotFound::OtherSize)));
    assert!(matches!(search(&blob, &plain[1..]), Err(NotFound::OtherSize)));
    let mut other = plain.clone();
    other[99_000] ^= 1;
    assert!(matches!(search(&blob, &other), Err(NotFound::UnknownEncoder(_))));
    assert!(search(&plain, &plain).is_err());
    assert!(search(b"", b"").is_err());
    let calls = kp_zstd::Calls::Whole { size: plain.len() as u64 };
    let (family, level) = (kp_zstd::Family::V1_18_5, kp_zstd::Level::Default);
    let frame = made(&Method::Zstd { family, level, calls }, &plain);
    for blob in [&blob, &frame] {
        for length in (0..30).chain([blob.len() / 2, blob.len() - 9, blob.len() - 1]) {
            assert!(search(&blob[..length], &plain).is_err(), "{length}");
        }
        for at in (0..60).step_by(3).chain([blob.len() - 1, blob.len() - 5, blob.len() - 12]) {
            let mut broken = blob.clone();
            broken[at] ^= 0x15;
            // Of the header of gzip, all is taken over but what begins it.
            let _ = search(&broken, &plain);
        }
    }
}

#[test]
fn searches_stop_when_they_are_told() {
    let plain = layer_like(10, 1_500_000);
    let blob = foreign(&plain, 6);
    let mut left = 5;
    let reason = find(
        || Ok(Cursor::new(&blob)),
        || Ok(Cursor::new(&plain)),
        NonZeroUsize::MIN,
        || {
            left -= 1;
            left == 0
        },
    );
    assert!(matches!(reason, Err(NotFound::Cancelled)));
}

#[test]
fn failures_to_read_are_told() {
    let opened = |_: ()| Err::<Cursor<&[u8]>, _>(io::Error::other("no"));
    let reason = find(|| opened(()), || opened(()), NonZeroUsize::MIN, || false);
    assert!(matches!(reason, Err(NotFound::Io(_))));
}

/// Whether a recorded blob must be found.
fn is_covered(vector: &Value) -> bool {
    let tool = vector["tool"].as_str().expect("a tool");
    let version = vector["version"].as_str().expect("a version");
    // The original wrote a broken header here, which no reader takes.
    let is_broken = version == "v1.18.1" && vector["params"]["level"] == 9 && vector["input"] == "zeros-300k";
    match tool {
        _ if is_broken || tool.ends_with("zstd-chunked") => false,
        "Go compress/gzip" => true,
        "klauspost/compress/zstd" => matches!(vector["params"]["encoder_level"].as_i64(), Some(1 | 2)),
        "zlib" | "gnu-gzip" | "pigz" | "libzstd" => true,
        "zlib-ng" => !matches!(vector["params"]["level"].as_i64(), Some(5 | 6)),
        _ if tool.starts_with("klauspost/") => version != "v1.15.9",
        _ => tool.starts_with("docker Gzipped") || tool.starts_with("skopeo "),
    }
}

/// With `EXACT_VECTORS`: recorded blobs of all tools.
#[test]
fn recorded_blobs_are_found() {
    let Some(folder) = env::var_os("EXACT_VECTORS").map(PathBuf::from) else { return };
    let text = fs::read(folder.join("vectors.json")).expect("EXACT_VECTORS names a folder of vectors");
    let json: Value = serde_json::from_slice(&text).expect("vectors.json is JSON");
    let mut inputs = HashMap::new();
    let mut counts = BTreeMap::<String, (usize, usize)>::new();
    let mut wrong = Vec::new();
    let mut longest = 0;
    for vector in json["vectors"].as_array().expect("a list of vectors") {
        let Some(file) = vector["file"].as_str() else { continue };
        let file = file.trim_start_matches("blobs/");
        let blob = fs::read(folder.join("blobs").join(file)).expect("a blob");
        // What some encoders make of nothing.
        if blob.is_empty() {
            continue;
        }
        let name = vector["input"].as_str().expect("an input's name").to_owned();
        let plain = inputs.entry(name.clone()).or_insert_with(|| {
            let packed = fs::read(folder.join("inputs").join(format!("{name}.zst"))).expect("an input");
            zstd::decode_all(&packed[..]).expect("a zstd input")
        });
        let outcome = found(&blob, plain);
        let must = if is_covered(vector) { "known" } else { "other" };
        let count = counts.entry(format!("{must}: {} {}", vector["tool"], vector["version"])).or_default();
        count.1 += 1;
        match outcome {
            Ok(recipe) => {
                count.0 += 1;
                longest = longest.max(recipe.to_string().len());
            }
            Err(error) if must == "known" => wrong.push(format!("{}: {error}", vector["name"])),
            Err(_) => {}
        }
    }
    for (kind, (equals, all)) in &counts {
        writeln!(io::stderr(), "{equals} of {all}: {kind}").expect("standard error is open");
    }
    let known =
        counts.iter().filter(|(kind, _)| kind.starts_with("known")).map(|(_, (_, all))| all).sum::<usize>();
    writeln!(io::stderr(), "{known} known, the longest text {longest} bytes")
        .expect("standard error is open");
    assert!(known > 0 && wrong.is_empty(), "{} of {known} not found: {wrong:#?}", wrong.len());
}

#[test]
fn encoders_of_other_blobs_are_tried_first() {
    let method = |level: u8| {
        let level = zlib::Level::new(level).expect("a level");
        let settings = zlib::Settings { level, memory: zlib::Memory::Usual };
        gzip(0, Deflate::Zlib { settings })
    };
    // Too short for levels to differ.
    let plain = b"a short text";
    let blob = made(&method(6), plain);
    let level = |like: &[Method]| {
        let open = |bytes: &'static [u8]| Ok(Cursor::new(bytes));
        let blob = blob.clone();
        let opened = || Ok(Cursor::new(&blob[..]));
        let recipe = find_like(like, opened, || open(plain), NonZeroUsize::MIN, || false);
        recipe.expect("a recipe").method().clone()
    };
    let usual = level(&[]);
    assert_ne!(usual, method(9));
    assert_eq!(level(&[method(9)]), method(9));
    // Stored blocks are none of theirs.
    let other = gzip(7, Deflate::Go { level: go::Level::new(0).expect("a level") });
    assert_eq!(level(&[other]), usual);
}

#[test]
fn a_recipe_of_many_blobs_has_no_sizes() {
    for (level, plain) in [(3, vec![7; 3000]), (19, layer_like(1, 50_000))] {
        let settings =
            libzstd::Settings { size: Some(plain.len() as u64), ..libzstd::Settings::stream(level) };
        let blob = made(&Method::Libzstd { settings }, &plain);
        let recipe = search(&blob, &plain).expect("a recipe");
        let shared = recipe.for_sizes(0, 0).expect("no size is too large");
        assert_ne!(shared, recipe);
        assert_eq!(shared.for_sizes(blob.len() as u64, plain.len() as u64), Ok(recipe));
        assert!(shared.for_sizes(1 << 41, 0).is_err());
    }
}
