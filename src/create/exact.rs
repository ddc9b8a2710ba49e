//! Finds out how each layer of the new image was compressed, so that whoever applies the delta can do it again.

use std::collections::{HashMap, HashSet};
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use exact_encoders::find::{Found, NotFound, find_or_fix};
use exact_encoders::fix::FixDigest;

use super::proven::Proven;
use super::{Input, Options};
use crate::base::LayerBlob;
use crate::cancel::Cancel;
use crate::digest::{Digest, VerifyReader};
use crate::encoding;
use crate::error::{Error, IoContext, Kind, Result};
use crate::exact::{self, Claim, Exact, Recipe, Recipes};
use crate::parallel;
use crate::region::Region;
use crate::spool::Spool;

/// Layers that are looked at side by side: while one is unpacked, the other one keeps the threads busy.
const LAYERS_AT_ONCE: usize = 2;

/// Bytes read at once from a blob.
const PIECE: usize = 256 << 10;

/// Finds the recipes of the layers of `new`, and the corrections that some of them need, but for those that the delta carries as they are (`whole`). `tars` has the
/// plain tars that are here already, by position.
///
/// # Errors
/// When a layer is damaged; Misfit for a layer without a recipe where one is required; Interrupted.
pub(super) fn recipes(
    new: Input<'_>,
    tars: &HashMap<usize, Region>,
    whole: &HashSet<Digest>,
    options: &Options,
    cancel: &Cancel,
) -> Result<(Recipes, Vec<Vec<u8>>)> {
    let count = new.image.layers.len();
    if options.exact == Exact::Off {
        return Ok(Default::default());
    }
    // What an image has twice is looked at once.
    let mut first: HashMap<&Digest, usize> = HashMap::new();
    let same: Vec<usize> =
        (0..count).map(|at| *first.entry(new.image.layers[at].digest()).or_insert(at)).collect();
    let most = usize::try_from(options.memory / exact::THREAD_MEMORY)
        .unwrap_or(usize::MAX)
        .clamp(1, options.jobs.max(1));
    let at_once = most.min(LAYERS_AT_ONCE);
    let threads = NonZeroUsize::new(most / at_once).unwrap_or(NonZeroUsize::MIN);
    let proven = Proven::of(options.notes.as_deref());
    let search = Search { new, tars, options, threads, proven, cancel };
    let found = Mutex::new(vec![Layer::NOTHING; count]);
    parallel::for_each(count, at_once, |at| {
        if same[at] == at && !whole.contains(new.image.layers[at].digest()) {
            let layer =
                search.layer(at).map_err(|e| e.context(format!("layer {}", new.image.diff_ids[at])))?;
            found.lock().unwrap_or_else(PoisonError::into_inner)[at] = layer;
        }
        Ok(())
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    bound_fixes(&mut found);
    let claims: Vec<Claim> = same.into_iter().map(|at| found[at].claim.clone()).collect();
    if options.exact == Exact::Require {
        require(new, &claims)?;
    }
    Ok((Recipes::new(claims), found.into_iter().filter_map(|layer| layer.fix).collect()))
}

/// Whoever applies the delta holds the corrections of all layers at once.
fn bound_fixes(found: &mut [Layer]) {
    let mut room = exact::MAX_FIXES;
    for layer in found {
        let bytes = layer.fix.as_ref().map_or(0, |fix| fix.len() as u64);
        match room.checked_sub(bytes) {
            Some(rest) => room = rest,
            None => *layer = Layer::without("the corrections of all layers together are too large"),
        }
    }
}

fn require(new: Input<'_>, claims: &[Claim]) -> Result<()> {
    for (at, claim) in claims.iter().enumerate() {
        if let Claim::Without(reason) = claim {
            return Err(Error::misfit(format!(
                "layer {} cannot be made exactly as it was published: {reason}",
                new.image.layers[at].digest()
            )));
        }
    }
    Ok(())
}

/// What was found of a layer.
#[derive(Debug, Clone)]
struct Layer {
    claim: Claim,
    /// Corrections, where its recipe needs some.
    fix: Option<Vec<u8>>,
}

impl Layer {
    const NOTHING: Layer = Layer { claim: Claim::Nothing, fix: None };

    fn without(reason: impl Into<String>) -> Self {
        Layer { claim: Claim::Without(reason.into()), fix: None }
    }
}

struct Search<'a> {
    new: Input<'a>,
    tars: &'a HashMap<usize, Region>,
    options: &'a Options,
    /// For each layer.
    threads: NonZeroUsize,
    proven: Proven,
    cancel: &'a Cancel,
}

impl Search<'_> {
    fn layer(&self, at: usize) -> Result<Layer> {
        let (published, diff_id) = (&self.new.image.layers[at], &self.new.image.diff_ids[at]);
        if published.digest() == diff_id.as_digest() {
            return Ok(Layer::NOTHING);
        }
        // It is about digests: this layer need not be read for it.
        if let Some(recipe) = self.proven.recipe(published, diff_id) {
            return Ok(Layer { claim: Claim::Recipe(Arc::new(recipe)), fix: None });
        }
        let (stored, blob) = self.new.layers.layer(at)?;
        if stored.digest() != published.digest() {
            return Ok(Layer::without("it was not at hand as published when the delta was made"));
        }
        let mut head = [0; encoding::HEAD];
        let n = blob.read_at(&mut head, 0).at("layer")?;
        if !encoding::is_compressed(&head[..n]) {
            return Ok(Layer::without("it is not compressed, but not its plain tar either"));
        }
        let tar = match self.tars.get(&at) {
            Some(tar) => tar.clone(),
            None => {
                let spool = Spool::in_dir(&self.options.spool);
                let source = LayerBlob { diff_id: diff_id.clone(), blob: blob.clone() };
                source.unpack(&spool, self.options.max_layer, self.cancel)?
            }
        };
        let reader = |region: &Region| Ok(BufReader::with_capacity(PIECE, region.reader()));
        let found =
            find_or_fix(|| reader(&blob), || reader(&tar), self.threads, || self.cancel.is_cancelled());
        match found {
            Ok(Found { recipe, fix }) => {
                // What was made again is what was read; that it is the published blob, its digest says.
                self.check(&blob, published.digest())?;
                self.proven.note(published, diff_id, &recipe);
                Ok(Layer { claim: Claim::Recipe(Arc::new(recipe)), fix })
            }
            Err(NotFound::Io(e)) => Err(Error::from_io(e, "layer")),
            Err(NotFound::Cancelled) => Err(Error::new(Kind::Interrupted, "interrupted")),
            // What was seen of it would be long, and helps only whoever writes encoders.
            Err(NotFound::UnknownEncoder(_)) => Ok(Layer::without("it was not made by a known encoder")),
            Err(why) => Ok(Layer::without(why.to_string())),
        }
    }

    fn check(&self, blob: &Region, expected: &Digest) -> Result<()> {
        let reader = BufReader::with_capacity(PIECE, self.cancel.watch(blob.reader()));
        VerifyReader::new(reader, expected.clone(), blob.len()).drain().at("layer")
    }
}

/// Bytes of the corrections that a recipe needs.
pub(super) fn fix_bytes(recipe: &Recipe, fixes: &[Vec<u8>]) -> u64 {
    let name = recipe.fix();
    let fix = fixes.iter().find(|fix| name == Some(&FixDigest::of(fix)));
    fix.map_or(0, |fix| fix.len() as u64)
}
