//! Patches made by an attacker: one test an attack, named after it.

use crate::support;

use support::hostile::{FILE, V1, V2, op, open, patch};
use support::{Delta, Image, Layer, Victim, images};

const DATA: u8 = 0;
const COPY: u8 = 2;
const ADD: u8 = 3;
const SEEK: u8 = 4;
const DICTIONARY: u8 = 5;

macro_rules! attack {
    ($name:ident, $magic:expr, $ops:expr, $code:expr, $text:expr) => {
        #[test]
        fn $name() {
            let ops: Vec<u8> = $ops.concat();
            Victim::new().refuses_ops($magic, &ops, $code, $text);
        }
    };
}

attack!(
    open_with_dots_stays_below_the_root,
    V1,
    [open("../../../etc/passwd"), op(COPY, 4, b"")],
    3,
    "no file etc/passwd"
);
attack!(
    open_absolute_stays_below_the_root,
    V1,
    [open("/etc/passwd"), op(COPY, 4, b"")],
    3,
    "no file etc/passwd"
);
attack!(
    open_through_a_link_out_stays_below_the_root,
    V1,
    [open("data/escape"), op(COPY, 4, b"")],
    3,
    "no file data/escape"
);
attack!(open_of_a_directory, V1, [open("data/folder"), op(COPY, 1, b"")], 3, "no file data/folder");
attack!(open_of_nothing, V1, [open("")], 4, "names no file");
attack!(open_of_the_root, V1, [open("a/..")], 4, "names no file");
attack!(open_with_a_nul, V1, [open("data/file\0x")], 4, "NUL");
attack!(open_of_4097_bytes, V1, [open(&"a".repeat(4097))], 4, "4097 bytes");
attack!(open_of_2_to_the_62_bytes, V1, [op(1, 1 << 62, b"x")], 4, "at most 4096");
attack!(varint_of_eleven_bytes, V1, [vec![DATA], vec![0xff; 10], vec![1]], 4, "2^63");
attack!(varint_that_overflows, V1, [vec![DATA], vec![0xff; 9], vec![2]], 4, "2^63");
attack!(data_of_2_to_the_63, V1, [op(DATA, 1 << 63, b"x")], 4, "2^63");
attack!(data_of_2_to_the_63_less_one, V1, [op(DATA, (1 << 63) - 1, b"x")], 4, "truncated");
attack!(copy_of_2_to_the_63, V1, [open("data/file"), op(COPY, 1 << 63, b"")], 4, "2^63");
attack!(copy_of_2_to_the_64_less_one, V1, [open("data/file"), op(COPY, u64::MAX, b"")], 4, "2^63");
attack!(
    copy_of_2_to_the_63_less_one,
    V1,
    [open("data/file"), op(COPY, (1 << 63) - 1, b"")],
    3,
    "has 10000 bytes"
);
attack!(seek_to_2_to_the_63, V1, [open("data/file"), op(SEEK, 1 << 63, b"")], 4, "2^63");
attack!(
    seek_and_copy_that_overflow_together,
    V1,
    [open("data/file"), op(SEEK, (1 << 63) - 1, b""), op(COPY, (1 << 63) - 1, b"")],
    3,
    "has 10000 bytes"
);
attack!(copy_past_the_end, V1, [open("data/file"), op(COPY, 10_001, b"")], 3, "has 10000 bytes");
attack!(
    seek_past_the_end,
    V1,
    [open("data/file"), op(SEEK, 20_000, b""), op(COPY, 1, b"")],
    3,
    "has 10000 bytes"
);
attack!(
    add_past_the_end,
    V1,
    [open("data/file"), op(SEEK, 9_999, b""), op(ADD, 2, b"xx")],
    3,
    "has 10000 bytes"
);
attack!(copy_without_open, V1, [op(COPY, 1, b"")], 4, "no base file is open");
attack!(add_without_open, V1, [op(ADD, 1, b"x")], 4, "no base file is open");
attack!(seek_without_open, V1, [op(SEEK, 1, b"")], 4, "no base file is open");
attack!(dictionary_without_open, V2, [op(DICTIONARY, 1, b"x")], 4, "no base file is open");
attack!(dictionary_in_version_1, V1, [open("data/file"), op(DICTIONARY, 4, b"xxxx")], 4, "tardf2");
attack!(
    dictionary_that_is_no_frame,
    V2,
    [open("data/file"), op(DICTIONARY, 4, b"xxxx")],
    4,
    "dictionary frame"
);
attack!(unknown_operation, V1, [op(9, 1, b"x")], 3, "unknown operation 9");
attack!(unknown_version, b"tardf3\n\0", [op(DATA, 1, b"x")], 3, "unknown patch format");
attack!(data_cut_short, V1, [op(DATA, 100, b"only this")], 4, "truncated");
attack!(add_cut_short, V1, [open("data/file"), op(ADD, 100, b"only this")], 4, "truncated");
attack!(size_cut_short, V1, [vec![DATA, 0x80]], 4, "truncated");
attack!(other_content, V1, [op(DATA, 5, b"wrong")], 4, "diff_id mismatch");
attack!(
    output_bomb_by_copy,
    V1,
    [open("data/file"), [op(SEEK, 0, b""), op(COPY, 10_000, b"")].concat().repeat(100_000)],
    4,
    "grows beyond"
);
attack!(output_bomb_by_data, V1, [op(DATA, 1 << 30, &vec![0; 64 << 20])], 4, "grows beyond");
attack!(ten_million_empty_operations, V1, [op(DATA, 0, b"").repeat(10_000_000)], 4, "without effect");
attack!(ten_million_opens, V1, [open("data/file").repeat(1_000_000)], 4, "without effect");

