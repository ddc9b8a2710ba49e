//! Looks into the compressed members of new files: where the old image has something like what is in one, the
//! extended patch makes that, and how it is packed again.
//!
//! What is in members is compared as files are: an analysis of its own for each depth.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::analysis::{Analysis, ContentHash, Means, NewFile, NewLayer, Origin, content_hash};
use super::beside::Holders;
use super::ops::{Kept, Made, Stretch};
use super::search::{Search, Weights};
use crate::base::{self, Source, SourcePath};
use crate::cancel::Cancel;
use crate::error::{IoContext as _, Kind, Result};
use crate::extended::MAX_DEPTH;
use crate::member::{self, Member, Packing, Recipe, Sizes};
use crate::parallel;
use crate::region::Region;
use crate::spool::Spool;

/// What is in large members is worked on in blocks of this many bytes.
const BLOCK: u64 = 2 << 20;

/// Bytes that a member must save: its rows in the table, and what is estimated too low.
const LEAST_SAVED: u64 = 24;

/// Most bytes that are in the members of one side, old or new; those behind them stay closed. A patch may have as many.
const MAX_PLAIN: u64 = 7 << 30;

/// Members with more bytes in them than this are packed one at a time: an encoder of xz takes some ten times as much memory.
const LARGE: u64 = 8 << 20;

/// What all depths share.
pub(super) struct Opener<'a> {
    pub means: Means<'a>,
    pub weights: Weights,
    pub spool: &'a Spool,
    pub cancel: &'a Cancel,
}

/// A member that was found, in a file by its number.
struct Found {
    file: usize,
    member: Member,
    stretch: Region,
}

/// The same with what is in it.
struct Opened {
    found: Found,
    plain: Region,
}

