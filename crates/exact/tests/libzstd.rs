//! Frames of libzstd: that it is the release meant, and what settings do.

mod common;

use std::num::NonZeroUsize;

use common::{encode, layer_like, sha256};
use exact_encoders::zstd::libzstd::{self, Jobs, MAX_WINDOW_LOG, Settings, SizeField};

fn frame(settings: Settings, plain: &[u8], piece: usize) -> Vec<u8> {
    encode(libzstd::encoder(settings, NonZeroUsize::MIN).expect("settings of the library"), plain, piece)
}

/// Level, and the first digits of the SHA-256 of the frame that release 1.5.7 makes.
const DIGESTS: [(i32, &str); 6] = [
    (-5, "f13d5400ae7981e1"),
    (1, "6ebe5b4fedf71dda"),
    (3, "d4089354843bf1b7"),
    (6, "f11c06bd697e46d9"),
    (12, "c51e38037349db45"),
    (19, "2676b1c76ca387a1"),
];

#[test]
fn frames_are_those_of_the_release() {
    assert_eq!(zstd::zstd_safe::version_string(), libzstd::RELEASE);
    let plain = layer_like(157, 700_000);
    let made = DIGESTS.map(|(level, _)| {
        let frame = frame(Settings::command(level), &plain, 32_768);
        (level, sha256(&frame)[..16].to_owned())
    });
    assert_eq!(made, DIGESTS.map(|(level, digest)| (level, digest.to_owned())));
}

#[test]
fn pieces_do_not_matter() {
    let plain = layer_like(158, 500_000);
    for level in [1, 3, 9] {
        let one = frame(Settings::stream(level), &plain, plain.len());
        for piece in [777, 131_072, 200_001] {
            assert!(one == frame(Settings::stream(level), &plain, piece), "level {level}, pieces of {piece}");
        }
        assert!(zstd::decode_all(&one[..]).expect("a frame") == plain);
    }
}

#[test]
fn threads_do_not_matter_and_jobs_do() {
    let plain = layer_like(159, 5 << 20);
    let settings = |jobs| Settings { jobs, ..Settings::stream(1) };
    let made = |jobs, threads, piece| {
        let threads = NonZeroUsize::new(threads).expect("a thread");
        encode(libzstd::encoder(settings(jobs), threads).expect("settings of the library"), &plain, piece)
    };
    let jobs = Jobs::new(2 << 20, 6);
    let one = made(jobs, 1, 131_072);
    for (threads, piece) in [(2, 100_001), (3, plain.len()), (70, 1 << 20)] {
        assert!(one == made(jobs, threads, piece), "{threads} threads, pieces of {piece}");
    }
    assert!(zstd::decode_all(&one[..]).expect("a frame") == plain);
    for other in [None, Jobs::new(1 << 20, 6), Jobs::new(2 << 20, 9)] {
        assert!(one != made(other, 2, 131_072), "{other:?}");
    }
    for (size, overlap) in [(Jobs::MIN - 1, 6), (Jobs::MAX + 1, 6), (Jobs::MIN, 0), (Jobs::MIN, 10)] {
        assert_eq!(Jobs::new(size, overlap), None);
    }
}

#[test]
fn settings_are_in_the_header() {
    let plain = [7; 300];
    let start = |settings| frame(settings, &plain, 100)[4..8].to_vec();
    let stream = Settings::stream(3);
    assert_eq!(start(stream)[0], 0);
    assert_eq!(start(Settings::command(3))[0], 4);
    // One segment, and 300 less 256 in two bytes.
    let known = Settings { size: Some(300), ..stream };
    assert_eq!(start(known)[..3], [0x60, 44, 0]);
    assert_eq!(start(Settings { size_field: SizeField::Omitted, ..known })[0], 0);
    let window = |log| Settings { window_log: Some(log), ..stream };
    assert_eq!(start(window(20))[1], (20 - 10) << 3);
    assert!(libzstd::encoder(window(MAX_WINDOW_LOG + 1), NonZeroUsize::MIN).is_err());
    assert!(libzstd::encoder(window(3), NonZeroUsize::MIN).is_err());
    // Of nothing, a frame is known to have no bytes.
    assert_eq!(frame(stream, b"", 1)[4..], [0x20, 0, 1, 0, 0]);
}

#[test]
fn a_wrong_size_ends_the_frame() {
    let settings = Settings { size: Some(10), ..Settings::stream(3) };
    let short = frame(settings, b"12345", 5);
    assert!(zstd::decode_all(&short[..]).is_err());
    let long = frame(settings, &[1; 200_000], 100_000);
    assert!(zstd::decode_all(&long[..]).is_err());
}