#[test]
fn dictionary_frame_with_garbage_behind_it() {
    let frame = [zstd::encode_all(&b"x"[..], 1).unwrap(), b"garbage".to_vec()].concat();
    let ops = [open("data/file"), op(DICTIONARY, frame.len() as u64, &frame)].concat();
    Victim::new().refuses_ops(V2, &ops, 4, "stand behind a dictionary frame");
}

#[test]
fn dictionary_frame_bomb() {
    let frame = frame_of_zeros(1 << 30);
    let ops = [open("data/file"), op(DICTIONARY, frame.len() as u64, &frame)].concat();
    Victim::new().refuses_ops(V2, &ops, 4, "grows beyond");
}

/// A frame of so many zeros, in blocks of 128 KiB that are a byte to be repeated.
fn frame_of_zeros(bytes: usize) -> Vec<u8> {
    let mut frame = frame_with_window(17);
    let last = frame.split_off(6);
    frame.extend([0x02, 0x00, 0x10, 0x00].repeat(bytes >> 17));
    [frame, last].concat()
}

/// A frame header that asks for a window of 2^`log` bytes, and an empty last block.
fn frame_with_window(log: u8) -> Vec<u8> {
    vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3, 0x01, 0x00, 0x00]
}

#[test]
fn dictionary_frame_window_bomb() {
    let frame = frame_with_window(30);
    let ops = [open("data/file"), op(DICTIONARY, frame.len() as u64, &frame)].concat();
    Victim::new().refuses_ops(V2, &ops, 4, "dictionary frame");
}

#[test]
fn outer_window_bomb() {
    let mut victim = Victim::new();
    let blob = [&V1[..], &frame_with_window(31)].concat();
    let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR_DIFF.into(), blob.clone()));
    victim.refuses(&delta, 4, "broken patch");
}

#[test]
fn garbage_behind_the_stream() {
    let mut victim = Victim::new();
    let blob = [images::patch(&victim.old, &victim.new.layers[0].tar), b"garbage!".to_vec()].concat();
    let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR_DIFF.into(), blob.clone()));
    victim.refuses(&delta, 4, "broken patch");
}

