//! Doors for programs that know nothing of deltas: the server side of skopeo's image proxy.
//!
//! ```text
//! client ─ socket at standard input ─ relay ─ socket ─ the real skopeo ─ registry
//! ```
//!
//! Policy, credentials, conversions and all transports stay skopeo's. Descriptors of pipes are handed on, so the bytes
//! of blobs do not pass through here.

mod real;
mod relay;
mod wire;

use std::ffi::OsString;
use std::os::fd::AsFd as _;

use crate::error::{IoContext as _, Result};
pub use real::arguments;
use relay::Skopeo;

/// What skopeo calls its image proxy.
const SUBCOMMAND: &str = "experimental-image-proxy";

/// Serves the client whose socket is standard input, by the real skopeo with these arguments.
///
/// # Errors
/// When there is no such skopeo; what it ends with.
pub fn serve(arguments: &[OsString]) -> Result<()> {
    let client = std::io::stdin().as_fd().try_clone_to_owned().at("standard input")?;
    relay::run(&client, Skopeo::start(arguments)?)
}
