//! Finding the recipe of a blob, from the blob and its plain bytes.
//!
//! What can be seen at the blob's beginning and end says which encoders are possible and which are likely.
//! They are tried in that order on the first plain bytes, up to the first byte that differs.
//! One that passes is proved by making the whole blob.

mod candidates;
mod compare;
mod deflate;
mod fix;
mod gzip;
mod reason;
mod section;
mod split;
mod zstd;

use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroUsize;

use self::compare::{Verdict, compare};
pub use self::fix::{Found, find_or_fix};
pub use self::reason::{NotFound, Seen};
use crate::deflate::kp::Rounding;
use crate::pigz;
use crate::recipe::{Deflate, Method, Recipe};
use crate::zstd::libzstd;

/// The most bytes of a recipe's text that is found.
pub const MAX_TEXT: usize = 400;

/// The plain bytes of a trial. More than a block of pgzip, and than encoders hold back.
const TRIAL: u64 = 5 << 18;

/// The plain bytes of a job of libzstd in a trial: some of the pieces of 512 KiB that it is made in.
const SHORT_JOB: u32 = 1 << 20;

/// Finds the recipe of a blob, and proves it.
///
/// `blob` and `plain` open the blob and its plain bytes, at their beginning, as often as they are needed. The
/// blob is made again on so many `threads`, and its beginning on one. Between pieces, `cancelled` is asked
/// whether to stop. The same blob always gets the same recipe.
///
/// # Errors
///
/// There is no recipe, and why.
pub fn find<B: Read + Seek, P: Read + Seek>(
    blob: impl FnMut() -> io::Result<B>,
    plain: impl FnMut() -> io::Result<P>,
    threads: NonZeroUsize,
    cancelled: impl FnMut() -> bool,
) -> Result<Recipe, NotFound> {
    find_like(&[], blob, plain, threads, cancelled)
}

/// The same, where something else is known of the blob's encoder: those `like` these are tried first, with the blob's own
/// header and sizes. Of small blobs, little is seen.
///
/// # Errors
///
/// There is no recipe, and why.
pub fn find_like<B: Read + Seek, P: Read + Seek>(
    like: &[Method],
    blob: impl FnMut() -> io::Result<B>,
    plain: impl FnMut() -> io::Result<P>,
    threads: NonZeroUsize,
    mut cancelled: impl FnMut() -> bool,
) -> Result<Recipe, NotFound> {
    let mut files = Files { blob, plain, cancelled: &mut cancelled };
    let sizes = files.sizes()?;
    short_enough(files.search(like, sizes, threads)?)
}

fn short_enough(recipe: Recipe) -> Result<Recipe, NotFound> {
    if recipe.to_string().len() > MAX_TEXT { Err(NotFound::LongRecipe) } else { Ok(recipe) }
}

/// The recipe with the rounding that is rare, if there is one.
fn fused(recipe: &Recipe) -> Option<Recipe> {
    let mut method = recipe.method().clone();
    let Method::Deflate { encoder: Deflate::Kp { rounding, .. }, .. } = &mut method else { return None };
    *rounding = Rounding::Fused;
    Recipe::new(recipe.size(), method).ok()
}

/// The recipe with jobs of [`SHORT_JOB`] bytes, if libzstd makes it in jobs: nothing comes before one is made as a whole, and
/// the first begins as a longer one does.
fn in_short_jobs(recipe: &Recipe) -> Option<Recipe> {
    let Method::Libzstd { settings: settings @ libzstd::Settings { jobs: Some(jobs), .. } } =
        *recipe.method()
    else {
        return None;
    };
    let jobs = libzstd::Jobs::new(SHORT_JOB.min(jobs.size()), jobs.overlap_log());
    Recipe::new(recipe.size(), Method::Libzstd { settings: libzstd::Settings { jobs, ..settings } }).ok()
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    blob: u64,
    plain: u64,
}

/// A way to what a recipe is sought for.
struct Files<'a, F, G> {
    blob: F,
    plain: G,
    cancelled: &'a mut dyn FnMut() -> bool,
}

