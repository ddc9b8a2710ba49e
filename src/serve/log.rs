//! A line of JSON for each answer that deltas gave, or could not give.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::digest::Digest;
use crate::engine::outcome::Reason;
use crate::reference::Reference;

/// What one answer was; a line of the log.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The image that it belongs to, by the digest of its manifest; the repository, where that is not known any more.
    pub image: String,
    /// The layer; none in a line about an image of which deltas give nothing.
    pub layer: Option<String>,
    /// Bytes that the client got of it.
    pub bytes_sent: u64,
    /// Bytes that were read for it from the registry: lists, manifests, patches; the layer itself, where they failed.
    pub bytes_fetched: u64,
    /// Deltas in a row.
    pub chain: usize,
    /// Seconds until the last byte.
    pub seconds: f64,
    /// Why the layer, or its rest, comes from the registry: a reason as in the report of a fetch.
    pub fallback: Option<Reason>,
    /// The same for people.
    pub message: Option<String>,
}

impl Line {
    /// Deltas give nothing of this image.
    pub(super) fn without(image: String, reason: Reason, message: Option<String>) -> Self {
        Line {
            image,
            layer: None,
            bytes_sent: 0,
            bytes_fetched: 0,
            chain: 0,
            seconds: 0.0,
            fallback: Some(reason),
            message,
        }
    }

    /// A layer that a delta made.
    pub(super) fn of_layer(image: String, layer: &Digest, chain: usize, took: Duration) -> Self {
        let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        Line {
            layer: Some(layer.to_string()),
            chain,
            seconds,
            fallback: None,
            ..Line::without(image, Reason::NoDelta, None)
        }
    }
}

/// An image in a line.
pub(super) fn named(image: &Reference) -> String {
    image.skopeo().trim_start_matches("docker://").to_owned()
}

/// Takes the lines.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&str) + Send + Sync>);

impl Log {
    /// One that hands each line, without its end, to `take`.
    pub fn new(take: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Log(Arc::new(take))
    }

    pub(super) fn write(&self, line: &Line) {
        // Of strings and numbers: nothing of it can fail.
        if let Ok(text) = serde_json::to_string(line) {
            (self.0)(&text);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
