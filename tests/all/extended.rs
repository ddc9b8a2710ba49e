//! The extended patch: what is written is read back, hostile ones are refused, `create` makes them beside the
//! standard ones, and `fetch` takes them wherever the base has its layers.

use crate::support;

use std::io::{self, Write as _};
use std::sync::Arc;

use liblzma::stream::{LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use oci_delta_fetch::account::account;
use oci_delta_fetch::apply::apply_patch;
use oci_delta_fetch::base::{Holder, LayerBlob, LayeredFiles, View};
use oci_delta_fetch::digest::{DiffId, digest_of};
use oci_delta_fetch::error::{Error, Kind, Result};
use oci_delta_fetch::extended::{Compression, Effort, OpWriter};
use oci_delta_fetch::fuse::fuse;
use oci_delta_fetch::region::Region;
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::tardiff::{Limits, WriterOptions};
use proptest::prelude::*;
use serde_json::Value;
use support::images::{noise, tar};
use support::{Image, Layer, OciDir, Sandbox, oracle};

const MAX: u64 = 1 << 30;

fn region(bytes: Vec<u8>) -> Region {
    let len = bytes.len() as u64;
    Region::of(Arc::new(bytes.into_boxed_slice()), len)
}

/// Two layers.
fn tars() -> [Vec<u8>; 2] {
    [tar(&[("a", &noise(1, 70_000)), ("b", &noise(2, 100))]), tar(&[("c", &noise(3, 5_000))])]
}

fn diff_ids() -> [DiffId; 2] {
    tars().map(|tar| DiffId::new(digest_of(&tar)))
}

fn base() -> LayeredFiles {
    let layers = tars().into_iter().zip(diff_ids());
    let layers = layers.map(|(tar, diff_id)| LayerBlob { diff_id, blob: region(tar) });
    LayeredFiles::new(layers.collect(), &std::env::temp_dir(), MAX)
}

fn apply(patch: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    apply_patch(patch, &View::new(&base(), 0), &Limits::default(), &mut out)?;
    Ok(out)
}

#[derive(Debug, Clone)]
enum Step {
    Data(Vec<u8>),
    Copy(usize, usize, usize),
    Add(usize, usize, Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..600);
    let step = prop_oneof![
        bytes().prop_map(Step::Data),
        (0..2usize, 0..80_000usize, 0..70_000usize).prop_map(|(l, at, len)| Step::Copy(l, at, len)),
        (0..2usize, 0..80_000usize, bytes()).prop_map(|(l, at, sums)| Step::Add(l, at, sums)),
    ];
    proptest::collection::vec(step, 0..30)
}

/// Writes the steps as a patch, and does them by hand.
fn write(steps: &[Step], content: Compression) -> (Vec<u8>, Vec<u8>) {
    let (tars, ids) = (tars(), diff_ids());
    let mut writer = OpWriter::new(&|_| None, || Ok(Vec::new())).unwrap();
    let mut expected = Vec::new();
    for step in steps {
        match step {
            Step::Data(bytes) => {
                writer.data(bytes).unwrap();
                expected.extend_from_slice(bytes);
            }
            Step::Copy(layer, at, len) => {
                let tar = &tars[*layer];
                let at = at % tar.len();
                let len = (*len).min(tar.len() - at);
                writer.copy(*layer, at as u64, len as u64).unwrap();
                expected.extend_from_slice(&tar[at..at + len]);
            }
            Step::Add(layer, at, sums) => {
                let tar = &tars[*layer];
                let at = at % tar.len();
                let sums = &sums[..sums.len().min(tar.len() - at)];
                writer.add(*layer, at as u64, sums).unwrap();
                expected.extend(sums.iter().zip(&tar[at..]).map(|(sum, byte)| sum.wrapping_add(*byte)));
            }
        }
    }
    let parts = writer.finish(region).unwrap();
    let parts = parts.compress(content, || Ok(Vec::new()), region).unwrap();
    let (mut patch, limits) = (Vec::new(), Limits::default());
    let mut ops = parts.weave(&mut patch, |layer| Holder::Layer(ids[layer].clone()), &limits).unwrap();
    while ops.next_op().unwrap().is_some() {
        io::copy(&mut ops.payload(), &mut io::sink()).unwrap();
    }
    drop(ops);
    (patch, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_written_is_read_back(steps in steps(), small in any::<bool>(), at in any::<prop::sample::Index>()) {
        let zstd = WriterOptions { level: 1, window_log: 20, ..Default::default() };
        let lzma = Compression::Lzma { dictionary: 1 << 20, effort: Effort::Quick };
        let (patch, expected) = write(&steps, if small { lzma } else { Compression::Zstd(zstd) });
        prop_assert!(apply(&patch).unwrap() == expected);
        let (view, spool) = (base(), Spool::in_dir(&std::env::temp_dir()));
        let fused = fuse(&patch[..], &View::new(&view, 0), &Limits::default(), MAX, &spool).unwrap();
        let mut found = vec![0; expected.len()];
        fused.read_exact_at(&mut found, 0).unwrap();
        prop_assert!(found == expected);
        // Cut short or changed it is no panic.
        let at = at.index(patch.len());
        let _ = apply(&patch[..at]);
        let mut changed = patch;
        changed[at] ^= 0x55;
        let _ = apply(&changed);
    }
}

/// A patch of these streams: commands, lengths, moves, sums, literals.
fn raw(streams: [&[u8]; 5]) -> Vec<u8> {
    with_table(&table(&[]), streams)
}

/// A table without recipes and members: two layers, and rows of stretches.
fn table(stretches: &[&[u8]]) -> Vec<u8> {
    let mut table = vec![0, 2 + stretches.len() as u8];
    for diff_id in diff_ids() {
        let hex = diff_id.as_digest().digest().to_owned();
        table.push(0);
        table.extend((0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()));
    }
    stretches.iter().for_each(|row| table.extend(*row));
    table.push(0);
    table
}

/// A patch with this table and these streams.
pub fn with_table(table: &[u8], streams: [&[u8]; 5]) -> Vec<u8> {
    let frame = zstd::encode_all(table, 1).unwrap();
    let mut patch = [b"odfpat1\n", &number(frame.len())[..], &frame].concat();
    for (stream, bytes) in streams.into_iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
        patch.extend(block(stream as u8, &zstd::encode_all(bytes, 1).unwrap()));
    }
    patch
}

fn block(stream: u8, bytes: &[u8]) -> Vec<u8> {
    [&[stream], &number(bytes.len())[..], bytes].concat()
}

fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// It is not applied, nor looked through, nor accounted for.
fn refuses(patch: &[u8], kind: Kind, text: &str) {
    is_not_made(patch, kind, text);
    let (base, limits, spool) = (base(), Limits::default(), Spool::in_dir(&std::env::temp_dir()));
    let view = View::new(&base, 0);
    ends_with(fuse(patch, &view, &limits, MAX, &spool).unwrap_err(), kind, text);
    ends_with(account(patch, &|holder| view.holder(holder), &limits, MAX, &spool).unwrap_err(), kind, text);
}

/// It is not applied.
fn is_not_made(patch: &[u8], kind: Kind, text: &str) {
    ends_with(apply(patch).unwrap_err(), kind, text);
}

fn ends_with(error: Error, kind: Kind, text: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "no {text:?} in {error}");
}

