//! Where images live on this machine.
//!
//! A store gives the base image, takes finished layers, and publishes images.
//! Nothing enters it without a [`VerifiedLayer`], and no name points to an
//! image before all its blobs are on disk. The engine knows two traits: an
//! [`ImageTarget`] takes images, a [`Repository`] also holds and keeps them; which
//! one it is, [`StoreRef`] says.

mod cache;
mod check;
#[cfg(feature = "composefs")]
mod composefs;
pub mod inventory;
mod keep;
pub mod oci_layout;
mod podman;
pub mod reference;
pub mod sink;
mod stock;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Descriptor;

use crate::artifact::Image;
use crate::base::{BaseLayer, Unpacking};
use crate::digest::{DiffId, Digest, VerifiedLayer};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::exact::{Recipes, Remake};
use crate::layer_write::LayerWrite;
use crate::layout::Layout;
use crate::region::Region;
pub use cache::BlobCache;
pub use inventory::{Inventory, OtherKind, StoredImage, StoredOther};
pub use oci_layout::OciLayoutStore;
pub(crate) use oci_layout::require_room;
pub use reference::StoreRef;
pub(crate) use sink::exact_sink;
pub use sink::{BlobSink, Growth};

/// The hash that names the objects of a composefs repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Algorithm {
    /// SHA-256: less work, but on CPUs with AVX-512.
    Sha256,
    /// SHA-512, what `cfsctl init` takes.
    Sha512,
}

/// How a repository is made.
#[derive(Debug, Clone, Copy)]
pub struct InitOptions {
    /// Do not demand fs-verity of the file system.
    pub insecure: bool,
    /// Hash of the objects.
    pub algorithm: Algorithm,
}

/// Takes images: layers one by one, then the image that they make.
pub trait ImageTarget: Debug + Send + Sync {
    /// Where files without a name may be spooled.
    fn spool(&self) -> PathBuf;

    /// The name under which an image that is to be called `name` is found here.
    ///
    /// # Errors
    /// Usage for what is no name here.
    fn name_for(&self, name: &str) -> Result<String> {
        Ok(name.to_owned())
    }

    /// Refuses to begin what cannot end well. `needed` bytes are the least
    /// that will be written by a store that keeps layers whole.
    ///
    /// # Errors
    /// Local when the file system has less free space; Misfit for an image, Usage
    /// for an encoding of rebuilt layers, that this store does not take.
    fn prepare(&self, image: &Image, encoding: Encoding, needed: u64) -> Result<()>;

    /// Starts a layer that arrives as a plain tar, to be kept in an encoding that
    /// [`prepare`](Self::prepare) let pass.
    ///
    /// # Errors
    /// Local I/O errors.
    fn begin_layer(&self, encoding: Encoding) -> Result<Box<dyn LayerSink>>;

    /// Starts a layer that arrives as a plain tar, to become the blob `published` by its recipe.
    ///
    /// # Errors
    /// Local I/O errors; Misfit from a store that keeps no blobs.
    fn begin_exact(&self, published: &Descriptor, _remake: Remake<'_>) -> Result<Box<dyn LayerSink>> {
        Err(Error::misfit(format!("this repository keeps no blobs, so not {} either", published.digest())))
    }

    /// Starts a whole layer that is kept exactly as it comes; `None` from a
    /// store that takes it apart, which wants it by [`begin_layer`](Self::begin_layer).
    ///
    /// # Errors
    /// Local I/O errors.
    fn begin_verbatim(&self) -> Result<Option<BlobSink>>;

    /// Notes a finished layer, so that a rerun does not make it again.
    ///
    /// # Errors
    /// Local I/O errors.
    fn note_finished(&self, diff_id: &DiffId, layer: &Descriptor) -> Result<()>;

    /// Publishes `image` with the given stored layers (one a layer of the
    /// target, in order) under `name`. All of them must be in the store. Of a layer that is not as
    /// published, its recipe is kept, where there is one. With a [`Handover`] it is there only when that is done.
    ///
    /// # Errors
    /// Local I/O errors; nothing has a name then.
    fn publish(
        &self,
        image: &Image,
        layers: &[Descriptor],
        name: Option<&str>,
        recipes: &Recipes,
    ) -> Result<Published>;
}

/// A place of images of ours, opened; nobody else's gc runs in it while this value lives.
pub trait Repository: ImageTarget {
    /// Its directory.
    fn path(&self) -> &Path;

    /// Its blobs, read in place; `None` from a store that takes layers apart.
    fn blobs(&self) -> Option<Arc<Layout>> {
        None
    }

    /// All images and layers that are complete here, those in indexes too, and what else there is. What misses
    /// a part, or cannot be read, is left out.
    ///
    /// # Errors
    /// When the list cannot be read; local I/O errors.
    fn inventory(&self) -> Result<Inventory>;

