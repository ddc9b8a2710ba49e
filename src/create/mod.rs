//! Makes deltas: what changed between two images, as patches that every applier reads.
//!
//! ```text
//! old layers ─ unpacked, indexed ─ sources ─┐
//!                                           ├─ analysis: same content, twins, corpus and its index
//! new layers that changed ─ unpacked, files ┘        │
//!            per layer: pieces on all threads ─ in order ─ zstd ─ patch ─ checked
//! ```

mod analysis;
mod beside;
mod corpus;
mod dictionary;
mod exact;
mod index;
mod layer;
mod manifest;
mod nearby;
mod opened;
mod ops;
mod piece;
mod preset;
mod price;
mod proven;
mod search;
mod seeds;
mod user;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use oci_spec::image::Descriptor;

use crate::artifact::Image;
use crate::base::{self, LayerBlob, LayeredFiles, Unpacking};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest, LayerHasher};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::exact::{Claim, Exact, Maker};
use crate::parallel;
use crate::progress::{Event, Reporter};
use crate::region::Region;
use crate::spool::Spool;
use crate::tardiff::Version;
use analysis::{Analysis, Means};
use beside::{Holders, OldLayers};
use layer::{Encoder, Old, Patches};
pub use manifest::{Artifact, Blob};
use opened::Opener;
pub use preset::Preset;
pub use user::User;

/// An image whose layers can be read here.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Manifest and config as published.
    pub image: &'a Image,
    /// Its layers.
    pub layers: &'a dyn Layers,
}

/// The layers of an image, as they are on this machine.
pub trait Layers: std::fmt::Debug + Sync {
    /// Layer `at` of the image. A repository may keep it in another encoding
    /// than was published: the descriptor is that of the bytes.
    ///
    /// # Errors
    /// When the layer is gone.
    fn layer(&self, at: usize) -> Result<(Descriptor, Region)>;
}

/// How a delta is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much effort.
    pub preset: Preset,
    /// zstd level of the patches instead of the preset's.
    pub level: Option<i32>,
    /// Which patches there are for a layer.
    pub patches: PatchKinds,
    /// Threads.
    pub jobs: usize,
    /// Anonymous memory in bytes.
    pub memory: u64,
    /// Largest layer in bytes, unpacked.
    pub max_layer: u64,
    /// For unlinked files.
    pub spool: PathBuf,
    /// Who applies it.
    pub user: User,
    /// Whether recipes are looked for, by which layers become what was published.
    pub exact: Exact,
    /// Where it is noted which recipes were proven, so that no layer is proven twice; `None`: nowhere.
    pub notes: Option<PathBuf>,
    /// Signatures of the target to take along: manifest first, then its config and payloads.
    pub signatures: Vec<Vec<(Descriptor, Vec<u8>)>>,
}

/// The patches for each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKinds {
    /// A standard one, which every applier reads.
    Standard(Version),
    /// Beside a standard one of version 1 an extended one, for those who have the old image's layers.
    Both,
    /// An extended one alone.
    Extended,
}

impl PatchKinds {
    /// The version of the standard one, if there is one.
    pub fn standard(self) -> Option<Version> {
        match self {
            PatchKinds::Standard(version) => Some(version),
            PatchKinds::Both => Some(Version::V1),
            PatchKinds::Extended => None,
        }
    }

    fn has_extended(self) -> bool {
        !matches!(self, PatchKinds::Standard(_))
    }
}

/// What became of a layer of the new image.
#[derive(Debug, Clone)]
pub struct CarriedLayer {
    /// Its diff_id.
    pub diff_id: DiffId,
    /// Bytes of its blob in the new image.
    pub published_bytes: u64,
    /// How it is carried.
    pub carried: Carried,
    /// The extended patch beside that.
    pub extended: Beside,
    /// Who made its blob in the new image.
    pub maker: Option<Maker>,
    /// Why that blob cannot be made again.
    pub inexact: Option<String>,
}

/// What became of an extended patch.
#[derive(Debug, Clone, Default)]
pub enum Beside {
    /// None was wanted, or it is not smaller than what is carried anyway.
    #[default]
    None,
    /// There is one, of so many bytes.
    Patch(u64),
    /// One was made and failed its check.
    Fault(String),
}

/// How a delta carries a layer.
#[derive(Debug, Clone)]
pub enum Carried {
    /// Not at all: the base image has it.
    Reused,
    /// As a standard patch.
    Patch(Region),
    /// As an extended patch of so many bytes alone.
    Extended(u64),
    /// Whole; with the reason, if a patch was made and failed its check.
    Original {
        /// Bytes in the artifact.
        bytes: u64,
        /// What the check found.
        fault: Option<String>,
    },
}

