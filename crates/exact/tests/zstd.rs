//! Frames of klauspost's zstd: digests of what the original made, fresh ones of the program at
//! `EXACT_GO_ZSTD` (`tests/go-zstd`, built with release 1.15.9 to 1.16.3), and frames that libzstd reads.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, thread};

use common::{encode, inputs, layer_like, sha256};
use exact_encoders::zstd::klauspost::{self, Calls, Family, Level};
use proptest::prelude::*;

/// One line for each input, calls and level: the first digits of the SHA-256 of the frame in each family, the
/// newest first, or one where they are the same. Release 1.15.12 has made those of family 1.15.9, the fifth.
const DIGESTS: &str = include_str!("zstd-digests.txt");

const LEVELS: [Level; 2] = [Level::Fastest, Level::Default];

/// The calls as the program of `tests/go-zstd` names them.
const CALLS: [&str; 7] = ["whole", "-", "image", "0,7,7", "100,65636,65700,131172", "131072", "1000000"];

fn calls(name: &str, size: usize) -> Calls {
    match name {
        "whole" => Calls::Whole { size: size as u64 },
        "-" => Calls::stream(),
        "image" => Calls::containers_image(),
        flushes => Calls::Stream { flushes: flushes.split(',').map(|at| at.parse().unwrap()).collect() },
    }
}

fn frame(family: Family, level: Level, name: &str, plain: &[u8]) -> Vec<u8> {
    encode(klauspost::encoder(family, level, calls(name, plain.len())), plain, 32_768)
}

/// Inputs of all tests here: those of the other encoders, and what decides between families.
fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases = inputs();
    for length in [7, 8, 9, 10, 24, 33, 50, 80, 255, 256, 511, 1024, 1025, 2500, 131_071, 131_072, 131_073] {
        cases.push((format!("layer-{length}"), layer_like(length as u64 + 1, length)));
    }
    // A byte that comes again and again, after up to two others; and letters of few kinds.
    for other in 0..3 {
        let mut run = vec![b'x'; other];
        run.resize(400, b'y');
        cases.push((format!("run-{other}"), run));
    }
    for length in [20u32, 30, 40, 60, 90, 1500] {
        let letters = (0..length).map(|i| b"aabacabdae"[(i * i % 89 % 10) as usize]);
        cases.push((format!("letters-{length}"), letters.collect()));
    }
    // Few matches among literals: about what a block must save.
    let mut sparse = layer_like(9, 3000);
    for i in 0..90u8 {
        sparse.extend((0..40).map(|j| i.wrapping_mul(j).wrapping_mul(167) ^ (i >> 2) ^ j.wrapping_mul(29)));
        sparse.extend_from_within(usize::from(i) * 7..usize::from(i) * 7 + 6);
    }
    cases.push(("sparse".into(), sparse));
    cases
}

fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for (name, plain) in cases() {
        for calls in CALLS {
            for (number, level) in (1..).zip(LEVELS) {
                let digest = |family| sha256(&frame(family, level, calls, &plain))[..12].to_owned();
                let mut digests = Family::ALL.map(digest).to_vec();
                if digests.iter().all(|digest| *digest == digests[0]) {
                    digests.truncate(1);
                }
                lines.push(format!("{name} {calls} {number} {}", digests.join(" ")));
            }
        }
    }
    lines
}

#[test]
fn frames_are_those_of_the_original() {
    let lines = lines();
    if let Some(path) = env::var_os("EXACT_WRITE_DIGESTS") {
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    }
    let expected: Vec<_> = DIGESTS.lines().collect();
    let wrong: Vec<_> = lines.iter().filter(|line| !expected.contains(&line.as_str())).collect();
    assert!(wrong.is_empty(), "{} of {} lines:\n{wrong:#?}", wrong.len(), lines.len());
    assert_eq!(lines.len(), expected.len());
}

#[test]
fn fresh_frames_are_those_of_the_original() {
    let Some(program) = env::var_os("EXACT_GO_ZSTD") else { return };
    let mut cases = cases();
    cases.push(("long".into(), common::long_input()));
    if let Some(path) = env::var_os("EXACT_INPUT") {
        cases.push(("EXACT_INPUT".into(), std::fs::read(path).expect("EXACT_INPUT names a file")));
    }
    let mut wrong = Vec::new();
    for (name, plain) in &cases {
        for calls in CALLS {
            for (number, level) in (1..).zip(LEVELS) {
                let theirs = original(Path::new(&program), calls, number, plain);
                if frame(Family::V1_15_9, level, calls, plain) != theirs {
                    wrong.push(format!("{name} {calls} {number}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

/// What the program makes of `plain`.
fn original(program: &Path, calls: &str, level: i32, plain: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args([calls, &level.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(plain).expect("the program reads"));
        child.wait_with_output().expect("the program ends")
    });
    assert!(output.status.success(), "{}", output.status);
    output.stdout
}

#[test]
fn frames_of_nothing_came_with_the_last_family() {
    for family in Family::ALL {
        let newest = family == Family::V1_18_5;
        let stream: &[u8] = if newest { b"\x28\xb5\x2f\xfd\x04\x68\x01\0\0\x99\xe9\xd8\x51" } else { b"" };
        let whole: &[u8] = if newest { b"\x28\xb5\x2f\xfd\x20\x00\x01\0\0" } else { b"" };
        assert_eq!(frame(family, Level::Default, "-", b""), stream, "{}", family.name());
        assert_eq!(frame(family, Level::Default, "whole", b""), whole, "{}", family.name());
    }
}

#[test]
fn families_have_names() {
    for family in Family::ALL {
        assert_eq!(Family::from_name(family.name()), Some(family));
    }
    assert_eq!(Family::from_name("1.14.0"), None);
}

/// Bytes with matches, and with few kinds of bytes.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    let layer = (any::<u64>(), 0..300_000usize).prop_map(|(seed, length)| layer_like(seed, length));
    let small = (any::<u64>(), 0..3000usize).prop_map(|(seed, length)| layer_like(seed, length));
    let letters = prop::collection::vec(0..4u8, 0..3000);
    let skewed = prop::collection::vec((any::<u8>(), 0..8u32).prop_map(|(byte, by)| byte >> by), 0..3000);
    prop_oneof![layer, small, letters, skewed]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_can_be_read_however_they_are_made(
        plain in plain(),
        family in prop::sample::select(Family::ALL.to_vec()),
        level in prop::sample::select(LEVELS.to_vec()),
        mut flushes in prop::collection::vec(0..300_000u64, 0..4),
        whole in any::<bool>(),
        piece in 1..200_000usize,
    ) {
        flushes.sort_unstable();
        let calls = if whole { Calls::Whole { size: plain.len() as u64 } } else { Calls::Stream { flushes } };
        let frame = encode(klauspost::encoder(family, level, calls.clone()), &plain, 32_768);
        if frame.is_empty() {
            // What the original makes of nothing, unless it is flushed.
            prop_assert!(plain.is_empty());
        } else {
            prop_assert!(zstd::decode_all(&frame[..]).expect("a frame") == plain);
        }
        let again = encode(klauspost::encoder(family, level, calls), &plain, piece);
        prop_assert!(frame == again, "pieces of {piece}");
    }
}
