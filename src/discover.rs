//! Finds the deltas for an image: what a registry lists, judged by their own manifests.
//!
//! A listing is a claim of whoever may write to the repository. Its annotations only
//! choose which manifests are read first; what counts stands in the manifest itself,
//! of which the digest is checked, also where the list carries it.

use std::collections::{HashMap, HashSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::Descriptor;

use crate::artifact::{self, ARTIFACT_TYPE, BYTES, DeltaManifest, MAX_MANIFEST_SIZE, SOURCE, SOURCE_CONFIG};
use crate::digest::{Digest, digest_of, parse_digest};
use crate::error::{Error, Kind, Result};
use crate::registry::RemoteRepository;

/// Deltas in a row: from an image here to the target over images that are not here.
pub const MAX_CHAIN: usize = 8;

/// Manifests of deltas that are read for one search.
const MAX_CANDIDATES: usize = 64;

/// Bytes of the head of an answer, about; a registry's is 300 to 500. They count where it is decided whether to go on.
const HEAD: u64 = 400;

/// Spent on a search in any case, in bytes; else a thousandth of what it could save.
const FREE: u64 = 4 << 10;

/// Size in bytes up to which a list may grow for the sake of what its entries carry, where `at_stake` is what
/// a pull without them reads: it must not keep a search from following a chain over several such lists.
pub fn room_of_list(at_stake: u64) -> u64 {
    at_stake / 1000 / MAX_CHAIN as u64
}

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
    /// Deltas that are listed, but lead on from no image that is here; their manifests were not read.
    pub elsewhere: usize,
    /// Deltas that may fit, but to read their manifests would cost more than a search may.
    pub unread: usize,
    /// Bytes of lists and manifests that were read.
    pub bytes: u64,
    /// What was passed over, and why; for people.
    pub notes: Vec<String>,
    /// A search that ended early for a reason other than the end of the list.
    pub failure: Option<Error>,
}

/// Deltas for `target`, the digest of an image manifest. `here` tells whether the image with a config digest is
/// on this machine. Where no delta from such an image is listed, lists for the bases are followed back
/// until one is. `at_stake` is what a plain pull would read, in bytes.
pub async fn deltas_for(
    repository: &RemoteRepository,
    target: &Digest,
    here: impl Fn(&Digest) -> bool,
    at_stake: u64,
) -> Found {
    let budget = (at_stake / 1000).max(FREE);
    let mut search =
        Search { repository, left: budget, requests: 2, seen: HashSet::new(), found: Found::default() };
    if let Err(e) = search.follow(target, here, at_stake).await {
        search.found.failure = Some(e);
    }
    search.found
}

/// All deltas that a repository lists for `target`, each with its manifest.
///
/// # Errors
/// When the list cannot be read; a delta that cannot be is noted.
pub async fn all_deltas(repository: &RemoteRepository, target: &Digest) -> Result<Found> {
    let mut search =
        Search { repository, left: u64::MAX, requests: 2, seen: HashSet::new(), found: Found::default() };
    let entries = search.list(target).await?;
    for entry in entries {
        search.read(entry).await?;
    }
    Ok(search.found)
}

/// An entry of a list, and what it or its manifest says.
struct Entry {
    descriptor: Descriptor,
    /// The image it is listed for.
    subject: Digest,
    /// Config digest of its base, and the digest of the base's manifest.
    claim: Option<(Digest, Option<Digest>)>,
    /// Bytes of its blobs.
    bytes: Option<u64>,
    /// What was read of it.
    candidate: Option<Candidate>,
}

impl Entry {
    fn new(descriptor: Descriptor, subject: &Digest) -> Self {
        let note = |key: &str| {
            let text = descriptor.annotations().as_ref()?.get(key)?;
            parse_digest(text, key).ok()
        };
        let claim = note(SOURCE_CONFIG).map(|config| (config, note(SOURCE)));
        let bytes =
            descriptor.annotations().as_ref().and_then(|a| a.get(BYTES)).and_then(|text| text.parse().ok());
        Entry { descriptor, subject: subject.clone(), claim, bytes, candidate: None }
    }

    fn starts_from(&self, here: impl Fn(&Digest) -> bool) -> bool {
        self.claim.as_ref().is_some_and(|(config, _)| here(config))
    }

    fn base(&self) -> Option<&Digest> {
        self.claim.as_ref()?.1.as_ref()
    }
}

struct Search<'a> {
    repository: &'a RemoteRepository,
    /// Bytes that may still be spent, heads of answers included.
    left: u64,
    /// Requests that a list may take.
    requests: u64,
    seen: HashSet<Digest>,
    found: Found,
}

