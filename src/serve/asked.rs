//! What deltas give of one request is given, everything else is passed on.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, LINK, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::along;
use super::body::{API_VERSION, Body, Feeder, answer};
use super::deltas::{Deltas, name_of};
use super::log::{Line, named};
use super::route::{Refusal, Route, Style, What};
use crate::artifact::{self, MAX_MANIFEST_SIZE};
use crate::digest::Digest;
use crate::engine::offer::{Offer, Reading};
use crate::engine::outcome::Reason;
use crate::error::{Error, IoContext as _, Result};
use crate::fetch::on_thread;
use crate::reference::Reference;
use crate::registry::{Passed, RemoteRepository};

/// Bytes of a blob that are read from the cache at once.
const PIECE: u64 = 256 << 10;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Headers of an answer that a client gets.
const PASSED_BACK: [HeaderName; 10] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    ACCEPT_RANGES,
    ETAG,
    RETRY_AFTER,
    LINK,
    API_VERSION,
    CONTENT_DIGEST,
    FILTERS,
];

/// A request, and who answers it.
pub(super) struct Asked<'a> {
    pub deltas: &'a Arc<Deltas>,
    pub request: &'a Request<Incoming>,
    pub route: &'a Route,
    pub repository: &'a Arc<RemoteRepository>,
}

impl Asked<'_> {
    /// The answer.
    ///
    /// # Errors
    /// What a client is told where there is none.
    pub(super) async fn answer(&self) -> Result<Response<Body>, Refusal> {
        match &self.route.what {
            What::Manifest if self.request.method() == Method::GET => self.manifest().await,
            What::Blob(digest) if self.request.method() == Method::GET => self.blob(digest).await,
            _ => self.pass_on().await,
        }
    }

    /// The registry's answer, of which nothing was read yet.
    async fn passed(&self) -> Result<Passed, Refusal> {
        let mut headers = HeaderMap::new();
        for name in [ACCEPT, RANGE, IF_NONE_MATCH] {
            for value in self.request.headers().get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let passed = self.repository.pass_on(self.request.method(), &self.route.path, &headers).await;
        passed.map_err(|e| Refusal::new(502, "UNAVAILABLE", e.to_string()))
    }

    /// What of its headers a client gets.
    fn headers(&self, passed: &Passed) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in PASSED_BACK {
            headers.extend(passed.headers.get(&name).map(|value| (name, value.clone())));
        }
        if self.route.style == Style::Namespace {
            for challenge in passed.headers.get_all(WWW_AUTHENTICATE) {
                headers.append(WWW_AUTHENTICATE, challenge.clone());
            }
        } else {
            if passed.status == StatusCode::UNAUTHORIZED {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oci-delta-fetch\""));
            }
            // The next page is where this one is.
            let link = headers.get(LINK).and_then(|link| link.to_str().ok());
            let here =
                link.map(|link| link.replacen("</v2/", &format!("</v2/{}/", self.route.image.registry()), 1));
            headers.extend(here.and_then(|link| Some((LINK, HeaderValue::from_str(&link).ok()?))));
        }
        headers
    }

    async fn pass_on(&self) -> Result<Response<Body>, Refusal> {
        let passed = self.passed().await?;
        let (status, headers) = (passed.status, self.headers(&passed));
        if self.request.method() == Method::HEAD {
            return Ok(answer(status, headers, Body::empty()));
        }
        let (feeder, body) = Body::fed();
        tokio::spawn(pump(passed, feeder));
        Ok(answer(status, headers, body))
    }

    /// A manifest is read here, too: of an image, its layers will be wanted.
    async fn manifest(&self) -> Result<Response<Body>, Refusal> {
        let mut passed = self.passed().await?;
        let (status, headers) = (passed.status, self.headers(&passed));
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if status != StatusCode::OK || length.is_none_or(|length| length > MAX_MANIFEST_SIZE) {
            let (feeder, body) = Body::fed();
            tokio::spawn(pump(passed, feeder));
            return Ok(answer(status, headers, body));
        }
        let mut manifest = Vec::new();
        let broken = |e: Error| Refusal::new(502, "UNAVAILABLE", e.to_string());
        while let Some(piece) = passed.chunk().await.map_err(broken)? {
            if (manifest.len() + piece.len()) as u64 > MAX_MANIFEST_SIZE {
                return Err(Refusal::new(502, "SIZE_INVALID", "the manifest is larger than its length"));
            }
            manifest.extend_from_slice(&piece);
        }
        let is_image = artifact::image_config(&manifest).is_ok_and(|config| config.is_some());
        if is_image && !artifact::is_delta(&manifest).unwrap_or(true) {
            self.deltas.look_up(self.repository, &manifest);
        }
        Ok(answer(status, headers, Bytes::from(manifest).into()))
    }

    /// A blob that is or can be made here, where the registry would give it to this client.
    async fn blob(&self, digest: &Digest) -> Result<Response<Body>, Refusal> {
        let deltas = self.deltas;
        let offer = deltas.offer_with(&self.route.image, digest).await;
        let cached = deltas.works.cache().size(digest);
        if (offer.is_none() && cached.is_none()) || !self.may_have(digest).await {
            return self.pass_on().await;
        }
        if let Some(offer) = &offer
            && offer.image().config_digest == *digest
        {
            let config = Bytes::from(offer.image().config_raw.clone());
            return Ok(answer(StatusCode::OK, blob_headers(config.len() as u64, digest), config.into()));
        }
        // What goes wrong here is no matter of the client's.
        let reading = match (&offer, cached) {
            (Some(offer), _) => offer.read(digest).ok().flatten(),
            (None, Some(size)) => deltas.works.read(digest, size).ok().flatten(),
            (None, None) => None,
        };
        match (reading, self.request.headers().get(RANGE)) {
            (Some(reading), None) => self.along(reading, offer, digest).await,
            (Some(reading), Some(range)) => self.range(reading, range, digest).await,
            (None, _) => self.pass_on().await,
        }
    }

    /// Asks the registry whether this client may have a blob.
    async fn may_have(&self, digest: &Digest) -> bool {
        let passed =
            self.repository.pass_on(&Method::HEAD, &format!("blobs/{digest}"), &HeaderMap::new()).await;
        // Whom it leads on to a server for blobs, it lets in.
        passed.is_ok_and(|passed| passed.status.is_success() || passed.redirected)
    }

    async fn along(
        &self,
        mut reading: Reading,
        offer: Option<Arc<Offer>>,
        digest: &Digest,
    ) -> Result<Response<Body>, Refusal> {
        let deltas = self.deltas;
        let image = match &offer {
            Some(offer) => {
                let image = Reference::Docker { name: self.route.image.clone() };
                named(&image.pinned(&offer.image().manifest_digest))
            }
            None => name_of(&self.route.image),
        };
        let chain = offer.as_ref().map_or(0, |offer| offer.deltas().len());
        let first = match reading.chunk().await {
            Ok(first) => first,
            Err(e) => {
                let line = Line::of_layer(image, digest, chain, reading.elapsed());
                let beside = offer.as_ref().map_or(0, |offer| offer.take_bytes_beside());
                deltas.log.write(&Line {
                    bytes_fetched: reading.counts().bytes() + beside,
                    fallback: Some(Reason::PatchFailed),
                    message: Some(e.to_string()),
                    ..line
                });
                return self.pass_on().await;
            }
        };
        let headers = blob_headers(reading.size(), digest);
        let (feeder, body) = Body::fed();
        let (deltas, repository, digest) = (deltas.clone(), self.repository.clone(), digest.clone());
        tokio::spawn(async move {
            let (started, counts) = (Instant::now(), reading.counts().clone());
            let waited = reading.elapsed();
            let sent = along::send(feeder, reading, first, &digest, &repository).await;
            let beside = offer.as_ref().map_or(0, |offer| offer.take_bytes_beside());
            let line = Line::of_layer(image, &digest, chain, waited + started.elapsed());
            deltas.log.write(&Line {
                bytes_sent: sent.bytes,
                bytes_fetched: counts.bytes() + beside + sent.from_registry,
                fallback: sent.fell_back.then_some(Reason::PatchFailed),
                message: sent.failure,
                ..line
            });
        });
        Ok(answer(StatusCode::OK, headers, body))
    }

    /// A part of a layer, once all of it is right.
    async fn range(
        &self,
        mut reading: Reading,
        range: &HeaderValue,
        digest: &Digest,
    ) -> Result<Response<Body>, Refusal> {
        let size = reading.size();
        let Some((first, end)) = range.to_str().ok().and_then(|range| part(range, size)) else {
            return self.pass_on().await;
        };
        let Ok((file, _)) = reading.whole().await else { return self.pass_on().await };
        let mut headers = blob_headers(end - first, digest);
        let content = HeaderValue::from_str(&format!("bytes {first}-{}/{size}", end - 1));
        headers.extend(content.ok().map(|range| (CONTENT_RANGE, range)));
        let (mut feeder, body) = Body::fed();
        tokio::spawn(async move {
            let mut at = first;
            while at < end {
                let (file, length) = (file.clone(), (end - at).min(PIECE));
                let read = move || {
                    let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
                    file.read_exact_at(&mut piece, at).at("cached layer")?;
                    Ok(Bytes::from(piece))
                };
                match on_thread(read).await {
                    Ok(piece) => {
                        at += length;
                        if !feeder.feed(piece).await {
                            return;
                        }
                    }
                    Err(_) => return feeder.cut().await,
                }
            }
        });
        Ok(answer(StatusCode::PARTIAL_CONTENT, headers, body))
    }
}

