//! Operations as a patch that is accounted for: what is counted is what applying them makes.
#![no_main]

mod base;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::account::{account, no_base};
use oci_delta_fetch::base::View;
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::{apply::apply_patch, tardiff::Limits};

/// Most bytes of the layer.
const MAX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let patch = base::patch(data);
    let (limits, spool) = (Limits::default(), Spool::in_dir(&std::env::temp_dir()));
    let Ok(account) = account(&patch[..], &no_base, &limits, MAX, &spool) else { return };
    let total = account.total;
    assert_eq!(total.bytes, total.copied + total.added + total.literal);
    assert_eq!(total.patch_bytes, patch.len() as u64);
    // The base may lack what the patch wants.
    let mut out = Vec::new();
    if let Ok(stats) = apply_patch(&patch[..], &View::new(&base::OneFile, 0), &limits, &mut out) {
        let made = (stats.copied, stats.added, stats.literal);
        assert_eq!((total.copied, total.added, total.literal), made);
    }
});