impl Search<'_> {
    /// Follows the lists back from `target`, then reads the deltas of the ways that they show.
    async fn follow(&mut self, target: &Digest, here: impl Fn(&Digest) -> bool, at_stake: u64) -> Result<()> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut subjects = VecDeque::from([(target.clone(), 1)]);
        let mut known = HashSet::from([target.clone()]);
        while let Some((subject, depth)) = subjects.pop_front() {
            let mut listed = self.list(&subject).await?;
            for entry in listed.iter_mut().filter(|entry| entry.claim.is_none()) {
                // Some registries leave the annotations out; then only the manifest tells.
                entry.candidate = self.judge(&entry.descriptor, &subject).await?;
                let delta = entry.candidate.as_ref().map(|c| &c.manifest);
                entry.claim = delta.map(|d| (d.source_config.clone(), d.source.clone()));
            }
            let fits = listed.iter().any(|entry| entry.starts_from(&here));
            if !fits && depth < MAX_CHAIN && self.left > 2 * HEAD {
                let bases = listed.iter().filter_map(|entry| entry.base().cloned());
                subjects
                    .extend(bases.filter(|base| known.insert(base.clone())).map(|base| (base, depth + 1)));
            }
            entries.extend(listed);
            if fits {
                break;
            }
        }
        let listed = entries.len();
        let useful = on_a_way(entries, &here);
        self.found.elsewhere = listed - useful.len();
        if promised(&useful, target, here).is_some_and(|bytes| bytes <= at_stake / 2) {
            // What is saved pays for the manifests.
            self.left = self.left.max(at_stake / 4);
        }
        for entry in useful {
            self.read(entry).await?;
        }
        Ok(())
    }

    /// What is listed for `subject` and may be a delta.
    async fn list(&mut self, subject: &Digest) -> Result<Vec<Entry>> {
        let room = self.left.saturating_sub(self.requests * HEAD);
        let listing = self.repository.referrers(subject, ARTIFACT_TYPE, room).await?;
        self.spend(listing.bytes, listing.requests * HEAD);
        // The next ones come the way that this one came.
        self.requests = 1;
        let odd = listing.odd.iter().map(|what| format!("an entry of the list is passed over: {what}"));
        self.found.notes.extend(odd);
        let candidates = listing.entries.into_iter().filter(may_be_delta);
        Ok(candidates.map(|descriptor| Entry::new(descriptor, subject)).collect())
    }

    fn spend(&mut self, bytes: u64, heads: u64) {
        self.found.bytes += bytes;
        self.left = self.left.saturating_sub(bytes.saturating_add(heads));
    }

    /// Makes a candidate of an entry, if it is a delta.
    async fn read(&mut self, entry: Entry) -> Result<()> {
        let candidate = match entry.candidate {
            Some(candidate) => Some(candidate),
            None => self.judge(&entry.descriptor, &entry.subject).await?,
        };
        self.found.candidates.extend(candidate);
        Ok(())
    }

    /// Reads the manifest that an entry names; `None`, with a note, when it is no delta for `subject`.
    async fn judge(&mut self, entry: &Descriptor, subject: &Digest) -> Result<Option<Candidate>> {
        if self.seen.len() >= MAX_CANDIDATES || !self.seen.insert(entry.digest().clone()) {
            return Ok(None);
        }
        if carried(entry).is_none() && entry.size().saturating_add(HEAD) > self.left {
            self.found.unread += 1;
            return Ok(None);
        }
        match self.manifest_of(entry, subject).await {
            Ok(candidate) => Ok(Some(candidate)),
            Err(e) if matches!(e.kind(), Kind::Misfit | Kind::Verification) => {
                self.found.notes.push(format!("delta {} is passed over: {e}", entry.digest()));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    async fn manifest_of(&mut self, entry: &Descriptor, subject: &Digest) -> Result<Candidate> {
        let bytes = match carried(entry) {
            Some(bytes) => bytes,
            None => {
                // No more than the list says, which was found to be affordable.
                let bytes = self.repository.manifest(entry.digest(), entry.size()).await?;
                self.spend(bytes.len() as u64, HEAD);
                bytes
            }
        };
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

/// The manifest itself, where an entry carries it (image specification, "Descriptors", `data`).
fn carried(entry: &Descriptor) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(entry.data().as_ref()?).ok()?;
    (bytes.len() as u64 == entry.size() && digest_of(&bytes) == *entry.digest()).then_some(bytes)
}

/// Bytes of the blobs of the cheapest way to `target`, by what the lists say of the deltas on it.
fn promised(entries: &[Entry], target: &Digest, here: impl Fn(&Digest) -> bool) -> Option<u64> {
    let mut costs: HashMap<&Digest, u64> = HashMap::new();
    for _ in 0..MAX_CHAIN {
        for entry in entries {
            let before = match entry.base() {
                _ if entry.starts_from(&here) => Some(0),
                base => base.and_then(|base| costs.get(base).copied()),
            };
            let (Some(before), Some(bytes)) = (before, entry.bytes) else { continue };
            let cost = before.saturating_add(bytes);
            costs.entry(&entry.subject).and_modify(|known| *known = cost.min(*known)).or_insert(cost);
        }
    }
    costs.get(target).copied()
}

/// The entries that lie on a way from an image that is here.
fn on_a_way(entries: Vec<Entry>, here: impl Fn(&Digest) -> bool) -> Vec<Entry> {
    let mut reached: HashSet<Digest> = HashSet::new();
    let leads_on = |entry: &Entry, reached: &HashSet<Digest>| {
        entry.starts_from(&here) || entry.base().is_some_and(|base| reached.contains(base))
    };
    // Each round reaches images one delta further on.
    for _ in 0..MAX_CHAIN {
        let before = reached.len();
        let now: Vec<Digest> =
            entries.iter().filter(|e| leads_on(e, &reached)).map(|e| e.subject.clone()).collect();
        reached.extend(now);
        if reached.len() == before {
            break;
        }
    }
    entries.into_iter().filter(|entry| leads_on(entry, &reached)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::MediaType;

    #[test]
    fn what_an_entry_carries_counts_only_if_it_is_the_manifest() {
        let entry = |bytes: &[u8], data: &str| {
            let mut entry = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest_of(bytes));
            entry.set_data(Some(data.to_owned()));
            entry
        };
        assert_eq!(carried(&entry(b"xxx", "eHh4")).as_deref(), Some(&b"xxx"[..]));
        for data in ["eHh5", "eHh4eHh4", "e", "", "eHh4 "] {
            assert_eq!(carried(&entry(b"xxx", data)), None, "{data}");
        }
    }
}
