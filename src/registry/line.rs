//! Connections to registries: TLS, proxies of the environment, redirects. Clones share them.

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
        let ways = proxies.clone();
        let client = reqwest::Client::builder()
            .user_agent(concat!("oci-delta-fetch/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(options.inactivity_timeout)
            .read_timeout(options.inactivity_timeout)
            .redirect(redirect::Policy::custom(follow))
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| ways.way_to(url).cloned()))
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|e| Error::local(format!("cannot set up HTTPS: {e}")).with_source(e))?;
        Ok(Line { client, proxies, insecure })
    }
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
