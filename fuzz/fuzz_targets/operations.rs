//! Bytes as the operations inside a well-formed stream, of either version.
#![no_main]

mod base;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::{apply::apply_patch, base::View, tardiff::Limits};

fuzz_target!(|data: &[u8]| {
    let patch = base::patch(data);
    let _ = apply_patch(&patch[..], &View::new(&base::OneFile, 0), &Limits::default(), &mut base::Bounded(0));
});
