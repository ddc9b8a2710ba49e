//! Makes a delta between two images, wherever they are, and puts it where it is wanted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use oci_spec::image::Descriptor;

use super::fetch;
use super::publish;
use super::request::{FetchRequest, Limits, PlaceOptions};
use crate::account::{LayerAccount, account, no_base};
use crate::artifact::{Image, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, parse_manifest};
use crate::create::{self, Artifact, Beside, Carried, CarriedLayer, Input, Layers, Options};
use crate::digest::{DiffId, Digest, digest_of};
use crate::error::{Error, Result};
use crate::fetch::on_thread;
use crate::layout::Layout;
use crate::platform::Platform;
use crate::progress::Event;
use crate::reference::{Reference, has_transport};
use crate::region::Region;
use crate::session::Session;
use crate::spool::Spool;
use crate::store::{OtherKind, Repository, StoreRef, StoredImage};
use crate::tardiff::{self, Version};

/// A delta to make.
#[derive(Debug)]
pub struct CreateRequest {
    /// Image that machines have: a reference, a path, or a name in the repository.
    pub old: String,
    /// Image that they shall get.
    pub new: String,
    /// Where the delta goes: a reference, or the path of an archive.
    pub output: String,
    /// A repository that may hold the images.
    pub repository: StoreRef,
    /// Signatures of the new image to take along, each in a layout.
    pub signatures: Vec<String>,
    /// How it is made.
    pub options: Options,
    /// How images and the output in registries are reached.
    pub place: PlaceOptions,
    /// Bounds on images in registries.
    pub limits: Limits,
    /// Is it wanted to know where the bytes of the patches go?
    pub accounts: bool,
}

/// A delta that was made.
#[derive(Debug)]
pub struct Created {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of manifest and distinct blobs.
    pub bytes: u64,
    /// Those that whoever can takes: of two blobs for one layer the smaller.
    pub needed_bytes: u64,
    /// The image it starts from.
    pub old: Image,
    /// The image it leads to.
    pub new: Image,
    /// How it carries the layers of that.
    pub layers: Vec<CarriedLayer>,
    /// Where the bytes of each patch go; not of those with dictionary frames.
    pub accounts: Vec<(DiffId, LayerAccount)>,
    /// Seconds that it took, without those accounts.
    pub seconds: f64,
}

/// Makes a delta and writes it.
///
/// # Errors
/// Usage when the images are the same or cannot be told apart; Misfit when there is none; what the places say.
pub async fn create(session: &Session, request: CreateRequest) -> Result<Created> {
    let started = Instant::now();
    let inputs = session.scratch()?;
    let maker = Maker { session, request: &request, inputs: &inputs };
    let old = maker.open(&request.old).await?;
    let new = maker.open(&request.new).await?;
    let signatures = request.signatures.iter().map(|text| maker.signature(text)).collect::<Result<_>>()?;
    let options = Options { signatures, notes: session.notes.clone(), ..request.options.clone() };
    let Session { reporter, cancel, .. } = session.clone();
    let work = move || {
        let made = create::create(old.input(), new.input(), &options, &*reporter, &cancel);
        reporter.event(Event::Finish);
        made.map(|made| (old.image, new.image, made))
    };
    let (old, new, (artifact, layers)) = on_thread(work).await?;
    for CarriedLayer { diff_id, carried, extended, .. } in &layers {
        if let Beside::Fault(fault) = extended {
            session.say(&format!("layer {diff_id} has no extended patch: it failed the check: {fault}"));
        }
        if let Carried::Original { fault: Some(fault), .. } = carried {
            session.say(&format!("layer {diff_id} is carried whole: its patch failed the check: {fault}"));
        }
    }
    maker.write(&artifact).await?;
    let seconds = started.elapsed().as_secs_f64();
    let accounts = if request.accounts { maker.accounts(&layers)? } else { Vec::new() };
    let blobs = artifact.blobs.iter().map(create::Blob::size).sum::<u64>();
    let (digest, bytes) = (digest_of(&artifact.manifest), artifact.manifest.len() as u64 + blobs);
    let needed_bytes = artifact.manifest.len() as u64 + artifact.bytes;
    Ok(Created { digest, bytes, needed_bytes, old, new, layers, accounts, seconds })
}

