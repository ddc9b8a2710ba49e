//! Finds out how each layer of the new image was compressed, so that whoever applies the delta can do it again.

use std::collections::{HashMap, HashSet};
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use exact_encoders::find::{NotFound, find};

use super::{Input, Options};
use crate::base::LayerBlob;
use crate::cancel::Cancel;
use crate::digest::{Digest, VerifyReader};
use crate::encoding;
use crate::error::{Error, IoContext, Kind, Result};
use crate::exact::{Claim, Exact, Recipes};
use crate::parallel;
use crate::region::Region;
use crate::spool::Spool;

/// Bytes read at once from a blob.
const PIECE: usize = 256 << 10;

/// Finds the recipes of the layers of `new`, but for those that the delta carries as they are (`whole`). `tars` has the
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
) -> Result<Recipes> {
    let count = new.image.layers.len();
    if options.exact == Exact::Off {
        return Ok(Recipes::default());
    }
    // What an image has twice is looked at once.
    let mut first: HashMap<&Digest, usize> = HashMap::new();
    let same: Vec<usize> =
        (0..count).map(|at| *first.entry(new.image.layers[at].digest()).or_insert(at)).collect();
    let search = Search { new, tars, options, cancel };
    let claims = Mutex::new(vec![Claim::Nothing; count]);
    parallel::for_each(count, options.jobs, |at| {
        if same[at] == at && !whole.contains(new.image.layers[at].digest()) {
            let claim =
                search.layer(at).map_err(|e| e.context(format!("layer {}", new.image.diff_ids[at])))?;
            claims.lock().unwrap_or_else(PoisonError::into_inner)[at] = claim;
        }
        Ok(())
    })?;
    let claims = claims.into_inner().unwrap_or_else(PoisonError::into_inner);
    let claims: Vec<Claim> = same.into_iter().map(|at| claims[at].clone()).collect();
    if options.exact == Exact::Require {
        require(new, &claims)?;
    }
    Ok(Recipes::new(claims))
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

struct Search<'a> {
    new: Input<'a>,
    tars: &'a HashMap<usize, Region>,
    options: &'a Options,
    cancel: &'a Cancel,
}

impl Search<'_> {
    fn layer(&self, at: usize) -> Result<Claim> {
        let (published, diff_id) = (&self.new.image.layers[at], &self.new.image.diff_ids[at]);
        if published.digest() == diff_id.as_digest() {
            return Ok(Claim::Nothing);
        }
        let (stored, blob) = self.new.layers.layer(at)?;
        if stored.digest() != published.digest() {
            return Ok(Claim::Without("it was not at hand as published when the delta was made".into()));
        }
        let mut head = [0; encoding::HEAD];
        let n = blob.read_at(&mut head, 0).at("layer")?;
        if !encoding::is_compressed(&head[..n]) {
            return Ok(Claim::Without("it is not compressed, but not its plain tar either".into()));
        }
        let tar = match self.tars.get(&at) {
            Some(tar) => tar.clone(),
            None => {
                let spool = Spool::in_dir(&self.options.spool);
                let source = LayerBlob { diff_id: diff_id.clone(), blob: blob.clone() };
                source.unpack(&spool, self.options.max_layer, self.cancel)?
            }
        };
        let threads = NonZeroUsize::new(self.options.jobs).unwrap_or(NonZeroUsize::MIN);
        let reader = |region: &Region| Ok(BufReader::with_capacity(PIECE, region.reader()));
        let found = find(|| reader(&blob), || reader(&tar), threads, || self.cancel.is_cancelled());
        match found {
            Ok(recipe) => {
                // What was made again is what was read; that it is the published blob, its digest says.
                self.check(&blob, published.digest())?;
                Ok(Claim::Recipe(Arc::new(recipe)))
            }
            Err(NotFound::Io(e)) => Err(Error::from_io(e, "layer")),
            Err(NotFound::Cancelled) => Err(Error::new(Kind::Interrupted, "interrupted")),
            // What was seen of it would be long, and helps only whoever writes encoders.
            Err(NotFound::UnknownEncoder(_)) => {
                Ok(Claim::Without("it was not made by a known encoder".into()))
            }
            Err(why) => Ok(Claim::Without(why.to_string())),
        }
    }

    fn check(&self, blob: &Region, expected: &Digest) -> Result<()> {
        let reader = BufReader::with_capacity(PIECE, self.cancel.watch(blob.reader()));
        VerifyReader::new(reader, expected.clone(), blob.len()).drain().at("layer")
    }
}
