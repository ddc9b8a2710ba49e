//! A patch is read to be applied, to be looked through in a chain, and to be accounted for: what one refuses,
//! the others refuse.

use crate::support;

use std::time::{Duration, Instant};

use oci_delta_fetch::account::{LayerAccount, account, no_base};
use oci_delta_fetch::apply::apply_patch;
use oci_delta_fetch::base::{LayerBlob, LayeredFiles, View};
use oci_delta_fetch::digest::{DiffId, digest_of};
use oci_delta_fetch::error::{Error, Kind, Result};
use oci_delta_fetch::fuse::fuse;
use oci_delta_fetch::region::Region;
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::tardiff::Limits;
use support::hostile::{V1, V2, op, open, patch};
use support::images::{self, noise, tar};
use support::{Image, Layer, Victim};

const DATA: u8 = 0;
const COPY: u8 = 2;
const ADD: u8 = 3;
const SEEK: u8 = 4;
const DICTIONARY: u8 = 5;

/// Most bytes of a layer.
const MAX: u64 = 1 << 20;

fn base() -> LayeredFiles {
    let tar = tar(&[("a", &noise(1, 10_000))]);
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &tar).unwrap();
    let layer = LayerBlob { diff_id: DiffId::new(digest_of(&tar)), blob: Region::whole(file).unwrap() };
    LayeredFiles::new(vec![layer], &std::env::temp_dir(), 1 << 30)
}

fn accounted(patch: &[u8]) -> Result<LayerAccount> {
    account(patch, &no_base, &Limits::default(), MAX, &Spool::in_dir(&std::env::temp_dir()))
}

/// How each reader ends.
fn ends(patch: &[u8]) -> [(&'static str, Result<()>); 3] {
    let (files, limits, spool) = (base(), Limits::default(), Spool::in_dir(&std::env::temp_dir()));
    let mut out = Vec::new();
    [
        ("apply", apply_patch(patch, &View::new(&files, 0), &limits, &mut out).map(drop)),
        ("fuse", fuse(patch, &View::new(&files, 0), &limits, MAX, &spool).map(drop)),
        ("account", accounted(patch).map(drop)),
    ]
}

fn all_refuse(magic: &[u8; 8], ops: &[Vec<u8>], kind: Kind, text: &str) {
    for (reader, result) in ends(&patch(magic, &ops.concat())) {
        let error: Error = result.expect_err(reader);
        assert_eq!(error.kind(), kind, "{reader}: {error}");
        assert!(error.to_string().contains(text), "{reader}: no {text:?} in {error}");
    }
}

#[test]
fn operations_out_of_place_are_refused_by_every_reader() {
    for ops in [op(COPY, 1, b""), op(COPY, 0, b""), op(ADD, 1, b"x"), op(SEEK, 1, b"")] {
        all_refuse(V1, &[ops], Kind::Verification, "no base file is open");
    }
    all_refuse(V2, &[op(DICTIONARY, 1, b"x")], Kind::Verification, "no base file is open");
    all_refuse(V1, &[open("a"), op(DICTIONARY, 1, b"x")], Kind::Verification, "tardf2");
    all_refuse(V1, &[op(9, 1, b"x")], Kind::Misfit, "unknown operation 9");
    all_refuse(V1, &[op(DATA, 100, b"only this")], Kind::Verification, "truncated");
    all_refuse(V1, &[open("a"), op(ADD, 100, b"only this")], Kind::Verification, "truncated");
    let far = (1 << 63) - 1;
    for rest in [op(COPY, far, b""), op(ADD, far, b"x")] {
        for (reader, result) in ends(&patch(V1, &[open("a"), op(SEEK, far, b""), rest].concat())) {
            assert!(matches!(result.unwrap_err().kind(), Kind::Misfit | Kind::Verification), "{reader}");
        }
    }
}

#[test]
fn operations_without_effect_burn_no_reader_s_time() {
    for idle in [op(SEEK, 1, b""), open("a"), op(DATA, 0, b""), op(COPY, 0, b""), op(ADD, 0, b"")] {
        let begun = Instant::now();
        all_refuse(V1, &[open("a"), idle.repeat(5_000_000)], Kind::Verification, "without effect");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_layer_beyond_its_bound_is_refused_by_those_who_know_it() {
    let copies = op(SEEK, 0, b"").into_iter().chain(op(COPY, 10_000, b"")).collect::<Vec<_>>().repeat(200);
    let literal = op(DATA, 2 << 20, &vec![0; 2 << 20]);
    for ops in [[open("a"), copies].concat(), literal] {
        for (reader, result) in ends(&patch(V1, &ops)).into_iter().skip(1) {
            let error = result.expect_err(reader);
            assert!(error.to_string().contains("grows beyond 1048576 bytes"), "{reader}: {error}");
        }
    }
}

#[test]
fn what_applying_makes_is_what_is_accounted_for() {
    let old = Image::new(vec![Layer::plain(tar(&[("a", &noise(1, 50_000)), ("b", &noise(2, 300))]))]);
    let mut changed = noise(1, 50_000);
    changed[700..900].fill(3);
    let new = tar(&[("a", &changed), ("new", b"literal"), ("same", &noise(2, 300))]);
    let patch = images::patch(&old, &new);
    let tar = &old.layers[0].tar;
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, tar).unwrap();
    let layer = LayerBlob { diff_id: DiffId::new(digest_of(tar)), blob: Region::whole(file).unwrap() };
    let files = LayeredFiles::new(vec![layer], &std::env::temp_dir(), 1 << 30);
    let mut out = Vec::new();
    let stats = apply_patch(&patch[..], &View::new(&files, 0), &Limits::default(), &mut out).unwrap();
    let account = accounted(&patch).unwrap();
    assert!(out == new);
    let total = account.total;
    assert_eq!(
        (total.bytes, total.copied, total.added, total.literal, total.patch_bytes),
        (new.len() as u64, stats.copied, stats.added, stats.literal, patch.len() as u64)
    );
    let files: Vec<_> = account.files.iter().map(|file| (&*file.path, file.account.bytes)).collect();
    assert_eq!(files, [("a", 50_000), ("new", 7), ("same", 300)]);
    assert_eq!(account.files[2].account.copied, 300);
}

#[test]
fn inspecting_a_patch_without_effect_ends_as_applying_it_does() {
    let mut victim = Victim::new();
    let ops = [open("data/file"), op(SEEK, 0, b"").repeat(1_000_000)].concat();
    victim.refuses_ops(V1, &ops, 4, "without effect");
    let inspected = victim.sandbox.run(&["inspect", "--files", &victim.source.reference("attack")]);
    assert_eq!(inspected.code, 4, "{inspected:#?}");
    assert!(inspected.stderr.contains("without effect"), "{inspected:#?}");
}
