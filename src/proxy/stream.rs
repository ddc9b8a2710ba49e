//! The bytes of one blob.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::{Connection, stalled};
use crate::digest::Digest;
use crate::error::{Error, IoContext as _, Result};

/// Bytes handed out at once.
const CHUNK: usize = 128 << 10;
/// Pipe size asked for, where we may: fewer switches between skopeo and us.
const PIPE: usize = 256 << 10;
/// After so long without a byte we ask skopeo whether the transfer failed: an old
/// skopeo neither ends the data nor says why before it is asked.
const QUIET: Duration = Duration::from_secs(5);

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Session = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The bytes of one blob, as many as its descriptor states. They are counted here,
/// but their digest is for the consumer to check.
///
/// Read it until [`chunk`](BlobStream::chunk) says `None`. Dropped earlier, it kills its
/// skopeo, since nothing else stops a transfer; other blobs under way on that
/// connection then fail with a transient error.
pub struct BlobStream {
    connection: Arc<Connection>,
    digest: Digest,
    size: u64,
    left: u64,
    buffer: BytesMut,
    reader: Reader,
    /// What follows the data: completes with skopeo's verdict, once `ask` was used.
    session: Session,
    ask: Option<oneshot::Sender<()>>,
    state: State,
    /// What ended the transfer, to be told after the last bytes.
    failure: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes come, nobody asked for the verdict yet, or it is open.
    Open,
    /// skopeo said that all is well.
    Approved,
    /// Nothing is left to do.
    Done,
}

impl BlobStream {
    pub(super) async fn open(connection: Arc<Connection>, digest: Digest, size: u64) -> Result<BlobStream> {
        let (give, mut take) = oneshot::channel();
        let (ask, asked) = oneshot::channel();
        let mut session: Session = if connection.proxy.supports_get_raw_blob() {
            Box::pin(raw_session(Arc::clone(&connection), digest.clone(), size, give, asked))
        } else {
            Box::pin(pipe_session(Arc::clone(&connection), digest.clone(), size, give, asked))
        };
        let reader = tokio::select! {
            result = &mut session => return Err(result.err().unwrap_or_else(|| Error::transient("no blob came"))),
            reader = &mut take => reader.map_err(|_| Error::transient("no blob came"))?,
        };
        let (ask, buffer) = (Some(ask), BytesMut::new());
        Ok(BlobStream {
            connection,
            digest,
            size,
            left: size,
            buffer,
            reader,
            session,
            ask,
            state: State::Open,
            failure: None,
        })
    }