#[test]
fn what_a_hostile_patch_does_is_refused() {
    const LAYER: u8 = 3;
    const MEMBER: u8 = 4;
    let bad = Kind::Verification;
    refuses(&raw([&[1], &[1], b"", b"", b""]), bad, "no layer is open");
    refuses(&raw([&[LAYER], &[2], b"", b"", b""]), bad, "row 2 of its table, which has 2");
    refuses(&raw([&[8], &[1], b"", b"", b""]), Kind::Misfit, "unknown command 8");
    refuses(&raw([&[7], &[1], b"", b"", b""]), Kind::Misfit, "unknown command 7");
    refuses(&raw([&[MEMBER], &[0], b"", b"", b""]), bad, "row 0 of its table, which has 0");
    refuses(&raw([&[LAYER, 5], &[0, 1], &[1], b"", b""]), bad, "it moves out of a layer");
    refuses(&raw([&[LAYER, 5], &[0, 1], &[0x80; 10], b"", b""]), bad, "a number of 2^63 or more");
    refuses(
        &raw([&[LAYER, 5], &[0, 1], &[0xfe, 0xff, 0x7f], b"", b""]),
        Kind::Misfit,
        "the patch wants 1 at",
    );
    refuses(&raw([&[0], &[9], b"", b"", b"short"]), bad, "truncated inside an operation");
    refuses(&raw([&[0], b"", b"", b"", b""]), bad, "the stream of Lengths ends early");
    refuses(&raw([b"", b"", b"", b"", b"left"]), bad, "bytes that no operation takes");
    let switches = vec![LAYER; 200_000];
    refuses(&raw([&switches, &vec![0u8; 200_000], b"", b"", b""]), bad, "operations in a row without effect");
    refuses(&[&raw([b""; 5])[..], &[9, 1, 0]].concat(), bad, "a block of stream 9");
    refuses(&[&raw([b""; 5])[..], &[1, 0]].concat(), bad, "a block without 1 to 65536 bytes");
    refuses(&[&raw([b""; 5])[..], &[0, 0xff, 0xff, 0x7f]].concat(), bad, "a block without 1 to 65536 bytes");
    refuses(b"odfpat1\n\xff\xff\xff\x7f", bad, "a table of more than 8388608 bytes");
    refuses(b"odfpat9\n", Kind::Misfit, "known is odfpat1");
    // Blocks for later fill no memory.
    let later: Vec<u8> = (0..300).flat_map(|_| block(4, &[0; 65_536])).collect();
    refuses(&[&raw([b""; 5])[..], &later].concat(), bad, "come before they are wanted");
}

