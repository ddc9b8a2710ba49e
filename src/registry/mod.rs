//! What skopeo's image proxy has no call for: lists of referrers, raw manifests
//! beside the opened image, writing such a list, the rest of a blob.
//!
//! Requests of our own are made only where they do what skopeo would do. A setting
//! that cannot be honoured here (a mirror, a blocked registry, a client certificate,
//! an identity token) leaves the reading to `skopeo inspect --raw`, which knows the
//! fallback tag but not the referrers API.

mod auth;
mod blob;
mod config;
mod http;
mod list;
mod memory;

use std::collections::HashSet;
use std::time::Duration;

use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::{Descriptor, ImageIndex};
use reqwest::Method;

use crate::artifact::MAX_MANIFEST_SIZE;
use crate::digest::{Digest, digest_of};
use crate::error::{Error, Kind, Result};
use crate::proxy::{ProxyOptions, inspect_raw};
pub use blob::{Blob, Blobs};
use config::Rules;
use http::{Answer, Http, Request, Settings};
pub use list::Change;
use memory::{Lists, Memory};

/// Media type of an image index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image manifest.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

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
pub struct Repository {
    image: DockerReference,
    options: ProxyOptions,
    way: Way,
    memory: Option<Memory>,
}

#[derive(Debug)]
enum Way {
    Http(Box<Http>),
    /// With the reason.
    Skopeo(String),
}

/// What points to an image.
#[derive(Debug, Default)]
pub struct Listing {
    /// As the list has them: claims, no more.
    pub entries: Vec<Descriptor>,
    /// Bytes of the answers, without their heads.
    pub bytes: u64,
    /// Requests that were made for it.
    pub requests: u64,
}

impl Repository {
    /// The repository of `image`; its tag and digest do not matter.
    ///
    /// # Errors
    /// Local when TLS cannot be set up.
    pub fn new(image: &DockerReference, options: &ProxyOptions) -> Result<Self> {
        let (host, repository) = (image.registry(), image.repository());
        let rules =
            config::rules(host, repository, options.registries_conf.as_deref(), options.cert_dir.as_deref());
        let access = match rules {
            Rules::OnlySkopeo(why) => Err(why),
            Rules::Direct { insecure, authorities } => credentials(image, options).map(|auth| Settings {
                insecure: insecure || !options.tls_verify,
                authorities,
                auth,
                patience: options.inactivity_timeout,
                retries: options.retries,
            }),
        };
        let way = match access {
            Ok(settings) => Way::Http(Box::new(Http::new(image, settings)?)),
            Err(why) => Way::Skopeo(why),
        };
        Ok(Repository { image: image.clone(), options: options.clone(), way, memory: None })
    }

    /// The same, with what was seen of this registry before, and taking notes.
    #[must_use]
    pub fn remembered(mut self) -> Self {
        self.memory = self.http().and_then(|_| Memory::of(&self.image));
        self
    }

    /// What points to `subject`, by the referrers API or else the fallback tag
    /// (distribution specification 1.1, "Listing Referrers"); at most `budget` bytes of it.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); Verification for a list that is larger or goes round.
    pub async fn referrers(&self, subject: &Digest, artifact_type: &str, budget: u64) -> Result<Listing> {
        let budget = budget.min(MAX_LISTING);
        let tag_first = self.memory.as_ref().and_then(Memory::lists) == Some(Lists::Tag);
        if tag_first && let Some(listing) = self.read_tag(subject, budget).await? {
            return Ok(listing);
        }
        if let Some(listing) = self.referrers_by_api(subject, artifact_type, budget).await? {
            return Ok(listing);
        }
        let by_tag = if tag_first { None } else { self.read_tag(subject, budget).await? };
        Ok(Listing { requests: 2, ..by_tag.unwrap_or_default() })
    }

    /// What points to `subject`, as the registry itself lists it; `None` where it has no referrers API.
    ///
    /// # Errors
    /// As [`referrers`](Self::referrers).
    pub async fn referrers_by_api(
        &self,
        subject: &Digest,
        artifact_type: &str,
        budget: u64,
    ) -> Result<Option<Listing>> {
        let Some(http) = self.http() else { return Ok(None) };
        let listing = read_pages(http, subject, artifact_type, budget.min(MAX_LISTING)).await?;
        self.note(if listing.is_some() { Lists::Api } else { Lists::Tag });
        Ok(listing)
    }

    /// Finds out, with one request and without its answer's body, where the registry lists what points to an
    /// image, for the sake of the first search to come. Trouble is no matter.
    pub async fn look_at_registry(&self, subject: &Digest) {
        let (Some(http), Some(memory)) = (self.http(), &self.memory) else { return };
        if memory.lists().is_some() {
            return;
        }
        let path = format!("referrers/{subject}");
        let request = Request { method: Method::HEAD, path: &path, ..Default::default() };
        match tokio::time::timeout(LOOK, http.ask_once(&request)).await {
            Ok(Ok(Some(_))) => self.note(Lists::Api),
            Ok(Ok(None)) => self.note(Lists::Tag),
            Ok(Err(_)) | Err(_) => {}
        }
    }

    fn note(&self, lists: Lists) {
        if let Some(memory) = &self.memory {
            memory.note(lists);
        }
    }

    /// What stands under the fallback tag, if anything does.
    async fn read_tag(&self, subject: &Digest, budget: u64) -> Result<Option<Listing>> {
        let Some(bytes) = self.read(&fallback_tag(subject), IMAGE_INDEX, budget).await? else {
            return Ok(None);
        };
        let mut listing = Listing { bytes: bytes.len() as u64, requests: 1, ..Default::default() };
        add_page(&mut listing.entries, &bytes)?;
        Ok(Some(listing))
    }

