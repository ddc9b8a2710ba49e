//! One request after another: who may ask, what, and in whose name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, VIA, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::asked::Asked;
use super::body::{API_VERSION, Answered, Body, answer, refuse};
use super::deltas::Deltas;
use super::route::{Refusal, Route, Style, Upstreams, route};
use crate::digest::{Digest, digest_of};
use crate::registry::{Guest, Guests, OUR_VIA, RemoteRepository};

/// Requests in one second, of all clients together; a pull makes some hundred in all.
const MAX_REQUESTS: u32 = 500;
/// Repositories, as clients may see them, of which tokens are kept.
const MAX_REPOSITORIES: usize = 256;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Door {
    pub guests: Guests,
    pub upstreams: Upstreams,
    pub deltas: Arc<Deltas>,
    /// Only requests that name this machine's loopback are taken: a web page must not reach us by a name of its own.
    pub only_loopback: bool,
    /// By host, repository and the digest of the credentials.
    pub repositories: Mutex<HashMap<(String, Digest), Arc<RemoteRepository>>>,
    /// A second, and how many came in it.
    pub rate: Mutex<Option<(Instant, u32)>>,
}

impl Door {
    /// Answers, whatever is asked.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answered {
        let answered = match self.admit(&request) {
            Ok(()) => self.ask(&request).await,
            Err(refusal) => Err(refusal),
        };
        Ok(answered.unwrap_or_else(|refusal| {
            let mut response = refuse(&refusal);
            let header = match refusal.status {
                401 => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oci-delta-fetch\""))),
                405 => Some((ALLOW, HeaderValue::from_static("GET, HEAD"))),
                429 => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
                _ => None,
            };
            response.headers_mut().extend(header);
            if request.method() == Method::HEAD {
                *response.body_mut() = Body::empty();
            }
            response
        }))
    }

    fn admit(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Err(Refusal::new(405, "UNSUPPORTED", "this mirror is read only"));
        }
        let vias = request.headers().get_all(VIA);
        if vias.iter().any(|via| String::from_utf8_lossy(via.as_bytes()).contains(OUR_VIA)) {
            return Err(Refusal::new(508, "DENIED", "this request came from here"));
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if self.only_loopback && !host.is_none_or(is_loopback) {
            return Err(Refusal::new(421, "DENIED", "this mirror is known by loopback addresses alone"));
        }
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = rate
            .filter(|(since, _)| since.elapsed() < Duration::from_secs(1))
            .unwrap_or_else(|| (Instant::now(), 0));
        *rate = Some((since, count.saturating_add(1)));
        if count >= MAX_REQUESTS {
            let message = format!("more than {MAX_REQUESTS} requests in a second");
            return Err(Refusal::new(429, "TOOMANYREQUESTS", message));
        }
        Ok(())
    }

    async fn ask(&self, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path();
        if matches!(path, "/v2" | "/v2/") {
            return ping(request);
        }
        let route = route(path, request.uri().query(), &self.upstreams)?;
        let guest = guest(&route, request.headers().get(AUTHORIZATION))?;
        let repository = self.repository(&route, &guest, request.headers().get(AUTHORIZATION))?;
        Asked { deltas: &self.deltas, request, route: &route, repository: &repository }.answer().await
    }

    fn repository(
        &self,
        route: &Route,
        guest: &Guest,
        header: Option<&HeaderValue>,
    ) -> Result<Arc<RemoteRepository>, Refusal> {
        let name = format!("{}/{} {:?}", route.image.registry(), route.image.repository(), route.style);
        let key = (name, digest_of(header.map_or(&b""[..], HeaderValue::as_bytes)));
        let mut known = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = known.get(&key) {
            return Ok(repository.clone());
        }
        let repository = self.guests.repository(&route.image, guest);
        let repository = Arc::new(repository.map_err(|e| Refusal::new(502, "UNAVAILABLE", e.to_string()))?);
        if known.len() >= MAX_REPOSITORIES {
            known.clear();
        }
        known.insert(key, repository.clone());
        Ok(repository)
    }
}

/// Does a `Host` header name this machine's loopback?
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Clients send what credentials they have once they are asked for some: no others would reach their registry.
fn ping(request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if request.headers().get(AUTHORIZATION).is_none() {
        return Err(Refusal::new(
            401,
            "UNAUTHORIZED",
            "what credentials there are for the registry, even none",
        ));
    }
    let headers = HeaderMap::from_iter([
        (API_VERSION, HeaderValue::from_static("registry/2.0")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_LENGTH, HeaderValue::from_static("2")),
    ]);
    Ok(answer(StatusCode::OK, headers, Bytes::from_static(b"{}").into()))
}

/// In whose name a registry is asked.
fn guest(route: &Route, header: Option<&HeaderValue>) -> Result<Guest, Refusal> {
    match (route.style, header) {
        (Style::Namespace, header) => Ok(Guest::verbatim(header)),
        (Style::Path, None) => Ok(Guest::anonymous()),
        (Style::Path, Some(header)) if header.as_bytes().to_ascii_lowercase().starts_with(b"basic") => {
            let broken = || Refusal::new(401, "UNAUTHORIZED", "the credentials cannot be read");
            Guest::basic(header).ok_or_else(broken)
        }
        (Style::Path, header) => Ok(Guest::verbatim(header)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_many_names() {
        for host in
            ["localhost", "LOCALHOST:5", "127.0.0.1:5050", "127.9.9.9", "[::1]:5050", "[::ffff:127.0.0.1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com:80", "10.0.0.1:5050", "127.0.0.1.example.com"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
