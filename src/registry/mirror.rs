//! What is asked of a registry that images are carried to: what it has, and to take manifests.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use super::answer::{is_absent, status_of};
use super::http::{Answer, Http, Request};
use super::{IMAGE_INDEX, IMAGE_MANIFEST, RemoteRepository, Way, next_page};
use crate::artifact::MAX_MANIFEST_SIZE;
use crate::digest::{Digest, digest_of};
use crate::document::{DOCKER_LIST, DOCKER_MANIFEST};
use crate::error::{Error, Result};

/// Most pages of a list of names that are read, and bytes of each.
const MAX_PAGES: usize = 1000;
const MAX_PAGE: u64 = 4 << 20;

/// A manifest or index as a registry has it.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// What the registry says that it is.
    pub media_type: String,
}

impl RemoteRepository {
    /// What stands under a tag or digest; `None` when nothing does.
    ///
    /// # Errors
    /// What the registry says; Verification when it is not what the digest says.
    pub async fn raw(&self, what: &str) -> Result<Option<RawManifest>> {
        let accept = [IMAGE_MANIFEST, IMAGE_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let path = format!("manifests/{what}");
        let request =
            Request { path: &path, accept: Some(&accept), max: MAX_MANIFEST_SIZE, ..Default::default() };
        let answer = match self.direct().await?.ask(&request).await {
            Ok(answer) => answer,
            Err(e) if is_absent(&e) => return Ok(None),
            Err(e) => return Err(e.context(self.name())),
        };
        let named = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = named.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        let digest = digest_of(&answer.body);
        if what.contains(':') && *digest.to_string() != *what {
            return Err(Error::verification(format!(
                "{}: manifest digest mismatch: expected {what}, found {digest}",
                self.name()
            )));
        }
        Ok(Some(RawManifest { bytes: answer.body, digest, media_type }))
    }

    /// Is this manifest there?
    ///
    /// # Errors
    /// What the registry says.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        self.has(&format!("manifests/{digest}")).await
    }

    /// Is this blob there?
    ///
    /// # Errors
    /// What the registry says.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.has(&format!("blobs/{digest}")).await
    }

    async fn has(&self, path: &str) -> Result<bool> {
        let accept = [IMAGE_MANIFEST, IMAGE_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let request = Request { method: Method::HEAD, path, accept: Some(&accept), ..Default::default() };
        match self.direct().await?.ask(&request).await {
            Ok(_) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(e.context(self.name())),
        }
    }

    /// Takes a blob over from another repository of the same registry; false when that cannot be.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool> {
        let path = format!("blobs/uploads/?mount={digest}&from={from}");
        let request = Request { method: Method::POST, path: &path, ..Default::default() };
        match self.direct().await?.ask(&request).await {
            Ok(_) => self.has_blob(digest).await,
            Err(e) if status_of(&e).is_some_and(|status| status < 500) => Ok(false),
            Err(e) => Err(e.context(self.name())),
        }
    }

    /// Puts a manifest or index under a tag or digest. What it names must be there.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn put_manifest(&self, what: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("manifests/{what}");
        let body = Some((media_type, bytes));
        let request =
            Request { method: Method::PUT, path: &path, body, max: MAX_MANIFEST_SIZE, ..Default::default() };
        self.direct().await?.ask(&request).await.map(drop).map_err(|e| e.context(self.name()))
    }

    /// All tags of the repository; none when it is not there.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn tags(&self) -> Result<Vec<String>> {
        self.names("tags/list?n=1000", "tags").await
    }

    /// All repositories of the registry, as far as it tells them.
    ///
    /// # Errors
    /// What the registry says; many tell nobody.
    pub async fn catalog(&self) -> Result<Vec<String>> {
        self.names("/v2/_catalog?n=1000", "repositories").await
    }

    async fn names(&self, first: &str, field: &str) -> Result<Vec<String>> {
        let http = self.direct().await?;
        let (mut names, mut next) = (Vec::new(), first.to_owned());
        for _ in 0..MAX_PAGES {
            let request = Request { path: &next, max: MAX_PAGE, ..Default::default() };
            let Answer { headers, body } = match http.ask(&request).await {
                Ok(answer) => answer,
                Err(e) if is_absent(&e) => return Ok(names),
                Err(e) => return Err(e.context(self.name())),
            };
            let list: Value = serde_json::from_slice(&body).map_err(|e| {
                Error::verification(format!("{}: {next} is no list of names: {e}", self.name()))
            })?;
            let page = list[field].as_array().into_iter().flatten().filter_map(Value::as_str);
            names.extend(page.map(str::to_owned));
            let links = headers.get_all("link");
            match links.iter().filter_map(|link| link.to_str().ok()).find_map(next_page) {
                Some(page) if page != next => next = page.to_owned(),
                _ => return Ok(names),
            }
        }
        Err(Error::verification(format!("{}: the list at {first} does not end", self.name())))
    }

    /// For what skopeo has no words for.
    pub(super) async fn direct(&self) -> Result<&Http> {
        match self.way().await? {
            Way::Http(http) => Ok(http),
            Way::Skopeo(why) => Err(Error::local(format!("{}: no requests can be made: {why}", self.name()))),
        }
    }
}
