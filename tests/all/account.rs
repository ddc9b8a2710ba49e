//! Where the bytes of a patch go, file by file: `inspect --files`, and what it is made of.

use crate::extended::{row, with_table};
use crate::opened::{create, files, image, images, sizes};
use crate::support;

use oci_delta_fetch::account::{Holders, LayerAccount, account, no_base};
use oci_delta_fetch::base::{LayerBlob, LayeredFiles, View};
use oci_delta_fetch::digest::{DiffId, digest_of};
use oci_delta_fetch::error::Result;
use oci_delta_fetch::region::Region;
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::tardiff::Limits;
use serde_json::Value;
use support::images::{gzip, noise, patch, tar};
use support::{Image, Layer, OciDir, Sandbox, oracle};

const FIELDS: [&str; 6] = ["bytes", "copied", "added", "literal", "encoded", "patch_bytes"];

/// The numbers of an account.
fn numbers(account: &Value) -> [u64; 6] {
    FIELDS.map(|field| account[field].as_u64().unwrap())
}

/// The account of the one patch, of whose numbers each is the sum of its parts.
fn exact(inspected: &Value) -> &Value {
    let patches = inspected["patches"].as_array().unwrap();
    assert_eq!(patches.len(), 1, "{inspected:#}");
    let parts = patches[0]["files"].as_array().unwrap().iter().chain([&patches[0]["headers"]]).map(numbers);
    let mut sums = [0; 6];
    for part in parts {
        assert_eq!(part[0], part[1..5].iter().sum::<u64>(), "{part:?}");
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    assert_eq!(sums, numbers(&patches[0]["total"]));
    &patches[0]
}

/// An image pair with members of all codings, and their delta; bytes of its extended patch and of the standard one.
fn pair(sandbox: &Sandbox, options: &[&str]) -> (OciDir, [Image; 2], u64, u64) {
    let (old, new) = (image(&files(1)), image(&files(2)));
    let images = images(sandbox, &old, &new);
    let report = create(sandbox, &images, options);
    let (extended, standard) = match report["layers"][1]["carried"].as_str() {
        Some("extended-patch") => (report["layers"][1]["bytes"].as_u64().unwrap(), 0),
        _ => sizes(&report),
    };
    (images, [old, new], extended, standard)
}

fn delta(sandbox: &Sandbox) -> String {
    format!("oci-archive:{}", sandbox.path("delta.oci").display())
}

#[test]
fn of_two_patches_the_one_is_accounted_for_that_would_be_read() {
    let sandbox = Sandbox::new();
    let (images, [old, new], extended, standard) = pair(&sandbox, &[]);
    assert!(extended < standard);
    let (old_ref, root) = (images.reference("1"), oracle::unpack(&old));
    let inspect = |base: &[&str]| sandbox.json(&[&["inspect", "--files", &delta(&sandbox)], base].concat());
    for base in [&[][..], &["--rootfs", root.path().to_str().unwrap()]] {
        let inspected = inspect(base);
        let account = exact(&inspected);
        assert_eq!(numbers(&account["total"])[0], new.layers[1].tar.len() as u64);
        assert_eq!(account["total"]["patch_bytes"], standard);
        assert_eq!(account["headers"]["copied"], 0);
        are_all_files(account, |_| false);
    }
    let named = inspect(&["--base", &old_ref]);
    sandbox.ok(&[&old_ref]);
    let stored = inspect(&[]);
    assert_eq!(named["patches"], stored["patches"]);
    let account = exact(&stored);
    assert_eq!(numbers(&account["total"])[0], new.layers[1].tar.len() as u64);
    assert_eq!(account["total"]["patch_bytes"], extended);
    assert!(account["headers"]["copied"].as_u64() > account["headers"]["literal"].as_u64(), "{account:#}");
    are_all_files(account, |name| !matches!(name, "usr/share/doc/unlike" | "usr/share/doc/version"));
    // Noise that the old image does not have costs most of its bytes.
    let files = account["files"].as_array().unwrap();
    let unlike = files.iter().find(|file| file["path"] == "usr/share/doc/unlike").unwrap();
    assert!((6_000..11_000).contains(&unlike["patch_bytes"].as_u64().unwrap()), "{unlike:#}");
}

/// The account has the files of the new image; those with members that were opened are encoded, and charged for that.
fn are_all_files(account: &Value, has_members: impl Fn(&str) -> bool) {
    let accounted = account["files"].as_array().unwrap();
    let expected = files(2);
    assert_eq!(accounted.len(), expected.len(), "{account:#}");
    for (file, (name, content)) in accounted.iter().zip(expected) {
        assert_eq!((&file["path"], &file["bytes"]), (&name.into(), &content.len().into()));
        assert_eq!(file["encoded"].as_u64() > Some(0), has_members(name), "{file:#}");
        assert!(file["patch_bytes"].as_u64() > Some(0) || !has_members(name), "{file:#}");
    }
}

#[test]
fn an_extended_patch_alone_needs_the_layers_of_its_base() {
    let sandbox = Sandbox::new();
    let (images, [old, _], extended, _) = pair(&sandbox, &["--format", "extended"]);
    let (delta, root) = (delta(&sandbox), oracle::unpack(&old));
    let wrong = images.reference("2");
    for (base, text, hint) in [
        (&[][..], "which is not in the repository", "name it with --base REF"),
        (&["--base", &wrong], "has config sha256:", "name the right release with --base"),
        (&["--rootfs", root.path().to_str().unwrap()], "it has files alone here", "name it with --base REF"),
    ] {
        let ended = sandbox.run(&[&["inspect", "--files", &delta], base].concat());
        assert_eq!(ended.code, 3, "{ended:#?}");
        let needed = "the files of an extended patch can be told only with the layers of its base: ";
        for part in [needed, text, hint] {
            assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
        }
        sandbox.ok(&[&["inspect", &delta], base].concat());
    }
    let inspected = sandbox.json(&["inspect", "--files", &delta, "--base", &images.reference("1")]);
    assert_eq!(exact(&inspected)["total"]["patch_bytes"], extended);
}

#[test]
fn files_of_a_standard_patch_are_charged_with_what_they_cost() {
    let sizes = [3_000, 400_000, 90_000, 700, 1_500_000, 20_000];
    let content = |version: u64, at: usize| noise(10 * version + at as u64, sizes[at]);
    let names: Vec<String> = (0..sizes.len()).map(|at| format!("new/{at}")).collect();
    let old: Vec<(&str, Vec<u8>)> = vec![("same", noise(99, 300_000))];
    let mut new = old.clone();
    new.extend(names.iter().enumerate().map(|(at, name)| (&**name, content(2, at))));
    let layer = |files: &[(&str, Vec<u8>)]| {
        tar(&files.iter().map(|(name, content)| (*name, &content[..])).collect::<Vec<_>>())
    };
    let new = layer(&new);
    let patch = patch(&Image::new(vec![Layer::plain(layer(&old))]), &new);
    let account = accounted(&patch, &no_base).unwrap();
    assert_eq!(account.total.patch_bytes, patch.len() as u64);
    for (file, size) in account.files[1..].iter().zip(sizes) {
        // A block may be shared with a neighbour.
        let (charged, size) = (file.account.patch_bytes as i64, size as i64);
        assert!((charged - size).abs() < 1000 + size / 10, "{file:#?}");
    }
    assert!(account.files[0].account.patch_bytes < 1000, "{:#?}", account.files[0]);
}

fn accounted(patch: &[u8], holders: &Holders<'_>) -> Result<LayerAccount> {
    let spool = Spool::in_dir(&std::env::temp_dir());
    account(patch, holders, &Limits::default(), 1 << 30, &spool)
}

/// A layer with one file, and a table that names it and the stretch of gzip that is the file.
fn gzip_in_a_layer(plain: &[u8], rest: &[u8]) -> (LayeredFiles, Vec<u8>) {
    let packed = gzip(plain);
    let layer = tar(&[("x.gz", &packed)]);
    let diff_id = DiffId::new(digest_of(&layer));
    let hex = diff_id.as_digest().digest().to_owned();
    let digest = (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
    let stretch = row(&[1, 2 * 512, packed.len(), 1, plain.len()]);
    let table = [vec![2, 0], digest.collect(), stretch, rest.to_vec()].concat();
    let len = layer.len() as u64;
    let blob = Region::of(std::sync::Arc::new(layer.into_boxed_slice()), len);
    (LayeredFiles::new(vec![LayerBlob { diff_id, blob }], &std::env::temp_dir(), 1 << 30), table)
}

const COPY: u8 = 1;
const HOLDER: u8 = 3;
const MEMBER: u8 = 4;

#[test]
fn headers_may_come_out_of_a_compressed_stretch() {
    let new = tar(&[("a", &noise(1, 1000)), ("b", &noise(2, 2000))]);
    let (base, table) = gzip_in_a_layer(&new, &[0]);
    let streams = [&[HOLDER, COPY][..], &row(&[1, new.len()]), b"", b"", b""];
    let patch = with_table(&[vec![0], table].concat(), streams);
    let view = View::new(&base, 0);
    let account = accounted(&patch, &|holder| view.holder(holder)).unwrap();
    let files: Vec<_> = account.files.iter().map(|file| (&*file.path, file.account.copied)).collect();
    assert_eq!(files, [("a", 1000), ("b", 2000)]);
    assert_eq!(account.total.patch_bytes, patch.len() as u64);
    assert!(
        accounted(&patch, &no_base).unwrap_err().to_string().contains("only with the layers of its base")
    );
}

#[test]
fn what_is_read_for_members_alone_is_not_opened() {
    let recipe = br#"{"v":1,"wrap":"bzip2","lvl":9}"#;
    // The outer one holds the inner one, which holds what is in the stretch.
    let (_, table) = gzip_in_a_layer(b"some text", &row(&[2, 0, 1024, 70, 0, 70, 9]));
    let streams = [&[HOLDER, MEMBER, MEMBER, COPY][..], &row(&[1, 0, 1, 9]), b"", b"", b""];
    let patch = with_table(&[&row(&[1, recipe.len()])[..], recipe, &table].concat(), streams);
    let account = accounted(&patch, &|holder| panic!("{holder} is not wanted")).unwrap();
    assert_eq!((account.total.encoded, account.total.bytes), (1024, 1024));
    assert_eq!((account.total.patch_bytes, account.files.len()), (patch.len() as u64, 0));
}
