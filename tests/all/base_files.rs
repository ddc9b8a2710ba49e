//! What a path of a patch means in the base image: merged view, the reference
//! generator's own view, damaged and lazy layers.

use crate::support;

use std::io::{Read, Write};

use oci_delta_fetch::base::{Doubt, LayerBlob, LayeredFiles, SourceFiles, SourcePath};
use oci_delta_fetch::digest::{DiffId, digest_of};
use oci_delta_fetch::error::{Kind, Result};
use oci_delta_fetch::region::Region;
use support::hostile::{V1, V2, op, open as open_op, patch};
use support::images::{self, noise};
use support::tars::Entry::{self, Dir, Fifo, File, Link, Mode, Symlink};
use support::tars::{record, tar_of};
use support::{Delta, Image, Layer, OciDir, Sandbox};
use tar::EntryType;

fn region(bytes: &[u8]) -> Region {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Region::whole(file).unwrap()
}

fn source(tar: &[u8], blob: &[u8]) -> LayerBlob {
    LayerBlob { diff_id: DiffId::new(digest_of(tar)), blob: region(blob) }
}

fn files(layers: &[&[Entry<'_>]]) -> LayeredFiles {
    let layers = layers.iter().map(|entries| tar_of(entries)).map(|tar| source(&tar, &tar)).collect();
    LayeredFiles::new(layers, &std::env::temp_dir(), 1 << 30)
}

fn open(files: &LayeredFiles, path: &[u8], round: u32) -> Result<(Vec<u8>, bool)> {
    let found = files.open(&SourcePath::clean(path).unwrap(), round)?;
    let mut content = vec![0; found.file.size() as usize];
    found.file.read_exact_at(&mut content, 0)?;
    Ok((content, found.doubt != Doubt::None))
}

fn content(files: &LayeredFiles, path: &str) -> Option<String> {
    match open(files, path.as_bytes(), 0) {
        Ok((content, _)) => Some(String::from_utf8(content).unwrap()),
        Err(e) if e.kind() == Kind::Misfit => None,
        Err(e) => panic!("{path}: {e}"),
    }
}

/// First and second round for a path.
fn both(files: &LayeredFiles, path: &str) -> [String; 2] {
    [0, 1].map(|n| String::from_utf8(open(files, path.as_bytes(), n).unwrap().0).unwrap())
}

#[test]
fn later_layers_win_and_whiteouts_hide() {
    let files = files(&[
        &[File(b"a", b"1"), File(b"b", b"1"), File(b"d/x", b"1"), File(b"d/y", b"1"), File(b"e/f/g", b"1")],
        &[File(b"./b", b"2"), File(b"d/.wh.x", b""), File(b".wh.e", b"")],
        &[File(b"e/f/new", b"3")],
    ]);
    for (path, expected) in
        [("a", Some("1")), ("b", Some("2")), ("d/y", Some("1")), ("e/f/new", Some("3")), ("nothing", None)]
    {
        assert_eq!(content(&files, path).as_deref(), expected, "{path}");
    }
}

#[test]
fn an_opaque_directory_hides_what_was_below() {
    let files = files(&[
        &[File(b"d/old", b"1"), File(b"d/sub/old", b"1"), File(b"dd", b"1")],
        &[File(b"d/.wh..wh..opq", b""), File(b"d/new", b"2"), File(b"d/old2", b"2")],
    ]);
    assert_eq!(content(&files, "d/new").as_deref(), Some("2"));
    assert_eq!(content(&files, "dd").as_deref(), Some("1"));
}

#[test]
fn a_file_over_a_directory_and_the_reverse() {
    let files = files(&[
        &[Dir(b"d"), File(b"d/x", b"1"), File(b"f", b"1")],
        &[File(b"d", b"file"), Dir(b"f"), File(b"f/x", b"2")],
    ]);
    assert_eq!(content(&files, "d").as_deref(), Some("file"));
    assert_eq!(content(&files, "f/x").as_deref(), Some("2"));
}

#[test]
fn hard_links_are_followed_within_and_across_layers() {
    let files = files(&[
        &[File(b"target", b"old")],
        &[Link(b"alias", b"target"), File(b"own", b"2"), Link(b"same", b"own")],
        &[File(b"target", b"new")],
    ]);
    assert_eq!(content(&files, "alias").as_deref(), Some("old"), "the link keeps what it was made to");
    assert_eq!(content(&files, "same").as_deref(), Some("2"));
    assert_eq!(content(&files, "target").as_deref(), Some("new"));
}

#[test]
fn links_in_the_path_are_resolved_inside_the_root() {
    let files = files(&[
        &[
            Symlink(b"lib", b"usr/lib"),
            File(b"usr/lib/x", b"x"),
            Symlink(b"abs", b"/usr/lib/x"),
            Symlink(b"out", b"../../../usr/lib/x"),
            Symlink(b"loop", b"loop"),
        ],
        &[File(b"lib/literal", b"y")],
    ]);
    for path in ["lib/x", "abs", "out"] {
        assert_eq!(content(&files, path).as_deref(), Some("x"), "{path}");
    }
    assert_eq!(content(&files, "lib/literal").as_deref(), Some("y"));
    assert_eq!(content(&files, "loop"), None);
}

#[test]
fn etc_is_also_found_where_ostree_keeps_it() {
    let files = files(&[&[File(b"usr/etc/a", b"a"), File(b"etc/b", b"b")]]);
    assert_eq!(content(&files, "etc/a").as_deref(), Some("a"));
    assert_eq!(content(&files, "usr/etc/b").as_deref(), Some("b"));
}

#[test]
fn long_and_odd_names() {
    let long = [b"d/".as_slice(), &[b'n'; 300]].concat();
    let raw = b"caf\xe9/\xff".as_slice();
    let files = files(&[&[File(&long, b"long"), File(raw, b"raw"), Link(b"to-long", &long)]]);
    assert_eq!(open(&files, &long, 0).unwrap().0, b"long");
    assert_eq!(open(&files, raw, 0).unwrap().0, b"raw");
    assert_eq!(content(&files, "to-long").as_deref(), Some("long"));
}

#[test]
fn pax_names_and_sizes_are_honoured() {
    let mut tar = Vec::new();
    let pax = |key: &str, value: &str| {
        let body = format!(" {key}={value}\n");
        let mut len = body.len() + 1;
        while len != body.len() + len.to_string().len() {
            len = body.len() + len.to_string().len();
        }
        format!("{len}{body}")
    };
    let global = pax("comment", "for all");
    record(&mut tar, EntryType::XGlobalHeader, b"pax_global_header", b"", global.as_bytes(), 0o644);
    let records = [pax("path", &format!("long/{}", "é".repeat(150))), pax("mtime", "1.5")].concat();
    record(&mut tar, EntryType::XHeader, b"PaxHeaders/x", b"", records.as_bytes(), 0o644);
    record(&mut tar, EntryType::Regular, b"short", b"", b"content", 0o644);
    record(&mut tar, EntryType::Regular, b"next", b"", b"after", 0o644);
    tar.extend([0; 1024]);
    let files = LayeredFiles::new(vec![source(&tar, &tar)], &std::env::temp_dir(), 1 << 30);
    assert_eq!(content(&files, &format!("long/{}", "é".repeat(150))).as_deref(), Some("content"));
    assert_eq!(content(&files, "next").as_deref(), Some("after"));
    assert_eq!(content(&files, "short"), None);
}

#[test]
fn sparse_files_pipes_and_directories_are_no_sources() {
    let mut tar = Vec::new();
    let sparse = "22 GNU.sparse.major=1\n";
    record(&mut tar, EntryType::XHeader, b"PaxHeaders/x", b"", sparse.as_bytes(), 0o644);
    record(&mut tar, EntryType::Regular, b"sparse", b"", b"map and data", 0o644);
    tar.extend(tar_of(&[Fifo(b"pipe"), Dir(b"dir"), File(b"file", b"f")]));
    let files = LayeredFiles::new(vec![source(&tar, &tar)], &std::env::temp_dir(), 1 << 30);
    for path in ["sparse", "pipe", "dir"] {
        assert_eq!(content(&files, path), None, "{path}");
    }
    assert_eq!(content(&files, "file").as_deref(), Some("f"));
}

// The reference generator names stale files in these cases. Where the true file
// could not have been meant, the stale one comes first; else it comes second.

#[test]
fn stale_source_below_a_symlink() {
    let files = files(&[&[File(b"f", b"stale"), File(b"g", b"g")], &[Symlink(b"f", b"g")]]);
    assert_eq!(both(&files, "f"), ["stale", "stale"]);
}

#[test]
fn stale_source_below_an_empty_file() {
    let files = files(&[&[File(b"f", b"stale")], &[File(b"f", b"")]]);
    assert_eq!(both(&files, "f"), ["stale", ""]);
}

#[test]
fn stale_source_below_an_unreadable_file() {
    let files = files(&[&[File(b"f", b"stale")], &[Mode(b"f", b"secret", 0o600)]]);
    assert_eq!(both(&files, "f"), ["stale", "secret"]);
}

#[test]
fn stale_source_below_a_hard_link_to_a_lower_layer() {
    let files = files(&[&[File(b"f", b"stale"), File(b"g", b"true")], &[Link(b"f", b"g")]]);
    assert_eq!(both(&files, "f"), ["true", "stale"]);
}

#[test]
fn stale_source_below_a_file_over_its_directory() {
    let files = files(&[&[File(b"d/f", b"stale")], &[File(b"d", b"now a file")]]);
    assert_eq!(both(&files, "d/f"), ["stale", "stale"]);
}

#[test]
fn stale_source_replaced_in_the_same_tar() {
    let files = files(&[&[File(b"f", b"stale"), Symlink(b"f", b"elsewhere")]]);
    assert_eq!(both(&files, "f"), ["stale", "stale"]);
}

/// A patch that makes a tar with the content of one file, by the operations that give it.
fn patch_around(magic: &[u8; 8], tar: &[u8], content: usize, ops: &[Vec<u8>]) -> Vec<u8> {
    let (head, tail) = (&tar[..512], &tar[512 + content..]);
    patch(magic, &[op(0, 512, head), ops.concat(), op(0, tail.len() as u64, tail)].concat())
}

#[test]
fn the_file_that_was_meant_is_found_however_the_other_one_fails() {
    let (stale, below) = (noise(1, 10_000), noise(2, 9_000));
    let frame = {
        let mut encoder =
            zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 3, &*stale.clone().leak()).unwrap();
        encoder.write_all(&stale[..9_000]).unwrap();
        encoder.write_all(b"and more").unwrap();
        encoder.finish().unwrap()
    };
    let old = Image::new(vec![
        Layer::plain(tar_of(&[File(b"linked", &stale), File(b"short", b"true"), File(b"secret", &below)])),
        Layer::plain(tar_of(&[Link(b"linked", b"short"), Mode(b"secret", b"unreadable", 0o600)])),
    ]);
    let copy = |path: &str, len: usize| [open_op(path), op(2, len as u64, b"")].concat();
    let dictionary = [open_op("linked"), op(5, frame.len() as u64, &frame)].concat();
    // Two files at once, of which the likelier candidates are in different views.
    type Case<'a> = (&'a str, &'a [u8; 8], Vec<u8>, Vec<Vec<u8>>);
    let cases: [Case<'_>; 7] = [
        ("too short", V1, stale.clone(), vec![copy("linked", 10_000)]),
        (
            "no such place",
            V1,
            stale[9_000..].to_vec(),
            vec![open_op("linked"), op(4, 9_000, b""), op(2, 1_000, b"")],
        ),
        ("other bytes", V1, stale[..4].to_vec(), vec![copy("linked", 4)]),
        ("no dictionary of this frame", V2, [&stale[..9_000], b"and more"].concat(), vec![dictionary]),
        ("the unlikely one", V1, b"unreadable".to_vec(), vec![copy("secret", 10)]),
        (
            "the producer's view",
            V1,
            [&stale[..], &below].concat(),
            vec![copy("linked", 10_000), copy("secret", 9_000)],
        ),
        ("the merged view", V1, b"trueunreadable".to_vec(), vec![copy("linked", 4), copy("secret", 10)]),
    ];
    for (name, magic, content, ops) in cases {
        let new = Image::new(vec![Layer::plain(tar_of(&[File(b"made", &content)]))]);
        let made = patch_around(magic, &new.layers[0].tar, content.len(), &ops);
        let sandbox = Sandbox::new();
        let mut dir = OciDir::create(&sandbox.path("source"));
        dir.image("old", &old);
        dir.delta("delta", &Delta::with(&old, &new, |_| (images::TAR_DIFF.into(), made.clone())));
        sandbox.ok(&[&dir.reference("old"), "--tag", "os"]);
        let report = sandbox.json(&[&dir.reference("delta"), "--tag", "os"]);
        assert_eq!(report["layers"][0]["action"], "patched", "{name}: {report:#}");
    }
}

#[test]
fn one_version_is_not_ambiguous() {
    let files = files(&[&[File(b"f", b"1")], &[File(b"f", b"2")]]);
    assert!(!open(&files, b"f", 0).unwrap().1);
}

#[test]
fn compressed_layers_are_spooled_and_checked() {
    let tar = tar_of(&[File(b"f", b"content")]);
    let gzip = |data: &[u8]| support::images::gzip(data);
    let members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    for blob in [gzip(&tar), members, zstd::encode_all(&tar[..], 3).unwrap()] {
        let files = LayeredFiles::new(vec![source(&tar, &blob)], &std::env::temp_dir(), 1 << 30);
        files.preload(0..1, 2).unwrap();
        assert_eq!(content(&files, "f").as_deref(), Some("content"));
    }
    let other = gzip(&tar_of(&[File(b"f", b"CONTENT")]));
    for (blob, limit) in [(&other, 1 << 30), (&gzip(&tar)[..40].to_vec(), 1 << 30), (&gzip(&tar), 100)] {
        let files = LayeredFiles::new(vec![source(&tar, blob)], &std::env::temp_dir(), limit);
        let e = open(&files, b"f", 0).unwrap_err();
        assert_eq!(e.kind(), Kind::Verification, "{e}");
        assert!(e.to_string().contains("base layer sha256:"), "{e}");
        assert!(files.preload(0..1, 1).is_err());
    }
}

#[test]
fn a_lower_layer_is_not_touched_when_an_upper_one_decides() {
    let tar = tar_of(&[File(b"f", b"top")]);
    let broken = source(b"some other tar", b"\x1f\x8bbroken");
    let files = LayeredFiles::new(vec![broken, source(&tar, &tar)], &std::env::temp_dir(), 1 << 30);
    assert_eq!(content(&files, "f").as_deref(), Some("top"));
    assert!(open(&files, b"other", 0).is_err(), "the lower layer is needed and broken");
}

#[test]
fn tars_that_are_cut_or_lie_are_refused() {
    let whole = tar_of(&[File(b"first", b"1"), File(b"f", &[b'x'; 5000])]);
    for cut in [1024 + 100, 1024 + 512, 1024 + 512 + 4000] {
        let tar = &whole[..cut];
        let files = LayeredFiles::new(vec![source(tar, tar)], &std::env::temp_dir(), 1 << 30);
        let e = open(&files, b"f", 0).unwrap_err();
        assert_eq!(e.kind(), Kind::Verification, "cut at {cut}: {e}");
    }
    let mut huge = Vec::new();
    record(&mut huge, EntryType::XHeader, b"PaxHeaders/x", b"", &vec![b' '; 2 << 20], 0o644);
    let files = LayeredFiles::new(vec![source(&huge, &huge)], &std::env::temp_dir(), 1 << 30);
    assert!(open(&files, b"f", 0).unwrap_err().to_string().contains("extension record"));
    let mut none = Vec::new();
    std::io::repeat(b'?').take(4096).read_to_end(&mut none).unwrap();
    let files = LayeredFiles::new(vec![source(&none, &none)], &std::env::temp_dir(), 1 << 30);
    assert_eq!(open(&files, b"f", 0).unwrap_err().kind(), Kind::Verification);
}
