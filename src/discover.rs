//! Finds the deltas for an image: what a registry lists, judged by their own manifests.
//!
//! A listing is a claim of whoever may write to the repository. Its annotations only
//! choose which manifests are read first; what counts stands in the manifest itself,
//! of which the digest is checked.

use std::collections::{HashSet, VecDeque};

use oci_spec::image::Descriptor;

use crate::artifact::{self, ARTIFACT_TYPE, DeltaManifest, MAX_MANIFEST_SIZE, SOURCE_CONFIG};
use crate::digest::{Digest, parse_digest};
use crate::error::{Error, Kind, Result};
use crate::registry::Repository;

/// Deltas in a row: from an image here to the target over images that are not here.
pub const MAX_CHAIN: usize = 8;

/// Manifests of deltas that are read for one search.
const MAX_CANDIDATES: usize = 64;

/// Spent on a search in any case, in bytes; else a thousandth of what it could save.
const FREE: u64 = 4 << 10;

/// A delta and where it leads.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
    /// Its manifest, parsed.
    pub manifest: DeltaManifest,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// Deltas that rebuild the target or a base of another one.
    pub candidates: Vec<Candidate>,
    /// Bytes of lists and manifests that were read.
    pub bytes: u64,
    /// What was passed over, and why; for people.
    pub notes: Vec<String>,
    /// A search that ended early for a reason other than the end of the list.
    pub failure: Option<Error>,
}

/// Deltas for `target`, the digest of an image manifest. `here` tells whether the image with a config digest is
/// on this machine. Where no delta from such an image exists, deltas for their bases are looked for as
/// well. `at_stake` is what a plain pull would read, in bytes.
pub async fn deltas_for(
    repository: &Repository,
    target: &Digest,
    here: impl Fn(&Digest) -> bool,
    at_stake: u64,
) -> Found {
    let mut search = Search {
        repository,
        here,
        budget: (at_stake / 1000).max(FREE),
        seen: HashSet::new(),
        found: Found::default(),
    };
    let mut subjects = VecDeque::from([(target.clone(), 1)]);
    let mut known = HashSet::from([target.clone()]);
    while let Some((subject, depth)) = subjects.pop_front() {
        let first = search.found.candidates.len();
        if let Err(e) = search.look(&subject).await {
            search.found.failure = Some(e);
            break;
        }
        let new = &search.found.candidates[first..];
        if new.iter().any(|c| (search.here)(&c.manifest.source_config)) {
            break;
        }
        if depth < MAX_CHAIN {
            let bases = new.iter().filter_map(|c| c.manifest.source.clone());
            subjects.extend(bases.filter(|base| known.insert(base.clone())).map(|base| (base, depth + 1)));
        }
    }
    search.found
}

/// All deltas that a repository lists for `target`, each with its manifest.
///
/// # Errors
/// When the list cannot be read; a delta that cannot be is noted.
pub async fn all_deltas(repository: &Repository, target: &Digest) -> Result<Found> {
    let mut search = Search {
        repository,
        here: |_: &Digest| false,
        budget: u64::MAX,
        seen: HashSet::new(),
        found: Found::default(),
    };
    search.look(target).await?;
    Ok(search.found)
}

struct Search<'a, H> {
    repository: &'a Repository,
    here: H,
    /// Bytes that may be spent before a delta fits.
    budget: u64,
    seen: HashSet<Digest>,
    found: Found,
}

impl<H: Fn(&Digest) -> bool> Search<'_, H> {
    /// Reads the list for `subject` and the manifests it promises.
    async fn look(&mut self, subject: &Digest) -> Result<()> {
        let left = self.budget.saturating_sub(self.found.bytes);
        let listing = self.repository.referrers(subject, ARTIFACT_TYPE, left).await?;
        self.found.bytes += listing.bytes;
        let mut entries: Vec<Descriptor> = listing.entries.into_iter().filter(may_be_delta).collect();
        // What claims to fit is read first, and may cost more: it is likely to save a lot.
        entries.sort_by_key(|entry| !self.claims_to_fit(entry));
        let mut fits = false;
        for entry in entries {
            let claims = self.claims_to_fit(&entry);
            let affordable = self.found.bytes.saturating_add(entry.size()) <= self.budget;
            if (!claims && (fits || !affordable)) || self.seen.len() >= MAX_CANDIDATES {
                break;
            }
            if !self.seen.insert(entry.digest().clone()) {
                continue;
            }
            match self.judge(&entry, subject).await {
                Ok(candidate) => {
                    fits |= (self.here)(&candidate.manifest.source_config);
                    self.found.candidates.push(candidate);
                }
                Err(e) if matches!(e.kind(), Kind::Misfit | Kind::Verification) => {
                    self.found.notes.push(format!("delta {} is passed over: {e}", entry.digest()));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn claims_to_fit(&self, entry: &Descriptor) -> bool {
        let claim = entry.annotations().as_ref().and_then(|a| a.get(SOURCE_CONFIG));
        claim
            .and_then(|text| parse_digest(text, SOURCE_CONFIG).ok())
            .is_some_and(|config| (self.here)(&config))
    }

    /// Reads the manifest that an entry names and sees whether it is a delta for `subject`.
    async fn judge(&mut self, entry: &Descriptor, subject: &Digest) -> Result<Candidate> {
        let bytes = self.repository.manifest(entry.digest(), MAX_MANIFEST_SIZE).await?;
        self.found.bytes += bytes.len() as u64;
        if !artifact::is_delta(&bytes)? {
            return Err(Error::misfit("it is no delta, whatever the list says"));
        }
        let manifest = DeltaManifest::parse(&bytes)?;
        if manifest.target_manifest.digest() != subject {
            return Err(Error::misfit(format!("it rebuilds {}", manifest.target_manifest.digest())));
        }
        Ok(Candidate { digest: entry.digest().clone(), size: bytes.len() as u64, manifest })
    }
}

/// Registries differ in what they put into a list; only what says clearly that it is
/// something else is left out.
fn may_be_delta(entry: &Descriptor) -> bool {
    let other_type = entry.artifact_type().as_ref().is_some_and(|t| {
        let t = t.to_string();
        !(t.is_empty() || artifact::is_delta_type(&t) || t.starts_with("application/vnd.oci.empty"))
    });
    !other_type && entry.size() <= MAX_MANIFEST_SIZE
}