/// Makes the delta from `old` to `new`.
///
/// # Errors
/// Usage when the two images are the same; Verification when an image is damaged; local I/O errors.
pub fn create(
    old: Input<'_>,
    new: Input<'_>,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<(Artifact, Vec<CarriedLayer>)> {
    if old.image.config_digest == new.image.config_digest {
        return Err(
            Error::usage("the old and the new image are the same").with_hint("name two different images")
        );
    }
    let changed = changed_layers(old.image, new.image);
    let (stored, new_layers) = sources(new, changed.iter().copied())?;
    let patches = match changed.is_empty() {
        true => Vec::new(),
        false => make_patches(old, new, &new_layers, options, reporter, cancel)?,
    };
    let tars = changed.iter().copied().zip(patches.iter().map(|patch| patch.tar.clone())).collect();
    let mut choices: HashMap<usize, Choice> = HashMap::new();
    for (at, patches) in patches.into_iter().enumerate() {
        choices.insert(changed[at], choose(patches, &stored[at], &new_layers[at].blob)?);
    }
    // Where an extended patch lies beside a whole layer, whoever takes it needs the recipe.
    let whole =
        choices.values().filter(|choice| choice.beside.is_none()).map(|choice| choice.blob.digest.clone());
    let whole = whole.collect();
    let (recipes, fixes) = exact::recipes(new, &tars, &whole, options, cancel)?;
    let mut artifact = manifest::Builder::new(old.image, new.image);
    let mut outcomes = Vec::new();
    for (at, (diff_id, target)) in new.image.diff_ids.iter().zip(&new.image.layers).enumerate() {
        let (kind, extended) = match choices.remove(&at) {
            Some(choice) => choice.carry(&mut artifact, target),
            None => {
                if old.image.diff_ids.contains(diff_id) {
                    artifact.reused(target, diff_id);
                }
                (Carried::Reused, Beside::None)
            }
        };
        let (maker, inexact) = match recipes.claim(at) {
            Claim::Recipe(recipe) => (Some(Maker::of(recipe, exact::fix_bytes(recipe, &fixes))), None),
            Claim::Without(reason) => (None, Some(reason.clone())),
            Claim::Nothing => (None, None),
        };
        let diff_id = diff_id.clone();
        outcomes.push(CarriedLayer {
            diff_id,
            published_bytes: target.size(),
            carried: kind,
            extended,
            maker,
            inexact,
        });
    }
    artifact.recipes(recipes, &fixes);
    for signature in &options.signatures {
        artifact.signature(signature);
    }
    Ok((artifact.finish()?, outcomes))
}

/// Positions of the new layers that the old image does not have, each content once.
fn changed_layers(old: &Image, new: &Image) -> Vec<usize> {
    let mut seen = std::collections::HashSet::new();
    let positions = new.diff_ids.iter().enumerate();
    positions.filter(|(_, d)| !old.diff_ids.contains(d) && seen.insert(*d)).map(|(at, _)| at).collect()
}

fn make_patches(
    old: Input<'_>,
    new: Input<'_>,
    new_layers: &[LayerBlob],
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Vec<Patches>> {
    let (_, old_layers) = sources(old, 0..old.image.layers.len())?;
    let files = LayeredFiles::of_blobs(
        old_layers,
        &Unpacking {
            spool: Spool::in_dir(&options.spool),
            max_layer: options.max_layer,
            cancel: cancel.clone(),
        },
    );
    let spool = Spool::in_dir(&options.spool);
    let tars = Mutex::new(vec![None; new_layers.len()]);
    // New layers first: they are hashed as well, so they take longest.
    let count = new_layers.len() + old.image.layers.len();
    parallel::for_each(count, options.jobs, |at| match at.checked_sub(new_layers.len()) {
        Some(old) => files.preload(old..old + 1, 1),
        None => {
            let tar = unpack_checked(&new_layers[at], &spool, options, cancel)?;
            let members =
                base::members(&tar).map_err(|e| e.context(format!("layer {}", new_layers[at].diff_id)))?;
            tars.lock().unwrap_or_else(|e| e.into_inner())[at] = Some((tar, members));
            Ok(())
        }
    })?;
    let tars: Vec<_> = tars.into_inner().unwrap_or_else(|e| e.into_inner()).into_iter().flatten().collect();
    let mut budget = preset::Budget::new(options);
    let means = Means {
        density: options.preset.density(),
        memory: budget.index,
        threads: options.jobs,
        spool: &options.spool,
    };
    let unchanged = |at: usize| new.image.diff_ids.contains(&old.image.diff_ids[at]);
    let (analysis, mut layers) =
        Analysis::new(options.user.reach(old.image, files.sources()?), tars, unchanged, means)?;
    budget.share_window(layers.iter().map(|l| l.expected_patch()));
    reporter
        .event(Event::Start { total_bytes: layers.iter().map(|l| l.tar.len()).sum(), layers: layers.len() });
    let mut holders = Holders::of(&old.image.diff_ids);
    let old_layers = match options.patches.has_extended() {
        true => Some(OldLayers::read(&files, old.image.layers.len(), unchanged)?),
        false => None,
    };
    if old_layers.is_some() {
        let opener = Opener { means, weights: options.preset.weights(), spool: &spool, cancel };
        opener.open(&analysis, &mut layers, &mut holders)?;
    }
    let mut patches = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let label = new_layers[index].diff_id.to_string();
        reporter.event(Event::LayerStart {
            index,
            label: &label["sha256:".len()..][..12],
            bytes: layer.tar.len(),
        });
        let encoder = Encoder {
            analysis: &analysis,
            files: &files,
            weights: options.preset.weights(),
            version: options.patches.standard(),
            options: budget.writer(layer.expected_patch(), options.jobs),
            content: budget.content(layer.expected_patch(), options.jobs),
            threads: options.jobs,
            cancel,
            old: old_layers.as_ref().map(|layers| Old { layers, holders: &holders }),
            spool: &spool,
            progress: &|delta| reporter.event(Event::LayerBytes { index, delta }),
        };
        patches.push(encoder.encode(layer)?);
        reporter.event(Event::LayerDone { index, outcome: "patch" });
    }
    Ok(patches)
}

