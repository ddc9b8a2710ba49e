//! `doctor`: what is here, and whether a delta could be used.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::report::VERSION;
use super::{Context, beside};
use crate::cli::DoctorArgs;
use crate::engine::fill::images_in_ostree;
use crate::engine::outcome::{Outcome, Reason};
use crate::engine::plan;
use crate::engine::request::{BaseChoice, FetchRequest, OstreeChoice};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::proxy::probe;
use crate::reference::{PodmanPlace, Reference};
use crate::registry::RemoteRepository;
use crate::store::StoreRef;
use crate::terminal::human_bytes;

/// Bytes of a list that are read to see whether a registry has the referrers API.
const MAX_LIST: u64 = 64 << 10;
/// Where an operating system that is an image keeps its objects.
const COMPOSEFS: &str = "/sysroot/composefs";

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    /// Could a delta be used: for REF, or, without one, for some image?
    usable: bool,
    skopeo: SkopeoReport,
    stores: Vec<StoreReport>,
    image: Option<ImageReport>,
}

#[derive(Debug, Serialize)]
struct SkopeoReport {
    /// The one that is run.
    path: Option<PathBuf>,
    version: Option<String>,
    /// Of its image proxy.
    protocol: Option<String>,
    /// Why it cannot be used.
    trouble: Option<String>,
    /// All on PATH, in the order in which programs find them.
    on_path: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    path: PathBuf,
    /// Is it this program under that name?
    is_this_program: bool,
}

