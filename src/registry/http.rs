//! Single requests to one repository of a registry: bounded, authorised, retried.

use std::sync::{Mutex, PoisonError};

use oci_spec::distribution::Reference as DockerReference;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::access::{self, Admission, Challenge, Login, Pass};
use super::answer::{failed, refused};
use super::line::Line;
use crate::digest::Digest;
use crate::error::{Advice, Error, Kind, Result};
use crate::proxy::ProxyOptions;

/// Bytes of a token server's answer; tokens have a few KiB.
const MAX_TOKEN: u64 = 1 << 20;
/// Times that one request is authorised: once, and once more where another request's token was of no use.
const MAX_PASSES: usize = 2;

/// How one repository is reached.
#[derive(Debug)]
pub(super) struct Http {
    line: Line,
    image: DockerReference,
    admission: Admission,
    options: ProxyOptions,
    /// Never held while a request is on its way.
    state: Mutex<State>,
    /// One asks for a token, the others wait for it.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// What the registry wants to see with each request.
    pass: Option<Pass>,
    /// Counts the passes.
    passes: u64,
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
    /// Further headers, of a request whose answer is read as a stream.
    pub streamed: Option<&'a HeaderMap>,
}

/// The answer to a request that succeeded.
#[derive(Debug)]
pub(super) struct Answer {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    pub(super) fn new(
        line: Line,
        image: &DockerReference,
        admission: Admission,
        options: &ProxyOptions,
    ) -> Self {
        let pass = admission.pass();
        Http {
            line,
            image: image.clone(),
            admission,
            options: options.clone(),
            state: Mutex::new(State { pass, ..State::default() }),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Makes a request.
    ///
    /// # Errors
    /// Transient for trouble that may pass, after the allowed retries; Verification for more bytes than allowed;
    /// Local when the registry does not let us in or takes nothing; else Misfit. The
    /// [status](super::answer::status_of) tells them apart.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Answer> {
        self.options.attempts().run(|| self.ask_once(request)).await
    }

    /// The bytes of a blob from `first` on; `None` where the server does not give exactly those.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), without retries.
    pub(super) async fn rest_of(&self, blob: &Digest, first: u64, size: u64) -> Result<Option<Response>> {
        let path = format!("blobs/{blob}");
        let request = Request { path: &path, from: Some(first), ..Default::default() };
        let response = self.answer(&request).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            return Ok(continues(&response, first, size).then_some(response));
        }
        if response.status().is_success() {
            return Ok(None);
        }
        match self.refused(&request.method, response).await {
            e if e.kind() == Kind::Transient => Err(e),
            _ => Ok(None),
        }
    }