impl<B, P, F, G> Files<'_, F, G>
where
    B: Read + Seek,
    P: Read + Seek,
    F: FnMut() -> io::Result<B>,
    G: FnMut() -> io::Result<P>,
{
    fn sizes(&mut self) -> io::Result<Sizes> {
        let blob = (self.blob)()?.seek(SeekFrom::End(0))?;
        Ok(Sizes { blob, plain: (self.plain)()?.seek(SeekFrom::End(0))? })
    }

    /// Tries the encoders in turn.
    fn search(&mut self, like: &[Method], sizes: Sizes, threads: NonZeroUsize) -> Result<Recipe, NotFound> {
        let mut seen = Seen::default();
        let usual = self.candidates(sizes, &mut seen)?;
        let header = seen.header.clone().unwrap_or_default();
        let mut candidates: Vec<Method> =
            like.iter().map(|method| method.of_member(header.clone(), sizes.plain)).collect();
        let others: Vec<Method> = usual.into_iter().filter(|method| !candidates.contains(method)).collect();
        candidates.extend(others);

        let mut nearest: Option<(u64, Recipe)> = None;
        for method in candidates {
            let recipe = Recipe::new(sizes.blob, method)?;
            match self.prove(&recipe, sizes.plain, threads)? {
                Verdict::Same => return Ok(recipe),
                Verdict::Differs { at } => {
                    seen.tried += 1;
                    if nearest.as_ref().is_none_or(|(agreed, _)| at > *agreed) {
                        nearest = Some((at, recipe));
                    }
                }
            }
        }
        // Other rounding hardly ever makes a difference, and none soon.
        if let Some(recipe) = nearest.as_ref().and_then(|(_, recipe)| fused(recipe)) {
            seen.tried += 1;
            if self.prove(&recipe, sizes.plain, threads)? == Verdict::Same {
                return Ok(recipe);
            }
        }
        if let Some((agreed, recipe)) = nearest {
            seen.agreed = agreed;
            seen.nearest = Some(recipe);
        }
        Err(NotFound::UnknownEncoder(Box::new(seen)))
    }

    /// The encoders that are possible, the likeliest first.
    fn candidates(&mut self, sizes: Sizes, seen: &mut Seen) -> Result<Vec<Method>, NotFound> {
        let mut blob = (self.blob)()?;
        let mut start = Vec::new();
        blob.by_ref().take(4).read_to_end(&mut start)?;
        blob.rewind()?;
        if zstd::is_frame(&start) {
            let frame = zstd::look(&mut blob, sizes, seen, self.cancelled)?;
            return Ok(candidates::zstd(&frame, sizes));
        }
        let header = if gzip::is_member(&start) {
            let header = gzip::header(&mut blob)?;
            gzip::check_size(&mut blob, sizes, header.len() as u64)?;
            Some(header)
        } else {
            None
        };
        seen.header = header.clone();
        let begin = header.as_ref().map_or(0, |header| header.len() as u64);
        let end = sizes.blob - if header.is_some() { gzip::TRAILER } else { 0 };
        // A tool of that system may be pigz.
        let is_unix = header.as_ref().is_some_and(|header| header.get(9) == Some(&3));
        let most = if is_unix { TRIAL.max(pigz::BlockSize::MAX as u64) } else { TRIAL };
        let looks = deflate::look(&mut blob, begin, end, most, self.cancelled)?;
        seen.blocks = looks.first_sizes();
        Ok(candidates::deflate(header, &looks, sizes))
    }

    /// Whether the recipe makes the blob: first a trial with one thread, then the whole with all. To make the whole twice
    /// would cost as much again, and the bytes do not depend on threads.
    fn prove(&mut self, recipe: &Recipe, plain: u64, threads: NonZeroUsize) -> Result<Verdict, NotFound> {
        let (mut verdict, is_proved) = match in_short_jobs(recipe) {
            Some(trial) => (self.compare(&trial, SHORT_JOB.into(), NonZeroUsize::MIN)?, false),
            None => {
                let is_short = plain <= TRIAL;
                let limit = if is_short { u64::MAX } else { TRIAL };
                let has_threads = recipe.method().has_threads() && threads.get() > 1;
                (self.compare(recipe, limit, NonZeroUsize::MIN)?, is_short && !has_threads)
            }
        };
        if verdict == Verdict::Same && !is_proved {
            verdict = self.compare(recipe, u64::MAX, threads)?;
        }
        Ok(verdict)
    }

    fn compare(&mut self, recipe: &Recipe, limit: u64, threads: NonZeroUsize) -> Result<Verdict, NotFound> {
        compare((recipe, None), ((self.blob)()?, (self.plain)()?), limit, threads, self.cancelled)
    }
}