#[derive(Debug, Serialize)]
struct StoreReport {
    place: String,
    kind: &'static str,
    /// Images in it that can be bases; null where it cannot be read.
    images: Option<usize>,
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct ImageReport {
    reference: String,
    manifest: String,
    /// Null where the registry was not asked.
    referrers_api: Option<bool>,
    /// Deltas that a fetch would apply.
    deltas: Vec<String>,
    /// Why there are none.
    fallback_reason: Option<Reason>,
    /// What a fetch would read, and what a pull without deltas would.
    bytes: u64,
    plain_pull_bytes: u64,
}

/// Runs the command.
pub(super) async fn run(context: &Context, args: &DoctorArgs) -> Result<()> {
    let place = args.place.options()?;
    let skopeo = look_at_skopeo(&place.proxy.skopeo);
    let stores = look_at_stores(context, &args.ostree());
    let image = match &args.reference {
        Some(reference) => Some(look_at_image(context, reference, args).await?),
        None => None,
    };
    let bases = stores.iter().any(|store| store.images.is_some_and(|images| images > 0));
    let usable = match &image {
        Some(image) => !image.deltas.is_empty(),
        None => skopeo.trouble.is_none() && bases,
    };
    let report = Report { version: VERSION, usable, skopeo, stores, image };
    context.print(&report, || report.text())?;
    if usable {
        return Ok(());
    }
    let why = match report.image.as_ref().and_then(|image| image.fallback_reason) {
        Some(reason) => format!("no delta could be used: {}", word(reason)),
        None if report.image.is_some() => "no delta could be used: the image is here".to_owned(),
        None if report.skopeo.trouble.is_some() => "no delta could be used: there is no skopeo".to_owned(),
        None => "no delta could be used: there is no image that one could begin at".to_owned(),
    };
    Err(Error::misfit(why))
}

/// The name of a reason in reports.
fn word(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn look_at_skopeo(program: &Path) -> SkopeoReport {
    let ours = env::current_exe().and_then(|path| path.canonicalize()).ok();
    let on_path: Vec<Found> = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join("skopeo"))
        .filter(|path| path.is_file())
        .map(|path| Found { is_this_program: path.canonicalize().ok() == ours, path })
        .collect();
    let named = program.components().count() > 1;
    let first = on_path.iter().find(|found| !found.is_this_program).map(|found| found.path.clone());
    let path = if named { Some(program.to_owned()) } else { first };
    let asked = match &path {
        Some(path) => probe(path).map_err(|e| e.to_string()),
        None => Err("none on PATH".to_owned()),
    };
    let (said, trouble) = match asked {
        Ok(said) => (Some(said), None),
        Err(why) => (None, Some(why)),
    };
    let (version, protocol) = said.map(|said| (said.version, said.protocol)).unzip();
    SkopeoReport { path, version, protocol, trouble, on_path }
}

/// The repository, and where others keep images on this machine.
fn look_at_stores(context: &Context, ostree: &OstreeChoice) -> Vec<StoreReport> {
    let others = [StoreRef::Podman(PodmanPlace::default()), StoreRef::Composefs(PathBuf::from(COMPOSEFS))];
    let others = others.into_iter().filter(|store| *store != context.repo && store.exists());
    let stores = std::iter::once(context.repo.clone()).chain(others);
    let mut stores: Vec<StoreReport> = stores.map(|store| look_at_store(context, &store)).collect();
    if let Some(path) = ostree.path().filter(|path| path.exists()) {
        stores.push(StoreReport::new(path.display().to_string(), "ostree", images_in_ostree(path)));
    }
    stores
}

fn look_at_store(context: &Context, store: &StoreRef) -> StoreReport {
    let kind = match store {
        StoreRef::Layout(_) => "oci",
        StoreRef::Composefs(_) => "composefs",
        StoreRef::Podman(_) => "containers-storage",
    };
    let images = match store.exists() {
        true => store.open(&context.session).and_then(|store| Ok(store.inventory()?.images.len())),
        false => Ok(0),
    };
    StoreReport::new(store.to_string(), kind, images)
}

impl StoreReport {
    fn new(place: String, kind: &'static str, images: Result<usize>) -> Self {
        let (images, trouble) = match images {
            Ok(images) => (Some(images), None),
            Err(e) => (None, Some(e.to_string())),
        };
        StoreReport { place, kind, images, trouble }
    }
}

async fn look_at_image(context: &Context, reference: &Reference, args: &DoctorArgs) -> Result<ImageReport> {
    let place = args.place.options()?;
    let options = place.skopeo(Platform::host());
    // Wherever `serve` and the helper look for them; storage that this user may not read is none of ours.
    let storage =
        beside(&context.repo).filter(|store| store.exists() && store.open(&context.session).is_ok());
    let base = BaseChoice { repository: storage, ostree: args.ostree(), ..BaseChoice::default() };
    let request = FetchRequest { place, base, ..FetchRequest::new(reference.clone(), context.repo.clone()) };
    let outcome = plan(&context.session, &request).await?;
    let referrers_api = match reference {
        Reference::Docker { name } => {
            let repository = RemoteRepository::new(name, &options);
            let listed = repository.referrers_by_api(&outcome.published_manifest, "", MAX_LIST).await;
            // One whose list is too long has it.
            Some(!matches!(listed, Ok(None)))
        }
        _ => None,
    };
    let Outcome { published_manifest, deltas, fallback, bytes, .. } = outcome;
    Ok(ImageReport {
        reference: reference.to_string(),
        manifest: published_manifest.to_string(),
        referrers_api,
        deltas: deltas.iter().map(ToString::to_string).collect(),
        fallback_reason: fallback,
        bytes: bytes.downloaded,
        plain_pull_bytes: bytes.plain_pull,
    })
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let skopeo = &self.skopeo;
        let shown = |path: &Option<PathBuf>| path.as_ref().map_or("none".into(), |p| p.display().to_string());
        // Writing to a string does not fail.
        let _ = match (&skopeo.version, &skopeo.protocol) {
            (Some(version), Some(protocol)) => {
                writeln!(text, "skopeo    {}: {version}, image proxy {protocol}", shown(&skopeo.path))
            }
            _ => {
                let why = skopeo.trouble.as_deref().unwrap_or_default();
                writeln!(text, "skopeo    {}: {why}", shown(&skopeo.path))
            }
        };
        for found in &skopeo.on_path {
            let is = if found.is_this_program { "this program" } else { "skopeo" };
            let _ = writeln!(text, "on PATH   {}: {is}", found.path.display());
        }
        for store in &self.stores {
            let what = match (store.images, &store.trouble) {
                (Some(images), _) => format!("{images} images"),
                (None, why) => why.clone().unwrap_or_default(),
            };
            let _ = writeln!(text, "store     {} ({}): {what}", store.place, store.kind);
        }
        if let Some(image) = &self.image {
            let _ = writeln!(text, "image     {} is {}", image.reference, image.manifest);
            if let Some(api) = image.referrers_api {
                let how = if api { "by the referrers API" } else { "under fallback tags" };
                let _ = writeln!(text, "registry  lists deltas {how}");
            }
            let (bytes, plain) = (human_bytes(image.bytes), human_bytes(image.plain_pull_bytes));
            let _ = match image.fallback_reason {
                Some(reason) => writeln!(text, "delta     none: {}", word(reason)),
                None => {
                    writeln!(text, "delta     {} in a row: {bytes} instead of {plain}", image.deltas.len())
                }
            };
        }
        text
    }
}
