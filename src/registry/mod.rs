//! What skopeo's image proxy has no call for: lists of referrers, raw manifests
//! beside the opened image, writing such a list, the rest of a blob.
//!
//! Requests of our own are made only where they do what skopeo would do. A setting
//! that cannot be honoured here (a mirror, a blocked registry, a client certificate,
//! an identity token) leaves the reading to `skopeo inspect --raw`, which knows the
//! fallback tag but not the referrers API.

mod access;
mod answer;
mod auth;
mod blob;
mod config;
mod guest;
mod http;
mod line;
mod list;
mod memory;
mod mirror;
mod page;
mod places;
mod proxies;
mod tls;
mod upload;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::Descriptor;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::sync::OnceCell;

use crate::artifact::MAX_MANIFEST_SIZE;
use crate::digest::{Digest, digest_of};
pub use crate::document::{IMAGE_INDEX, IMAGE_MANIFEST};
use crate::error::{Error, Kind, Result};
use crate::proxy::{ProxyOptions, inspect_raw};
use access::{Admission, Login};
use answer::{is_absent, status_of};
pub use blob::{Blob, Blobs};
use config::{Mirrors, Rules};
pub use guest::{Guest, Guests, OUR_VIA, Passed};
use http::{Answer, Http, Request};
use line::Line;
pub use line::Lines;
pub use list::Change;
use memory::{Lists, Memory};
pub use mirror::RawManifest;
pub use upload::Taken;

/// How long a look at the registry may take that nothing depends on.
const LOOK: Duration = Duration::from_secs(5);
/// Pages of a list that are read; registries put 100 or more entries on one.
const MAX_PAGES: usize = 32;
/// Entries of a list that are looked at.
const MAX_ENTRIES: usize = 4096;
/// Largest list in bytes, all pages together.
pub const MAX_LISTING: u64 = MAX_MANIFEST_SIZE;

/// A repository in a registry.
#[derive(Debug)]
pub struct RemoteRepository {
    image: DockerReference,
    options: ProxyOptions,
    /// Found out when first needed.
    way: OnceCell<Way>,
    memory: Option<Memory>,
    /// Connections that it has in common with others.
    lines: Option<Arc<Lines>>,
}

#[derive(Debug)]
enum Way {
    Http(Box<Http>),
    /// With the reason.
    Skopeo(String),
}

/// What came of asking the referrers API.
enum Asked {
    Lists(Listing),
    /// The registry has no such API.
    NoApi,
    /// It does not answer this question, which the tag need not share.
    Refused(Error),
}

/// What points to an image.
#[derive(Debug, Default)]
pub struct Listing {
    /// As the list has them: claims, no more.
    pub entries: Vec<Descriptor>,
    /// What is wrong with other entries; for people.
    pub odd: Vec<String>,
    /// Bytes of the answers, without their heads.
    pub bytes: u64,
    /// Requests that were made for it.
    pub requests: u64,
}

impl RemoteRepository {
    /// The repository of `image`; its tag and digest do not matter.
    pub fn new(image: &DockerReference, options: &ProxyOptions) -> Self {
        RemoteRepository {
            image: image.clone(),
            options: options.clone(),
            way: OnceCell::new(),
            memory: None,
            lines: None,
        }
    }

    /// The same, over connections that it shares.
    #[must_use]
    pub fn over(mut self, lines: &Arc<Lines>) -> Self {
        self.lines = Some(lines.clone());
        self
    }

    /// How it is reached, by what this machine's configuration says.
    async fn way(&self) -> Result<&Way> {
        self.way.get_or_try_init(|| self.find_way()).await
    }

