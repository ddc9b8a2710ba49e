//! Raw bytes as a patch. Errors are fine; panics are bugs.
#![no_main]

mod base;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::{apply::apply_patch, base::View, tardiff::Limits};

fuzz_target!(|data: &[u8]| {
    let _ = apply_patch(data, &View::new(&base::OneFile, 0), &Limits::default(), &mut base::Bounded(0));
});
