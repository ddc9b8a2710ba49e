//! Sends a layer while it is made, and what is missing from the registry where that fails.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::header::{CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{HeaderMap, Method, StatusCode};

use super::body::Feeder;
use crate::digest::{Digest, Hasher};
use crate::engine::offer::{HOLD_BACK, Reading};
use crate::error::{Error, Result};
use crate::registry::{Passed, RemoteRepository};

/// How a layer was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Bytes that the client got.
    pub bytes: u64,
    /// Bytes of the layer itself that the registry gave.
    pub from_registry: u64,
    /// Did the delta not give all?
    pub fell_back: bool,
    /// What went wrong.
    pub failure: Option<String>,
}

/// Feeds the layer `digest`, of which `first` was read already.
pub(super) async fn send(
    mut feeder: Feeder,
    mut reading: Reading,
    first: Option<Bytes>,
    digest: &Digest,
    repository: &RemoteRepository,
) -> Sent {
    let mut piece = first;
    let failure = loop {
        let made = |bytes, failure| Sent { bytes, from_registry: 0, fell_back: false, failure };
        let Some(bytes) = piece else { return made(feeder.fed(), None) };
        if !feeder.feed(bytes).await {
            return made(feeder.fed(), Some("the client went away".to_owned()));
        }
        match reading.chunk().await {
            Ok(next) => piece = next,
            Err(e) => break e.to_string(),
        }
    };
    let mut rest =
        Rest { size: reading.size(), hasher: reading.prefix().clone(), held: Held::default(), got: 0 };
    let ended = rest.send(&mut feeder, digest, repository).await;
    let bytes = feeder.fed();
    let failure = match ended {
        Ok(()) => failure,
        Err(e) => {
            feeder.cut().await;
            format!("{failure}; from the registry: {e}")
        }
    };
    Sent { bytes, from_registry: rest.got, fell_back: true, failure: Some(failure) }
}

/// Bytes that wait for the verdict.
#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

/// What the registry gives behind the bytes that were sent.
struct Rest {
    size: u64,
    /// Over all bytes of the layer so far.
    hasher: Hasher,
    held: Held,
    got: u64,
}

impl Rest {
    async fn send(
        &mut self,
        feeder: &mut Feeder,
        digest: &Digest,
        repository: &RemoteRepository,
    ) -> Result<()> {
        let at = self.hasher.bytes();
        let range = HeaderValue::from_str(&format!("bytes={at}-"))
            .map_err(|e| Error::local(format!("range from {at}: {e}")))?;
        let headers = HeaderMap::from_iter([(RANGE, range)]);
        let mut passed = repository.pass_on(&Method::GET, &format!("blobs/{digest}"), &headers).await?;
        // One that knows no ranges gives all of it.
        let mut skip = match passed.status {
            StatusCode::PARTIAL_CONTENT if self.is_rest(&passed, at) => 0,
            StatusCode::OK => at,
            status => return Err(Error::transient(format!("the registry answered {status}"))),
        };
        let mut skipped = Hasher::default();
        while let Some(mut piece) = passed.chunk().await? {
            self.got += piece.len() as u64;
            if skip > 0 {
                let known = piece.split_to(usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len()));
                skipped.update(&known);
                skip -= known.len() as u64;
                if skip == 0 && skipped.clone().finish() != self.hasher.clone().finish() {
                    return Err(Error::verification("it does not begin with what was sent"));
                }
            }
            if self.hasher.bytes() + piece.len() as u64 > self.size {
                return Err(Error::verification(format!("it has more than {} bytes", self.size)));
            }
            self.hasher.update(&piece);
            self.pass(feeder, piece).await?;
        }
        let found = self.hasher.clone().finish();
        if found != *digest {
            return Err(Error::verification(format!(
                "it ends as {found}, after {} bytes",
                self.hasher.bytes()
            )));
        }
        for piece in std::mem::take(&mut self.held).pieces {
            feed(feeder, piece).await?;
        }
        Ok(())
    }

    fn is_rest(&self, passed: &Passed, at: u64) -> bool {
        let range = passed.headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        range == Some(&format!("bytes {at}-{}/{}", self.size.saturating_sub(1), self.size))
    }

    /// Sends what is far enough from the end.
    async fn pass(&mut self, feeder: &mut Feeder, piece: Bytes) -> Result<()> {
        self.held.bytes += piece.len() as u64;
        self.held.pieces.push_back(piece);
        while let Some(first) = self.held.pieces.front() {
            let sent_then = self.hasher.bytes() - self.held.bytes + first.len() as u64;
            if sent_then + HOLD_BACK > self.size {
                break;
            }
            let Some(first) = self.held.pieces.pop_front() else { break };
            self.held.bytes -= first.len() as u64;
            feed(feeder, first).await?;
        }
        Ok(())
    }
}

async fn feed(feeder: &mut Feeder, piece: Bytes) -> Result<()> {
    if feeder.feed(piece).await { Ok(()) } else { Err(Error::transient("the client went away")) }
}