    async fn find_way(&self) -> Result<Way> {
        let (image, options) = (&self.image, &self.options);
        let (insecure, authorities) =
            match config::rules(image.registry(), image.repository(), options, Mirrors::Matter) {
                Rules::OnlySkopeo(why) => return Ok(Way::Skopeo(why)),
                Rules::Direct { insecure, authorities } => (insecure, authorities),
            };
        let login = match credentials(image, options).await {
            Ok(login) => login,
            Err(why) => return Ok(Way::Skopeo(why)),
        };
        let line = match &self.lines {
            Some(lines) => lines.to(image.registry(), insecure, authorities, HeaderMap::new(), options)?,
            None => Line::new(insecure, authorities, HeaderMap::new(), options)?,
        };
        Ok(Way::Http(Box::new(Http::new(line, image, Admission::Login(login), options))))
    }

    /// The same, with what was seen of this registry before, and taking notes, in the directory `notes`.
    #[must_use]
    pub fn remembered(mut self, notes: Option<&Path>) -> Self {
        self.memory = notes.map(|notes| Memory::of(notes, &self.image));
        self
    }

    /// What points to `subject`, by the referrers API or else the fallback tag
    /// (distribution specification 1.1, "Listing Referrers"); at most `budget` bytes of it. Where the registry can
    /// choose, it lists those of `artifact_type` alone; an empty one is all.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); Verification for a list that is larger or goes round.
    pub async fn referrers(&self, subject: &Digest, artifact_type: &str, budget: u64) -> Result<Listing> {
        let budget = budget.min(MAX_LISTING);
        let tag_first = self.memory.as_ref().and_then(Memory::lists) == Some(Lists::Tag);
        if tag_first && let Some(listing) = self.read_tag(subject, budget).await? {
            return Ok(listing);
        }
        let refusal = match self.ask_api(subject, artifact_type, budget).await? {
            Asked::Lists(listing) => return Ok(listing),
            Asked::NoApi => None,
            Asked::Refused(e) => Some(e),
        };
        let by_tag = if tag_first { None } else { self.read_tag(subject, budget).await? };
        match (by_tag, refusal) {
            // Nobody knows what it would have listed.
            (None, Some(refusal)) => Err(refusal),
            (by_tag, _) => Ok(Listing { requests: 2, ..by_tag.unwrap_or_default() }),
        }
    }

    /// What points to `subject`, as the registry itself lists it; `None` where it has no referrers API, or not for us.
    ///
    /// # Errors
    /// As [`referrers`](Self::referrers).
    pub async fn referrers_by_api(
        &self,
        subject: &Digest,
        artifact_type: &str,
        budget: u64,
    ) -> Result<Option<Listing>> {
        match self.ask_api(subject, artifact_type, budget.min(MAX_LISTING)).await? {
            Asked::Lists(listing) => Ok(Some(listing)),
            Asked::Refused(e) if e.kind() == Kind::Transient => Err(e),
            Asked::NoApi | Asked::Refused(_) => Ok(None),
        }
    }

    async fn ask_api(&self, subject: &Digest, artifact_type: &str, budget: u64) -> Result<Asked> {
        let Some(http) = self.http().await? else { return Ok(Asked::NoApi) };
        let asked = read_pages(http, subject, artifact_type, budget).await;
        let asked = asked.map_err(|e| e.context(self.name()))?;
        match &asked {
            Asked::Lists(_) => self.note(Lists::Api),
            Asked::NoApi => self.note(Lists::Tag),
            Asked::Refused(_) => {}
        }
        Ok(asked)
    }

    /// Finds out, with one request and without its answer's body, where the registry lists what points to an
    /// image, for the sake of the first search to come. Trouble is no matter.
    pub async fn look_at_registry(&self, subject: &Digest) {
        let Some(memory) = self.memory.as_ref().filter(|memory| memory.lists().is_none()) else { return };
        let Ok(Some(http)) = self.http().await else { return };
        let path = format!("referrers/{subject}");
        let request = Request { method: Method::HEAD, path: &path, ..Default::default() };
        match tokio::time::timeout(LOOK, http.ask_once(&request)).await {
            Ok(Ok(_)) => memory.note(Lists::Api),
            Ok(Err(e)) if is_no_api(&e) => memory.note(Lists::Tag),
            Ok(Err(_)) | Err(_) => {}
        }
    }

