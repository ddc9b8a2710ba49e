//! Placeholder.
use std::num::NonZeroUsize;

use super::source::{BlockWriter, TokenSource};
use super::stream::Sequential;
use crate::Encoder;

/// An encoder of the two stages, with so many threads for the first of them.
pub(crate) fn encoder<S: TokenSource, W: BlockWriter>(
    config: S::Config,
    writer: W,
    _threads: NonZeroUsize,
) -> Box<dyn Encoder> {
    Box::new(Sequential::<S, W>::new(config, writer))
}
