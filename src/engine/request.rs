//! What is asked of the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base_image::BaseImage;
use crate::digest::Digest;
use crate::encoding::Encoding;
use crate::exact::Exact;
use crate::platform::Platform;
use crate::progress::Reporter;
use crate::proxy::ProxyOptions;
use crate::reference::Reference;
use crate::store::StoreRef;
use crate::trust::Trust;

/// An image to bring into a repository.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// A delta artifact or an image.
    pub reference: Reference,
    /// The repository that holds the base and takes the image.
    pub repository: StoreRef,
    /// The image's name there, instead of the reference's own.
    pub name: Option<String>,
    /// Digest that the image's manifest, the delta's or an index around it must have.
    pub expected: Option<Digest>,
    /// Whether and which deltas are used.
    pub deltas: Deltas,
    /// Where the base is, if not in the repository.
    pub base: BaseChoice,
    /// Whose images are taken.
    pub trust: Trust,
    /// Which signatures are read and kept beside the image.
    pub signatures: Signatures,
    /// Whether layers become the blobs that were published.
    pub exact: Exact,
    /// How other rebuilt layers are kept.
    pub encoding: Encoding,
    /// The image goes on from the repository by an [export](super::export) that follows: what was kept for the work
    /// on it stays until then.
    pub goes_on: bool,
    /// How the place is reached.
    pub place: PlaceOptions,
    /// Bounds on what comes.
    pub limits: Limits,
}

impl FetchRequest {
    /// `reference` into `repository`, all else as a user who names nothing more would expect.
    pub fn new(reference: Reference, repository: StoreRef) -> Self {
        FetchRequest {
            reference,
            repository,
            name: None,
            expected: None,
            deltas: Deltas::default(),
            base: BaseChoice::default(),
            trust: Trust::default(),
            signatures: Signatures::AsDemanded,
            exact: Exact::Auto,
            encoding: Encoding::Plain,
            goes_on: false,
            place: PlaceOptions::default(),
            limits: Limits::default(),
        }
    }

    /// Whether layers become what was published. A composefs repository keeps the manifest as it is anyway, and no blobs.
    pub(crate) fn exact(&self) -> Exact {
        if self.keeps_blobs() { self.exact } else { Exact::Off }
    }

    /// Does the repository keep layers as blobs?
    pub(super) fn keeps_blobs(&self) -> bool {
        !matches!(self.repository, StoreRef::Composefs(_))
    }

    /// The name that the image gets.
    pub(super) fn wanted_name(&self) -> Option<String> {
        self.name.clone().or_else(|| self.reference.tag_name())
    }
}

/// Whether and which deltas are used.
#[derive(Debug, Clone, Default)]
pub struct Deltas {
    /// When.
    pub policy: DeltaPolicy,
    /// This one, instead of what a registry lists.
    pub named: Option<Reference>,
    /// A repository in a registry that lists them, instead of the image's own.
    pub listed_in: Option<Reference>,
}

/// Which signatures of an image are read, and kept beside it in a repository of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signatures {
    /// As many as it takes to see that the image is taken; none where anybody's is.
    #[default]
    AsDemanded,
    /// All, for a place that the image goes on to.
    All,
}

/// When deltas are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum DeltaPolicy {
    /// Where they save bytes; what they fail to make is fetched whole.
    #[default]
    Auto,
    /// Fail if the image cannot be had by deltas.
    Only,
    /// Fetch the image whole.
    Never,
}

/// Where the base is, if not in the repository.
#[derive(Debug, Clone, Default)]
pub struct BaseChoice {
    /// An image.
    pub image: Option<Reference>,
    /// A root file system with the base's files.
    pub rootfs: Option<PathBuf>,
    /// Another repository than the one that takes the image.
    pub repository: Option<StoreRef>,
    /// An ostree repository with files of images.
    pub ostree: OstreeChoice,
    /// One that the engine opened itself.
    pub(crate) opened: Option<Arc<dyn BaseImage>>,
}

impl BaseChoice {
    /// Is none named?
    pub(crate) fn is_open(&self) -> bool {
        let names_ostree = matches!(self.ostree, OstreeChoice::At(_));
        self.image.is_none() && self.rootfs.is_none() && !names_ostree
    }
}

/// Whether images in an ostree repository can be bases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OstreeChoice {
    /// No.
    #[default]
    None,
    /// Those of this one, where it is there and can be read.
    IfThere(PathBuf),
    /// Those of this one.
    At(PathBuf),
}

impl OstreeChoice {
    /// The repository that is meant.
    pub fn path(&self) -> Option<&Path> {
        match self {
            OstreeChoice::None => None,
            OstreeChoice::IfThere(path) | OstreeChoice::At(path) => Some(path),
        }
    }
}

/// How a place is reached.
#[derive(Debug, Clone, Default)]
pub struct PlaceOptions {
    /// The platform that the image must have; `None`: this machine's where there is a choice.
    pub platform: Option<Platform>,
    /// For registries.
    pub proxy: ProxyOptions,
    /// Blobs in flight and at work at once; `None`: by the place and the cores.
    pub jobs: Option<usize>,
}

impl PlaceOptions {
    /// The same, where `reporter` is told of long waits.
    pub fn told_to(&self, reporter: &Arc<dyn Reporter>) -> Self {
        let proxy = ProxyOptions { reporter: reporter.clone(), ..self.proxy.clone() };
        PlaceOptions { proxy, ..self.clone() }
    }

    /// The options for skopeo, with the platform to choose from an index.
    pub fn skopeo(&self, platform: Platform) -> ProxyOptions {
        ProxyOptions { platform: Some(platform), ..self.proxy.clone() }
    }
}

/// Bounds on what comes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of a layer's tar.
    pub max_layer_size: u64,
    /// Largest window of zstd, or dictionary of LZMA in an extended patch, as the power of two of its bytes.
    pub max_window_log: u32,
}

impl Default for Limits {
    /// 64 GiB and 128 MiB.
    fn default() -> Self {
        Limits { max_layer_size: 64 << 30, max_window_log: 27 }
    }
}
