//! One skopeo process with the image opened in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use containers_image_proxy::{Error as ProxyError, ImageProxy, OpenedImage};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::command::{self, Leash};
use super::{ProxyOptions, failure, notice};
use crate::child::started;
use crate::error::{Error, Result};

/// A connection. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Connection {
    leash: Leash,
    /// What it was started for.
    reference: String,
    pub(super) proxy: ImageProxy,
    pub(super) image: OpenedImage,
    /// Held during a request: [`ImageProxy`] panics if it is asked while it reports skopeo's death.
    turn: Mutex<()>,
    dead: AtomicBool,
    retired: AtomicBool,
    pub(super) token: Token,
    /// Longest time without a byte or an answer.
    pub(super) patience: Duration,
}

impl Connection {
    /// Starts skopeo and opens the image; `after_denial`, in place of one that was denied a blob.
    pub(super) async fn open(
        reference: &str,
        options: &ProxyOptions,
        after_denial: bool,
    ) -> Result<Connection> {
        let patience = options.inactivity_timeout;
        let (config, leash) = command::prepare(reference, options)?;
        // Whatever fails here or below drops the leash, and with it the process.
        let start = async move { (ImageProxy::new_with_config(config).await, leash) };
        let (proxy, leash) = timeout(patience, started(start)).await.map_err(|_| stalled(patience))??;
        let proxy = proxy.map_err(|e| failure::of_start(e, &options.skopeo))?;
        leash.grasp();
        let image =
            timeout(patience, notice::of_waiting(reference, &*options.reporter, proxy.open_image(reference)))
                .await
                .map_err(|_| stalled(patience))?
                .map_err(|e| failure::of_request(e, reference))?;
        let (dead, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        let reference = reference.to_owned();
        let token = Token { after_denial, ..Token::default() };
        let turn = Mutex::new(());
        Ok(Connection { leash, reference, proxy, image, turn, dead, retired, token, patience })
    }

    /// The digest and the bytes of the image's manifest.
    pub(super) async fn manifest(&self) -> Result<(String, Vec<u8>)> {
        self.timed(self.request(self.proxy.fetch_manifest_raw_oci(&self.image))).await
    }

    /// The image's config as skopeo shows it.
    pub(super) async fn config(&self) -> Result<Vec<u8>> {
        self.timed(self.request(self.proxy.fetch_config_raw(&self.image))).await
    }

    /// Makes a request when it is its turn. Given up midway it kills the process,
    /// for the answer would be left in the socket.
    pub(super) async fn request<T>(&self, request: impl Future<Output = Result<T, ProxyError>>) -> Result<T> {
        let _turn = self.turn.lock().await;
        if self.is_dead() {
            return Err(Error::transient("the connection to skopeo was closed"));
        }
        let guard = KillGuard(self);
        let result = request.await;
        if !matches!(&result, Err(e) if failure::is_fatal(e)) {
            std::mem::forget(guard);
        }
        result.map_err(|e| self.failed(e))
    }

    /// What an error of a request means.
    pub(super) fn failed(&self, e: ProxyError) -> Error {
        failure::of_request(e, &self.reference)
    }

    /// Bounds a wait. A request that is too late is given up, which kills the process.
    pub(super) async fn timed<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.patience, request).await.unwrap_or_else(|_| Err(stalled(self.patience)))
    }

    /// Keeps new blobs off this connection; those under way go on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Kills the process: pipes end, waiting requests fail, nothing uses this connection again.
    pub(super) fn kill(&self) {
        self.retire();
        self.dead.store(true, Ordering::Relaxed);
        self.leash.kill();
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

/// What is known of the token that this skopeo has from the registry.
#[derive(Debug, Default)]
pub(super) struct Token {
    after_denial: bool,
    accepted: AtomicBool,
    denied: AtomicBool,
}

impl Token {
    /// May a new one help against a denial? Not if this one is new for that reason and never served.
    pub(super) fn may_be_stale(&self) -> bool {
        !self.after_denial || self.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn accepted(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    pub(super) fn denied(&self) {
        self.denied.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }
}

/// Kills the connection unless forgotten.
struct KillGuard<'a>(&'a Connection);

impl Drop for KillGuard<'_> {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// The error of a wait that took too long.
pub(super) fn stalled(patience: Duration) -> Error {
    Error::transient(format!("nothing came from the registry for {:.1} s", patience.as_secs_f64()))
}
