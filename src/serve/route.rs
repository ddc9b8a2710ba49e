//! What a request is about: pure, from its path and query.
//!
//! ```text
//! /v2/HOST/NAME/manifests/REF          podman, skopeo, CRI-O: the mirror's location is OURSELVES/HOST,
//!                                      or OURSELVES/HOST__PORT, since a name there has no colon
//! /v2/NAME/manifests/REF?ns=HOST       containerd, k3s
//! /v2/NAME/manifests/REF               Docker's registry-mirrors: the one upstream
//! ```

use oci_spec::distribution::Reference as DockerReference;

use crate::digest::{Digest, parse_digest};
use crate::reference::Reference;

/// Longest path with its query, in bytes: a name has 255 characters, a tag 128.
const MAX_PATH: usize = 2048;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Host and repository.
    pub image: DockerReference,
    pub what: What,
    pub style: Style,
    /// What follows `/v2/NAME/` there.
    pub path: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    Manifest,
    Blob(Digest),
    /// Tags, or referrers.
    List,
}

/// How a client names the registry that it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// In the path, or not at all: then it knows nothing of that registry, and its challenges are ours to meet.
    Path,
    /// Beside it: the client speaks with the registry, and we pass that on.
    Namespace,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// As the distribution specification names it.
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into() }
    }
}

/// The registries that may be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstreams {
    /// These; any that a client names, where there are none.
    pub allowed: Vec<String>,
    /// Our own names: to ask ourselves would never end.
    pub own: Vec<String>,
}

impl Upstreams {
    /// The one for clients that name none.
    fn usual(&self) -> Option<&str> {
        match &self.allowed[..] {
            [] => Some("docker.io"),
            [one] => Some(one),
            several => several.iter().map(String::as_str).find(|host| *host == "docker.io"),
        }
    }

    fn check(&self, host: &str) -> Result<(), Refusal> {
        if self.own.iter().any(|own| own == host) {
            return Err(Refusal::new(508, "DENIED", format!("{host} is this mirror")));
        }
        if self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == host) {
            return Ok(());
        }
        let message = format!("{host} is not among the upstreams: {}", self.allowed.join(", "));
        Err(Refusal::new(403, "DENIED", message))
    }
}

/// Reads the path and query of a request for something below `/v2/`.
pub(super) fn route(path: &str, query: Option<&str>, upstreams: &Upstreams) -> Result<Route, Refusal> {
    let malformed = |what: &str| Refusal::new(400, "NAME_INVALID", format!("{path:?}: {what}"));
    let query = query.unwrap_or_default();
    if path.len() + query.len() > MAX_PATH {
        return Err(Refusal::new(414, "NAME_INVALID", format!("a path has at most {MAX_PATH} bytes")));
    }
    if path.contains('%') {
        return Err(malformed("names have no encoded characters"));
    }
    let rest =
        path.strip_prefix("/v2/").ok_or_else(|| Refusal::new(404, "NAME_UNKNOWN", "only /v2/ is here"))?;
    let parts: Vec<&str> = rest.split('/').collect();
    let unknown = || Refusal::new(404, "UNSUPPORTED", "manifests, blobs, tags/list and referrers are here");
    let [name @ .., kind, last] = &parts[..] else { return Err(unknown()) };
    let digest =
        || parse_digest(last, "digest").map_err(|e| Refusal::new(400, "DIGEST_INVALID", e.to_string()));
    let what = match (*kind, *last) {
        ("manifests", _) => What::Manifest,
        ("blobs", _) => What::Blob(digest()?),
        ("tags", "list") => What::List,
        ("referrers", _) => digest().map(|_| What::List)?,
        _ => return Err(unknown()),
    };
    let (spaces, others): (Vec<&str>, Vec<&str>) =
        query.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with("ns="));
    let named =
        spaces.first().map(|pair| pair.trim_start_matches("ns=").replace("%3A", ":").replace("%3a", ":"));
    let is_host = |part: &str| part.contains(['.', ':']) || part.split("__").next() == Some("localhost");
    let (host, name, style) = match (&named, name) {
        (Some(host), name) => (&**host, name, Style::Namespace),
        (None, [host, name @ ..]) if is_host(host) => (*host, name, Style::Path),
        (None, name) => {
            let why = || malformed("no registry is named, and there is not one upstream");
            (upstreams.usual().ok_or_else(why)?, name, Style::Path)
        }
    };
    let of_host = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if !is_host(host) || !host.bytes().all(of_host) {
        return Err(malformed("the registry has no name of a host"));
    }
    let host = &with_port(host);
    let separator = if last.contains(':') { '@' } else { ':' };
    let tag = if what == What::Manifest { format!("{separator}{last}") } else { String::new() };
    let reference: Result<Reference, _> = format!("docker://{host}/{}{tag}", name.join("/")).parse();
    let image = match reference {
        Ok(Reference::Docker { name }) => name,
        Ok(_) => return Err(malformed("no name in a registry")),
        Err(e) => return Err(Refusal::new(400, "NAME_INVALID", e.to_string())),
    };
    upstreams.check(image.registry())?;
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    Ok(Route { image, what, style, path: format!("{kind}/{last}{query}") })
}

