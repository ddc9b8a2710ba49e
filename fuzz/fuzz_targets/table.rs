//! The table of an extended patch, in a well-formed frame: what is read can be opened or is refused.
#![no_main]

mod base;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::extended::OpReader;
use oci_delta_fetch::tardiff::Limits;

fuzz_target!(|data: &[u8]| {
    if let Ok(mut ops) = OpReader::new(&base::begun(data)[..], &Limits::default()) {
        assert!(ops.next_op().unwrap().is_none());
    }
});
