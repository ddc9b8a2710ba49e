//! Where images live on this machine.
//!
//! A store gives the base image, takes finished layers, and publishes images.
//! Nothing enters it without a [`VerifiedLayer`](crate::digest::VerifiedLayer),
//! and no name points to an image before all its blobs are on disk.

pub mod index;
pub mod inventory;
pub mod oci_layout;
pub mod sink;

pub use inventory::{Inventory, StoredImage};
pub use oci_layout::{Fidelity, OciLayoutStore, Published};
pub use sink::{BlobSink, LayerSink};