    fn note(&self, lists: Lists) {
        if let Some(memory) = &self.memory {
            memory.note(lists);
        }
    }

    /// The list under the fallback tag, if there is one. Some registries show other things there, as the
    /// image itself (GitLab).
    async fn read_tag(&self, subject: &Digest, budget: u64) -> Result<Option<Listing>> {
        let Some(bytes) = self.fallback_list(subject, budget).await? else { return Ok(None) };
        let mut listing = Listing { bytes: bytes.len() as u64, requests: 1, ..Default::default() };
        Ok(add_page(&mut listing, &bytes, subject)?.then_some(listing))
    }

    /// The manifest with this digest, verified.
    ///
    /// # Errors
    /// Misfit when it is not there; Verification when it is another, or larger than `max` bytes;
    /// Transient for trouble that may pass; Local when the registry does not let us in.
    pub async fn manifest(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let read = self.read(digest.as_ref(), IMAGE_MANIFEST, max).await;
        let bytes = read.map_err(|e| match is_absent(&e) {
            true => e.context(format!("no manifest {digest}")),
            false => e,
        })?;
        let found = digest_of(&bytes);
        if found != *digest {
            return Err(Error::verification(format!(
                "{}: manifest digest mismatch: expected {digest}, found {found}",
                self.name()
            )));
        }
        Ok(bytes)
    }

    /// What stands under the fallback tag of `subject`, as bytes; `None` when nothing does.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub async fn fallback_list(&self, subject: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        match self.read(&fallback_tag(subject), IMAGE_INDEX, max.min(MAX_LISTING)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if is_absent(&e) => Ok(None),
            // Skopeo has no other word for it.
            Err(e) if e.kind() == Kind::Misfit && status_of(&e).is_none() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes the list under the fallback tag of `subject`.
    ///
    /// # Errors
    /// Local when the configuration leaves this registry to skopeo, which cannot write a list.
    pub async fn put_fallback_list(&self, subject: &Digest, index: &[u8]) -> Result<()> {
        self.write(Method::PUT, &fallback_tag(subject), Some((IMAGE_INDEX, index))).await.map(drop)
    }

    /// Deletes a manifest; false when it is not there.
    ///
    /// # Errors
    /// As [`put_fallback_list`](Self::put_fallback_list); Local where the registry deletes nothing.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        match self.write(Method::DELETE, digest.as_ref(), None).await {
            Ok(_) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn write(&self, method: Method, what: &str, body: Option<(&str, &[u8])>) -> Result<Answer> {
        let http = match self.way().await? {
            Way::Http(http) => http,
            Way::Skopeo(why) => {
                let text = format!("{}: the list of deltas cannot be written: {why}", self.name());
                return Err(Error::local(text));
            }
        };
        let path = format!("manifests/{what}");
        let request = Request { method, path: &path, body, max: MAX_MANIFEST_SIZE, ..Default::default() };
        http.ask(&request).await.map_err(|e| e.context(self.name()))
    }

    /// Reads what stands under a tag or digest.
    async fn read(&self, what: &str, accept: &str, max: u64) -> Result<Vec<u8>> {
        match self.way().await? {
            Way::Http(http) => {
                let path = format!("manifests/{what}");
                let request = Request { path: &path, accept: Some(accept), max, ..Default::default() };
                Ok(http.ask(&request).await.map_err(|e| e.context(self.name()))?.body)
            }
            Way::Skopeo(_) => {
                let separator = if what.contains(':') { '@' } else { ':' };
                let reference = format!("docker://{}{separator}{what}", self.name());
                let bytes = inspect_raw(&reference, &self.options).await?;
                if bytes.len() as u64 > max {
                    return Err(Error::verification(format!("{reference}: more than {max} bytes")));
                }
                Ok(bytes)
            }
        }
    }

    /// For requests of our own, where they are allowed.
    async fn http(&self) -> Result<Option<&Http>> {
        match self.way().await? {
            Way::Http(http) => Ok(Some(http)),
            Way::Skopeo(_) => Ok(None),
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.image.registry(), self.image.repository())
    }
}

