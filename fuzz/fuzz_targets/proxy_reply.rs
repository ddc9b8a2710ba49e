//! Whatever skopeo says becomes one bounded line of known kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::proxy::classify;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let error =
        classify(&text, "docker://registry.example.com/os:1", data.len().is_multiple_of(2)).to_string();
    assert!(error.len() < 8192 && !error.contains(|c: char| c.is_control()));
});
