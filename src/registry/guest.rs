//! Requests in the name of somebody else: with the credentials that a client sent, and never with this machine's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use oci_spec::distribution::Reference as DockerReference;
use reqwest::header::{HeaderMap, HeaderValue, VIA};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::OnceCell;

use super::access::{Admission, Login};
use super::answer::failed;
use super::config::{self, Mirrors, Rules};
use super::http::{Http, Request};
use super::line::Lines;
use super::{RemoteRepository, Way};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::proxy::ProxyOptions;

/// What our requests for others carry, so that one that comes back to us is known.
pub const OUR_VIA: &str = "1.1 oci-delta-fetch";

/// Whose credentials are shown to a registry.
#[derive(Clone)]
pub struct Guest(Admission);

impl Guest {
    /// Nobody's; what a registry wants to see is found out by us.
    pub fn anonymous() -> Self {
        Guest(Admission::Login(None))
    }

    /// Name and password that a client sent (RFC 7617); what the registry wants to see of them is found out by us.
    /// Both empty, they are nobody's, and `None` is for another kind of header.
    pub fn basic(header: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
        let text = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let text = String::from_utf8(text).ok()?;
        let (user, password) = text.split_once(':')?;
        let login = Login { user: user.to_owned(), password: password.to_owned() };
        Some(Guest(Admission::Login(Some(login).filter(|_| !user.is_empty() || !password.is_empty()))))
    }

    /// What a client sent goes on as it is, and challenges are its own to meet.
    pub fn verbatim(header: Option<&HeaderValue>) -> Self {
        let header = header.cloned().map(|mut header| {
            header.set_sensitive(true);
            header
        });
        Guest(Admission::OfOthers(header))
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guest(…)")
    }
}

/// Reaches registries for guests, over connections that they share.
#[derive(Debug)]
pub struct Guests {
    options: ProxyOptions,
    lines: Lines,
}

impl Guests {
    /// Of `options` the patience and the certificates count, and no credentials.
    pub fn new(options: &ProxyOptions) -> Self {
        let options = ProxyOptions { authfile: None, creds: None, ..options.clone() };
        Guests { options, lines: Lines::default() }
    }

    /// The repository of `image`, as `guest` may see it. Of registries.conf it counts what is insecure or
    /// blocked; mirrors do not, since we are one.
    ///
    /// # Errors
    /// Misfit where the configuration says something else of this registry.
    pub fn repository(&self, image: &DockerReference, guest: &Guest) -> Result<RemoteRepository> {
        let options = &self.options;
        let (host, name) = (image.registry(), image.repository());
        let (insecure, authorities) = match config::rules(host, name, options, Mirrors::AreUs) {
            Rules::Direct { insecure, authorities } => (insecure, authorities),
            Rules::OnlySkopeo(why) => return Err(Error::misfit(format!("{host} is not asked: {why}"))),
        };
        let headers = HeaderMap::from_iter([(VIA, HeaderValue::from_static(OUR_VIA))]);
        let line = self.lines.to(host, insecure, authorities, headers, options)?;
        let http = Http::new(line, image, guest.0.clone(), options);
        Ok(RemoteRepository {
            image: image.clone(),
            options: options.clone(),
            way: OnceCell::new_with(Some(Way::Http(Box::new(http)))),
            memory: None,
            lines: None,
        })
    }
}

/// The answer to a request that was passed on, whatever it says.
#[derive(Debug)]
pub struct Passed {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Does it come from another server, to which the registry led?
    pub redirected: bool,
    response: Response,
}

impl Passed {
    /// The next bytes of its body, or `None` after the last.
    ///
    /// # Errors
    /// Transient when it breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.response.chunk().await.map_err(|e| failed(e, None))
    }
}

impl RemoteRepository {
    /// Passes a request on: `path` is below `/v2/NAME/`, with its query.
    ///
    /// # Errors
    /// Transient, or Local, where no answer came.
    pub async fn pass_on(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Passed> {
        let http = self.http().await?.ok_or_else(ours)?;
        let request = Request { method: method.clone(), path, streamed: Some(headers), ..Default::default() };
        let response = http.answer(&request).await.map_err(|e| e.context(self.name()))?;
        let redirected = response.url().host_str() != http.host();
        Ok(Passed { status: response.status(), headers: response.headers().clone(), redirected, response })
    }

    /// The bytes of a blob, from the first on.
    pub(super) async fn whole_blob(&self, blob: &Digest) -> Result<Response> {
        let http = self.http().await?.ok_or_else(ours)?;
        http.whole(blob).await.map_err(|e| e.context(self.name()))
    }

    /// How it is reached.
    pub(super) fn options(&self) -> &ProxyOptions {
        &self.options
    }

    /// Host and repository.
    pub fn image(&self) -> &DockerReference {
        &self.image
    }
}

fn ours() -> Error {
    Error::local("the configuration leaves this registry to skopeo")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(header: &str) -> Option<Option<(String, String)>> {
        match Guest::basic(&HeaderValue::from_str(header).unwrap())?.0 {
            Admission::Login(login) => Some(login.map(|login| (login.user, login.password))),
            Admission::OfOthers(_) => None,
        }
    }

    #[test]
    fn empty_credentials_are_nobodys() {
        let user = |user: &str, password: &str| Some(Some((user.to_owned(), password.to_owned())));
        for (header, expected) in [
            ("Basic Og==", Some(None)),
            ("basic YTpiOmM=", user("a", "b:c")),
            ("Basic YTo=", user("a", "")),
            ("Basic", None),
            ("Basic !", None),
            ("Basic YQ==", None),
            ("Bearer YTpi", None),
        ] {
            assert_eq!(login(header), expected, "{header}");
        }
    }

    #[test]
    fn what_a_guest_sent_is_not_printed() {
        let header = HeaderValue::from_static("Bearer secret");
        assert_eq!(format!("{:?}", Guest::verbatim(Some(&header))), "Guest(…)");
    }
}
