//! `verify`: the crate's own check of objects, streams and images, and the
//! diff_id of every layer, which that does not compute.

use std::io;

use composefs::fsverity::FsVerityHashValue;
use composefs_oci::oci_image::oci_fsck;

use super::Shared;
use super::base::write_tar;
use super::images::{Streams, image, names};
use crate::digest::{DiffId, LayerHasher};
use crate::error::{Error, IoContext, Result};
use crate::store::Verified;

/// Reads all images again, or one.
pub(super) fn verify<H: FsVerityHashValue>(
    shared: &Shared<H>,
    wanted: Option<&str>,
    broken: &mut dyn FnMut(&str),
) -> Result<Verified> {
    let mut verified = Verified::default();
    let names = names(shared)?;
    for digest in Streams::read(shared)?.manifests {
        let text = digest.to_string();
        let named = names.get(&digest).map_or(&[][..], Vec::as_slice);
        if wanted.is_some_and(|w| w != text && !named.iter().flatten().any(|n| n == w)) {
            continue;
        }
        let Some(image) = image(shared, &digest) else {
            // Artifacts are not ours to judge; a named image that cannot be read is fsck's to tell.
            if wanted.is_some() {
                verified.images += 1;
                broken(&format!("{text}: not a complete image"));
            }
            continue;
        };
        verified.images += 1;
        verified.blobs += 2;
        verified.bytes += (image.manifest_raw.len() + image.config_raw.len()) as u64;
        for diff_id in &image.diff_ids {
            match verify_layer(shared, diff_id) {
                Ok(bytes) => {
                    verified.blobs += 1;
                    verified.bytes += bytes;
                }
                Err(e) => {
                    shared.cancel.check()?;
                    let name = named.iter().flatten().next().unwrap_or(&text);
                    broken(&format!("{name}: layer {diff_id}: {e}"));
                    break;
                }
            }
        }
    }
    if wanted.is_none() {
        fsck(shared, broken)?;
    }
    Ok(verified)
}

fn verify_layer<H: FsVerityHashValue>(shared: &Shared<H>, diff_id: &DiffId) -> Result<u64> {
    let tar = shared.cancel.watch(LayerHasher::new(io::sink(), u64::MAX));
    let tar = write_tar(&shared.repo, diff_id, tar)?.into_inner();
    tar.finish(diff_id).map(|(_, layer)| layer.size())
}

/// The crate's check is async and starts threads; it gets a runtime of its own.
fn fsck<H: FsVerityHashValue>(shared: &Shared<H>, broken: &mut dyn FnMut(&str)) -> Result<()> {
    let result = std::thread::scope(|scope| {
        let check = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().at("cannot start")?;
            runtime.block_on(oci_fsck(&shared.repo)).map_err(|e| shared.failed(e))
        });
        check.join().unwrap_or_else(|_| Err(Error::local("the check's thread died")))
    })?;
    for e in result.repo_result().errors() {
        broken(&e.to_string());
    }
    for e in result.errors() {
        broken(&e.to_string());
    }
    Ok(())
}
