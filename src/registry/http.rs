//! Single requests to one repository of a registry: bounded, authorised, retried.

use std::time::Duration;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client as TokenClient, RegistryOperation};
use oci_spec::distribution::Reference as DockerReference;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url, redirect};
use tokio::sync::Mutex;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::proxy::with_retry;

/// Redirects followed; registries need one or two.
const MAX_REDIRECTS: usize = 5;

/// How one repository is reached.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    image: DockerReference,
    /// With plain HTTP as second choice, where the configuration allows it.
    insecure: bool,
    authorities: Vec<Vec<u8>>,
    auth: RegistryAuth,
    retries: u32,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scheme: Option<&'static str>,
    /// What the registry wants to see with each request.
    pass: Option<Pass>,
}

#[derive(Clone)]
enum Pass {
    Basic(String, String),
    Bearer(String),
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass(…)")
    }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Request<'a> {
    pub method: Method,
    /// Below `/v2/NAME/`, or what a page names as its next.
    pub path: &'a str,
    pub accept: Option<&'a str>,
    /// Media type and bytes.
    pub body: Option<(&'a str, &'a [u8])>,
    /// Most bytes of the answer, when it is read at once.
    pub max: u64,
    /// The first byte of a stream, when not the whole thing is wanted.
    pub from: Option<u64>,
}

/// The answer to a request that succeeded.
#[derive(Debug)]
pub(super) struct Answer {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// How the connection is to be made.
#[derive(Debug)]
pub(super) struct Settings {
    pub insecure: bool,
    pub authorities: Vec<Vec<u8>>,
    pub auth: RegistryAuth,
    pub patience: Duration,
    pub retries: u32,
}

impl Http {
    pub(super) fn new(image: &DockerReference, settings: Settings) -> Result<Self> {
        // The first one stays; it is always this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unusable = |e: reqwest::Error| Error::local(format!("cannot set up HTTPS: {}", chain(&e)));
        let mut authorities = Vec::new();
        for pem in &settings.authorities {
            authorities.extend(reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?);
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("oci-delta-fetch/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.patience)
            .read_timeout(settings.patience)
            .redirect(redirect::Policy::custom(follow))
            .tls_certs_merge(authorities)
            .tls_danger_accept_invalid_certs(settings.insecure)
            .build()
            .map_err(unusable)?;
        Ok(Http {
            client,
            image: image.clone(),
            insecure: settings.insecure,
            authorities: settings.authorities,
            auth: settings.auth,
            retries: settings.retries,
            patience: settings.patience,
            state: Mutex::default(),
        })
    }

    /// Makes a request; `None` when there is no such thing (404).
    ///
    /// # Errors
    /// Transient for trouble that may pass, after the allowed retries; Verification for more bytes
    /// than allowed; Local when the registry does not let us in.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Option<Answer>> {
        with_retry(self.retries, async || self.ask_once(request).await).await
    }

    /// The bytes of a blob from `first` on; `None` where the server does not give exactly those.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), without retries.
    pub(super) async fn rest_of(&self, blob: &Digest, first: u64, size: u64) -> Result<Option<Response>> {
        let path = format!("blobs/{blob}");
        let request = Request { path: &path, from: Some(first), ..Default::default() };
        let response = self.answer(&request).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => Ok(continues(&response, first, size).then_some(response)),
            status if may_pass(status) => Err(Error::transient(format!("GET {}: {status}", response.url()))),
            _ => Ok(None),
        }
    }

    /// Sends a request, and again with what the registry wants to see.
    async fn answer(&self, request: &Request<'_>) -> Result<Response> {
        let response = self.send(request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.authorise(&response, ![Method::GET, Method::HEAD].contains(&request.method)).await?;
        self.send(request).await
    }

    /// The same, once.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) async fn ask_once(&self, request: &Request<'_>) -> Result<Option<Answer>> {
        let response = self.answer(request).await?;
        let status = response.status();
        if status.is_success() {
            let headers = response.headers().clone();
            return Ok(Some(Answer { headers, body: body(response, request.max).await? }));
        }
        let what = format!("{} {}: {status}", request.method, response.url());
        match status.as_u16() {
            404 => Ok(None),
            401 | 403 => {
                Err(Error::local(what).with_hint("log in with `skopeo login` or name an --authfile"))
            }
            _ if may_pass(status) => Err(Error::transient(what)),
            _ => Err(Error::misfit(what)),
        }
    }