fn blob_headers(length: u64, digest: &Digest) -> HeaderMap {
    let digest = HeaderValue::from_str(digest.as_ref());
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, OCTETS),
        (CONTENT_LENGTH, HeaderValue::from(length)),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ]);
    headers.extend(digest.ok().map(|digest| (CONTENT_DIGEST, digest)));
    headers
}

/// First byte and the one behind the last of a single range (RFC 9110, 14.1.2) of `size` bytes.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    let last_byte = size.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", suffix) => (size - suffix.parse::<u64>().ok().filter(|n| *n > 0)?.min(size), last_byte),
        (first, "") => (first.parse().ok()?, last_byte),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.min(last_byte)),
    };
    (first <= last).then_some((first, last + 1))
}

/// Feeds a body with what comes from a registry.
async fn pump(mut passed: Passed, mut feeder: Feeder) {
    loop {
        match passed.chunk().await {
            Ok(Some(piece)) => {
                if !feeder.feed(piece).await {
                    return;
                }
            }
            Ok(None) => return,
            Err(_) => return feeder.cut().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_parts() {
        for (range, expected) in [
            ("bytes=0-", Some((0, 10))),
            ("bytes=3-5", Some((3, 6))),
            ("bytes=3-99", Some((3, 10))),
            ("bytes=-4", Some((6, 10))),
            ("bytes=-99", Some((0, 10))),
            ("bytes=9-9", Some((9, 10))),
            ("bytes=10-", None),
            ("bytes=5-3", None),
            ("bytes=-0", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("lines=1-2", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), None);
    }
}