/// An image that is on this machine now.
#[derive(Debug)]
struct Here {
    image: Image,
    spool: PathBuf,
    layers: LayersIn,
}

#[derive(Debug)]
enum LayersIn {
    Layout(Layout),
    /// As the repository keeps them.
    Repository(Arc<dyn Repository>, Vec<Descriptor>),
}

impl Here {
    fn input(&self) -> Input<'_> {
        Input { image: &self.image, layers: self }
    }
}

impl Layers for Here {
    fn layer(&self, at: usize) -> Result<(Descriptor, Region)> {
        match &self.layers {
            LayersIn::Layout(layout) => layout.layer(&self.image.diff_ids[at], &self.image.layers[at]),
            LayersIn::Repository(store, stored) => {
                store.layer(&self.image.diff_ids[at], &stored[at], &self.spool)
            }
        }
    }
}

struct Maker<'a> {
    session: &'a Session,
    request: &'a CreateRequest,
    /// For what is pulled.
    inputs: &'a Path,
}

impl Maker<'_> {
    /// Opens an image: a reference, a path, or a name in the repository.
    async fn open(&self, text: &str) -> Result<Here> {
        if let Some((store, named)) = self.in_repository(text)? {
            return self.stored(store, named);
        }
        let reference = match self.index_in_repository(text)? {
            Some(index) => index,
            None => Reference::or_path(text)?,
        };
        let spool = self.session.spool.clone();
        let Some(layout) = Layout::open(&reference, &spool)? else { return self.pull(&reference).await };
        let platform = self.request.place.platform.clone().unwrap_or_else(Platform::host);
        let descriptor = layout.resolve(reference.image_name(), &platform)?;
        let mut image = layout
            .image(&descriptor)?
            .ok_or_else(|| Error::misfit(format!("{reference}: not an image, or not a complete one")))?;
        layout.correct_sizes(&mut image)?;
        Ok(Here { image, spool, layers: LayersIn::Layout(layout) })
    }

    /// An image in a repository. A delta is for the manifest that was published.
    fn stored(&self, store: Arc<dyn Repository>, named: StoredImage) -> Result<Here> {
        let image = store.published(&named)?;
        let layers = LayersIn::Repository(store, named.image.layers);
        Ok(Here { image, spool: self.session.spool.clone(), layers })
    }

    /// Pulls an image into a repository for this one.
    async fn pull(&self, reference: &Reference) -> Result<Here> {
        let repository = StoreRef::Layout(self.inputs.join("pulled"));
        let name = reference.to_string();
        let request = FetchRequest {
            name: Some(name.clone()),
            place: self.request.place.clone(),
            limits: self.request.limits.clone(),
            ..FetchRequest::new(reference.clone(), repository.clone())
        };
        fetch(self.session, &request).await?;
        let found = self.find(&repository, |image| image.name.as_deref() == Some(&name))?;
        let (store, named) =
            found.ok_or_else(|| Error::local(format!("{reference}: gone after it was pulled")))?;
        self.stored(store, named)
    }

    /// May this be a name in the repository?
    fn may_be_stored(&self, text: &str) -> bool {
        !has_transport(text) && !Path::new(text).exists() && self.request.repository.exists()
    }

    /// An index of images in the repository, which another tool put there: one of them is for the platform.
    fn index_in_repository(&self, text: &str) -> Result<Option<Reference>> {
        let StoreRef::Layout(dir) = &self.request.repository else { return Ok(None) };
        if !self.may_be_stored(text) {
            return Ok(None);
        }
        let others = self.request.repository.open(self.session)?.inventory()?.others;
        let found = others.iter().any(|o| o.kind == OtherKind::Index && o.name.as_deref() == Some(text));
        Ok(found.then(|| Reference::Oci { dir: dir.clone(), name: Some(text.to_owned()) }))
    }

    fn in_repository(&self, text: &str) -> Result<Option<(Arc<dyn Repository>, StoredImage)>> {
        if !self.may_be_stored(text) {
            return Ok(None);
        }
        let whole = text.parse::<Reference>().ok().and_then(|r| r.tag_name());
        self.find(&self.request.repository, |image| {
            let name = image.name.as_deref();
            name.is_some() && (name == Some(text) || name == whole.as_deref())
                || image.descriptor.digest().as_ref() == text
        })
    }

    fn find(
        &self,
        repository: &StoreRef,
        wanted: impl Fn(&StoredImage) -> bool,
    ) -> Result<Option<(Arc<dyn Repository>, StoredImage)>> {
        let store = repository.open(self.session)?;
        let found = store.inventory()?.the_one(repository, wanted)?.cloned();
        Ok(found.map(|image| (store, image)))
    }

    /// The parts of a signature: its manifest, config and payloads.
    fn signature(&self, text: &str) -> Result<Vec<(Descriptor, Vec<u8>)>> {
        let reference = Reference::or_path(text)?;
        let layout = Layout::open(&reference, &self.session.spool)?.ok_or_else(|| {
            Error::usage(format!("{reference}: a signature must be in a local layout"))
                .with_hint("skopeo copy it to oci:DIR first")
        })?;
        let manifest = layout.resolve(reference.image_name(), &Platform::host())?;
        let mut parts = vec![manifest.clone()];
        let bytes = layout.read_blob(&manifest, MAX_MANIFEST_SIZE)?;
        let parsed = parse_manifest(&bytes)?;
        parts.push(parsed.config().clone());
        parts.extend(parsed.layers().iter().cloned());
        let read = |part: Descriptor| {
            let bytes = layout.read_blob(&part, MAX_CONFIG_SIZE)?;
            Ok((part, bytes))
        };
        parts.into_iter().map(read).collect()
    }

    fn accounts(&self, layers: &[CarriedLayer]) -> Result<Vec<(DiffId, LayerAccount)>> {
        let Options { patches, max_layer, spool, .. } = &self.request.options;
        let (limits, spool) = (tardiff::Limits::default(), Spool::in_dir(spool));
        let mut accounts = Vec::new();
        for layer in layers {
            // The output of dictionary frames cannot be accounted for without the base.
            if let (Carried::Patch(patch), Some(Version::V1)) = (&layer.carried, patches.standard()) {
                let account = account(patch.reader(), &no_base, &limits, *max_layer, &spool)?;
                accounts.push((layer.diff_id.clone(), account));
            }
        }
        Ok(accounts)
    }

    async fn write(&self, artifact: &Artifact) -> Result<()> {
        let (output, cancel) = (&self.request.output, &self.session.cancel);
        // A bare path is an archive.
        let reference = match has_transport(output) {
            true => output.parse()?,
            false => Reference::OciArchive { file: output.into(), name: None },
        };
        match reference {
            Reference::Oci { dir, name } => artifact.parcel().write_dir(&dir, name.as_deref(), cancel),
            Reference::OciArchive { file, name } => artifact.parcel().write_archive(&file, name.as_deref()),
            Reference::Dir { .. } => Err(Error::usage("a delta cannot be written to dir:")
                .with_hint("write it to oci:DIR, then skopeo copy oci:DIR dir:OTHER")),
            Reference::ContainersStorage { .. } => {
                Err(Error::usage("a delta is no image, so it cannot be in podman's storage")
                    .with_hint("write it to a registry, oci:DIR or oci-archive:FILE"))
            }
            Reference::Docker { .. } => {
                let dir = self.inputs.join("delta");
                artifact.parcel().write_dir(&dir, None, cancel)?;
                let stored =
                    publish::store(self.session, &dir, &artifact.manifest, output, &self.request.place);
                Box::pin(stored).await.map(drop)
            }
        }
    }
}
