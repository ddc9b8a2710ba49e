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
//! [`create`](mod@create) goes the other way: two images in layouts → patches → an artifact.
//! Which module may import which is in `docs/architecture.md`.
//!
//! The codec stands alone: [`tardiff`] reads and writes patches, [`apply`] runs one over the files of a [`base`].
//! Nothing here prints, ends the process, or looks for a home directory; where registries are asked, the configuration
//! and credentials of this machine apply as they do for skopeo.

// What another program calls.
pub mod apply;
pub mod base;
pub mod create;
pub mod error;
pub mod progress;
pub mod tardiff;
pub mod trust;

pub use cancel::Cancel;
pub use digest::{DiffId, Digest};
pub use encoding::Encoding;
pub use engine::export::{ExportRequest, Exported, Otherwise, export};
pub use engine::make::{CreateRequest, Created, create};
pub use engine::outcome::Outcome;
pub use engine::request::FetchRequest;
pub use engine::{fetch, inspect, offer, outcome, plan, publish, request};
pub use error::{Error, Kind, Result};
pub use exact::Exact;
pub use platform::Platform;
pub use proxy::{Credentials, ProxyOptions};
pub use rate::Rate;
pub use reference::Reference;
pub use session::Session;
pub use store::StoreRef;

mod bundle;
mod descriptors;
mod discover;
mod document;
mod encoding;
mod exact;
mod gunzip;
mod ostree;
mod parallel;
mod patch;
mod pipeline;
mod podman;
mod pool;
mod rate;
mod rebuild;
mod scratch;

// For the program, tests and fuzz targets of this package: no promises.
#[doc(hidden)]
pub mod account;
#[doc(hidden)]
pub mod artifact;
#[doc(hidden)]
pub mod cancel;
#[doc(hidden)]
pub mod child;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod commands;
#[doc(hidden)]
pub mod digest;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod doors;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod extended;
#[doc(hidden)]
pub mod fetch;
#[doc(hidden)]
pub mod fuse;
#[doc(hidden)]
pub mod layer_write;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod member;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod platform;
#[doc(hidden)]
pub mod proxy;
#[doc(hidden)]
pub mod reference;
#[doc(hidden)]
pub mod region;
#[doc(hidden)]
pub mod registry;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod spool;
#[doc(hidden)]
pub mod store;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod terminal;
