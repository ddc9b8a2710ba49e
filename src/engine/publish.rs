//! Puts deltas into a registry, where a fetch finds them, and looks after their list.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

use super::carry::carry;
use super::opened::Opened;
use super::request::PlaceOptions;
use crate::artifact::{
    self, ARTIFACT_TYPE, BYTES, DeltaManifest, MAX_MANIFEST_SIZE, SOURCE, SOURCE_CONFIG, TARGET,
    parse_manifest,
};
use crate::cancel::Cancel;
use crate::digest::{Digest, digest_of};
use crate::discover::{Candidate, all_deltas, room_of_list};
use crate::error::{Error, IoContext, Result};
use crate::fetch::Place;
use crate::layout::Layout;
use crate::platform::Platform;
use crate::proxy::push_layout;
use crate::reference::Reference;
use crate::registry::{Change, IMAGE_MANIFEST, RemoteRepository};
use crate::session::Session;
use crate::store::{Inventory, StoreRef};

/// Largest manifest that its entry in a list carries, in bytes; those of most images are smaller.
const MAX_CARRIED: usize = 16 << 10;

/// Annotations of the manifest that its entry in a list repeats, so that readers know what to read.
const REPEATED: [&str; 3] = [SOURCE_CONFIG, SOURCE, TARGET];

/// A delta that is in a registry now.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Where it is, by digest.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: Digest,
    /// The image that it is for.
    pub subject: Digest,
    /// The registry lists it by itself; else it was added to the list under the fallback tag.
    pub by_api: bool,
    /// Signatures that went along: those of the image, which the delta embeds, and those of the delta beside it.
    pub signatures: usize,
}

/// Stores the delta `delta`, a reference or path on this machine, in the registry `to`, and sees to it that it is listed.
///
/// # Errors
/// Misfit when it is no delta; Usage when `to` is not in a registry; what that says.
pub async fn push(session: &Session, delta: &str, to: &str, place: &PlaceOptions) -> Result<Pushed> {
    let layout = Layout::open(&Reference::or_path(delta)?, &session.spool)?.ok_or_else(|| {
        Error::usage(format!("{delta} is not on this machine")).with_hint("skopeo copy it to oci:DIR first")
    })?;
    let descriptor = layout.resolve(Reference::or_path(delta)?.image_name(), &Platform::host())?;
    let manifest = layout.read_blob(&descriptor, MAX_MANIFEST_SIZE)?;
    if !artifact::is_delta(&manifest)? {
        return Err(Error::misfit(format!("{delta} is not an oci-delta artifact")));
    }
    let manifest = with_subject(manifest)?;
    let dir = session.scratch()?;
    copy_to(&layout, &manifest, &dir, &session.cancel)?;
    let pushed = store(session, &dir, &manifest, to, place).await?;
    let options = place.told_to(&session.reporter).skopeo(Platform::host());
    let beside = Place::Local(Arc::new(layout));
    let carried = carry(session, &beside, &pushed.digest, &pushed.reference, &options).await?;
    Ok(Pushed { signatures: pushed.signatures + carried, ..pushed })
}

/// Pushes the artifact of a layout directory and sees to it that it is listed.
pub(super) async fn store(
    session: &Session,
    dir: &Path,
    manifest: &[u8],
    to: &str,
    place: &PlaceOptions,
) -> Result<Pushed> {
    let reference: Reference = to.parse()?;
    let Reference::Docker { name } = &reference else {
        return Err(Error::usage(format!("{to} is not in a registry"))
            .with_hint("push to docker://HOST/REPO, with or without a tag"));
    };
    let digest = digest_of(manifest);
    let by_digest = reference.pinned(&digest);
    let options = place.told_to(&session.reporter).skopeo(Platform::host());
    let destination = if has_tag(to) { reference.skopeo() } else { by_digest.skopeo() };
    push_layout(dir, &destination, &options).await?;
    let delta = DeltaManifest::parse(manifest)?;
    let subject = delta.target_manifest.digest().clone();
    let repository = RemoteRepository::new(name, &options).remembered(session.notes.as_deref());
    let by_api = repository.referrers_by_api(&subject, ARTIFACT_TYPE, u64::MAX).await?.is_some();
    if !by_api {
        let room = room_of_list(replaced_bytes(dir, &delta)?);
        let change = Change::Add { entry: Box::new(entry(manifest)?), room };
        repository.change_list(&subject, &change).await?;
    }
    Ok(Pushed { reference: by_digest, digest, subject, by_api, signatures: delta.signatures.len() })
}

