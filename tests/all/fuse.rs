//! A layer looked into through its patch has the bytes that applying the patch makes.

use crate::support;

use oci_delta_fetch::apply::apply_patch;
use oci_delta_fetch::base::{LayerBlob, LayeredFiles, View};
use oci_delta_fetch::digest::{DiffId, digest_of};
use oci_delta_fetch::error::Kind;
use oci_delta_fetch::fuse::fuse;
use oci_delta_fetch::region::Region;
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::tardiff::Limits;
use proptest::prelude::*;
use support::hostile::{V1, V2, op, open, patch};
use support::images::{noise, tar};

fn base() -> LayeredFiles {
    let tar = tar(&[("a", &noise(1, 70_000)), ("b", &noise(2, 100)), ("empty", b"")]);
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &tar).unwrap();
    let layer = LayerBlob { diff_id: DiffId::new(digest_of(&tar)), blob: Region::whole(file).unwrap() };
    LayeredFiles::new(vec![layer], &std::env::temp_dir(), 1 << 30)
}

fn fused(patch: &[u8], max: u64) -> oci_delta_fetch::error::Result<Region> {
    fuse(patch, &View::new(&base(), 0), &Limits::default(), max, &Spool::in_dir(&std::env::temp_dir()))
}

fn applied(patch: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    apply_patch(patch, &View::new(&base(), 0), &Limits::default(), &mut out).unwrap();
    out
}

/// One operation, with the file that it is about and where in it.
fn operation() -> impl Strategy<Value = Vec<u8>> {
    let file = prop_oneof![Just(("a", 70_000u64)), Just(("b", 100))];
    (file, 0..4u8, 0..1_000_000u64, 0..100_000u64, any::<u8>()).prop_map(
        |((name, size), kind, at, len, byte)| {
            let at = at % size;
            let len = len % (size - at + 1);
            let seek = [open(name), op(4, at, b"")].concat();
            let mut sums = vec![0; len as usize];
            if let Some(middle) = sums.get_mut(len as usize / 2) {
                *middle = byte;
            }
            match kind {
                0 => op(0, len, &vec![byte; len as usize]),
                1 => [seek, op(2, len, b"")].concat(),
                2 => [seek, op(3, len, &sums)].concat(),
                // Two that go on where the first ends.
                _ => [seek, op(2, len / 2, b""), op(2, len - len / 2, b"")].concat(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_place_reads_as_if_it_were_applied(
        ops in prop::collection::vec(operation(), 1..20),
        places in prop::collection::vec((any::<prop::sample::Index>(), 1..200_000usize), 1..10),
    ) {
        let patch = patch(V1, &ops.concat());
        let expected = applied(&patch);
        let region = fused(&patch, 1 << 30).unwrap();
        prop_assert_eq!(region.len(), expected.len() as u64);
        for (place, len) in places {
            let at = if expected.is_empty() { 0 } else { place.index(expected.len()) };
            let mut found = vec![0; len.min(expected.len() - at)];
            region.read_exact_at(&mut found, at as u64).unwrap();
            prop_assert!(found == expected[at..at + found.len()]);
        }
    }
}

#[test]
fn dictionary_frames_are_unpacked() {
    let mut content = noise(1, 70_000);
    content[500] ^= 1;
    let mut encoder =
        zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 3, &*noise(1, 70_000).leak()).unwrap();
    std::io::Write::write_all(&mut encoder, &content).unwrap();
    let frame = encoder.finish().unwrap();
    let ops = [open("a"), op(5, frame.len() as u64, &frame), op(0, 4, b"tail")].concat();
    let patch = patch(V2, &ops);
    let region = fused(&patch, 1 << 20).unwrap();
    let mut found = vec![0; region.len() as usize];
    region.read_exact_at(&mut found, 0).unwrap();
    assert!(found == applied(&patch));
    assert_eq!(
        fused(&patch, 60_000).unwrap_err().kind(),
        Kind::Verification,
        "more than its descriptor allows"
    );
}

#[test]
fn what_the_base_does_not_have_is_a_misfit() {
    for ops in [
        open("absent"),
        [open("b"), op(2, 101, b"")].concat(),
        [open("b"), op(4, u64::MAX >> 1, b""), op(2, 1, b"")].concat(),
    ] {
        assert_eq!(fused(&patch(V1, &ops), 1 << 20).unwrap_err().kind(), Kind::Misfit);
    }
    assert_eq!(fused(&patch(V1, &op(2, 1, b"")), 1 << 20).unwrap_err().kind(), Kind::Verification);
    let endless = op(0, 3000, &[0; 3000]);
    assert_eq!(fused(&patch(V1, &endless), 2000).unwrap_err().kind(), Kind::Verification);
}
