//! Operations as a layer in the middle of a chain: whatever is read of it is what applying them makes.
#![no_main]

mod base;

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::base::View;
use oci_delta_fetch::spool::Spool;
use oci_delta_fetch::{apply::apply_patch, fuse::fuse, tardiff::Limits};

/// Most bytes of the layer.
const MAX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let patch = base::patch(data);
    let limits = Limits::default();
    let Ok(region) =
        fuse(&patch[..], &View::new(&base::OneFile, 0), &limits, MAX, &Spool::in_dir(&std::env::temp_dir()))
    else {
        return;
    };
    let (mut applied, mut found) = (Vec::new(), Vec::new());
    apply_patch(&patch[..], &View::new(&base::OneFile, 0), &limits, &mut applied).unwrap();
    region.reader().read_to_end(&mut found).unwrap();
    assert!(found == applied);
    let mut half = vec![0; applied.len() - applied.len() / 2];
    region.read_exact_at(&mut half, (applied.len() / 2) as u64).unwrap();
    assert!(half == applied[applied.len() / 2..]);
});
