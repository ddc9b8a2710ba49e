//! Streams of Go's compress/gzip: digests of what Go 1.26.6 made, and fresh ones of the Go at `EXACT_GO`.

mod common;

use std::num::NonZeroUsize;
use std::path::Path;
use std::{env, fs};

use common::original::{build, run};
use common::{encode, inputs, long_input, sha256};
use exact_encoders::deflate::go::{self, Level};
use exact_encoders::gzip::Gzip;

/// One line for each stream: input, level, SHA-256.
const DIGESTS: &str = include_str!("go-digests.txt");

/// The gzip stream of a level, as a writer without settings makes it.
fn gzip(level: i32, threads: usize, plain: &[u8], piece: usize) -> Vec<u8> {
    let extra_flags = match level {
        9 => 2,
        1 => 4,
        _ => 0,
    };
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra_flags, 255];
    let deflate = go::encoder(Level::new(level).unwrap(), NonZeroUsize::new(threads).unwrap());
    encode(Box::new(Gzip::new(header, deflate)), plain, piece)
}

/// All inputs, each with the levels it is tried at.
fn cases() -> Vec<(String, Vec<u8>, Vec<i32>)> {
    let mut cases: Vec<_> =
        inputs().into_iter().map(|(name, plain)| (name, plain, (-2..=9).collect())).collect();
    cases.push(("long".into(), long_input(), vec![1, 2, 6]));
    cases
}

fn expected(name: &str, level: i32) -> &'static str {
    let start = format!("{name} {level} ");
    DIGESTS.lines().find_map(|line| line.strip_prefix(&start)).expect("a digest for each case")
}

#[test]
fn streams_are_those_of_go() {
    for (name, plain, levels) in cases() {
        for level in levels {
            let digest = sha256(&gzip(level, 1, &plain, 32_768));
            assert_eq!(digest, expected(&name, level), "{name} at level {level}");
        }
    }
}

#[test]
fn threads_and_pieces_do_not_matter() {
    let plain = long_input();
    for (threads, piece, level) in [(2, 32_768, 1), (2, 777_777, 2), (3, 4096, 6), (5, plain.len(), 6)] {
        let digest = sha256(&gzip(level, threads, &plain, piece));
        assert_eq!(digest, expected("long", level), "{threads} threads, pieces of {piece}, level {level}");
    }
    let (name, plain) = inputs().remove(10);
    for level in -2..=9 {
        assert_eq!(sha256(&gzip(level, 1, &plain, 13)), expected(&name, level), "level {level}");
    }
}

#[test]
fn small_streams_are_what_is_written() {
    let body = |level, plain: &[u8]| gzip(level, 1, plain, 100)[10..].to_vec();
    assert_eq!(body(6, b""), [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(body(1, b"a")[..11], [0, 1, 0, 0xfe, 0xff, b'a', 1, 0, 0, 0xff, 0xff]);
    assert_eq!(body(2, b"a")[..7], [0x4a, 4, 4, 0, 0, 0xff, 0xff]);
}

#[test]
fn levels_have_gos_numbers() {
    assert_eq!(Level::new(-1), Ok(Level::DEFAULT));
    assert_eq!(Level::new(9).unwrap().number(), 9);
    assert!(Level::new(10).is_err());
    assert!(Level::new(-3).is_err());
}

#[test]
fn fresh_streams_are_those_of_go() {
    let Some(go) = env::var_os("EXACT_GO") else { return };
    let program = build(Path::new(&go), "exact-go");
    let mut cases = cases();
    if let Some(path) = env::var_os("EXACT_INPUT") {
        let plain = fs::read(path).expect("EXACT_INPUT names a file");
        cases.push(("EXACT_INPUT".into(), plain, vec![1, 2, 3, 4, 5, 6, 7, 9]));
    }
    let mut table = String::new();
    for (name, plain, levels) in cases {
        for level in levels {
            let theirs = run(&program, level, &plain);
            assert!(gzip(level, 2, &plain, 32_768) == theirs, "{name} at level {level}");
            if name != "EXACT_INPUT" {
                table += &format!("{name} {level} {}\n", sha256(&theirs));
            }
        }
    }
    assert!(table == DIGESTS, "go-digests.txt would have to be:\n{table}");
}