fn sources(
    input: Input<'_>,
    layers: impl Iterator<Item = usize>,
) -> Result<(Vec<Descriptor>, Vec<LayerBlob>)> {
    let mut found = (Vec::new(), Vec::new());
    for at in layers {
        let (stored, blob) = input.layers.layer(at)?;
        found.0.push(stored);
        found.1.push(LayerBlob { diff_id: input.image.diff_ids[at].clone(), blob });
    }
    Ok(found)
}

/// The plain tar of a layer, its diff_id checked even where the blob is the tar.
fn unpack_checked(layer: &LayerBlob, spool: &Spool, options: &Options, cancel: &Cancel) -> Result<Region> {
    let tar = layer
        .unpack(spool, options.max_layer, cancel)
        .map_err(|e| e.context(format!("layer {}", layer.diff_id)))?;
    let mut head = [0; encoding::HEAD];
    let n = layer.blob.read_at(&mut head, 0).at("layer")?;
    if !encoding::is_compressed(&head[..n]) {
        let mut hasher = LayerHasher::new(std::io::sink(), options.max_layer);
        std::io::copy(&mut cancel.watch(tar.reader()), &mut hasher).at("layer")?;
        hasher.finish(&layer.diff_id)?;
    }
    Ok(tar)
}

/// Bytes that a patch must save: what is carried whole needs no base. (The reference tool's tests count on about so much.)
const LEAST_SAVED: u64 = 64;

/// What a delta carries for a layer.
#[derive(Debug)]
struct Choice {
    blob: Blob,
    carried: Carried,
    /// An extended patch that is smaller.
    beside: Option<Blob>,
    /// Why there is none although one was made.
    fault: Option<String>,
}

impl Choice {
    fn carry(self, artifact: &mut manifest::Builder, target: &Descriptor) -> (Carried, Beside) {
        let beside = match (&self.beside, self.fault) {
            (Some(beside), _) => Beside::Patch(beside.size()),
            (None, Some(fault)) => Beside::Fault(fault),
            (None, None) => Beside::None,
        };
        if let Some(beside) = self.beside {
            artifact.extended(target, beside);
            artifact.spare(&self.blob);
        }
        match self.carried {
            Carried::Extended(_) => artifact.extended(target, self.blob),
            _ => artifact.layer(target, self.blob),
        }
        (self.carried, beside)
    }
}

/// A patch that saves something, or the whole blob, the latter only in a form that every applier reads; and the extended patch
/// that stands beside it.
fn choose(patches: Patches, stored: &Descriptor, layer: &Region) -> Result<Choice> {
    let saves = |blob: &Blob, of: u64| blob.size().saturating_add(LEAST_SAVED) <= of;
    let extended = patches.extended.map(|made| made.map(|(patch, digest)| Blob::extended(digest, patch)));
    let (made, beside) = match patches.standard {
        Some(standard) => {
            let blob = |(patch, digest): (Region, Digest)| {
                (Blob::patch(digest, patch.clone()), Carried::Patch(patch))
            };
            (standard.map(blob), extended)
        }
        None => {
            let alone = extended.unwrap_or_else(|| Err(Error::local("no patch was made")));
            let carried = |blob: Blob| {
                let bytes = blob.size();
                (blob, Carried::Extended(bytes))
            };
            (alone.map(carried), None)
        }
    };
    let (blob, carried) = match made {
        Ok((blob, carried)) if saves(&blob, layer.len()) => (blob, carried),
        made => match manifest::whole_layer(stored, layer)? {
            Some(whole) => {
                let fault = made.err().map(|fault| fault.to_string());
                (whole, Carried::Original { bytes: layer.len(), fault })
            }
            None => made?,
        },
    };
    let (beside, fault) = match beside {
        Some(Ok(beside)) if saves(&beside, blob.size()) => (Some(beside), None),
        Some(Err(fault)) => (None, Some(fault.to_string())),
        _ => (None, None),
    };
    Ok(Choice { blob, carried, beside, fault })
}