impl Opener<'_> {
    /// Gives the changed files of `layers` the members that are worth it; the old stretches that these are made from
    /// are added to `holders`.
    ///
    /// # Errors
    /// When something cannot be read or the disk is full; Interrupted.
    pub fn open(&self, analysis: &Analysis, layers: &mut [NewLayer], holders: &mut Holders) -> Result<()> {
        self.open_at(0, analysis, layers, holders)
    }

    fn open_at(
        &self,
        depth: u32,
        analysis: &Analysis,
        layers: &mut [NewLayer],
        holders: &mut Holders,
    ) -> Result<()> {
        let (files, contents): (Vec<_>, Vec<_>) = changed_files(layers).unzip();
        let new = self.find(&contents)?;
        if new.is_empty() {
            return Ok(());
        }
        let gone = gone_sources(analysis, layers);
        let contents: Vec<_> = gone.iter().map(|source| analysis.sources[*source].content.clone()).collect();
        let old = self.find(&contents)?;
        let new = self.unknown(new, &old)?;
        if new.is_empty() || old.is_empty() {
            return Ok(());
        }
        let (new, old) = (self.unpack(new)?, self.unpack(old)?);
        let sources = sources(analysis, &gone, &old, holders);
        let tars = new.iter().map(|opened| {
            let NewFile { member, .. } = file_at(layers, files[opened.found.file]);
            let path = name(&member.path, opened.found.member.range.start);
            let size = opened.plain.len();
            Ok((opened.plain.clone(), vec![base::Member { path: path?, offset: 0, size }]))
        });
        let (inner, mut contents) =
            Analysis::new(sources, tars.collect::<Result<_>>()?, |_| false, self.means)?;
        if depth + 1 < MAX_DEPTH {
            self.open_at(depth + 1, &inner, &mut contents, holders)?;
        }
        let made = self.make(&inner, &contents)?;
        for (opened, made) in new.iter().zip(self.pack(&new, made)?) {
            if let Some(made) = made {
                let (layer, file) = files[opened.found.file];
                layers[layer].files[file].members.push(Arc::new(made));
            }
        }
        Ok(())
    }

    /// The members of files, in order.
    fn find(&self, contents: &[Region]) -> Result<Vec<Found>> {
        let found: Vec<OnceLock<Vec<Member>>> = contents.iter().map(|_| OnceLock::new()).collect();
        let limits = member::Limits::default();
        parallel::for_each(contents.len(), self.means.threads, |at| {
            let _ = found[at].set(member::find(&contents[at], &limits, self.cancel)?);
            Ok(())
        })?;
        let of_files = found.into_iter().map(|members| members.into_inner().unwrap_or_default()).enumerate();
        let members =
            of_files.flat_map(|(file, members)| members.into_iter().map(move |member| (file, member)));
        let found = members.map(|(file, member)| {
            let stretch = contents[file].slice(member.range.start, member.range.end - member.range.start);
            Found { file, member, stretch }
        });
        Ok(found.collect())
    }

    /// Those of the new members that the old image does not have as they are.
    fn unknown(&self, new: Vec<Found>, old: &[Found]) -> Result<Vec<Found>> {
        let sizes: HashSet<u64> = new.iter().map(|found| found.stretch.len()).collect();
        let old = self.hashes(old, &sizes)?;
        let sizes: HashSet<u64> = old.iter().flatten().map(|(size, _)| *size).collect();
        let known: HashSet<_> = old.into_iter().flatten().collect();
        let hashes = self.hashes(&new, &sizes)?;
        let is_new = |hash: &Option<_>| hash.is_none_or(|hash| !known.contains(&hash));
        Ok(new.into_iter().zip(hashes).filter(|(_, hash)| is_new(hash)).map(|(found, _)| found).collect())
    }

    /// Sizes and hashes of those that have one of these sizes.
    fn hashes(&self, found: &[Found], sizes: &HashSet<u64>) -> Result<Vec<Option<(u64, ContentHash)>>> {
        let hashes: Vec<OnceLock<_>> = found.iter().map(|_| OnceLock::new()).collect();
        parallel::for_each(found.len(), self.means.threads, |at| {
            let stretch = &found[at].stretch;
            if sizes.contains(&stretch.len()) {
                let _ = hashes[at].set((stretch.len(), content_hash(stretch)?));
            }
            Ok(())
        })?;
        Ok(hashes.into_iter().map(OnceLock::into_inner).collect())
    }

    /// What is in them, but for those that are no whole streams, or too much.
    fn unpack(&self, found: Vec<Found>) -> Result<Vec<Opened>> {
        let plain: Vec<OnceLock<Region>> = found.iter().map(|_| OnceLock::new()).collect();
        let limits = member::Limits::default();
        parallel::for_each(found.len(), self.means.threads, |at| {
            self.cancel.check()?;
            let Found { stretch, member, .. } = &found[at];
            let dir = self.spool.dir().display();
            let mut out = self.spool.begin().at(&dir)?;
            match member::open(stretch, member.coding, &mut self.cancel.watch(&mut out), limits.plain) {
                Ok(0) => {}
                Ok(_) => drop(plain[at].set(out.into_region())),
                // It only looked like one.
                Err(e) if e.kind() == Kind::Verification => {}
                Err(e) => return Err(e),
            }
            Ok(())
        })?;
        let opened = found.into_iter().zip(plain).filter_map(|(found, plain)| {
            let plain = plain.into_inner()?;
            Some(Opened { found, plain })
        });
        let mut left = MAX_PLAIN;
        let fits = |opened: &Opened| {
            let rest = left.checked_sub(opened.plain.len());
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        Ok(opened.filter(fits).collect())
    }

    /// The operations for what is in each member.
    fn make(&self, inner: &Analysis, contents: &[NewLayer]) -> Result<Vec<Vec<Kept>>> {
        let search =
            Search { corpus: &inner.corpus, index: &inner.index, weights: self.weights, frames: None };
        let blocks = |(at, content): (usize, &NewLayer)| {
            let len = content.tar.len();
            (0..len).step_by(BLOCK as usize).map(move |start| (at, start..len.min(start + BLOCK)))
        };
        let blocks: Vec<(usize, Range<u64>)> = contents.iter().enumerate().flat_map(blocks).collect();
        let made: Vec<OnceLock<Kept>> = blocks.iter().map(|_| OnceLock::new()).collect();
        parallel::for_each(blocks.len(), self.means.threads, |at| {
            self.cancel.check()?;
            let (content, range) = &blocks[at];
            let stretch = self.stretch(&search, inner, &contents[*content], range.clone())?;
            let _ = made[at].set(stretch.keep(self.spool)?);
            Ok(())
        })?;
        let mut of_members: Vec<Vec<Kept>> = contents.iter().map(|_| Vec::new()).collect();
        for ((content, _), kept) in blocks.into_iter().zip(made) {
            of_members[content].extend(kept.into_inner());
        }
        Ok(of_members)
    }

    /// A block of what is in one.
    fn stretch(
        &self,
        search: &Search<'_>,
        inner: &Analysis,
        content: &NewLayer,
        range: Range<u64>,
    ) -> Result<Stretch> {
        let mut stretch = Stretch::default();
        let Some(file) = content.files.first() else { return Ok(stretch) };
        match file.origin {
            Origin::Same(source) => {
                stretch.copy(inner.place_of(source).on(range.start), range.end - range.start);
            }
            Origin::Changed(twin) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                content.tar.read_exact_at(&mut bytes, range.start).at("member")?;
                let twin = inner.twin_span(twin).map(|span| (span, range.start));
                let covers = search.covers(&bytes, twin);
                stretch.file(inner, file, (range.start, &bytes), &covers, self.weights.copy_from);
            }
        }
        Ok(stretch)
    }

    /// Finds out how those are packed that are worth it.
    fn pack(&self, new: &[Opened], contents: Vec<Vec<Kept>>) -> Result<Vec<Option<Made>>> {
        let recipes: Vec<OnceLock<Recipe>> = new.iter().map(|_| OnceLock::new()).collect();
        let large = Mutex::new(());
        let threads = NonZeroUsize::new(self.means.threads).unwrap_or(NonZeroUsize::MIN);
        parallel::for_each(new.len(), self.means.threads, |at| {
            let Opened { found, plain } = &new[at];
            let cost = contents[at].iter().map(|kept| kept.cost).sum::<u64>();
            if cost + LEAST_SAVED > found.stretch.len() {
                return Ok(());
            }
            let one = (plain.len() > LARGE).then(|| large.lock().unwrap_or_else(PoisonError::into_inner));
            let recipe = member::recipe(&found.stretch, plain, found.member.coding, threads, self.cancel)?;
            drop(one);
            recipe.map(|recipe| recipes[at].set(recipe));
            Ok(())
        })?;
        // Many have the same one.
        let mut known: HashMap<String, Arc<Recipe>> = HashMap::new();
        let made = new.iter().zip(contents).zip(recipes).map(|((opened, content), recipe)| {
            let recipe = recipe.into_inner()?;
            let recipe = known.entry(recipe.to_string()).or_insert_with(|| Arc::new(recipe)).clone();
            let sizes = Sizes { packed: opened.found.stretch.len(), plain: opened.plain.len() };
            let range = opened.found.member.range.clone();
            Some(Made { range, packing: Packing { recipe, sizes }, content })
        });
        Ok(made.collect())
    }
}

