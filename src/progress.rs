//! Progress: what happens, told to whom it may concern.

use std::fmt::Debug;

/// Something that happened. Layers are told apart by `index`.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Work begins: bytes to read in all, and blobs.
    Start {
        /// Bytes to read.
        total_bytes: u64,
        /// Blobs to read.
        layers: usize,
    },
    /// A blob begins (or begins anew).
    LayerStart {
        /// Which.
        index: usize,
        /// Short name for people.
        label: &'a str,
        /// Its size in bytes.
        bytes: u64,
    },
    /// More bytes of a blob were read.
    LayerBytes {
        /// Which.
        index: usize,
        /// How many.
        delta: u64,
    },
    /// A layer is in the repository.
    LayerDone {
        /// Which.
        index: usize,
        /// How it came there.
        outcome: &'a str,
    },
    /// A line for people.
    Message(&'a str),
    /// Work ends, well or not.
    Finish,
}

/// Is told what happens, from any thread.
pub trait Reporter: Send + Sync + Debug {
    /// Takes note of an event; never blocks for long and never fails.
    fn event(&self, event: Event<'_>);
}

/// Says nothing.
#[derive(Debug)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _event: Event<'_>) {}
}
