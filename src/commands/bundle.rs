//! `bundle`, `unbundle`, `inventory`: images across an air gap.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::report::VERSION;
use super::{Context, cache_dir};
use crate::bundle::{Have, MAX_LIST, images};
use crate::cli::{BundleArgs, InventoryArgs, UnbundleArgs};
use crate::engine::bundle::{self, BundleOutcome, BundleRequest, Making, Referrers};
use crate::engine::export::Otherwise;
use crate::engine::inventory::{Inventoried, inventory};
use crate::engine::unbundle::{self, End, UnbundleRequest, Unbundled};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::reference::Reference;
use crate::terminal::human_bytes;

#[derive(Debug, Serialize)]
struct BundleReport {
    version: u32,
    /// `planned` or `written`.
    status: &'static str,
    parts: Vec<String>,
    part_count: usize,
    /// Bytes of all blobs.
    bytes: u64,
    /// Bytes of all files on the medium.
    written_bytes: u64,
    /// Bytes that were read from registries for them, or would be.
    downloaded_bytes: u64,
    images: Vec<BundledReport>,
}

#[derive(Debug, Serialize)]
struct BundledReport {
    name: String,
    digest: String,
    /// Bytes of blobs that it adds.
    bytes: u64,
    /// Bytes of the whole layers that the other side lacks.
    whole_bytes: u64,
    deltas: usize,
    referrers: usize,
    notes: Vec<String>,
}

/// Runs `bundle`.
pub(super) async fn bundle(context: &Context, args: &BundleArgs) -> Result<()> {
    let place = args.rate.options(&args.place)?;
    let mut wanted = args.images.clone();
    for file in &args.from_file {
        wanted.extend(images(&read(file)?, &file.display().to_string())?);
    }
    let mut have = match &args.have {
        Some(file) => Have::parse(&read(file)?).map_err(|e| e.context(file.display()))?,
        None => Have::default(),
    };
    if !args.since.is_empty() {
        let since = Inventoried::Images(args.since.clone());
        for image in inventory(&context.session, &since, &place).await?.images {
            have.add(image);
        }
    }
    let making = || {
        let cache =
            cache_dir("deltas").unwrap_or_else(|| context.session.spool.join("oci-delta-fetch-deltas"));
        Making { options: args.options(context.session.spool.clone()), cache }
    };
    let request = BundleRequest {
        images: wanted,
        platform: args.place.platform.clone(),
        have,
        create: args.create.then(making),
        referrers: if args.without_referrers { Referrers::LeftOut } else { Referrers::Required },
        to: args.to.clone(),
        form: args.form(),
        max_size: args.max_size,
        place,
        limits: args.limits.limits(),
    };
    let outcome = match args.dry_run {
        true => bundle::plan(&context.session, &request).await?,
        false => bundle::bundle(&context.session, &request).await?,
    };
    let report = BundleReport::new(outcome, args.dry_run);
    context.print(&report, || report.text())
}