    /// The manifest with this digest, verified.
    ///
    /// # Errors
    /// Misfit when it is not there; Verification when it is another, or larger than `max` bytes;
    /// Transient for trouble that may pass; Local when the registry does not let us in.
    pub async fn manifest(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let bytes = self.read(digest.as_ref(), IMAGE_MANIFEST, max).await?;
        let bytes = bytes.ok_or_else(|| Error::misfit(format!("{}: no manifest {digest}", self.name())))?;
        let found = digest_of(&bytes);
        if found != *digest {
            return Err(Error::verification(format!(
                "{}: manifest digest mismatch: expected {digest}, found {found}",
                self.name()
            )));
        }
        Ok(bytes)
    }

    /// The list under the fallback tag of `subject`, as bytes; `None` when there is none.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub async fn fallback_list(&self, subject: &Digest) -> Result<Option<Vec<u8>>> {
        self.read(&fallback_tag(subject), IMAGE_INDEX, MAX_LISTING).await
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
    /// As [`put_fallback_list`](Self::put_fallback_list); Misfit where the registry deletes nothing.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        Ok(self.write(Method::DELETE, digest.as_ref(), None).await?.is_some())
    }

    async fn write(&self, method: Method, what: &str, body: Option<(&str, &[u8])>) -> Result<Option<Answer>> {
        let Way::Http(http) = &self.way else {
            let Way::Skopeo(why) = &self.way else { unreachable!() };
            return Err(Error::local(format!(
                "{}: the list of deltas cannot be written: {why}",
                self.name()
            )));
        };
        let path = format!("manifests/{what}");
        let request = Request { method, path: &path, body, max: MAX_MANIFEST_SIZE, ..Default::default() };
        http.ask(&request).await.map_err(|e| e.context(self.name()))
    }

    /// Reads what stands under a tag or digest; `None` when nothing does.
    async fn read(&self, what: &str, accept: &str, max: u64) -> Result<Option<Vec<u8>>> {
        match &self.way {
            Way::Http(http) => {
                let path = format!("manifests/{what}");
                let request = Request { path: &path, accept: Some(accept), max, ..Default::default() };
                let answer = http.ask(&request).await.map_err(|e| e.context(self.name()))?;
                Ok(answer.map(|a| a.body))
            }
            Way::Skopeo(_) => {
                let separator = if what.contains(':') { '@' } else { ':' };
                let reference = format!("docker://{}{separator}{what}", self.name());
                match inspect_raw(&reference, &self.options).await {
                    Ok(bytes) if bytes.len() as u64 > max => {
                        Err(Error::verification(format!("{reference}: more than {max} bytes")))
                    }
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if e.kind() == Kind::Misfit => Ok(None),
                    Err(e) => Err(e),
                }
            }
        }
    }

    /// For requests of our own, where they are allowed.
    fn http(&self) -> Option<&Http> {
        match &self.way {
            Way::Http(http) => Some(http),
            Way::Skopeo(_) => None,
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.image.registry(), self.image.repository())
    }
}

fn credentials(image: &DockerReference, options: &ProxyOptions) -> std::result::Result<RegistryAuth, String> {
    match &options.creds {
        Some(creds) => {
            let (user, password) = creds.parts();
            Ok(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
        }
        None => auth::credentials(image.registry(), image.repository(), options.authfile.as_deref()),
    }
}

/// The tag that lists what points to `subject`: its digest with a dash, cut to 128 characters.
fn fallback_tag(subject: &Digest) -> String {
    subject.to_string().replacen(':', "-", 1).chars().take(128).collect()
}

/// All pages of the referrers API; `None` where the registry has none.
async fn read_pages(
    http: &Http,
    subject: &Digest,
    artifact_type: &str,
    budget: u64,
) -> Result<Option<Listing>> {
    let mut listing = Listing::default();
    let mut next = format!("referrers/{subject}?artifactType={artifact_type}");
    let mut seen = HashSet::new();
    while seen.insert(next.clone()) {
        let max = budget.saturating_sub(listing.bytes);
        let request = Request { path: &next, accept: Some(IMAGE_INDEX), max, ..Default::default() };
        let answer = match http.ask(&request).await {
            Ok(Some(answer)) => answer,
            Ok(None) if seen.len() == 1 => return Ok(None),
            // Registries of before the specification call it a bad request.
            Err(e) if e.kind() == Kind::Misfit && seen.len() == 1 => return Ok(None),
            Ok(None) => break,
            Err(e) => return Err(e),
        };
        listing.bytes += answer.body.len() as u64;
        listing.requests += 1;
        if add_page(&mut listing.entries, &answer.body).is_err() && seen.len() == 1 {
            return Ok(None); // a web page, say
        }
        if listing.entries.len() > MAX_ENTRIES {
            return Err(Error::verification(format!("more than {MAX_ENTRIES} things point to {subject}")));
        }
        let links = answer.headers.get_all("link");
        match links.iter().filter_map(|link| link.to_str().ok()).find_map(next_page) {
            Some(page) => next = page.to_owned(),
            None => return Ok(Some(listing)),
        }
        if seen.len() >= MAX_PAGES {
            break;
        }
    }
    Err(Error::verification(format!("the list of what points to {subject} does not end")))
}

/// The address in `<ADDRESS>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.replace(['"', ' '], "").contains("rel=next").then_some(address)
}

fn add_page(entries: &mut Vec<Descriptor>, bytes: &[u8]) -> Result<()> {
    let index: ImageIndex = serde_json::from_slice(bytes)
        .map_err(|e| Error::verification(format!("not an image index: {e}")).with_source(e))?;
    entries.extend(index.manifests().iter().cloned());
    Ok(())
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
