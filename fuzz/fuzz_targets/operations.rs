//! Bytes as the operations inside a well-formed stream, of either version.
#![no_main]

mod base;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::{apply::apply_patch, base::View, tardiff::Limits};

fuzz_target!(|data: &[u8]| {
    let Some((version, ops)) = data.split_first() else { return };
    let mut patch = if version & 1 == 0 { b"tardf1\n\0".to_vec() } else { b"tardf2\n\0".to_vec() };
    patch.extend(zstd::encode_all(ops, 1).unwrap());
    let _ = apply_patch(&patch[..], &View::new(&base::OneFile, 0), &Limits::default(), &mut base::Bounded(0));
});
