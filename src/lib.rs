//! Gets container and OS images onto machines as deltas.

pub mod base;
pub mod digest;
pub mod error;
pub mod region;