/// `HOST__PORT` as it is meant.
fn with_port(host: &str) -> String {
    match host.rsplit_once("__") {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => format!("{name}:{port}"),
        _ => host.to_owned(),
    }
}

/// A host as a part of a path where names have no colon.
pub(super) fn without_colon(host: &str) -> String {
    host.replace(':', "__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(target: &str, allowed: &[&str]) -> Result<(String, String, Style), u16> {
        let upstreams = Upstreams {
            allowed: allowed.iter().map(|host| (*host).to_owned()).collect(),
            own: vec!["127.0.0.1:5050".into()],
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let route = route(path, query, &upstreams).map_err(|refusal| refusal.status)?;
        let name = format!("{}/{}", route.image.registry(), route.image.repository());
        Ok((name, route.path, route.style))
    }

    #[test]
    fn clients_name_registries_in_three_ways() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let found = |name: &str, path: &str, style| Ok((name.to_owned(), path.to_owned(), style));
        use Style::{Namespace, Path};
        for (target, allowed, expected) in [
            ("/v2/quay.io/a/b/manifests/1.0", &[][..], found("quay.io/a/b", "manifests/1.0", Path)),
            ("/v2/h:5000/a/tags/list?n=2&last=x", &[], found("h:5000/a", "tags/list?n=2&last=x", Path)),
            ("/v2/localhost/a/manifests/1", &[], found("localhost/a", "manifests/1", Path)),
            ("/v2/localhost__5000/a/manifests/1", &[], found("localhost:5000/a", "manifests/1", Path)),
            ("/v2/reg.example__5000/a/manifests/1", &[], found("reg.example:5000/a", "manifests/1", Path)),
            ("/v2/reg.example__x/a/manifests/1", &[], Err(400)),
            ("/v2/a/b/manifests/1?ns=quay.io", &[], found("quay.io/a/b", "manifests/1", Namespace)),
            ("/v2/a/tags/list?ns=h%3A1&n=2", &[], found("h:1/a", "tags/list?n=2", Namespace)),
            ("/v2/library/x/manifests/1", &[], found("docker.io/library/x", "manifests/1", Path)),
            ("/v2/library/x/manifests/1", &["quay.io"], found("quay.io/library/x", "manifests/1", Path)),
            ("/v2/x/manifests/1?ns=docker.io", &[], found("docker.io/library/x", "manifests/1", Namespace)),
            ("/v2/library/x/manifests/1", &["a.io", "b.io"], Err(400)),
            ("/v2/quay.io/a/b/manifests/1.0", &["a.io"], Err(403)),
            ("/v2/127.0.0.1:5050/a/manifests/1", &[], Err(508)),
        ] {
            assert_eq!(ask(target, allowed), expected, "{target}");
        }
        for kind in ["manifests", "blobs", "referrers"] {
            let path = format!("{kind}/{digest}");
            assert_eq!(ask(&format!("/v2/quay.io/a/{path}"), &[]), found("quay.io/a", &path, Path));
        }
    }

    #[test]
    fn tricks_lead_nowhere() {
        let long = format!("/v2/quay.io/{}/manifests/1", "a".repeat(300));
        let longer = format!("/v2/quay.io/a/manifests/1?{}", "a".repeat(3000));
        for (target, status) in [
            ("/v2/quay.io/../b/manifests/1", 400),
            ("/v2/quay.io/a/./b/manifests/1", 400),
            ("/v2/quay.io//b/manifests/1", 400),
            ("/v2/quay.io/a%2fb/manifests/1", 400),
            ("/v2/quay.io/a/manifests/%2e%2e", 400),
            ("/v2/quay.io/a/manifests/..", 400),
            ("/v2/quay.io/a/manifests/", 400),
            ("/v2/quay.io/a/manifests/a@b", 400),
            ("/v2/quay.io/a/blobs/sha256:00", 400),
            ("/v2/quay.io/a/blobs/uploads/", 404),
            ("/v2/quay.io/manifests/1", 400),
            ("/v2/user@quay.io/a/manifests/1", 400),
            ("/v2/a/manifests/1?ns=", 400),
            ("/v2/a/manifests/1?ns=quay.io/x", 400),
            ("/v2/a/manifests/1?ns=x@quay.io", 400),
            ("/v2/_catalog", 404),
            ("/v1/search", 404),
            ("/", 404),
            (&*long, 400),
            (&*longer, 414),
        ] {
            assert_eq!(ask(target, &[]), Err(status), "{target}");
        }
    }
}