/// Was a tag typed? Without one nothing in the registry may change its meaning.
fn has_tag(text: &str) -> bool {
    text.trim_start_matches("docker://").rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// The manifest with a `subject`, which makes registries list it; older tools write none.
fn with_subject(manifest: Vec<u8>) -> Result<Vec<u8>> {
    if parse_manifest(&manifest)?.subject().is_some() {
        return Ok(manifest);
    }
    let target = DeltaManifest::parse(&manifest)?.target_manifest;
    let mut value: Value =
        serde_json::from_slice(&manifest).map_err(|e| Error::verification(e.to_string()))?;
    value["subject"] =
        json!({"mediaType": IMAGE_MANIFEST, "digest": target.digest().to_string(), "size": target.size()});
    serde_json::to_vec(&value).map_err(|e| Error::local(e.to_string()))
}

/// Bytes of the whole layers that a delta stands for: what is at stake for those whom it fits.
fn replaced_bytes(dir: &Path, delta: &DeltaManifest) -> Result<u64> {
    let path = dir.join("blobs/sha256").join(delta.target_manifest.digest().digest());
    let target = parse_manifest(&std::fs::read(&path).at(path.display())?)?;
    let replaced = target.layers().iter().filter(|layer| delta.changes(layer.digest()));
    Ok(replaced.map(Descriptor::size).sum())
}

/// The entry for a delta in a list.
fn entry(manifest: &[u8]) -> Result<Descriptor> {
    let parsed = parse_manifest(manifest)?;
    let mut entry = Descriptor::new(MediaType::ImageManifest, manifest.len() as u64, digest_of(manifest));
    entry.set_artifact_type(Some(MediaType::Other(ARTIFACT_TYPE.to_owned())));
    let all = parsed.annotations().clone().unwrap_or_default();
    let mut repeated: HashMap<String, String> =
        all.into_iter().filter(|(key, _)| REPEATED.contains(&key.as_str())).collect();
    let bytes: u64 = parsed.layers().iter().map(Descriptor::size).fold(0, u64::saturating_add);
    let spare = DeltaManifest::parse(manifest).map_or(0, |delta| delta.spare_bytes());
    repeated.insert(BYTES.to_owned(), (bytes - spare.min(bytes)).to_string());
    entry.set_annotations(Some(repeated));
    entry.set_data((manifest.len() <= MAX_CARRIED).then(|| STANDARD.encode(manifest)));
    Ok(entry)
}

/// A layout with nothing but the artifact, as skopeo pushes it.
fn copy_to(layout: &Layout, manifest: &[u8], dir: &Path, cancel: &Cancel) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).at(blobs.display())?;
    let parsed = parse_manifest(manifest)?;
    for blob in std::iter::once(parsed.config()).chain(parsed.layers()) {
        let path = blobs.join(blob.digest().digest());
        let mut file = std::fs::File::create(&path).at(path.display())?;
        let mut blob = cancel.watch(layout.require_blob(blob)?.reader());
        std::io::copy(&mut blob, &mut file).at(path.display())?;
    }
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).at(dir.display());
    let digest = digest_of(manifest);
    write(&format!("blobs/sha256/{}", digest.digest()), manifest)?;
    let entry = json!({"mediaType": IMAGE_MANIFEST, "digest": digest.to_string(), "size": manifest.len()});
    write("index.json", json!({"schemaVersion": 2, "manifests": [entry]}).to_string().as_bytes())?;
    write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// Which deltas are meant.
#[derive(Debug, Clone)]
pub struct DeltasOf {
    /// The image that they are for, in a registry.
    pub reference: Reference,
    /// The repository that lists them, instead of the image's own.
    pub listed_in: Option<Reference>,
    /// How both are reached.
    pub place: PlaceOptions,
}

/// The deltas that a registry has for an image.
#[derive(Debug, Clone)]
pub struct List {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// Bytes of a pull of the whole image.
    pub full_bytes: u64,
    /// In the order of the list.
    pub deltas: Vec<ListedDelta>,
}