#[test]
fn what_a_hostile_stream_of_lzma_does_is_refused() {
    let content = vec![7; 70_000];
    let literals = lzma(&content);
    let of =
        |literals: &[u8]| [&raw([&[0], &number(70_000), b"", b"", b""])[..], &block(4, literals)].concat();
    assert!(apply(&of(&literals)).unwrap() == content);
    let bad = Kind::Verification;
    refuses(&of(&[&literals[..], b"x"].concat()), bad, "the stream of Literals: bytes behind its end");
    refuses(&of(&literals[..literals.len() - 1]), bad, "truncated in the stream of Literals");
    refuses(&of(&literals[..14]), bad, "truncated");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = literals.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        of(&changed)
    };
    refuses(&with(1, &[0, 0, 0, 0x10]), bad, "the stream of Literals: memory");
    refuses(&with(0, &[225]), bad, "the stream of Literals: ");
    refuses(&with(13, &[1]), bad, "the stream of Literals: ");
    // What unpacks to more than is wanted is not unpacked.
    refuses(&of(&lzma(&vec![0; 64 << 20])), bad, "bytes that no operation takes");
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let options = LzmaOptions::new_preset(1).unwrap();
    let mut encoder = XzEncoder::new_stream(Vec::new(), Stream::new_lzma_encoder(&options).unwrap());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Numbers one after the other.
pub fn row(numbers: &[usize]) -> Vec<u8> {
    numbers.iter().flat_map(|n| number(*n)).collect()
}