    /// Reads those of these layers that `inventory` has [unverified](Inventory::unverified), before they become
    /// a part of another image; gives those that are not what they were said to be.
    ///
    /// # Errors
    /// Local I/O errors.
    fn confirm(&self, inventory: &Inventory, layers: &[DiffId]) -> Result<Vec<DiffId>> {
        debug_assert!(inventory.unverified.is_empty(), "no layers of others in this store: {layers:?}");
        Ok(Vec::new())
    }

    /// A layer of an image that is here, whose files are wanted.
    ///
    /// # Errors
    /// When it is gone.
    fn base_layer(
        &self,
        diff_id: &DiffId,
        stored: &Descriptor,
        unpacking: &Unpacking,
    ) -> Result<Box<dyn BaseLayer>>;

    /// An image with the manifest that its publisher made.
    ///
    /// # Errors
    /// When that manifest cannot be read.
    fn published(&self, image: &StoredImage) -> Result<Image>;

    /// A layer of an image that is here: the blob `stored`, or from a store that
    /// has no blobs its plain tar, in an unlinked file in `spool`.
    ///
    /// # Errors
    /// When the layer is gone or damaged; local I/O errors.
    fn layer(&self, diff_id: &DiffId, stored: &Descriptor, spool: &Path) -> Result<(Descriptor, Region)>;

    /// The file of a blob, where blobs are kept as files.
    fn blob_file(&self, _digest: &Digest) -> Option<PathBuf> {
        None
    }

    /// Drops what was kept beside the images for the work on them, now that this is done.
    ///
    /// # Errors
    /// Local I/O errors.
    fn tidy(&self) -> Result<()> {
        Ok(())
    }

    /// How the layers of an image become what was published, as far as that is known here.
    ///
    /// # Errors
    /// When the note of it cannot be read.
    fn recipes(&self, _image: &StoredImage) -> Result<Recipes> {
        Ok(Recipes::default())
    }

    /// Ends what a killed run left undone for an image that is here, and gives it another name; as
    /// [`publish`](ImageTarget::publish) where that takes a handover.
    ///
    /// # Errors
    /// Local I/O errors.
    fn settle(&self, image: &StoredImage, name: Option<&str>) -> Result<Option<Handover>>;

    /// Reads all images again, or the one with this name or manifest digest;
    /// `broken` is told of each that is damaged.
    ///
    /// # Errors
    /// When the repository cannot be read at all.
    fn verify(&self, wanted: Option<&str>, broken: &mut dyn FnMut(&str)) -> Result<Verified>;

    /// Removes an image by name or manifest digest; its parts stay until [`gc`](Self::gc).
    ///
    /// # Errors
    /// Misfit when there is none; Usage when several have the name.
    fn remove(&self, name_or_digest: &str) -> Result<usize>;

    /// Removes all images that have no name, but for what belongs to one that stays; returns how many.
    ///
    /// # Errors
    /// Local I/O errors.
    fn remove_unnamed(&self) -> Result<usize>;

    /// Deletes everything that no image needs, and what unfinished runs left.
    ///
    /// # Errors
    /// Local when another process is at work here; when a manifest cannot be
    /// read (then nothing is deleted).
    fn gc(&self) -> Result<Swept>;
}

/// Takes a plain layer tar.
pub trait LayerSink: LayerWrite + Debug + Send {
    /// Makes the layer, which was checked, a part of the store.
    ///
    /// # Errors
    /// Local I/O errors.
    fn finish(self: Box<Self>, layer: &VerifiedLayer) -> Result<Descriptor>;
}

/// Did the manifest survive as its publisher made it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fidelity {
    /// Yes, byte for byte: digest pins and signatures hold.
    Verbatim,
    /// Same config and diff_ids, but other layer digests, so another manifest digest.
    Rewritten,
}

/// An image that has just been published.
#[derive(Debug, Clone)]
pub struct Published {
    /// Digest of the manifest in the store.
    pub manifest: Digest,
    /// Whether that is the publisher's own.
    pub fidelity: Fidelity,
    /// What the image lacks here, for people.
    pub note: Option<String>,
    /// What is left to do, where only skopeo writes.
    pub handover: Option<Handover>,
}

/// An image that is ready for skopeo to take it on. It stays ready as long as its store is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Where it is, in skopeo's words.
    pub from: String,
    /// Where it goes.
    pub to: String,
}

/// What [`Repository::verify`] read.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Verified {
    /// Images, damaged ones included.
    pub images: usize,
    /// Blobs or objects.
    pub blobs: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// What [`Repository::gc`] did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Swept {
    /// Blobs or objects deleted.
    pub blobs: usize,
    /// Their size in bytes.
    pub bytes: u64,
}
