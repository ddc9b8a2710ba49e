//! Bundles on a medium: layouts, cut into parts where they are large, each with the table of the whole.

mod read;
mod write;

pub(in crate::layout) use read::Parts;
pub(in crate::layout) use write::RANGES;
pub use write::{Form, Writer};
