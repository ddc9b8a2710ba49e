//! The blobs of an image: streamed by skopeo, and where a transfer broke, on from there by
//! a request of our own, since the image proxy has no ranges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use oci_spec::distribution::Reference as DockerReference;
use reqwest::Response;

use super::RemoteRepository;
use super::answer::failed;
use super::http::Http;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::proxy::{Attempts, BlobStream, Proxy, ProxyOptions};

/// The blobs of an image in a registry.
#[derive(Debug)]
pub struct Blobs {
    source: Source,
    /// The server was asked for the rest of a blob and gave something else.
    no_ranges: AtomicBool,
}

/// Who gives them.
#[derive(Debug)]
enum Source {
    Skopeo {
        proxy: Box<Proxy>,
        /// Asked when the first transfer breaks.
        repository: Option<Box<RemoteRepository>>,
    },
    /// The registry itself, from the first byte on.
    Direct(Arc<RemoteRepository>),
}

impl Blobs {
    /// Those that `proxy` streams. The rest of one is asked of the repository of `image`, if there is such.
    pub fn new(proxy: Proxy, image: Option<DockerReference>) -> Self {
        let repository = image.map(|image| RemoteRepository::new(&image, proxy.options()));
        let (proxy, repository) = (Box::new(proxy), repository.map(Box::new));
        Blobs { source: Source::Skopeo { proxy, repository }, no_ranges: AtomicBool::new(false) }
    }

    /// Those of a repository, read without skopeo.
    pub fn direct(repository: Arc<RemoteRepository>) -> Self {
        Blobs { source: Source::Direct(repository), no_ranges: AtomicBool::new(false) }
    }

    /// Streams them, where skopeo does.
    pub fn proxy(&self) -> Option<&Proxy> {
        match &self.source {
            Source::Skopeo { proxy, .. } => Some(&**proxy),
            Source::Direct(_) => None,
        }
    }

    /// The repository that is read without skopeo.
    pub fn repository(&self) -> Option<&Arc<RemoteRepository>> {
        match &self.source {
            Source::Skopeo { .. } => None,
            Source::Direct(repository) => Some(repository),
        }
    }

    /// As many tries as the options allow.
    pub fn attempts(&self) -> Attempts {
        self.options().attempts()
    }

    fn options(&self) -> &ProxyOptions {
        match &self.source {
            Source::Skopeo { proxy, .. } => proxy.options(),
            Source::Direct(repository) => repository.options(),
        }
    }

    /// Starts the download of a blob of `size` bytes. When it breaks, it goes on from there, which takes
    /// from `attempts`; where that cannot be, beginning anew is for the caller.
    ///
    /// # Errors
    /// As [`Proxy::open_blob`].
    pub async fn open<'a>(&'a self, digest: &Digest, size: u64, attempts: &'a Attempts) -> Result<Blob<'a>> {
        let part = match &self.source {
            Source::Skopeo { proxy, .. } => Part::First(Box::new(proxy.open_blob(digest, size).await?)),
            Source::Direct(repository) => Part::Rest(repository.whole_blob(digest).await?),
        };
        Ok(Blob { blobs: self, attempts, digest: digest.clone(), size, received: 0, part })
    }

    /// Who is asked for the rest of a blob.
    async fn http(&self) -> Option<&Http> {
        let repository = match &self.source {
            Source::Skopeo { repository, .. } => &**repository.as_ref()?,
            Source::Direct(repository) => &**repository,
        };
        if self.no_ranges.load(Ordering::Relaxed) { None } else { repository.http().await.ok()? }
    }
}

/// The bytes of one blob, at most as many as its descriptor states; their digest is for the consumer to check.
#[derive(Debug)]
pub struct Blob<'a> {
    blobs: &'a Blobs,
    attempts: &'a Attempts,
    digest: Digest,
    size: u64,
    received: u64,
    part: Part,
}

/// Where the next bytes come from.
#[derive(Debug)]
enum Part {
    /// Skopeo, as long as all goes well.
    First(Box<BlobStream>),
    /// The registry, after a break or from the first byte on.
    Rest(Response),
    /// Nowhere: all are here, or the transfer broke.
    None,
}

impl Blob<'_> {
    /// The next bytes, or `None` after the last.
    ///
    /// # Errors
    /// As [`BlobStream::chunk`], when the rest cannot be had either.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.next().await {
                Ok(chunk) => {
                    let came = chunk.as_ref().map_or(0, Bytes::len);
                    self.received += came as u64;
                    // What is not read yet waits in the pipe or the socket, and holds the other side back.
                    self.blobs.options().spend(came).await;
                    return Ok(chunk);
                }
                Err(e) if e.kind() == Kind::Transient && self.received > 0 => self.go_on(e).await?,
                Err(e) => return Err(e),
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let response = match &mut self.part {
            Part::First(stream) => return stream.chunk().await,
            Part::Rest(response) if self.received < self.size => response,
            Part::Rest(_) | Part::None => return Ok(None),
        };
        match response.chunk().await {
            Ok(Some(chunk)) if chunk.len() as u64 > self.size - self.received => {
                Err(Error::verification(format!("more than the stated {} bytes came", self.size)))
            }
            Ok(Some(chunk)) => Ok(Some(chunk)),
            Ok(None) => Err(Error::transient(format!(
                "the transfer ended after {} of {} bytes",
                self.received, self.size
            ))),
            Err(e) => Err(failed(e, None)),
        }
        .map_err(|e| e.context(format!("blob {}", self.digest)))
    }

    /// Sees to it that the rest comes, after the transfer broke with `broken`.
    async fn go_on(&mut self, mut broken: Error) -> Result<()> {
        self.part = Part::None;
        if self.received == self.size {
            // Only the verdict is missing, and the digest says as much.
            return Ok(());
        }
        let Some(http) = self.blobs.http().await else { return Err(broken) };
        while self.attempts.next(&broken).await {
            match http.rest_of(&self.digest, self.received, self.size).await {
                Ok(Some(response)) => {
                    self.part = Part::Rest(response);
                    return Ok(());
                }
                Err(e) if e.kind() == Kind::Transient => broken = e.context(format!("blob {}", self.digest)),
                Ok(None) | Err(_) => {
                    self.blobs.no_ranges.store(true, Ordering::Relaxed);
                    self.attempts.take_back();
                    break;
                }
            }
        }
        Err(broken)
    }
}
