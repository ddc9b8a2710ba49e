//! Remote images through skopeo's image proxy: the raw manifest and blob streams.
//!
//! skopeo gives no timeout and no way to cancel a request, and its connection
//! cannot be used after most faults. So every wait here is bounded, and the one
//! remedy is always the same: kill that skopeo, start another for the next request.
//!
//! Everything runs on the tokio runtime of whoever polls, on any of its threads; the runtime must outlive the
//! [`Proxy`]. Skopeo dies with the `Proxy`, and with this process however that ends.

mod command;
mod connection;
mod failure;
mod inspect;
mod notice;
mod probe;
mod push;
mod retry;
mod stream;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::digest::{Digest, parse_digest};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::progress::{Reporter, Silent};
use crate::rate::Rate;
use connection::Connection;

pub use failure::classify;
pub use inspect::inspect_raw;
pub use probe::{Skopeo, probe};
pub use push::{Digests, copy_out, push_layout};
pub use retry::Attempts;
pub use stream::BlobStream;

/// Largest manifest taken, in bytes: what registries and skopeo itself allow.
pub const MAX_MANIFEST_SIZE: usize = 4 << 20;

/// How to run skopeo and how patient to be with it.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The skopeo program, looked up in `PATH` unless it contains a slash.
    pub skopeo: PathBuf,
    /// A containers-auth.json file, instead of the default places.
    pub authfile: Option<PathBuf>,
    /// Name and password for the registry; beats `authfile`.
    pub creds: Option<Credentials>,
    /// A directory of certificates for the registry.
    pub cert_dir: Option<PathBuf>,
    /// False allows plain HTTP and unknown certificates. (True is skopeo's default,
    /// which registries.conf may relax for single registries.)
    pub tls_verify: bool,
    /// A registries.conf, instead of the default one.
    pub registries_conf: Option<PathBuf>,
    /// Ignore the signature policy of this machine.
    pub insecure_policy: bool,
    /// The platform to choose from an index, instead of this machine's.
    pub platform: Option<Platform>,
    /// Longest time without a byte or an answer.
    pub inactivity_timeout: Duration,
    /// How many times a transient fault is tried again.
    pub retries: u32,
    /// Where skopeo puts its large temporary files.
    pub tmpdir: Option<PathBuf>,
    /// How fast bytes may come and go; `None`: as fast as they can.
    pub rate: Option<Rate>,
    /// Is told of long waits.
    pub reporter: Arc<dyn Reporter>,
}

impl ProxyOptions {
    /// As many tries as they allow.
    pub fn attempts(&self) -> Attempts {
        Attempts::told_to(self.reporter.clone(), self.retries)
    }

    /// Waits until so many bytes more may cross the network, or are made up for.
    pub(crate) async fn spend(&self, bytes: usize) {
        if let Some(rate) = &self.rate {
            rate.spend(bytes).await;
        }
    }
}

impl Default for ProxyOptions {
    fn default() -> Self {
        ProxyOptions {
            skopeo: "skopeo".into(),
            authfile: None,
            creds: None,
            cert_dir: None,
            tls_verify: true,
            registries_conf: None,
            insecure_policy: false,
            platform: None,
            inactivity_timeout: Duration::from_secs(60),
            retries: 3,
            tmpdir: None,
            rate: None,
            reporter: Arc::new(Silent),
        }
    }
}

/// Name and password for a registry. Reaches skopeo through a file in memory without a name,
/// never through a command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user_and_password: String,
}

impl Credentials {
    /// Takes `NAME:PASSWORD`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) without a colon.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.contains(':') {
            return Err(Error::usage("registry credentials must have the form NAME:PASSWORD"));
        }
        Ok(Credentials { user_and_password: text.to_owned() })
    }

    /// Name and password.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.user_and_password.split_once(':').unwrap_or_default()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// One remote image. Owns a connection to skopeo, made when first needed and
/// made again after it broke.
#[derive(Debug)]
pub struct Proxy {
    reference: String,
    options: ProxyOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// The reference by digest, once the manifest is known.
    pinned: Option<String>,
}

impl Proxy {
    /// Describes an image, as `docker://host/repo:tag`. Starts nothing yet.
    pub fn new(reference: &str, options: ProxyOptions) -> Proxy {
        Proxy { reference: reference.to_owned(), options, state: Mutex::default() }
    }

