//! What the integration tests share.
#![allow(dead_code, unused_imports)] // without composefs, not all is used

pub mod blobs;
#[cfg(feature = "composefs")]
pub mod cfsctl;
pub mod cli;
pub mod fake;
pub mod hostile;
pub mod images;
pub mod oracle;
pub mod registry;
pub mod relay;
pub mod running;
pub mod tars;

pub use cli::{Ended, Sandbox};
pub use hostile::Victim;
pub use images::{Delta, Image, Layer, OciDir};
pub use registry::{Guard, Registry};