    /// The next bytes, or `None` after the last one when skopeo has confirmed the transfer.
    /// What came before a failure is handed out first.
    ///
    /// # Errors
    /// [`Kind::Transient`](crate::error::Kind::Transient) if the bytes stop coming,
    /// `Verification` if they are more than stated or skopeo finds them wrong.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let result = self.next().await;
        if let Err(e) = result {
            return Err(e.context(format!("blob {}", self.digest)));
        }
        result
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.buffer.len() < CHUNK && self.left > 0 && self.failure.is_none() {
            match self.read().await {
                Ok(0) => self.failure = Some(self.ended_early().await),
                Ok(n) => self.left -= n,
                Err(e) => self.failure = Some(e),
            }
        }
        if self.buffer.is_empty() {
            if let Some(e) = self.failure.take() {
                return Err(e);
            }
            if self.state != State::Done {
                self.finish().await?;
            }
        }
        Ok(Some(self.buffer.split().freeze()).filter(|chunk| !chunk.is_empty()))
    }

    /// Reads once into the buffer, at most what is left.
    async fn read(&mut self) -> Result<u64> {
        self.buffer.reserve(CHUNK - self.buffer.len());
        let quiet = QUIET.min(self.connection.patience / 4);
        if self.ask.is_some() {
            let mut reader = (&mut self.reader).take(self.left);
            if let Ok(n) = timeout(quiet, reader.read_buf(&mut self.buffer)).await {
                return Ok(n.at("reading from skopeo")? as u64);
            }
            // The question blocks the socket until the transfer ends; new blobs go elsewhere.
            self.connection.retire();
            self.ask();
        }
        let patience = self.connection.patience;
        match timeout(patience, self.read_or_verdict()).await {
            Ok(n) => n,
            Err(_) => {
                self.connection.kill();
                Err(stalled(patience))
            }
        }
    }

    /// Reads while skopeo's verdict is awaited; a bad one ends the wait for bytes.
    async fn read_or_verdict(&mut self) -> Result<u64> {
        loop {
            let mut reader = (&mut self.reader).take(self.left);
            tokio::select! {
                biased;
                n = reader.read_buf(&mut self.buffer) => return Ok(n.at("reading from skopeo")? as u64),
                verdict = &mut self.session, if self.state == State::Open => match verdict {
                    Ok(()) => self.state = State::Approved,
                    Err(e) => {
                        self.state = State::Done;
                        return Err(e);
                    }
                },
            }
        }
    }

    /// Why the data ended before `size` bytes.
    async fn ended_early(&mut self) -> Error {
        let found = self.size - self.left;
        let verdict = self.verdict().await;
        self.state = State::Done;
        verdict.err().unwrap_or_else(|| {
            // An end that skopeo does not explain is often its own.
            self.connection.kill();
            Error::transient(format!("the transfer ended after {found} of {} bytes", self.size))
        })
    }

    /// All bytes are handed out: hears skopeo's verdict.
    async fn finish(&mut self) -> Result<()> {
        // If another blob holds the socket, this one must not wait for it: the bytes
        // are here and counted, and the consumer's own digest says the same as skopeo.
        let blocked = self.ask.is_some() && self.connection.is_retired();
        let verdict = if blocked { Ok(()) } else { self.verdict().await };
        self.state = State::Done;
        verdict
    }

    /// Asks skopeo how the transfer went and waits for the answer.
    async fn verdict(&mut self) -> Result<()> {
        self.ask();
        let patience = self.connection.patience;
        match timeout(patience, self.end_or_verdict()).await {
            Ok(verdict) => verdict,
            Err(_) => {
                self.connection.kill();
                Err(stalled(patience))
            }
        }
    }

    /// Waits for the verdict, and sees to it that no bytes follow: those would keep skopeo waiting.
    async fn end_or_verdict(&mut self) -> Result<()> {
        let mut surplus = [0];
        tokio::select! {
            biased;
            n = self.reader.read(&mut surplus) => if n.at("reading from skopeo")? > 0 {
                self.connection.kill();
                return Err(Error::verification(format!("more than the stated {} bytes came", self.size)));
            },
            verdict = &mut self.session, if self.state == State::Open => return verdict,
        }
        match self.state {
            State::Open => (&mut self.session).await,
            _ => Ok(()),
        }
    }

    fn ask(&mut self) {
        if let Some(ask) = self.ask.take() {
            // The session listens for as long as it lives.
            let _ = ask.send(());
        }
    }
}

impl Drop for BlobStream {
    fn drop(&mut self) {
        if self.state != State::Done {
            self.connection.kill();
        }
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("left", &self.left)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A blob through `GetBlob`: skopeo checks size and digest and tells when asked (`FinishPipe`).
async fn pipe_session(
    connection: Arc<Connection>,
    digest: Digest,
    size: u64,
    give: oneshot::Sender<Reader>,
    asked: oneshot::Receiver<()>,
) -> Result<()> {
    let request = connection.proxy.get_blob(&connection.image, &digest, size);
    let (reader, verdict) = connection.timed(connection.request(request)).await?;
    // Nobody takes it only if this session is being dropped.
    let _ = give.send(Box::new(reader));
    let _ = asked.await;
    connection.request(verdict).await
}

/// A blob through `GetRawBlob`: the data end by themselves, and an own pipe carries the error.
async fn raw_session(
    connection: Arc<Connection>,
    digest: Digest,
    size: u64,
    give: oneshot::Sender<Reader>,
    asked: oneshot::Receiver<()>,
) -> Result<()> {
    let request = connection.proxy.get_raw_blob(&connection.image, &digest);
    let (found, reader, verdict) = connection.timed(connection.request(request)).await?;
    if let Some(found) = found.filter(|&found| found != size) {
        connection.kill();
        return Err(Error::verification(format!(
            "blob {digest} has {found} bytes in the registry, its descriptor states {size}"
        )));
    }
    // The kernel may refuse; then it is only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE);
    let _ = give.send(Box::new(reader));
    let _ = asked.await;
    verdict.await.map_err(|e| connection.failed(e.into()))
}