#[test]
fn whole_gzip_layer_bomb() {
    // The target claims a gzip layer of a few bytes; deflate cannot make a GiB of that.
    let old = Victim::new().old;
    let mut small = Layer::gzip(images::tar(&[("a", b"b")]));
    small.media_type = images::TAR_GZIP.into();
    let mut victim = Victim::with(old, Image::new(vec![small]));
    let bomb = images::gzip(&vec![0; 256 << 20]);
    let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR_GZIP.into(), bomb.clone()));
    victim.refuses(&delta, 4, "grows beyond");
}

#[test]
fn whole_zstd_layer_bomb() {
    let old = Victim::new().old;
    let mut victim = Victim::with(old, Image::new(vec![Layer::zstd(images::tar(&[("a", b"b")]))]));
    let bomb = frame_of_zeros(1 << 30);
    let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR_ZSTD.into(), bomb.clone()));
    victim.source.delta("attack", &delta);
    victim.refuses_as_it_lies(4, "grows beyond", &["--max-layer-size", "16M"]);
}

#[test]
fn whole_layer_that_is_garbage() {
    let mut victim = Victim::new();
    let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR.into(), b"no tar".to_vec()));
    victim.refuses(&delta, 4, "diff_id mismatch");
}

#[test]
fn truncation_at_every_byte() {
    let mut victim = Victim::new();
    let whole = images::patch(&victim.old, &victim.new.layers[0].tar);
    // Every cut near the ends, where the structure is, and some between.
    let cuts = (0..whole.len()).filter(|n| *n < 16 || whole.len() - n < 8 || n % 37 == 0);
    for cut in cuts {
        let delta =
            Delta::with(&victim.old, &victim.new, |_| (images::TAR_DIFF.into(), whole[..cut].to_vec()));
        victim.refuses(&delta, 4, "");
    }
}

#[test]
fn bit_flips_with_a_matching_digest() {
    let mut victim = Victim::new();
    let whole = images::patch(&victim.old, &victim.new.layers[0].tar);
    let mut harmless = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40 + 1) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR_DIFF.into(), flipped.clone()));
        victim.source.delta("attack", &delta);
        let before = victim.sandbox.snapshot();
        let ended = victim.sandbox.run(&[&victim.source.reference("attack"), "--tag", "new"]);
        if ended.code == 0 {
            // zstd has bits that decoders pass over: the layer is right all the same.
            harmless += 1;
            victim.sandbox.ok(&["verify"]);
            victim.sandbox.ok(&["remove", "new"]);
            victim.sandbox.ok(&["gc"]);
        } else {
            assert!(matches!(ended.code, 3 | 4), "flip at {at}: {ended:#?}");
        }
        assert_eq!(victim.sandbox.snapshot(), before);
    }
    assert!(harmless <= 4, "{harmless} of 40 flips change nothing");
}

#[test]
fn root_file_system_links_pipes_and_folders() {
    let victim = Victim::new();
    let root = victim.sandbox.path("root");
    std::fs::create_dir_all(root.join("folder")).unwrap();
    std::fs::write(victim.sandbox.path("secret"), FILE).unwrap();
    std::os::unix::fs::symlink(victim.sandbox.path("secret"), root.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("relative")).unwrap();
    std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
    std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    let mut source = victim.source;
    for path in ["absolute", "relative", "../secret", "loop", "pipe", "folder", "absent"] {
        let blob = patch(V1, &[open(path), op(COPY, 1, b"")].concat());
        let delta = Delta::with(&victim.old, &victim.new, |_| (images::TAR_DIFF.into(), blob.clone()));
        source.delta("attack", &delta);
        let ended = victim.sandbox.run(&[&source.reference("attack"), "--rootfs", root.to_str().unwrap()]);
        assert_eq!(ended.code, 3, "{path}: {ended:#?}");
    }
}
