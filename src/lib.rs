//! Gets container and OS images onto machines as deltas.
//!
//! ```text
//! argv → cli → commands → engine ─┬─ reference → proxy (skopeo) or layout (in place) → manifest bytes
//!                                 ├─ artifact: delta manifest → target manifest and config, checked
//!                                 ├─ store: inventory, base image → base: files by path
//!                                 ├─ discover: deltas for an image, by the lists of its registry
//!                                 ├─ plan: the cheapest chain; for each layer the ways to get it, in order
//!                                 ├─ fetch ── per layer: blob → verify → rebuild ── apply → diff_id → store
//!                                 └─ store: publish → outcome
//! ```
//!
//! [`create`] goes the other way: two images in layouts → patches → an artifact.
//! Which module may import which is in `docs/architecture.md`.

pub mod account;
pub mod allocator;
pub mod apply;
pub mod artifact;
pub mod base;
pub mod cancel;
pub mod child;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod commands;
pub mod create;
mod descriptors;
pub mod digest;
pub mod discover;
pub mod document;
pub mod encoding;
pub mod engine;
pub mod error;
pub mod exact;
pub mod fetch;
pub mod fuse;
pub mod gunzip;
pub mod layer_write;
pub mod layout;
pub mod parallel;
mod patch;
pub mod pipeline;
pub mod plan;
pub mod platform;
mod pool;
pub mod progress;
pub mod proxy;
pub mod rebuild;
pub mod reference;
pub mod region;
pub mod registry;
pub mod session;
pub mod spool;
pub mod store;
pub mod tardiff;
#[cfg(feature = "cli")]
pub mod terminal;