/// The files that are not as an old one is, by layer and position, and their contents.
fn changed_files(layers: &[NewLayer]) -> impl Iterator<Item = ((usize, usize), Region)> {
    layers.iter().enumerate().flat_map(|(of, layer)| {
        let changed = |(_, file): &(usize, &NewFile)| matches!(file.origin, Origin::Changed(_));
        layer
            .files
            .iter()
            .enumerate()
            .filter(changed)
            .map(move |(at, file)| ((of, at), layer.tar.slice(file.member.offset, file.member.size)))
    })
}

fn file_at(layers: &[NewLayer], (layer, file): (usize, usize)) -> &NewFile {
    &layers[layer].files[file]
}

/// The old files that are searched and did not just stay.
fn gone_sources(analysis: &Analysis, layers: &[NewLayer]) -> Vec<usize> {
    let files = layers.iter().flat_map(|layer| &layer.files);
    let same: HashSet<usize> = files
        .filter_map(|file| match file.origin {
            Origin::Same(source) => Some(source),
            Origin::Changed(_) => None,
        })
        .collect();
    analysis.corpus.sources().filter(|source| !same.contains(source)).collect()
}

/// What is in old members, as sources.
fn sources(analysis: &Analysis, gone: &[usize], old: &[Opened], holders: &mut Holders) -> Vec<Source> {
    let named = old.iter().filter_map(|opened| {
        let source = gone[opened.found.file];
        let start = opened.found.member.range.start;
        let path = name(&analysis.sources[source].names[0], start).ok()?;
        Some((path, analysis.place_of(source).on(start), opened))
    });
    let mut named: Vec<_> = named.collect();
    named.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let sources = named.into_iter().map(|(path, place, Opened { found, plain })| {
        let layer = holders.add(place, found.stretch.len(), found.member.coding, plain.len());
        Source { names: vec![path], layer, content: plain.clone(), offset: 0 }
    });
    sources.collect()
}

/// The name of what is in a member: of a file that is compressed as a whole it is the file's.
fn name(file: &SourcePath, at: u64) -> Result<SourcePath> {
    match at {
        0 => Ok(file.clone()),
        at => SourcePath::clean(&[file.as_bytes(), format!("/{at:08}").as_bytes()].concat()),
    }
}
