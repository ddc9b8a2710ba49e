//! Bytes as the tar of a base layer.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::base::{LayerBlob, LayeredFiles, SourceFiles, SourcePath};
use oci_delta_fetch::digest::{DiffId, digest_of};
use oci_delta_fetch::region::Region;

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    let layer = LayerBlob { diff_id: DiffId::new(digest_of(data)), blob: Region::whole(file).unwrap() };
    let files = LayeredFiles::new(vec![layer], &std::env::temp_dir(), 1 << 20);
    for path in ["a", "etc/x", "usr/bin/a"] {
        if let Ok(found) = files.open(&SourcePath::clean(path.as_bytes()).unwrap(), 0) {
            let mut buf = vec![0; found.file.size().min(4096) as usize];
            let _ = found.file.read_exact_at(&mut buf, 0);
        }
    }
});
