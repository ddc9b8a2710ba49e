//! Doors for programs that know nothing of deltas: the server side of skopeo's image proxy.
//!
//! ```text
//! client ─ socket at standard input ─ relay ─┬─ socket ─ the real skopeo ─ registry
//!                                            └─ answers: layers that the engine made from deltas
//! ```
//!
//! Policy, credentials, conversions and all transports stay skopeo's. Descriptors of pipes are handed on, so the bytes
//! of blobs do not pass through here. A layer that a delta gives is answered with once all of it is made and has its
//! digest; for anything that goes wrong before, there is skopeo. Where its bytes cannot be made, a client over ostree
//! gets its tar in another encoding, which is all that it looks at. A client that fills a composefs repository finds
//! the layers there, and asks for none.

mod answers;
mod image;
mod real;
mod relay;
mod wire;
mod work;

use std::ffi::OsString;
use std::os::fd::AsFd as _;

use crate::engine::request::{BaseChoice, PlaceOptions};
use crate::error::{IoContext as _, Result};
use crate::session::Session;
use crate::store::StoreRef;
use answers::Answers;
pub use real::{arguments, find};
use relay::Skopeo;

/// What skopeo calls its image proxy.
pub const SUBCOMMAND: &str = "experimental-image-proxy";

/// What deltas are looked for with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How registries are reached.
    pub place: PlaceOptions,
    /// Which bases there are beside `repository`.
    pub base: BaseChoice,
    /// A composefs repository that the client fills, or another one with bases.
    pub repository: StoreRef,
    /// Stops the work; where files may be put.
    pub session: Session,
    /// Is told of each answer from a delta, and why there is none, in a line of JSON.
    pub log: fn(&str),
}

/// Serves the client whose socket is standard input, by the real skopeo with these arguments, and by deltas where
/// `settings` say how those are looked for.
///
/// # Errors
/// When there is no such skopeo; what it ends with.
pub fn serve(arguments: &[OsString], settings: Option<Settings>) -> Result<()> {
    let client = std::io::stdin().as_fd().try_clone_to_owned().at("standard input")?;
    relay::run(&client, Skopeo::start(arguments)?, Answers::new(settings))
}