impl BundleReport {
    fn new(outcome: BundleOutcome, dry_run: bool) -> Self {
        let image = |image: bundle::BundledImage| BundledReport {
            name: image.name,
            digest: image.digest.to_string(),
            bytes: image.bytes,
            whole_bytes: image.whole_bytes,
            deltas: image.deltas,
            referrers: image.referrers,
            notes: image.notes,
        };
        BundleReport {
            version: VERSION,
            status: if dry_run { "planned" } else { "written" },
            parts: outcome.parts.iter().map(|part| part.display().to_string()).collect(),
            part_count: outcome.part_count,
            bytes: outcome.bytes,
            written_bytes: outcome.medium,
            downloaded_bytes: outcome.downloaded,
            images: outcome.images.into_iter().map(image).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for image in &self.images {
            let (bytes, whole) = (human_bytes(image.bytes), human_bytes(image.whole_bytes));
            let _ = writeln!(
                text,
                "{}  {bytes:>10} of {whole:>10}, {} deltas, {} referrers",
                image.name, image.deltas, image.referrers
            );
            for note in &image.notes {
                let _ = writeln!(text, "  {note}");
            }
        }
        let parts = match self.part_count {
            1 => "1 part".to_owned(),
            n => format!("{n} parts"),
        };
        let (written, read) = (human_bytes(self.written_bytes), human_bytes(self.downloaded_bytes));
        let _ = writeln!(text, "{} {written}, {parts}; {read} read from registries", self.status);
        for part in &self.parts {
            let _ = writeln!(text, "{part}");
        }
        text
    }
}

#[derive(Debug, Serialize)]
struct UnbundleReport {
    version: u32,
    images: Vec<UnbundledReport>,
}

#[derive(Debug, Serialize)]
struct UnbundledReport {
    name: String,
    to: String,
    digest: String,
    /// `present`, `brought`, `planned` or `failed`.
    status: &'static str,
    /// Layers that were made by patches.
    rebuilt: usize,
    /// Things that point to it and were brought.
    referrers: usize,
    /// Bytes of layers that were read at the target, as a base.
    read_bytes: u64,
    /// Bytes of blobs and manifests that the target got.
    sent_bytes: u64,
    error: Option<String>,
}

/// Runs `unbundle`.
pub(super) async fn unbundle(context: &Context, args: &UnbundleArgs) -> Result<()> {
    let staging =
        cache_dir("unbundle").unwrap_or_else(|| context.session.spool.join("oci-delta-fetch-unbundle"));
    let request = UnbundleRequest {
        bundle: bundle_at(&args.bundle)?,
        to: args.target.destination(),
        map: args.map.clone(),
        otherwise: if args.rewrite { Otherwise::Rewrite } else { Otherwise::Fail },
        place: args.rate.options(&args.place)?,
        limits: args.limits.limits(),
        staging,
        dry_run: args.dry_run,
    };
    let done = unbundle::unbundle(&context.session, &request).await?;
    let failed = done.iter().filter(|image| matches!(image.end, End::Failed(_))).count();
    let worst = done.iter().filter_map(|image| match &image.end {
        End::Failed(e) => Some(e.kind()),
        _ => None,
    });
    let kind = worst.reduce(|a, b| if a == b { a } else { Kind::Misfit });
    let report = UnbundleReport { version: VERSION, images: done.iter().map(UnbundledReport::new).collect() };
    context.print(&report, || report.text())?;
    match kind {
        Some(kind) => Err(Error::new(kind, format!("{failed} of {} images were not brought", done.len()))),
        None => Ok(()),
    }
}

impl UnbundledReport {
    fn new(image: &Unbundled) -> Self {
        let (status, error) = match &image.end {
            End::Present => ("present", None),
            End::Brought => ("brought", None),
            End::Planned => ("planned", None),
            End::Failed(e) => ("failed", Some(e.to_string())),
        };
        UnbundledReport {
            name: image.name.clone(),
            to: image.to.clone(),
            digest: image.digest.clone(),
            status,
            rebuilt: image.rebuilt,
            referrers: image.referrers,
            read_bytes: image.read,
            sent_bytes: image.sent,
            error,
        }
    }
}

impl UnbundleReport {
    fn text(&self) -> String {
        let mut text = String::new();
        for image in &self.images {
            let _ = write!(text, "{:8} {}", image.status, image.to);
            let _ = match &image.error {
                Some(error) => writeln!(text, ": {error}"),
                None => writeln!(text, "@{}", image.digest),
            };
        }
        let sum = |bytes: fn(&UnbundledReport) -> u64| human_bytes(self.images.iter().map(bytes).sum());
        let count = |status: &str| self.images.iter().filter(|image| image.status == status).count();
        let _ = writeln!(
            text,
            "{} brought, {} present, {} failed; {} sent, {} read",
            count("brought") + count("planned"),
            count("present"),
            count("failed"),
            sum(|image| image.sent_bytes),
            sum(|image| image.read_bytes)
        );
        text
    }
}

/// Runs `inventory`.
pub(super) async fn list(context: &Context, args: &InventoryArgs) -> Result<()> {
    let of = match &args.target {
        Some(target) => target.inventoried(),
        None => Inventoried::Repository(context.repo.clone()),
    };
    let have = inventory(&context.session, &of, &args.rate.options(&args.place)?).await?;
    super::write_stdout(&String::from_utf8_lossy(&have.to_json()?))
}

/// Runs `verify` for a bundle.
pub(super) fn verify(context: &Context, bundle: &str) -> Result<()> {
    let mut broken = 0;
    let verified = unbundle::verify(&context.session, &bundle_at(bundle)?, &mut |what| {
        broken += 1;
        context.say(what);
    })?;
    if broken > 0 {
        return Err(Error::verification(format!(
            "{broken} of {} blobs are damaged or missing",
            verified.blobs
        ))
        .with_hint("bring the parts that are missing, or make the bundle again"));
    }
    context.print(&verified, || {
        let bytes = human_bytes(verified.bytes);
        format!("{} images, {} blobs, {bytes}: good\n", verified.images, verified.blobs)
    })
}

/// A bundle by its path.
fn bundle_at(text: &str) -> Result<Reference> {
    let path = Path::new(text);
    Ok(match path.is_dir() {
        true => Reference::Oci { dir: path.to_owned(), name: None },
        false => Reference::or_path(text)?,
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).at(file.display())?;
    opened.take(MAX_LIST + 1).read_to_end(&mut bytes).at(file.display())?;
    if bytes.len() as u64 > MAX_LIST {
        return Err(Error::usage(format!("{}: larger than {MAX_LIST} bytes", file.display())));
    }
    Ok(bytes)
}
