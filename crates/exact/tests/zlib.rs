//! Streams of zlib, GNU gzip, pigz and zlib-ng: that they are deflate streams, that they stay what they are, and
//! that threads and pieces do not matter. With `EXACT_TOOLS`: that they are those of the tools on this machine.

mod common;

use std::io::Read;
use std::num::NonZeroUsize;
use std::process::Command;
use std::{env, fmt};

use common::original::pipe;
use common::{Numbers, encode, inputs, layer_like, sha256};
use exact_encoders::Encoder;
use exact_encoders::deflate::{ng, zlib};
use exact_encoders::pigz::{self, BlockSize, Cut, Dictionary, Pigz};
use proptest::prelude::*;

/// What is tested.
#[derive(Clone, Copy)]
enum Tool {
    Zlib(zlib::Settings),
    Gnu(zlib::Level),
    Pigz(pigz::Settings),
    Ng(ng::Settings),
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zlib(settings) => write!(f, "zlib-{}-{}", settings.level.get(), settings.memory.get()),
            Self::Gnu(level) => write!(f, "gnu-{}", level.get()),
            Self::Pigz(pigz::Settings { level, block, dictionary, cut }) => {
                write!(f, "pigz-{}-{}-{dictionary:?}-{cut:?}", level.get(), block.get())
            }
            Self::Ng(settings) => write!(f, "ng-{}-{}", settings.level.get(), settings.piece.get()),
        }
    }
}

impl Tool {
    fn encoder(self, threads: usize) -> Box<dyn Encoder> {
        let threads = NonZeroUsize::new(threads).expect("a thread");
        match self {
            Self::Zlib(settings) => zlib::encoder(settings, threads),
            Self::Gnu(level) => zlib::gnu_encoder(level, threads),
            Self::Pigz(settings) => Box::new(Pigz::new(settings, threads)),
            Self::Ng(settings) => ng::encoder(settings),
        }
    }

    fn stream(self, threads: usize, plain: &[u8], piece: usize) -> Vec<u8> {
        encode(self.encoder(threads), plain, piece)
    }

    /// What the tool itself makes, without the wrapper.
    fn original(self, plain: &[u8]) -> Vec<u8> {
        let (mut command, wrapper) = match self {
            Self::Zlib(zlib::Settings { level, memory }) => {
                let mut command = Command::new("python3");
                command
                    .args(["-c", PYTHON])
                    .args([level.get(), memory.get()].map(|number| number.to_string()));
                (command, false)
            }
            Self::Gnu(level) => {
                let mut command = Command::new("gzip");
                command.arg("-n").arg(format!("-{}", level.get()));
                (command, true)
            }
            Self::Pigz(pigz::Settings { level, block, dictionary, cut }) => {
                let mut command = Command::new("pigz");
                command.arg("-n").arg(format!("-{}", level.get())).arg(format!("-b{}", block.get() >> 10));
                command.args((dictionary == Dictionary::Absent).then_some("-i"));
                command.args((cut == Cut::Rsyncable).then_some("-R"));
                (command, true)
            }
            Self::Ng(_) => panic!("no such tool here"),
        };
        let made = pipe(&mut command, plain);
        if wrapper { made[10..made.len() - 8].to_vec() } else { made }
    }
}

/// zlib that gets all at once.
const PYTHON: &str = "import sys, zlib
level, memory = map(int, sys.argv[1:])
encoder = zlib.compressobj(level, zlib.DEFLATED, -15, memory)
sys.stdout.buffer.write(encoder.compress(sys.stdin.buffer.read()) + encoder.flush())";

fn level(level: u8) -> zlib::Level {
    zlib::Level::new(level).expect("a level")
}

fn pigz(number: u8, block: usize, dictionary: Dictionary, cut: Cut) -> Tool {
    let block = BlockSize::new(block).expect("a size");
    Tool::Pigz(pigz::Settings { level: level(number), block, dictionary, cut })
}

/// All levels of all tools, with options.
fn tools() -> Vec<Tool> {
    let mut tools = Vec::new();
    for number in 1..=9 {
        let zlib = |memory| Tool::Zlib(zlib::Settings { level: level(number), memory });
        tools.extend(zlib::Memory::ALL.map(zlib));
        tools.push(Tool::Gnu(level(number)));
        tools.push(pigz(number, 128 << 10, Dictionary::Present, Cut::Even));
    }
    for (dictionary, cut) in [
        (Dictionary::Present, Cut::Rsyncable),
        (Dictionary::Absent, Cut::Even),
        (Dictionary::Absent, Cut::Rsyncable),
    ] {
        tools.push(pigz(6, 128 << 10, dictionary, cut));
        tools.push(pigz(1, 33 << 10, dictionary, cut));
    }
    tools
}

/// The first digits of the SHA-256 of the streams of all inputs, by tool.
const DIGESTS: &str = include_str!("zlib-digests.txt");

#[test]
fn streams_stay_the_same() {
    let ng =
        [1, 2, 6, 9].map(|number| Tool::Ng(ng::Settings { level: level(number), piece: ng::Piece::DEFAULT }));
    let inputs = inputs();
    let mut made = String::new();
    for tool in tools().into_iter().chain(ng) {
        let all: Vec<u8> = inputs.iter().flat_map(|(_, plain)| tool.stream(1, plain, 32_768)).collect();
        made += &format!("{tool:?} {}\n", &sha256(&all)[..16]);
    }
    assert!(made == DIGESTS, "zlib-digests.txt should be:\n{made}");
}

