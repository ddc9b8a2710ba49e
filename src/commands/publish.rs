//! `push`, `deltas`, `prune`: deltas in a registry, where fetch finds them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::Reference as DockerReference;
use oci_spec::image::{Descriptor, MediaType};
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use super::local_reference;
use crate::artifact::{
    self, ARTIFACT_TYPE, BYTES, DeltaManifest, MAX_MANIFEST_SIZE, SOURCE, SOURCE_CONFIG, TARGET,
    parse_manifest,
};
use crate::cancel::Cancel;
use crate::cli::{DeltasArgs, PlaceArgs, PruneArgs, PushArgs};
use crate::digest::{Digest, digest_of};
use crate::discover::{Candidate, all_deltas, room_of_list};
use crate::engine::opened::Opened;
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::platform::Platform;
use crate::proxy::push_layout;
use crate::reference::Reference;
use crate::registry::{Change, IMAGE_MANIFEST, RemoteRepository};
use crate::terminal::human_bytes;

/// Largest manifest that its entry in a list carries, in bytes; those of most images are smaller.
const MAX_CARRIED: usize = 16 << 10;

/// Annotations of the manifest that its entry in a list repeats, so that readers know what to read.
const REPEATED: [&str; 3] = [SOURCE_CONFIG, SOURCE, TARGET];

#[derive(Debug, Serialize)]
struct Pushed {
    version: u32,
    /// Where it is, by digest.
    reference: String,
    digest: String,
    /// The image that it is for.
    subject: String,
    /// The registry lists it by itself; else it was added to the list under the fallback tag.
    referrers_api: bool,
}

/// Runs `push`.
pub(super) async fn push(context: &Context, args: &PushArgs) -> Result<()> {
    let spool = super::spool_dir();
    let reference = local_reference(&args.delta).map_or_else(|| args.delta.parse::<Reference>(), Ok)?;
    let layout = Layout::open(&reference, &spool)?.ok_or_else(|| {
        Error::usage(format!("{} is not on this machine", args.delta))
            .with_hint("skopeo copy it to oci:DIR first")
    })?;
    let descriptor = layout.resolve(reference.image_name(), &Platform::host())?;
    let manifest = layout.read_blob(&descriptor, MAX_MANIFEST_SIZE)?;
    if !artifact::is_delta(&manifest)? {
        return Err(Error::misfit(format!("{} is not an oci-delta artifact", args.delta)));
    }
    let manifest = with_subject(manifest)?;
    let dir = context.scratch()?;
    copy_to(&layout, &manifest, &dir, &context.cancel)?;
    let pushed = store(context, &dir, &manifest, &args.destination, &args.place).await?;
    context.print(&pushed, || format!("{}\n", pushed.reference))
}

/// Pushes the artifact of a layout directory and sees to it that it is listed.
pub(super) async fn store_layout(
    context: &Context,
    dir: &Path,
    manifest: &[u8],
    to: &str,
    place: &PlaceArgs,
) -> Result<()> {
    store(context, dir, manifest, to, place).await.map(drop)
}

