//! Bytes as the manifest of a delta and as an image's manifest and config.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_delta_fetch::artifact::{DeltaManifest, Image, image_config, is_delta};
use oci_delta_fetch::digest::digest_of;

fuzz_target!(|data: &[u8]| {
    let _ = is_delta(data);
    let _ = image_config(data);
    let _ = DeltaManifest::parse(data);
    let (manifest, config) = data.split_at(data.len() / 2);
    let _ = Image::parse(manifest.to_vec(), &digest_of(manifest), config.to_vec());
});
