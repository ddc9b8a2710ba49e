//! Bodies of answers: bytes, or what a task feeds in pieces, no faster than the client takes them.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::route::Refusal;

/// Pieces between the task that feeds a body and its client; those of a registry have some 16 KiB, ours 256.
const QUEUE: usize = 4;

/// The name of the interface, in answers.
pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The body ends here, though it is not whole: the connection goes, so that the client knows.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body cannot be had whole")
    }
}

impl std::error::Error for Cut {}

#[derive(Debug)]
pub(super) enum Body {
    Bytes(Option<Bytes>),
    Fed(mpsc::Receiver<Result<Bytes, Cut>>),
}

impl Body {
    pub(super) fn empty() -> Self {
        Body::Bytes(None)
    }

    /// One that is fed.
    pub(super) fn fed() -> (Feeder, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Feeder { sender, fed: 0 }, Body::Fed(receiver))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::Bytes(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Body::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Fed(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Bytes(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Fed(_) => SizeHint::default(),
        }
    }
}

/// Feeds a body.
#[derive(Debug)]
pub(super) struct Feeder {
    sender: mpsc::Sender<Result<Bytes, Cut>>,
    fed: u64,
}

impl Feeder {
    /// Waits until there is room; false when the client is gone.
    pub(super) async fn feed(&mut self, bytes: Bytes) -> bool {
        self.fed += bytes.len() as u64;
        self.sender.send(Ok(bytes)).await.is_ok()
    }

    /// Bytes that were fed.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// Ends the body before its end.
    pub(super) async fn cut(self) {
        // A client that is gone needs no cut.
        let _ = self.sender.send(Err(Cut)).await;
    }
}

/// An answer with these headers.
pub(super) fn answer(status: StatusCode, headers: hyper::HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What a client is told that gets no answer (distribution specification, "Error Codes").
pub(super) fn refuse(refusal: &Refusal) -> Response<Body> {
    let text =
        serde_json::json!({"errors": [{"code": refusal.code, "message": refusal.message}]}).to_string();
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = hyper::HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_LENGTH, HeaderValue::from(text.len())),
    ]);
    answer(status, headers, Bytes::from(text).into())
}

/// For services that always answer.
pub(super) type Answered = Result<Response<Body>, Infallible>;
