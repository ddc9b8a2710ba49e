//! Streams of klauspost's flate and pgzip: digests of what the originals made, and fresh ones of the Go
//! (1.27 or later) at `EXACT_GO127`.

mod common;

use std::num::NonZeroUsize;
use std::path::Path;
use std::{env, fs};

use common::original::{build, run};
use common::{Numbers, encode, inputs, layer_like, long_input, sha256};
use exact_encoders::Encoder;
use exact_encoders::deflate::kp::{self, Family, Level, Rounding, Settings};
use exact_encoders::gzip::Gzip;
use exact_encoders::pgzip::{BlockSize, Pgzip};

/// One line for each input, framing and level: the first digits of the SHA-256 of the deflate stream in
/// each family, the oldest first. The digests of family C are those of Go 1.27.3, and those of family A
/// at levels -2 to 6 of klauspost 1.15.12 and pgzip 1.2.5.
const DIGESTS: &str = include_str!("klauspost-digests.txt");

const ALL_LEVELS: [i8; 11] = [-2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// How the blocks of a stream are made.
#[derive(Clone, Copy)]
enum Framing {
    Stream,
    Pgzip(usize),
}

fn encoder(framing: Framing, settings: Settings, threads: usize) -> Box<dyn Encoder> {
    let threads = NonZeroUsize::new(threads).unwrap();
    match framing {
        Framing::Stream => kp::encoder(settings, threads),
        Framing::Pgzip(block) => Box::new(Pgzip::new(settings, BlockSize::new(block).unwrap(), threads)),
    }
}

fn settings(family: Family, level: i8) -> Settings {
    Settings::new(family, Level::new(level).unwrap())
}

fn deflate(framing: Framing, settings: Settings, threads: usize, plain: &[u8]) -> Vec<u8> {
    encode(encoder(framing, settings, threads), plain, 32_768)
}

/// The lines of one input.
fn lines(name: &str, plain: &[u8], framing: Framing, levels: &[i8]) -> Vec<String> {
    let frame = match framing {
        Framing::Stream => "stream".to_owned(),
        Framing::Pgzip(block) => format!("pgzip-{block}"),
    };
    let digest =
        |family, level| sha256(&deflate(framing, settings(family, level), 2, plain))[..16].to_owned();
    let line = |&level: &i8| {
        let digests = Family::ALL.map(|family| digest(family, level)).join(" ");
        format!("{name} {frame} {level} {digests}")
    };
    levels.iter().map(line).collect()
}

#[test]
fn streams_are_those_of_the_originals() {
    let mut table = Vec::new();
    for (name, plain) in inputs() {
        table.extend(lines(&name, &plain, Framing::Stream, &ALL_LEVELS));
        if plain.len() >= 65_536 {
            // 65,536 is twice the block: then there is an empty block at the end.
            table.extend(lines(&name, &plain, Framing::Pgzip(32_768), &ALL_LEVELS));
        }
    }
    let long = long_input();
    table.extend(lines("long", &long, Framing::Stream, &[1, 5, 6]));
    table.extend(lines("long", &long, Framing::Pgzip(1 << 20), &[5, 6]));
    let expected: Vec<_> = DIGESTS.lines().collect();
    let wrong: Vec<_> = table.iter().filter(|line| !expected.contains(&line.as_str())).collect();
    assert!(wrong.is_empty(), "{} of {} lines:\n{wrong:#?}", wrong.len(), table.len());
    assert_eq!(table.len(), expected.len());
}

#[test]
fn threads_and_pieces_do_not_matter() {
    let plain = &long_input()[..5_000_000];
    for (framing, level) in
        [(Framing::Stream, 1), (Framing::Stream, 4), (Framing::Stream, 6), (Framing::Pgzip(1 << 18), 5)]
    {
        let settings = settings(Family::C, level);
        let one = encode(encoder(framing, settings, 1), plain, 32_768);
        for (threads, piece) in [(1, 777), (2, 100_001), (3, plain.len()), (7, 65_535)] {
            let many = encode(encoder(framing, settings, threads), plain, piece);
            assert!(many == one, "level {level}, {threads} threads, pieces of {piece}");
        }
    }
}

/// Text whose letters are drawn a little differently in each block, so that it is a close call whether a
/// block takes the codes of the one before.
fn drifting_text(length: usize) -> Vec<u8> {
    const LETTERS: &[u8; 40] = b"etaoinshrdlucmfwypvbgkjqxz0123456789/._-";
    let mut numbers = Numbers::new(101);
    let mut words = vec![b"a".to_vec(); 1000];
    let mut out = Vec::with_capacity(length + 64);
    let (mut even, mut ends) = (0, 0);
    while out.len() < length {
        if out.len() >= ends {
            even = numbers.below(900);
            ends = out.len() + 65_535;
        }
        let i = numbers.below(1000);
        if out.len() < 1 << 16 || numbers.below(4) == 0 {
            let length = 1 + numbers.below(9);
            let mut letter = || {
                let letter = numbers.below(40);
                LETTERS[if numbers.below(1000) < even { letter } else { letter.min(numbers.below(40)) }]
            };
            words[i] = (0..length).map(|_| letter()).collect();
        }
        out.extend_from_slice(&words[numbers.below(1000).min(i)]);
        out.push(b' ');
    }
    out.truncate(length);
    out
}

/// The closest calls are rare: only long streams show them.
#[test]
fn long_streams_differ_between_the_families() {
    let plain = drifting_text(50_000_000);
    let digest = |framing, family, level| {
        sha256(&deflate(framing, settings(family, level), 2, &plain))[..16].to_owned()
    };
    let pgzip = Framing::Pgzip(1 << 20);
    // Of pgzip 1.2.5 with klauspost 1.15.12.
    assert_eq!(digest(pgzip, Family::A, 5), "ac96178f2b9f584e");
    assert_eq!(digest(pgzip, Family::B, 5), "cd2db57f70101a69");
    assert_eq!(digest(pgzip, Family::C, 5), "aed50ee41a7e6d57");
    // Of Go 1.27.3.
    assert_eq!(digest(Framing::Stream, Family::C, 1), "7178958dea2c96ae");
}

#[test]
fn small_streams_are_what_is_written() {
    let body = |framing, level, plain: &[u8]| deflate(framing, settings(Family::C, level), 1, plain);
    let pgzip = Framing::Pgzip(1 << 20);
    for level in ALL_LEVELS {
        assert_eq!(body(Framing::Stream, level, b""), [3, 0], "level {level}");
        assert_eq!(body(pgzip, level, b""), [0, 0, 0, 0xff, 0xff, 3, 0], "level {level}");
    }
    assert_eq!(body(Framing::Stream, 5, b"a"), [0, 1, 0, 0xfe, 0xff, b'a', 3, 0]);
    assert_eq!(body(Framing::Stream, 9, b"a"), [0x4a, 4, 0x0c, 0]);
    assert_eq!(body(pgzip, 5, &[0; 300])[..8], [0x62, 0x18, 5, 0x44, 3, 0, 0, 0]);
}

#[test]
fn fused_rounding_gives_the_same_stream_here() {
    let plain = layer_like(5, 1_000_000);
    let twice = settings(Family::A, 5);
    let fused = Settings { rounding: Rounding::Fused, ..twice };
    assert!(deflate(Framing::Stream, twice, 1, &plain) == deflate(Framing::Stream, fused, 1, &plain));
}

#[test]
fn names_and_numbers_have_bounds() {
    for family in Family::ALL {
        assert_eq!(Family::from_name(family.name()), Some(family));
    }
    assert_eq!(Family::from_name("D"), None);
    assert_eq!([-3, -1, 10].map(Level::new), [None; 3]);
    assert_eq!(BlockSize::new(16_384), None);
    assert_eq!(BlockSize::new(BlockSize::MAX + 1), None);
    assert_eq!(BlockSize::new(250_000).map(BlockSize::get), Some(250_000));
}

#[test]
fn fresh_streams_are_those_of_go() {
    let Some(go) = env::var_os("EXACT_GO127") else { return };
    let program = build(Path::new(&go), "exact-go127");
    let mut cases = inputs();
    cases.push(("long".into(), long_input()));
    if let Some(path) = env::var_os("EXACT_INPUT") {
        cases.push(("EXACT_INPUT".into(), fs::read(path).expect("EXACT_INPUT names a file")));
    }
    for (name, plain) in cases {
        for level in ALL_LEVELS {
            let theirs = run(&program, level.into(), &plain);
            let deflate = encoder(Framing::Stream, settings(Family::C, level), 2);
            let ours = encode(Box::new(Gzip::new(&theirs[..10], deflate)), &plain, 32_768);
            assert!(ours == theirs, "{name} at level {level}");
        }
    }
}
