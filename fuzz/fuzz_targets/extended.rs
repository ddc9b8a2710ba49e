//! Streams of an extended patch, in well-formed frames: a layer in the middle of a chain reads as if it were applied,
//! and all of it is accounted for.
#![no_main]

mod base;

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::account::account;
use oci_delta_fetch::base::{Holder, View};
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::{apply::apply_patch, fuse::fuse, tardiff::Limits};

/// Most bytes of the layer.
const MAX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let patch = base::extended(data);
    let (limits, spool) = (Limits::default(), Spool::in_dir(&std::env::temp_dir()));
    let _ = apply_patch(&patch[..], &View::new(&base::OneFile, 0), &limits, &mut base::Bounded(0));
    let Ok(region) = fuse(&patch[..], &View::new(&base::OneFile, 0), &limits, MAX, &spool) else { return };
    let (mut applied, mut found) = (Vec::new(), Vec::new());
    apply_patch(&patch[..], &View::new(&base::OneFile, 0), &limits, &mut applied).unwrap();
    region.reader().read_to_end(&mut found).unwrap();
    assert!(found == applied);
    let holders = |holder: &Holder| View::new(&base::OneFile, 0).holder(holder);
    // It need not be a tar.
    if let Ok(account) = account(&patch[..], &holders, &limits, MAX, &spool) {
        let total = account.total;
        assert_eq!(total.bytes, total.copied + total.added + total.literal + total.encoded);
        assert_eq!((total.bytes, total.patch_bytes), (applied.len() as u64, patch.len() as u64));
    }
});