#[test]
fn what_a_hostile_table_says_is_refused() {
    let (bad, none) = (Kind::Verification, [&b""[..]; 5]);
    let of = |table: &[u8]| with_table(table, none);
    let stretch = |row_of: &[usize]| of(&table(&[&row(row_of)]));
    // The holder by its place in the table from 1 on, the gap, bytes, coding, bytes in it.
    refuses(&stretch(&[4, 0, 10, 1, 100]), bad, "a stretch of what its table does not have before");
    refuses(&stretch(&[3, 0, 10, 1, 100]), bad, "a stretch of what its table does not have before");
    refuses(&stretch(&[1, 1, 10, 1, 100]), bad, "a stretch outside of everything");
    refuses(&stretch(&[1, 0, 10, 9, 100]), Kind::Misfit, "a stretch of coding 9");
    refuses(&stretch(&[1, 0, 10, 1, 17 << 30]), bad, "more bytes than are allowed");
    let nested: Vec<Vec<u8>> =
        (0..3).map(|n| row(&[if n == 0 { 1 } else { n + 2 }, 0, 10, 1, 100])).collect();
    let nested: Vec<&[u8]> = nested.iter().map(|row| &row[..]).collect();
    refuses(&of(&table(&nested)), bad, "more than 2 compressed stretches in each other");
    refuses(&of(&row(&[0, 1 << 40])), bad, "rows in");
    refuses(&of(&[&row(&[0, 0, 0])[..], b"more"].concat()), bad, "4 bytes behind its table");
    refuses(&of(&row(&[0])), bad, "truncated inside a number");
    refuses(
        &of(&[&row(&[1, 3])[..], b"abc", &row(&[0, 0])].concat()),
        Kind::Misfit,
        "a recipe that makes no sense",
    );
    refuses(&of(&[&row(&[1, 300])[..], b"abc", &row(&[0, 0])].concat()), bad, "truncated in its table");
    let layers: Vec<u8> = (0..5000)
        .flat_map(|n| [vec![0], (0..32).map(|at| (n >> (at % 4)) as u8).collect()].concat())
        .collect();
    refuses(&of(&[row(&[0, 5000]), layers, row(&[0])].concat()), bad, "more than 4096 layers");
    let bomb = zstd::encode_all(&vec![0; 100 << 20][..], 1).unwrap();
    refuses(
        &[b"odfpat1\n", &number(bomb.len())[..], &bomb].concat(),
        bad,
        "a table of more than 8388608 bytes",
    );
    let good = zstd::encode_all(&table(&[])[..], 1).unwrap();
    refuses(&[b"odfpat1\n", &number(good.len() + 3)[..], &good].concat(), bad, "truncated in its table");
    refuses(
        &[b"odfpat1\n", &number(good.len() + 3)[..], &good, b"abc"].concat(),
        bad,
        "bytes behind the frame",
    );
    refuses(&[b"odfpat1\n", &number(good.len() - 3)[..], &good].concat(), bad, "its table");
}

/// A table with a recipe of bzip2, and members of these sizes.
fn with_members(sizes: &[(usize, usize)]) -> Vec<u8> {
    let recipe = br#"{"v":1,"wrap":"bzip2","lvl":9}"#;
    let members: Vec<u8> = sizes.iter().flat_map(|(packed, plain)| row(&[0, *packed, *plain])).collect();
    [&row(&[1, recipe.len()])[..], recipe, &row(&[0, sizes.len()]), &members].concat()
}

#[test]
fn what_a_hostile_member_does_is_refused() {
    const MEMBER: u8 = 4;
    let bad = Kind::Verification;
    let of = |sizes: &[(usize, usize)], commands: &[u8], lengths: &[u8], literals: &[u8]| {
        with_table(&with_members(sizes), [commands, lengths, b"", b"", literals])
    };
    refuses(&of(&[(50, 9)], &[MEMBER, 0], &[0, 10], b"0123456789"), bad, "more is in a member than was said");
    refuses(&of(&[(50, 9)], &[MEMBER, 0], &[0, 5], b"01234"), bad, "truncated inside a member");
    refuses(&of(&[(50, 9)], &[MEMBER], &[1], b""), bad, "row 1 of its table, which has 1");
    is_not_made(&of(&[(500, 9)], &[MEMBER, 0], &[0, 9], b"012345678"), bad, "bytes too few");
    is_not_made(&of(&[(20, 9)], &[MEMBER, 0], &[0, 9], b"012345678"), bad, "more bytes than it has");
    refuses(&of(&[(9, 9); 3], &[MEMBER; 3], &[0, 1, 2], b""), bad, "members in members in members");
    refuses(&of(&[(9, 9 << 30), (9, 9 << 30)], &[], &[], b""), bad, "more bytes than are allowed");
    // An outer one that is large gets what is in it in pieces; that it fails ends all.
    let (large, rest) = (2 << 20, number((2 << 20) - 20));
    let nested = with_table(
        &with_members(&[(60, large), (20, 9)]),
        [&[MEMBER, MEMBER, 0, 0], &[&[0, 1, 9][..], &rest].concat(), b"", b"", &vec![b'x'; large]],
    );
    is_not_made(&nested, bad, "more bytes than it has");
}

