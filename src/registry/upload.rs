//! Blobs on their way into a registry (distribution specification, "Pushing blobs", POST then PUT).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::RemoteRepository;
use super::http::{Http, Request};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::proxy::ProxyOptions;
use crate::region::Region;

/// Bytes that are read and sent at once.
const CHUNK: u64 = 64 << 10;

/// Is told of bytes that were taken.
pub type Taken = Arc<dyn Fn(u64) + Send + Sync>;

impl RemoteRepository {
    /// Uploads a blob; the registry checks its digest.
    ///
    /// # Errors
    /// What the registry says; Transient when the transfer stands still.
    pub async fn upload(&self, digest: &Digest, content: &Region, taken: &Taken) -> Result<()> {
        let http = self.direct().await?;
        let sent = http.options().attempts().run(|| http.upload(digest, content, taken)).await;
        sent.map_err(|e| e.context(format!("{}: blob {digest}", self.name())))
    }
}

impl Http {
    async fn upload(&self, digest: &Digest, content: &Region, taken: &Taken) -> Result<()> {
        let begin = Request { method: Method::POST, path: "blobs/uploads/", ..Default::default() };
        let (request, url) = self.upload_to(&self.ask_once(&begin).await?, digest)?;
        let (sum, waits) = Default::default();
        let progress = Arc::new(Progress { sum, waits, taken: taken.clone() });
        let request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, content.len())
            .body(body(content.clone(), self.options().clone(), progress.clone()));
        let patience = self.options().inactivity_timeout;
        let response = tokio::select! {
            response = request.send() => response.map_err(|e| self.failed(e, &url))?,
            () = standstill(&progress, patience) => {
                let seconds = patience.as_secs_f64();
                return Err(Error::transient(format!("the upload stood still for {seconds:.1} s")));
            }
        };
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(&Method::PUT, response).await),
        }
    }
}

/// How far an upload came.
struct Progress {
    sum: AtomicU64,
    taken: Taken,
    /// Is it held back by us?
    waits: AtomicBool,
}

/// The blob in pieces, each of which waits for its turn.
fn body(content: Region, options: ProxyOptions, progress: Arc<Progress>) -> Body {
    let next = move |offset: u64| {
        let (content, options, progress) = (content.clone(), options.clone(), progress.clone());
        async move {
            let piece = content.slice(offset, CHUNK);
            let Some(len) = usize::try_from(piece.len()).ok().filter(|len| *len > 0) else {
                return Ok(None);
            };
            progress.waits.store(true, Ordering::Relaxed);
            options.spend(len).await;
            progress.waits.store(false, Ordering::Relaxed);
            let bytes = spawn_blocking(move || {
                let mut bytes = vec![0; len];
                piece.read_exact_at(&mut bytes, 0).map(|()| Bytes::from(bytes))
            });
            let bytes = bytes.await.map_err(std::io::Error::other)??;
            progress.sum.fetch_add(len as u64, Ordering::Relaxed);
            (progress.taken)(len as u64);
            Ok::<_, std::io::Error>(Some((bytes, offset + len as u64)))
        }
    };
    Body::wrap_stream(stream::try_unfold(0, next))
}

/// Ends when nothing was taken for so long.
async fn standstill(progress: &Progress, patience: Duration) {
    let look = (patience / 8).min(Duration::from_secs(1));
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed() < patience {
        sleep(look).await;
        let now = progress.sum.load(Ordering::Relaxed);
        if now != seen || progress.waits.load(Ordering::Relaxed) {
            (seen, since) = (now, Instant::now());
        }
    }
}
