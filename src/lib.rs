//! Gets container and OS images onto machines as deltas.
//!
//! ```no_run
//! use oci_delta_fetch::{FetchRequest, Session, fetch, plan};
//!
//! # async fn update() -> oci_delta_fetch::Result<()> {
//! let session = Session::new("/var/tmp");
//! let request = FetchRequest::new("registry.example.com/os:1.1".parse()?, "/var/lib/images".parse()?);
//! let planned = plan(&session, &request).await?;
//! println!("{} instead of {} bytes", planned.bytes.downloaded, planned.bytes.full_pull);
//! match fetch(&session, &request).await {
//!     Ok(outcome) => println!("{:?}: image {}", outcome.status, outcome.config),
//!     Err(e) if e.is_transient() => println!("try again later: {e}"),
//!     Err(e) => return Err(e),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The futures are `Send`, for any tokio runtime with I/O and time. [`Session::cancel`] stops the work from anywhere;
//! the next call goes on from the finished layers.
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

pub use engine::outcome::Outcome;
pub use engine::request::FetchRequest;
pub use engine::{fetch, plan};
pub use error::{Error, Result};
pub use session::Session;