async fn credentials(
    image: &DockerReference,
    options: &ProxyOptions,
) -> std::result::Result<Option<Login>, String> {
    if let Some(creds) = &options.creds {
        let (user, password) = creds.parts();
        return Ok(Some(Login { user: user.to_owned(), password: password.to_owned() }));
    }
    let (file, patience) = (options.authfile.as_deref(), options.inactivity_timeout);
    auth::credentials(image.registry(), image.repository(), file, patience).await
}

/// Is that how a registry says that it has no such API? Not only with 404: there are gateways before registries.
fn is_no_api(e: &Error) -> bool {
    match status_of(e) {
        Some(401 | 403 | 407 | 408 | 425 | 429) | None => false,
        Some(501 | 505) => true,
        Some(status) => status < 500,
    }
}

/// The tag that lists what points to `subject`: its digest with a dash, cut to 128 characters.
fn fallback_tag(subject: &Digest) -> String {
    subject.to_string().replacen(':', "-", 1).chars().take(128).collect()
}

/// All pages of the referrers API.
async fn read_pages(http: &Http, subject: &Digest, artifact_type: &str, budget: u64) -> Result<Asked> {
    let mut listing = Listing::default();
    // A plus sign in a query is a space.
    let mut next = match artifact_type {
        "" => format!("referrers/{subject}"),
        _ => format!("referrers/{subject}?artifactType={}", artifact_type.replace('+', "%2B")),
    };
    let mut seen = HashSet::new();
    while seen.len() < MAX_PAGES && seen.insert(next.clone()) {
        let first = seen.len() == 1;
        let max = budget.saturating_sub(listing.bytes);
        let request = Request { path: &next, accept: Some(IMAGE_INDEX), max, ..Default::default() };
        let answer = match http.ask(&request).await {
            Ok(answer) => answer,
            Err(e) if first && is_no_api(&e) => return Ok(Asked::NoApi),
            Err(e) if first && status_of(&e).is_some() => return Ok(Asked::Refused(e)),
            Err(e) => return Err(e),
        };
        listing.bytes += answer.body.len() as u64;
        listing.requests += 1;
        if !add_page(&mut listing, &answer.body, subject)? {
            if first {
                return Ok(Asked::NoApi); // a web page, say
            }
            return Err(Error::verification(format!("page {} of the list is no image index", seen.len())));
        }
        let links = answer.headers.get_all("link");
        match links.iter().filter_map(|link| link.to_str().ok()).find_map(next_page) {
            Some(page) => next = page.to_owned(),
            None => return Ok(Asked::Lists(listing)),
        }
    }
    Err(Error::verification(format!("the list of what points to {subject} does not end")))
}

/// The address in `<ADDRESS>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.replace(['"', ' '], "").contains("rel=next").then_some(address)
}

/// Adds a page of a list; false when it is none.
fn add_page(listing: &mut Listing, bytes: &[u8], subject: &Digest) -> Result<bool> {
    let Some(entries) = page::entries(bytes) else { return Ok(false) };
    if listing.entries.len() + listing.odd.len() + entries.len() > MAX_ENTRIES {
        return Err(Error::verification(format!("more than {MAX_ENTRIES} things point to {subject}")));
    }
    for entry in entries {
        match entry {
            Ok(entry) => listing.entries.push(entry),
            Err(odd) => listing.odd.push(odd),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        assert_eq!(next_page(r#"</v2/a/referrers/x?n=1>; rel="next""#), Some("/v2/a/referrers/x?n=1"));
        assert_eq!(next_page("<x>;rel=next"), Some("x"));
        assert_eq!(next_page("<x>; rel=prev"), None);
        assert_eq!(next_page("x"), None);
    }

    #[test]
    fn the_fallback_tag_is_that_of_the_specification() {
        let digest = digest_of(b"");
        assert_eq!(fallback_tag(&digest), format!("sha256-{}", digest.digest()));
    }
}