/// A delta in a list.
#[derive(Debug, Clone)]
pub struct ListedDelta {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Config digest of the image it starts from.
    pub base_config: Digest,
    /// Is that image here?
    pub fits: bool,
    /// The names that it has here.
    pub base: Vec<String>,
    /// Manifest and blobs, as far as a fetch reads them.
    pub bytes: u64,
}

/// Lists deltas, and which of them start from an image in `repository`.
///
/// # Errors
/// What the registry says; local I/O errors.
pub async fn deltas(session: &Session, of: &DeltasOf, repository: &StoreRef) -> Result<List> {
    let (lists, opened) = of.open(session).await?;
    let full_bytes = opened.image().await?.full_bytes();
    let found = all_deltas(&lists, &opened.digest).await?;
    for note in &found.notes {
        session.say(note);
    }
    let inventory = match repository.exists() {
        true => repository.open(session)?.inventory()?,
        false => Inventory::default(),
    };
    let listed = |candidate: &Candidate| {
        let base = &candidate.manifest.source_config;
        let here: Vec<_> = inventory.images.iter().filter(|i| i.image.config_digest == *base).collect();
        ListedDelta {
            digest: candidate.digest.clone(),
            base_config: base.clone(),
            fits: !here.is_empty(),
            base: here.iter().filter_map(|i| i.name.clone()).collect(),
            bytes: candidate.size + candidate.manifest.layer_bytes(),
        }
    };
    Ok(List { image: opened.digest, full_bytes, deltas: found.candidates.iter().map(listed).collect() })
}

/// What became of the deltas of an image.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// Deltas that stay.
    pub kept: Vec<Digest>,
    /// Deltas that go.
    pub removed: Vec<Digest>,
}

/// How much is taken off a list.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Of different bases, so many stay; `None`: all.
    pub keep: Option<usize>,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// Takes superseded deltas off the list for an image.
///
/// # Errors
/// What the registry says.
pub async fn prune(session: &Session, of: &DeltasOf, how: Prune) -> Result<Pruned> {
    let (lists, opened) = of.open(session).await?;
    let found = all_deltas(&lists, &opened.digest).await?;
    let removed = superseded(&found.candidates, how.keep);
    if !removed.is_empty() && !how.dry_run {
        if lists.referrers_by_api(&opened.digest, ARTIFACT_TYPE, u64::MAX).await?.is_some() {
            for digest in &removed {
                lists.delete_manifest(digest).await?;
            }
        } else {
            lists.change_list(&opened.digest, &Change::Remove(removed.clone())).await?;
        }
    }
    let all = found.candidates.into_iter().map(|candidate| candidate.digest);
    let kept = all.filter(|digest| !removed.contains(digest)).collect();
    Ok(Pruned { image: opened.digest, kept, removed })
}

/// Of several deltas from one base all but the smallest, and then all but the last `keep` in the list.
fn superseded(deltas: &[Candidate], keep: Option<usize>) -> Vec<Digest> {
    let mut smallest: HashMap<&Digest, (u64, usize)> = HashMap::new();
    for (at, delta) in deltas.iter().enumerate() {
        let size = (delta.size + delta.manifest.layer_bytes(), at);
        let best = smallest.entry(&delta.manifest.source_config).or_insert(size);
        *best = size.min(*best);
    }
    let mut stay: Vec<usize> = smallest.values().map(|(_, at)| *at).collect();
    stay.sort_unstable();
    let first = stay.len() - keep.unwrap_or(usize::MAX).min(stay.len());
    let stay = &stay[first..];
    deltas.iter().enumerate().filter(|(at, _)| !stay.contains(at)).map(|(_, d)| d.digest.clone()).collect()
}

impl DeltasOf {
    /// The repository that lists them, and the image.
    async fn open(&self, session: &Session) -> Result<(RemoteRepository, Opened)> {
        let name = |reference: &Reference| -> Result<DockerReference> {
            match reference {
                Reference::Docker { name } => Ok(name.clone()),
                other => Err(Error::usage(format!("{other} is not in a registry"))),
            }
        };
        let listed_in = name(self.listed_in.as_ref().unwrap_or(&self.reference))?;
        let place = self.place.told_to(&session.reporter);
        let opened = Opened::open(&self.reference, &place, &session.spool).await?;
        Ok((RemoteRepository::new(&listed_in, &place.skopeo(Platform::host())), opened))
    }
}
