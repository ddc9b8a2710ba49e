//! What the integration tests share.
#![allow(dead_code, unused_imports)] // without composefs, not all is used

pub mod blobs;
#[cfg(feature = "composefs")]
pub mod cfsctl;
pub mod cli;
pub mod client;
pub mod fake;
pub mod gap;
pub mod hostile;
pub mod images;
pub mod oracle;
pub mod podman;
pub mod registry;
pub mod relay;
pub mod running;
pub mod tars;

pub use cli::{Ended, Sandbox};
pub use hostile::Victim;
pub use images::{Delta, Image, Layer, OciDir};
pub use registry::{Guard, Registry};

/// An example of this package, which the tests run: a fake, or a judge that is no work of ours.
pub fn example(name: &str) -> std::path::PathBuf {
    // Tests run in target/PROFILE/deps; cargo builds examples beside that.
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --example {name}`", path.display());
    path
}
