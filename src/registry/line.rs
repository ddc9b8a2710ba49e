//! Connections to registries: TLS, proxies of the environment, redirects. Clones share them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect;

use super::proxies::Proxies;
use super::tls;
use crate::error::{Error, Result};
use crate::proxy::ProxyOptions;

/// Redirects followed; registries need one or two.
const MAX_REDIRECTS: usize = 5;

#[derive(Debug, Clone)]
pub(super) struct Line {
    pub client: reqwest::Client,
    pub proxies: Proxies,
    /// With plain HTTP as second choice, where the configuration allows it.
    pub insecure: bool,
    /// Which of the two it speaks, once an answer came.
    pub scheme: Arc<OnceLock<&'static str>>,
    /// Like the client, but what is sent may take its time: see [`sender`](Self::sender).
    sender: Arc<OnceLock<reqwest::Client>>,
    tls: rustls::ClientConfig,
    headers: HeaderMap,
    patience: Duration,
}

/// Registries whose connections are kept.
const MAX_LINES: usize = 64;

/// Lines to registries, for the repositories that they are shared by.
#[derive(Debug, Default)]
pub struct Lines(Mutex<HashMap<(String, bool), Line>>);

impl Lines {
    /// The one to `host`, as [`Line::new`] makes it.
    pub(super) fn to(
        &self,
        host: &str,
        insecure: bool,
        authorities: Vec<Vec<u8>>,
        headers: HeaderMap,
        options: &ProxyOptions,
    ) -> Result<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), insecure);
        if let Some(line) = lines.get(&key) {
            return Ok(line.clone());
        }
        let line = Line::new(insecure, authorities, headers, options)?;
        if lines.len() >= MAX_LINES {
            lines.clear();
        }
        lines.insert(key, line.clone());
        Ok(line)
    }
}

impl Line {
    /// One that trusts `authorities` (PEM), too, or, if `insecure`, everybody, and sends `headers` with each request.
    pub(super) fn new(
        insecure: bool,
        authorities: Vec<Vec<u8>>,
        headers: HeaderMap,
        options: &ProxyOptions,
    ) -> Result<Self> {
        let tls = tls::client_config(authorities, insecure)
            .map_err(|e| Error::local(format!("cannot set up HTTPS: {e}")).with_source(e))?;
        let proxies = Proxies::of_environment();
        let patience = options.inactivity_timeout;
        let client = client(&tls, &proxies, &headers, patience, |client| client.read_timeout(patience))?;
        let (scheme, sender) = Default::default();
        Ok(Line { client, proxies, insecure, scheme, sender, tls, headers, patience })
    }

    /// For uploads: the other client counts all the time until the answer begins as time without a byte.
    pub(super) fn sender(&self) -> Result<&reqwest::Client> {
        if let Some(sender) = self.sender.get() {
            return Ok(sender);
        }
        let sender = client(&self.tls, &self.proxies, &self.headers, self.patience, |client| client)?;
        Ok(self.sender.get_or_init(|| sender))
    }
}

fn client(
    tls: &rustls::ClientConfig,
    proxies: &Proxies,
    headers: &HeaderMap,
    patience: Duration,
    bounded: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client> {
    let ways = proxies.clone();
    let client = reqwest::Client::builder()
        .user_agent(concat!("oci-delta-fetch/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers.clone())
        .connect_timeout(patience)
        .redirect(redirect::Policy::custom(follow))
        .no_proxy()
        .proxy(reqwest::Proxy::custom(move |url| ways.way_to(url).cloned()))
        .tls_backend_preconfigured(tls.clone());
    bounded(client).build().map_err(|e| Error::local(format!("cannot set up HTTPS: {e}")).with_source(e))
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