async fn store(
    context: &Context,
    dir: &Path,
    manifest: &[u8],
    to: &str,
    place: &PlaceArgs,
) -> Result<Pushed> {
    let reference: Reference = to.parse()?;
    let Reference::Docker { name } = &reference else {
        return Err(Error::usage(format!("{to} is not in a registry"))
            .with_hint("push to docker://HOST/REPO, with or without a tag"));
    };
    let digest = digest_of(manifest);
    let by_digest = reference.pinned(&digest);
    let options = context.place(place)?.skopeo(Platform::host());
    let place = if has_tag(to) { reference.skopeo() } else { by_digest.skopeo() };
    push_layout(dir, &place, &options).await?;
    let delta = DeltaManifest::parse(manifest)?;
    let subject = delta.target_manifest.digest().clone();
    let repository = RemoteRepository::new(name, &options).remembered(super::notes_dir().as_deref());
    let has_api = repository.referrers_by_api(&subject, ARTIFACT_TYPE, u64::MAX).await?.is_some();
    if !has_api {
        let room = room_of_list(replaced_bytes(dir, &delta)?);
        let change = Change::Add { entry: Box::new(entry(manifest)?), room };
        repository.change_list(&subject, &change).await?;
    }
    Ok(Pushed {
        version: super::report::VERSION,
        reference: by_digest.to_string(),
        digest: digest.to_string(),
        subject: subject.to_string(),
        referrers_api: has_api,
    })
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
    let replaced = target.layers().iter().filter(|layer| delta.layers.contains_key(layer.digest()));
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
    repeated.insert(BYTES.to_owned(), bytes.to_string());
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

/// A delta in a list, as people and scripts see it.
#[derive(Debug, Serialize)]
struct ListedDelta {
    digest: String,
    /// Config digest of the image it starts from.
    base_config: String,
    /// Names of that image here.
    base: Vec<String>,
    /// Manifest and blobs, as far as a fetch reads them.
    bytes: u64,
    /// `bytes` as a share of the full image, 1 for the same size.
    share: f64,
    /// The base is here.
    fits: bool,
}

#[derive(Debug, Serialize)]
struct List {
    version: u32,
    reference: String,
    image: String,
    full_pull_bytes: u64,
    deltas: Vec<ListedDelta>,
}

/// Runs `deltas`.
pub(super) async fn deltas(context: &Context, args: &DeltasArgs) -> Result<()> {
    let (repository, opened) = open(context, &args.reference, args.delta_repo.as_ref(), &args.place).await?;
    let image = opened.image().await?;
    let found = all_deltas(&repository, &opened.digest).await?;
    for note in &found.notes {
        context.say(note);
    }
    let inventory = match context.repo.exists() {
        true => context.repo.open(&context.cancel)?.inventory()?,
        false => Default::default(),
    };
    let full_pull_bytes = image.full_bytes();
    let listed = found.candidates.iter().map(|candidate| {
        let base = &candidate.manifest.source_config;
        let here: Vec<_> = inventory.images.iter().filter(|i| i.image.config_digest == *base).collect();
        let bytes = candidate.size + candidate.manifest.layer_bytes();
        ListedDelta {
            digest: candidate.digest.to_string(),
            base_config: base.to_string(),
            base: here.iter().filter_map(|i| i.name.clone()).collect(),
            bytes,
            share: bytes as f64 / full_pull_bytes.max(1) as f64,
            fits: !here.is_empty(),
        }
    });
    let list = List {
        version: super::report::VERSION,
        reference: args.reference.to_string(),
        image: opened.digest.to_string(),
        full_pull_bytes,
        deltas: listed.collect(),
    };
    context.print(&list, || list.text())
}

impl List {
    fn text(&self) -> String {
        let mut text = format!("image {}, {} whole\n", self.image, human_bytes(self.full_pull_bytes));
        if self.deltas.is_empty() {
            text.push_str("no deltas\n");
        }
        for delta in &self.deltas {
            let from = if delta.base.is_empty() { delta.base_config.clone() } else { delta.base.join(", ") };
            let fits = if delta.fits { "fits" } else { "base not here" };
            let _ = writeln!(
                text,
                "{}  {:>10}  {:5.1} %  {fits}, from {from}",
                delta.digest,
                human_bytes(delta.bytes),
                delta.share * 100.0
            );
        }
        text
    }
}

#[derive(Debug, Serialize)]
struct Pruned {
    version: u32,
    image: String,
    kept: Vec<String>,
    removed: Vec<String>,
}

/// Runs `prune`.
pub(super) async fn prune(context: &Context, args: &PruneArgs) -> Result<()> {
    let (repository, opened) = open(context, &args.reference, args.delta_repo.as_ref(), &args.place).await?;
    let found = all_deltas(&repository, &opened.digest).await?;
    let gone = superseded(&found.candidates, args.keep);
    if !gone.is_empty() && !args.dry_run {
        if repository.referrers_by_api(&opened.digest, ARTIFACT_TYPE, u64::MAX).await?.is_some() {
            for digest in &gone {
                repository.delete_manifest(digest).await?;
            }
        } else {
            repository.change_list(&opened.digest, &Change::Remove(gone.clone())).await?;
        }
    }
    let kept = found.candidates.iter().map(|c| &c.digest).filter(|d| !gone.contains(d));
    let pruned = Pruned {
        version: super::report::VERSION,
        image: opened.digest.to_string(),
        kept: kept.map(ToString::to_string).collect(),
        removed: gone.iter().map(ToString::to_string).collect(),
    };
    context.print(&pruned, || {
        pruned.removed.iter().map(|digest| format!("{digest}\n")).collect::<String>()
            + &format!("{} removed, {} kept\n", pruned.removed.len(), pruned.kept.len())
    })
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

/// The image, and the repository that holds the deltas for it.
async fn open(
    context: &Context,
    reference: &Reference,
    delta_repo: Option<&Reference>,
    place: &PlaceArgs,
) -> Result<(RemoteRepository, Opened)> {
    let name = |reference: &Reference| -> Result<DockerReference> {
        match reference {
            Reference::Docker { name } => Ok(name.clone()),
            other => Err(Error::usage(format!("{other} is not in a registry"))),
        }
    };
    let listed_in = name(delta_repo.unwrap_or(reference))?;
    let opened = Opened::open(reference, &context.place(place)?, &super::spool_dir()).await?;
    let repository = RemoteRepository::new(&listed_in, &context.place(place)?.skopeo(Platform::host()));
    Ok((repository, opened))
}