    /// Sends it with what the registry wanted last time; finds out which scheme it speaks.
    async fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut state = self.state.lock().await;
        let schemes: &[&str] = match (state.scheme, self.insecure) {
            (Some(known), _) => &[known],
            (None, false) => &["https"],
            (None, true) => &["https", "http"],
        };
        let mut last = None;
        for scheme in schemes {
            match self.build(request, scheme, state.pass.as_ref())?.send().await {
                Ok(response) => {
                    state.scheme = Some(if *scheme == "http" { "http" } else { "https" });
                    return Ok(response);
                }
                Err(e) if e.is_connect() && schemes.len() > 1 => last = Some(failed(&e)),
                Err(e) => return Err(failed(&e)),
            }
        }
        Err(last.unwrap_or_else(|| Error::transient("no answer came")))
    }

    fn build(
        &self,
        request: &Request<'_>,
        scheme: &str,
        pass: Option<&Pass>,
    ) -> Result<reqwest::RequestBuilder> {
        let url = self.url(scheme, request.path)?;
        let mut builder = self.client.request(request.method.clone(), url);
        if let Some(accept) = request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        builder = match request.from {
            Some(first) => builder.header(RANGE, format!("bytes={first}-")),
            // Metadata: what drips slower than that is a stall. A blob may take its time, but not stand still.
            None => builder.timeout(self.patience),
        };
        if let Some((media_type, bytes)) = request.body {
            builder = builder.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        }
        Ok(match pass {
            Some(Pass::Basic(user, password)) => builder.basic_auth(user, Some(password)),
            Some(Pass::Bearer(token)) => builder.bearer_auth(token),
            None => builder,
        })
    }

    fn url(&self, scheme: &str, path: &str) -> Result<Url> {
        let host = self.image.resolve_registry();
        let broken = |e| Error::verification(format!("{host}: {path:?} is no address: {e}"));
        let base = format!("{scheme}://{host}/v2/{}/", self.image.repository());
        let base = Url::parse(&base).map_err(broken)?;
        let url = base.join(path).map_err(broken)?;
        // A page may name the next one, but not another server.
        if url.origin() != base.origin() {
            return Err(Error::verification(format!("{host} continues its list on another server: {url}")));
        }
        Ok(url)
    }

    /// Gets what the registry asks for in its answer: basic authentication or a token.
    async fn authorise(&self, response: &Response, write: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        let wanted = response.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
        let basic = wanted.is_some_and(|w| w.trim_start().to_ascii_lowercase().starts_with("basic"));
        if basic {
            if let RegistryAuth::Basic(user, password) = &self.auth {
                state.pass = Some(Pass::Basic(user.clone(), password.clone()));
            }
            return Ok(());
        }
        let protocol =
            if state.scheme == Some("http") { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            accept_invalid_certificates: self.insecure,
            extra_root_certificates: self.authorities.iter().map(|data| pem(data)).collect(),
            read_timeout: Some(self.patience),
            connect_timeout: Some(self.patience),
            ..Default::default()
        };
        let client = TokenClient::try_from(config)
            .map_err(|e| Error::local(format!("cannot set up HTTPS: {e}")).with_source(e))?;
        let operation = if write { RegistryOperation::Push } else { RegistryOperation::Pull };
        let token = tokio::time::timeout(self.patience, client.auth(&self.image, &self.auth, operation))
            .await
            .map_err(|_| Error::transient("no token came from the registry in time"))?
            .map_err(|e| {
                Error::local(format!("{}: no access: {e}", self.image.registry()))
                    .with_hint("log in with `skopeo login` or name an --authfile")
            })?;
        state.pass = token.map(Pass::Bearer);
        Ok(())
    }
}

/// Trouble of a server or with it, of the kind that a later try may not meet.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500..600)
}

/// Is this answer of a range the rest of a blob of `size` bytes from `first` on?
fn continues(response: &Response, first: u64, size: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.trim() == format!("bytes {first}-{}/{size}", size - 1))
}

fn pem(data: &[u8]) -> Certificate {
    Certificate { encoding: CertificateEncoding::Pem, data: data.to_owned() }
}

/// Follows redirects, but not from HTTPS to plain HTTP. Credentials stay with the first host.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt.previous().first().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    if from_https && attempt.url().scheme() != "https" {
        return attempt.error("redirect from HTTPS to plain HTTP");
    }
    attempt.follow()
}

/// Reads an answer, at most `max` bytes.
async fn body(mut response: Response, max: u64) -> Result<Vec<u8>> {
    let url = response.url().to_string();
    let too_large = || Error::verification(format!("{url}: the answer has more than {max} bytes"));
    if response.content_length().is_some_and(|n| n > max) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(&e))? {
        if (bytes.len() + chunk.len()) as u64 > max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What a failed request means.
pub(super) fn failed(e: &reqwest::Error) -> Error {
    let text = chain(e);
    let tls = text.contains("certificate") || text.contains("redirect");
    if tls { Error::local(text) } else { Error::transient(text) }
}

/// The error and its causes, since the first alone says only that a request failed.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = c.source();
    }
    text
}