#[test]
fn threads_and_pieces_do_not_matter() {
    // Several chunks, some of noise, which is stored.
    let mut plain = layer_like(21, 9_300_000);
    let mut numbers = Numbers::new(3);
    for byte in &mut plain[4_000_000..4_500_000] {
        *byte = numbers.below(256) as u8;
    }
    for tool in [
        Tool::Zlib(zlib::Settings { level: level(1), memory: zlib::Memory::Usual }),
        Tool::Zlib(zlib::Settings { level: level(6), memory: zlib::Memory::Most }),
        Tool::Gnu(level(3)),
        Tool::Gnu(level(6)),
        pigz(6, 128 << 10, Dictionary::Present, Cut::Even),
        pigz(1, 64 << 10, Dictionary::Present, Cut::Rsyncable),
    ] {
        let one = tool.stream(1, &plain, 32_768);
        for (threads, piece) in [(2, 100_001), (3, plain.len())] {
            assert!(one == tool.stream(threads, &plain, piece), "{tool:?}, {threads} threads");
        }
    }
    let plain = &plain[..300_000];
    let ng = Tool::Ng(ng::Settings { level: level(6), piece: ng::Piece::DEFAULT });
    assert!(ng.stream(1, plain, 777) == ng.stream(1, plain, plain.len()));
}

fn decoded(stream: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::DeflateDecoder::new(stream).read_to_end(&mut plain).expect("a deflate stream");
    plain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn streams_are_decoded(
        seed in 0u64..1000,
        length in prop_oneof![0usize..2000, 60_000usize..400_000],
        tool in 0usize..36 + 6,
        piece in prop_oneof![1usize..3000, 30_000usize..400_000],
    ) {
        let plain = layer_like(seed, length);
        let tool = tools()[tool];
        prop_assert!(decoded(&tool.stream(1, &plain, piece)) == plain, "{:?}", tool);
    }

    #[test]
    fn streams_of_zlib_ng_are_decoded(
        seed in 0u64..1000,
        length in 0usize..200_000,
        number in 1u8..=9,
        piece in ng::Piece::MIN..=ng::Piece::MAX,
    ) {
        let plain = layer_like(seed, length);
        let piece = ng::Piece::new(piece).expect("a size");
        let tool = Tool::Ng(ng::Settings { level: level(number), piece });
        prop_assert!(decoded(&tool.stream(1, &plain, 5000)) == plain);
    }
}

#[test]
fn borders() {
    for tool in tools() {
        let expected: &[u8] = &[3, 0];
        assert_eq!(tool.stream(1, b"", 1), expected, "{tool:?}");
    }
    assert!(zlib::Level::new(0).is_none() && zlib::Level::new(10).is_none());
    assert!(
        BlockSize::new(BlockSize::MIN - 1024).is_none() && BlockSize::new(BlockSize::MAX + 1024).is_none()
    );
    assert!(BlockSize::new(BlockSize::MIN + 1).is_none());
    assert!(ng::Piece::new(ng::Piece::MIN - 1).is_none() && ng::Piece::new(ng::Piece::MAX + 1).is_none());
}

/// Inputs that end where windows of 64 KiB move, of several kinds.
fn window_ends() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut numbers = Numbers::new(5);
    let noise: Vec<u8> = (0..200_000).map(|_| numbers.below(256) as u8).collect();
    // Matches as far as they can be, and one byte farther.
    let far =
        |distance: usize| -> Vec<u8> { noise[..distance].iter().copied().cycle().take(200_000).collect() };
    let kinds = [
        ("noise", noise.clone()),
        ("far-32506", far(32_506)),
        ("far-32507", far(32_507)),
        ("layer", layer_like(99, 200_000)),
        ("zeros", vec![0; 200_000]),
    ];
    for border in [65_274, 65_536, 98_042] {
        for length in [border - 262, border - 1, border, border + 1, border + 25, border + 261, border + 300]
        {
            for (name, plain) in &kinds {
                all.push((format!("{name}-{length}"), plain[..length].to_vec()));
            }
        }
    }
    all
}

/// With `EXACT_TOOLS`: fresh streams of python3, gzip and pigz, which must be installed.
#[test]
fn streams_are_those_of_the_tools() {
    if env::var_os("EXACT_TOOLS").is_none() {
        return;
    }
    let mut wrong = Vec::new();
    let mut check = |tool: Tool, name: &str, plain: &[u8]| {
        if tool.stream(1, plain, 50_000) != tool.original(plain) {
            wrong.push(format!("{tool:?} {name}"));
        }
    };
    let some = [
        Tool::Zlib(zlib::Settings { level: level(2), memory: zlib::Memory::Most }),
        Tool::Zlib(zlib::Settings { level: level(6), memory: zlib::Memory::Usual }),
        Tool::Gnu(level(3)),
        Tool::Gnu(level(6)),
        pigz(6, 64 << 10, Dictionary::Present, Cut::Even),
        pigz(3, 128 << 10, Dictionary::Present, Cut::Rsyncable),
    ];
    // To start the tools takes longest.
    for (name, plain) in inputs().into_iter().chain(window_ends().into_iter().step_by(4)) {
        some.into_iter().for_each(|tool| check(tool, &name, &plain));
    }
    let plain = layer_like(31, 300_000);
    tools().into_iter().for_each(|tool| check(tool, "layer", &plain));
    let long = layer_like(4711, 14_000_000);
    let levels = [1, 6].map(|number| (level(number), zlib::Memory::Usual));
    for (level, memory) in levels {
        check(Tool::Zlib(zlib::Settings { level, memory }), "long", &long);
        check(Tool::Gnu(level), "long", &long);
    }
    check(pigz(6, 128 << 10, Dictionary::Present, Cut::Even), "long", &long);
    check(pigz(1, 128 << 10, Dictionary::Present, Cut::Rsyncable), "long", &long);
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}