    /// Gets the manifest as the registry stores it, and the digest of that.
    ///
    /// (Only a Docker schema 2 manifest is converted to OCI by skopeo; then the
    /// digest is that of the original, not of these bytes.) From an index it is the
    /// manifest for our platform. Later connections open the image by this digest,
    /// so a tag that moves meanwhile cannot mix two images.
    ///
    /// # Errors
    /// After the allowed retries: [`Kind`](crate::error::Kind) `Transient` for network faults,
    /// `Misfit` if there is no such image, `Verification` if it is refused, else `Local`.
    pub async fn manifest(&self) -> Result<(Digest, Vec<u8>)> {
        let (digest, bytes) = self.options.attempts().run(|| self.manifest_once()).await?;
        self.state.lock().await.pinned = pinned(&self.reference, &digest);
        Ok((digest, bytes))
    }

    async fn manifest_once(&self) -> Result<(Digest, Vec<u8>)> {
        let (digest, bytes) = self.connection().await?.manifest().await.map_err(|e| self.name(e))?;
        if bytes.len() > MAX_MANIFEST_SIZE {
            return Err(self.name(Error::verification(format!(
                "the manifest has {} bytes, at most {MAX_MANIFEST_SIZE} are allowed",
                bytes.len()
            ))));
        }
        self.options.spend(bytes.len()).await;
        Ok((parse_digest(&digest, "manifest digest from skopeo")?, bytes))
    }

    /// Gets the config that belongs to a converted manifest: skopeo writes it anew, so the registry
    /// has no such blob. To be checked against that manifest.
    ///
    /// # Errors
    /// As [`Proxy::manifest`].
    pub async fn config(&self) -> Result<Vec<u8>> {
        let once = || async { self.connection().await?.config().await.map_err(|e| self.name(e)) };
        self.options.attempts().run(once).await
    }

    /// Starts the download of a blob of `size` bytes. Several may run at once.
    ///
    /// Does not retry: wrap the whole use of the blob in [`Attempts::run`].
    ///
    /// # Errors
    /// As [`Proxy::manifest`].
    pub async fn open_blob(&self, digest: &Digest, size: u64) -> Result<BlobStream> {
        let connection = self.connection().await?;
        match BlobStream::open(Arc::clone(&connection), digest.clone(), size).await {
            Ok(stream) => {
                connection.token.accepted();
                Ok(stream)
            }
            Err(e) => {
                // Skopeo keeps the token that it began with. Where the registry no longer takes it, another
                // skopeo gets another one; denied to that one as well, it stays denied.
                let again = failure::is_denied(&e) && connection.token.may_be_stale();
                let e = if again { e.that_may_pass() } else { e };
                if again {
                    connection.token.denied();
                    connection.retire();
                }
                Err(self.name(e.context(format!("blob {digest}"))))
            }
        }
    }

    /// The connection in use, or a new one if there is none or it is not to be used.
    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut state = self.state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|c| !c.is_retired()) {
            return Ok(Arc::clone(connection));
        }
        let after_denial = state.connection.take().is_some_and(|c| c.token.was_denied());
        let reference = state.pinned.as_deref().unwrap_or(&self.reference);
        let connection =
            Connection::open(reference, &self.options, after_denial).await.map_err(|e| self.name(e))?;
        Ok(Arc::clone(state.connection.insert(Arc::new(connection))))
    }

    /// How skopeo is run.
    pub fn options(&self) -> &ProxyOptions {
        &self.options
    }

    fn name(&self, e: Error) -> Error {
        e.context(&self.reference)
    }
}

/// `docker://host/repo@digest` for a reference to a registry; other transports have no such form.
fn pinned(reference: &str, digest: &Digest) -> Option<String> {
    let name = reference.strip_prefix("docker://")?;
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = name[last..].find(':').map_or(name, |colon| &name[..last + colon]);
    Some(format!("docker://{name}@{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;

    #[test]
    fn references_are_pinned_to_the_digest() {
        let digest = digest_of(b"x");
        for (reference, name) in [
            ("docker://host:5000/a/b:tag", Some("host:5000/a/b")),
            ("docker://host:5000/a/b", Some("host:5000/a/b")),
            ("docker://busybox:1", Some("busybox")),
            ("docker://h/a@sha256:00", Some("h/a")),
            ("oci:/dir:tag", None),
        ] {
            let expected = name.map(|name| format!("docker://{name}@{digest}"));
            assert_eq!(pinned(reference, &digest), expected, "{reference}");
        }
    }

    #[test]
    fn credentials_need_a_colon_and_are_not_printed() {
        assert!(Credentials::parse("nobody").is_err());
        let creds = Credentials::parse("me:secret").unwrap();
        let options = ProxyOptions { creds: Some(creds), ..Default::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
