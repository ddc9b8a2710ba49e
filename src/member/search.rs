//! Finds out how a member was made.

use std::io::BufReader;
use std::num::NonZeroUsize;

use exact_encoders::deflate::zlib;
use exact_encoders::find::{NotFound, find_like};
use exact_encoders::recipe::{Deflate, Method, Wrap};

use super::prove::Pair;
use super::recipe::Encoding;
use super::{Coding, Recipe, Sizes, lzma, xz};
use crate::cancel::{Cancel, interrupted};
use crate::encoding::read_full;
use crate::error::{Error, IoContext as _, Result};
use crate::region::Region;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// The levels of zlib that bare deflate streams have most: what packs zip archives is zlib, in Java and Python as well, but
/// nothing of a small stream says so.
const ZIP_LEVELS: [u8; 2] = [6, 9];

/// Up to so many plain bytes one thread is enough: for several, a member is made twice, first by one of them.
const SMALL: u64 = 1 << 20;

/// What of a stream is made to see whether a preset fits: more than a chunk of LZMA2.
const TRIAL: u64 = 4 << 20;

/// The recipe of a stretch, from what [`open`](super::open) has found in it; `None` when no encoder here makes it, or only one with
/// more memory than it may have. It is proven by making the whole stretch again.
///
/// The encoders are tried in a fixed order: the recipe depends on nothing but these bytes.
///
/// # Errors
/// Those of reading; Interrupted.
pub fn recipe(
    stretch: &Region,
    plain: &Region,
    coding: Coding,
    threads: NonZeroUsize,
    cancel: &Cancel,
) -> Result<Option<Recipe>> {
    let pair = Pair { stretch, plain, cancel };
    match coding {
        Coding::Deflate => exact(pair, &zip_methods(), threads),
        Coding::Gzip | Coding::Zstd => exact(pair, &[], threads),
        Coding::Xz => xz(pair, threads),
        Coding::Lzma => lzma(pair, threads),
        Coding::Bzip2 => bzip2(pair, threads),
    }
}

fn zip_methods() -> Vec<Method> {
    let levels = ZIP_LEVELS.into_iter().filter_map(zlib::Level::new);
    let settings = levels.map(|level| zlib::Settings { level, memory: zlib::Memory::Usual });
    settings
        .map(|settings| Method::Deflate { wrap: Wrap::Raw, encoder: Deflate::Zlib { settings } })
        .collect()
}

/// That of one of the exact encoders, the `first` ones first.
fn exact(pair: Pair<'_>, first: &[Method], threads: NonZeroUsize) -> Result<Option<Recipe>> {
    let threads = if pair.plain.len() <= SMALL { NonZeroUsize::MIN } else { threads };
    let reader = |region: &Region| Ok(BufReader::with_capacity(PIECE, region.reader()));
    let found = find_like(
        first,
        || reader(pair.stretch),
        || reader(pair.plain),
        threads,
        || pair.cancel.is_cancelled(),
    );
    match found {
        Ok(blob) => Ok(Recipe::of_blob(&blob).ok()),
        Err(NotFound::Io(e)) => Err(Error::from_io(e, "member")),
        Err(NotFound::Cancelled) => Err(interrupted()),
        Err(_) => Ok(None),
    }
}

fn xz(pair: Pair<'_>, threads: NonZeroUsize) -> Result<Option<Recipe>> {
    let mut begin = [0; xz::BEGIN];
    let n = read_full(&mut pair.stretch.reader(), &mut begin).at("member")?;
    let Some(seen) = xz::Seen::read(&begin[..n], pair.plain.len()) else { return Ok(None) };
    let sizes = Sizes { packed: pair.stretch.len(), plain: pair.plain.len() };
    for settings in seen.candidates() {
        let trial = settings.in_one_block();
        let recipe = Recipe(Encoding::Xz(settings));
        if recipe.memory(sizes) > lzma::MAX_MEMORY {
            continue;
        }
        // With threads, a whole block is made before anything is seen of it.
        if let Some((trial, block)) = trial {
            let skip = (seen.payload, trial.payload());
            if !pair.begins_by(&Recipe(Encoding::Xz(trial)), block.min(TRIAL), skip)? {
                continue;
            }
        }
        if pair.is_made_by(&recipe, threads)? {
            return Ok(Some(recipe));
        }
    }
    Ok(None)
}

fn lzma(pair: Pair<'_>, threads: NonZeroUsize) -> Result<Option<Recipe>> {
    let mut begin = [0; lzma::HEADER];
    let n = read_full(&mut pair.stretch.reader(), &mut begin).at("member")?;
    let Some(seen) = lzma::sniff(&begin[..n]) else { return Ok(None) };
    for settings in seen.candidates() {
        let fits = settings.memory(pair.plain.len()) <= lzma::MAX_MEMORY;
        let recipe = Recipe(Encoding::Lzma(settings));
        if fits && pair.is_made_by(&recipe, threads)? {
            return Ok(Some(recipe));
        }
    }
    Ok(None)
}

fn bzip2(pair: Pair<'_>, threads: NonZeroUsize) -> Result<Option<Recipe>> {
    let mut begin = [0; 4];
    pair.stretch.read_exact_at(&mut begin, 0).at("member")?;
    let [.., level @ b'1'..=b'9'] = begin else { return Ok(None) };
    let recipe = Recipe(Encoding::Bzip2 { level: u32::from(level - b'0') });
    Ok(pair.is_made_by(&recipe, threads)?.then_some(recipe))
}