#[test]
fn a_stretch_that_the_base_does_not_have_is_a_misfit() {
    let of = |row_of: &[usize]| with_table(&table(&[&row(row_of)]), [&[3], &[2], b"", b"", b""]);
    is_not_made(&of(&[1, 2 * 1_000_000, 10, 1, 100]), Kind::Misfit, "the base has no sha256:");
    is_not_made(&of(&[1, 0, 10, 1, 100]), Kind::Verification, "gzip at 0 to 10");
}

/// An image of small files, some of which changed, with a shared layer below and a changed one above.
fn pair(sandbox: &Sandbox) -> (OciDir, Image, Image) {
    let image = |version: u64| {
        let names: Vec<String> = (0..400).map(|n| format!("usr/share/doc/package-{n}/copyright")).collect();
        let content =
            |n: u64| noise(if n.is_multiple_of(40) { n + 1000 * version } else { n }, 40 + n as usize % 90);
        let contents: Vec<Vec<u8>> = (0..400).map(content).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().zip(&contents).map(|(name, content)| (name.as_str(), &content[..])).collect();
        let shared = Layer::gzip(tar(&[("usr/lib/shared", &noise(9999, 50_000))]));
        Image::new(vec![shared, Layer::gzip(tar(&files))])
    };
    let (old, new) = (image(1), image(2));
    let mut images = OciDir::create(&sandbox.path("images"));
    images.image("old", &old).image("new", &new);
    (images, old, new)
}

fn create(sandbox: &Sandbox, images: &OciDir, options: &[&str]) -> Value {
    let (old, new, delta) = (images.reference("old"), images.reference("new"), sandbox.path("delta.oci"));
    let mut args = vec!["create", &old, &new, delta.to_str().unwrap()];
    args.extend(options);
    sandbox.json(&args)
}

/// Sizes of the two patches of the layer that changed.
fn sizes(report: &Value) -> (u64, u64) {
    let layer = &report["layers"][1];
    (layer["bytes"].as_u64().unwrap(), layer["extended_bytes"].as_u64().unwrap())
}

/// The delta in `delta.oci` leads from one image to the other, by a patch of so many bytes for the upper layer.
pub fn comes_by_its_extended_patch(sandbox: &Sandbox, base: &str, [old, new]: [&Image; 2], extended: u64) {
    let delta = format!("oci-archive:{}", sandbox.path("delta.oci").display());
    oracle::check(&delta, old, new);
    sandbox.ok(&[base]);
    let planned = sandbox.json(&[&delta, "--tag", "new", "--dry-run"]);
    let report = sandbox.json(&[&delta, "--tag", "new"]);
    assert_eq!(planned["bytes"], report["bytes"]);
    assert_eq!(report["layers"][1]["action"], "patched");
    assert_eq!(report["layers"][1]["bytes"], extended);
    assert_eq!(report["image"]["config"], new.config_digest().to_string());
    sandbox.ok(&["verify"]);
}

#[test]
fn every_store_takes_the_smaller_patch_and_others_still_read_the_delta() {
    for sandbox in Sandbox::of_each_store() {
        let (images, old, new) = pair(&sandbox);
        let (standard, extended) = sizes(&create(&sandbox, &images, &["--format", "both"]));
        assert!(extended < standard / 2, "{extended} of {standard}: headers are copied");
        comes_by_its_extended_patch(&sandbox, &images.reference("old"), [&old, &new], extended);
    }
}

#[test]
fn a_base_of_files_alone_takes_the_standard_patch() {
    let sandbox = Sandbox::new();
    let (images, old, _) = pair(&sandbox);
    let (standard, _) = sizes(&create(&sandbox, &images, &["--format", "both"]));
    let (root, out) = (oracle::unpack(&old), sandbox.path("out.oci"));
    let delta = sandbox.path("delta.oci");
    let [root, delta, out] = [root.path(), &delta, &out].map(|path| path.to_str().unwrap());
    let report = sandbox.json(&["apply", "--rootfs", root, delta, out]);
    assert_eq!(report["layers"][1]["bytes"], standard);
    assert_eq!(report["image"]["fidelity"], "verbatim");
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let sandbox = Sandbox::new();
    let (images, ..) = pair(&sandbox);
    let made = ["1", "2", "5"]
        .map(|jobs| create(&sandbox, &images, &["--format", "both", "--jobs", jobs])["digest"].clone());
    assert!(made.iter().all(|digest| *digest == made[0]), "{made:?}");
}
