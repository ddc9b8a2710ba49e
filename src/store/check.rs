//! `verify` of an OCI layout: every blob is hashed again, and every layer's tar.

use std::io;

use oci_spec::image::Descriptor;

use super::Verified;
use crate::cancel::Cancel;
use crate::digest::{LayerHasher, VerifyReader};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::layout::{Layout, ref_name};

/// Reads the images again; `broken` is told of each that is damaged.
pub(super) fn verify(
    layout: &Layout,
    wanted: Option<&str>,
    cancel: &Cancel,
    broken: &mut dyn FnMut(&str),
) -> Result<Verified> {
    let mut verified = Verified::default();
    for descriptor in layout.index()?.manifests() {
        let name = ref_name(descriptor);
        let digest = descriptor.digest().to_string();
        if wanted.is_some_and(|wanted| wanted != digest && Some(wanted) != name) {
            continue;
        }
        verified.images += 1;
        if let Err(e) = verify_image(layout, descriptor, cancel, &mut verified) {
            cancel.check()?;
            broken(&format!("{}: {e}", name.unwrap_or(&digest)));
        }
    }
    Ok(verified)
}

fn verify_image(
    layout: &Layout,
    descriptor: &Descriptor,
    cancel: &Cancel,
    verified: &mut Verified,
) -> Result<()> {
    let image = layout.image(descriptor)?.ok_or_else(|| Error::verification("the image is not complete"))?;
    verified.blobs += 2;
    verified.bytes += descriptor.size() + image.config_raw.len() as u64;
    for (diff_id, layer) in image.diff_ids.iter().zip(&image.layers) {
        let region = layout.require_blob(layer)?;
        let mut blob = VerifyReader::new(cancel.watch(region.reader()), layer.digest().clone(), layer.size());
        let mut tar = LayerHasher::new(cancel.watch(io::sink()), u64::MAX);
        let read = encoding::decompress(&mut blob, encoding::MAX_WINDOW_LOG)
            .and_then(|mut plain| io::copy(&mut plain, &mut tar));
        // A wrong digest says more than the stream that it breaks.
        blob.drain().at(layer.digest())?;
        read.map_err(|e| Error::from_io(e, "layer").context(layer.digest()))?;
        tar.finish(diff_id)?;
        verified.blobs += 1;
        verified.bytes += layer.size();
    }
    Ok(())
}