    /// The bytes of a blob, from the first on.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), without retries.
    pub(super) async fn whole(&self, blob: &Digest) -> Result<Response> {
        let (path, none) = (format!("blobs/{blob}"), HeaderMap::new());
        let request = Request { path: &path, streamed: Some(&none), ..Default::default() };
        let response = self.answer(&request).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(self.refused(&request.method, response).await),
        }
    }

    /// The same as [`ask`](Self::ask), once.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) async fn ask_once(&self, request: &Request<'_>) -> Result<Answer> {
        let response = self.answer(request).await?;
        if !response.status().is_success() {
            return Err(self.refused(&request.method, response).await);
        }
        let headers = response.headers().clone();
        Ok(Answer { headers, body: self.body(response, request.max).await? })
    }

    /// Sends a request, and again with what the registry wants to see.
    pub(super) async fn answer(&self, request: &Request<'_>) -> Result<Response> {
        let mut passes = 0;
        loop {
            let (response, pass) = self.send(request).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || passes == MAX_PASSES || self.admission.is_of_others() {
                return Ok(response);
            }
            passes += 1;
            let challenges = access::challenges(response.headers());
            let write = ![Method::GET, Method::HEAD].contains(&request.method);
            let _turn = self.asking.lock().await;
            if self.state().passes != pass {
                continue; // Somebody else got a new one meanwhile.
            }
            let Some(new) = self.pass(&challenges, write).await? else { return Ok(response) };
            let mut state = self.lock();
            if state.pass.as_ref() == Some(&new) {
                return Ok(response); // The same name and password, that is: they are refused.
            }
            state.pass = Some(new);
            state.passes += 1;
        }
    }

    /// The registry's host, without its port.
    pub(super) fn host(&self) -> Option<&str> {
        let host = self.image.resolve_registry();
        Some(host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(host, _)| host))
    }

    fn login(&self) -> Option<&Login> {
        match &self.admission {
            Admission::Login(login) => login.as_ref(),
            Admission::OfOthers(_) => None,
        }
    }

    fn state(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it with what the registry wanted last time, and tells which that was; finds out which scheme
    /// it speaks.
    async fn send(&self, request: &Request<'_>) -> Result<(Response, u64)> {
        self.options.spend(request.body.map_or(0, |(_, bytes)| bytes.len())).await;
        let state = self.state();
        let schemes: &[&'static str] = match (self.line.scheme.get().copied(), self.line.insecure) {
            (Some("http"), _) => &["http"],
            (Some(_), _) | (None, false) => &["https"],
            (None, true) => &["https", "http"],
        };
        let mut last = None;
        for &scheme in schemes {
            let url = self.url(scheme, request.path)?;
            match self.build(request, url.clone(), state.pass.as_ref()).send().await {
                Ok(response) => {
                    // Another repository's request may have been faster; it found the same.
                    let _ = self.line.scheme.set(scheme);
                    return Ok((response, state.passes));
                }
                Err(e) => {
                    let next = e.is_connect();
                    last = Some(self.failed(e, &url));
                    if !next {
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::transient("no answer came")))
    }

    fn build(&self, request: &Request<'_>, url: Url, pass: Option<&Pass>) -> RequestBuilder {
        let mut builder = self.line.client.request(request.method.clone(), url);
        if let Some(accept) = request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        builder = match (request.from, request.streamed) {
            (Some(first), _) => builder.header(RANGE, format!("bytes={first}-")),
            (None, Some(headers)) => builder.headers(headers.clone()),
            // Metadata: what drips slower than that is a stall. A blob may take its time, but not stand still.
            (None, None) => builder.timeout(self.options.inactivity_timeout),
        };
        if let Some((media_type, bytes)) = request.body {
            builder = builder.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        }
        shown(builder, pass)
    }

    /// The request that ends an upload, to the place that the answer `begun` named.
    pub(super) fn upload_to(&self, begun: &Answer, blob: &Digest) -> Result<(RequestBuilder, Url)> {
        let broken = |why: String| {
            Error::verification(format!("{}: the place for an upload: {why}", self.image.registry()))
        };
        let location = begun.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| broken("none is named".into()))?;
        let here = self.url(self.line.scheme.get().unwrap_or(&"https"), "blobs/uploads/")?;
        let mut url = here.join(location).map_err(|e| broken(format!("{location:?} is no address: {e}")))?;
        if url.scheme() != here.scheme() && url.scheme() != "https" {
            return Err(broken(format!("{location:?} is not encrypted, and the registry is")));
        }
        url.query_pairs_mut().append_pair("digest", blob.as_ref());
        let builder = self.line.sender()?.put(url.clone());
        // Another server was told by the registry what to let in.
        let state = self.state();
        Ok((shown(builder, state.pass.as_ref().filter(|_| url.origin() == here.origin())), url))
    }

    pub(super) fn options(&self) -> &ProxyOptions {
        &self.options
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

    /// What one of the challenges asks for, the first one that can be met; `None` where none can.
    async fn pass(&self, challenges: &[Challenge], write: bool) -> Result<Option<Pass>> {
        let mut failure = None;
        for challenge in challenges {
            match challenge {
                Challenge::Basic => {
                    if let Some(login) = self.login() {
                        return Ok(Some(Pass::Basic(login.clone())));
                    }
                }
                Challenge::Bearer { realm, service, scope } => {
                    match self.token(realm, service.as_deref(), scope.as_deref(), write).await {
                        Ok(token) => return Ok(Some(Pass::Bearer(token))),
                        Err(e) => failure = failure.or(Some(e)),
                    }
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// A token from the server at `realm` (distribution specification, "token authentication").
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        write: bool,
    ) -> Result<String> {
        let context = |e: Error| e.context(format!("{}: no token", self.image.registry()));
        let mut url = Url::parse(realm)
            .map_err(|e| Error::local(format!("{realm:?} is no address: {e}")))
            .map_err(context)?;
        let plain = url.scheme() != "https" && !self.line.insecure;
        if plain && self.login().is_some() && self.line.scheme.get() == Some(&"https") {
            return Err(context(Error::local(format!("{realm} wants the password without encryption"))));
        }
        let actions = if write { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.image.repository());
        let more = scope.filter(|scope| *scope != own);
        url.query_pairs_mut().extend_pairs(service.map(|service| ("service", service)));
        url.query_pairs_mut().append_pair("scope", &own).extend_pairs(more.map(|scope| ("scope", scope)));
        let account = self.login().map(|login| ("account", &login.user));
        url.query_pairs_mut().extend_pairs(account);
        let mut request = self.line.client.get(url.clone()).timeout(self.options.inactivity_timeout);
        if let Some(login) = self.login() {
            request = request.basic_auth(&login.user, Some(&login.password));
        }
        let response = request.send().await.map_err(|e| context(self.failed(e, &url)))?;
        if !response.status().is_success() {
            let refused = context(self.refused(&Method::GET, response).await);
            // No other way leads on from here.
            return Err(match refused.kind() {
                Kind::Misfit => Error::local(refused.to_string()).with_hint(Advice::LogIn),
                _ => refused,
            });
        }
        let body = self.body(response, MAX_TOKEN).await.map_err(context)?;
        access::token_in(&body).ok_or_else(|| context(Error::local(format!("{realm} gives none"))))
    }

    /// Reads an answer, at most `max` bytes.
    async fn body(&self, mut response: Response, max: u64) -> Result<Vec<u8>> {
        let url = response.url().clone();
        let too_large = || Error::verification(format!("{url}: the answer has more than {max} bytes"));
        if response.content_length().is_some_and(|n| n > max) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(e, &url))? {
            if (bytes.len() + chunk.len()) as u64 > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        // It is short, and the server waits for nothing any more.
        self.options.spend(bytes.len()).await;
        Ok(bytes)
    }

    pub(super) async fn refused(&self, method: &Method, response: Response) -> Error {
        let via = self.line.proxies.name_of_way_to(response.url());
        refused(method, response, via).await
    }

    /// What a request that failed means; `url` is where it went.
    pub(super) fn failed(&self, e: reqwest::Error, url: &Url) -> Error {
        failed(e, self.line.proxies.name_of_way_to(url))
    }
}

/// A request with what the registry wants to see.
fn shown(builder: RequestBuilder, pass: Option<&Pass>) -> RequestBuilder {
    match pass {
        Some(Pass::Basic(login)) => builder.basic_auth(&login.user, Some(&login.password)),
        Some(Pass::Bearer(token)) => builder.bearer_auth(token),
        Some(Pass::Given(header)) => builder.header(AUTHORIZATION, header),
        None => builder,
    }
}

/// Is this answer of a range the rest of a blob of `size` bytes from `first` on?
fn continues(response: &Response, first: u64, size: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.trim() == format!("bytes {first}-{}/{size}", size - 1))
}
