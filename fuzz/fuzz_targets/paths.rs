//! Cleaned paths stay below the root and are stable; references never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::base::SourcePath;
use oci_delta_fetch::{platform::Platform, reference::Reference};

fuzz_target!(|data: &[u8]| {
    if let Ok(path) = SourcePath::clean(data) {
        let bytes = path.as_bytes();
        assert!(!bytes.starts_with(b"/") && !bytes.is_empty());
        assert!(bytes.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
        assert_eq!(SourcePath::clean(bytes).unwrap(), path);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<Reference>();
        let _ = text.parse::<Platform>();
    }
});
