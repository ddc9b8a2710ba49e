//! What the engine asks of a base image.

use std::fmt::Debug;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use crate::artifact::Image;
use crate::base::{BaseLayer, SourceFiles, Unpacking};
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::fetch::Place;

/// An image whose files patches read, wherever it is.
pub(crate) trait BaseImage: Debug + Send + Sync {
    /// Its files. Layers that `target` does not share are indexed at once, on so many threads: patches read from
    /// them. The others only when needed.
    fn files(&self, target: &Image, threads: usize, unpacking: &Unpacking) -> Result<Arc<dyn SourceFiles>>;

    /// One of its layers; `None` where there are only files, or no such layer.
    fn layer(&self, _diff_id: &DiffId, _unpacking: &Unpacking) -> Result<Option<Box<dyn BaseLayer>>> {
        Ok(None)
    }

    /// Where layers can be read whole that the target shares with a base outside the repository.
    fn place(&self) -> Option<Place> {
        None
    }

    /// Has it its layers, and not files alone?
    fn has_layers(&self) -> bool {
        true
    }

    /// Digest of its config, where that is known.
    fn config(&self) -> Option<&Digest> {
        None
    }

    /// The blob of such a layer.
    fn blob(&self, _diff_id: &DiffId) -> Option<Descriptor> {
        None
    }
}
