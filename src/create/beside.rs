//! What a stretch of a new layer is made of in the extended patch, which stands beside the standard one: the same
//! covers, placed in the old layers' tars, and headers as differences from old headers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::analysis::{Analysis, NewFile, NewLayer};
use super::ops::{Place, Stretch};
use super::search::{Cover, common};
use crate::base::{self, Holder, Inside, LayeredFiles, SourcePath};
use crate::digest::DiffId;
use crate::error::{IoContext, Result};
use crate::member::Coding;
use crate::region::Region;

/// Bytes before a header that are looked at for going on from the file before: padding.
const PADDING: u64 = 512;

/// A header of which more than this share differs from the old one is as good as new.
const ALIKE: usize = 4;

/// What old bytes can be had from: the layers by their position, then stretches of what stands before them.
#[derive(Debug)]
pub(super) struct Holders(Vec<(Holder, Option<usize>)>);

impl Holders {
    /// The layers.
    pub fn of(diff_ids: &[DiffId]) -> Self {
        Holders(diff_ids.iter().map(|diff_id| (Holder::Layer(diff_id.clone()), None)).collect())
    }

    /// Adds the stretch at `place`, of `packed` bytes; gives its number.
    pub fn add(&mut self, place: Place, packed: u64, coding: Coding, plain: u64) -> usize {
        let holder = self.name(place.holder);
        let inside = Inside { holder, range: place.at..place.at + packed, coding, plain };
        self.0.push((Holder::Inside(Arc::new(inside)), Some(place.holder)));
        self.0.len() - 1
    }

    /// What a patch calls it.
    pub fn name(&self, holder: usize) -> Holder {
        self.0[holder].0.clone()
    }

    /// Whose stretch it is.
    pub fn outer(&self, holder: usize) -> Option<usize> {
        self.0[holder].1
    }
}

/// The old image's layers as tars, and the headers in those that changed.
#[derive(Debug)]
pub(super) struct OldLayers {
    /// Of layers that live on there is none: their headers are not read.
    tars: Vec<Option<Region>>,
    headings: HashMap<SourcePath, (usize, Range<u64>)>,
}

/// A heading of a new layer, and where an old one of the same length stands.
#[derive(Debug)]
pub(super) struct Pair {
    /// In the new tar.
    range: Range<u64>,
    layer: usize,
    at: u64,
}

impl OldLayers {
    /// Reads the headers of the layers that the new image does not have.
    ///
    /// # Errors
    /// When a layer is damaged.
    pub fn read(files: &LayeredFiles, layers: usize, unchanged: impl Fn(usize) -> bool) -> Result<Self> {
        let mut old = OldLayers { tars: Vec::new(), headings: HashMap::new() };
        for layer in 0..layers {
            let tar = if unchanged(layer) { None } else { Some(files.tar(layer)?) };
            for heading in tar.iter().map(base::headings).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                old.headings.insert(heading.path, (layer, heading.range));
            }
            old.tars.push(tar);
        }
        Ok(old)
    }

    /// Finds for each heading of a new layer that of the same path, or of the file that its content is like.
    ///
    /// # Errors
    /// When the layer cannot be read.
    pub fn pairs(&self, analysis: &Analysis, layer: &NewLayer) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        let mut files = layer.files.iter().peekable();
        for base::Heading { path, range } in base::headings(&layer.tar)? {
            while files.next_if(|file| file.member.offset < range.end).is_some() {}
            let file = files.peek().filter(|file| file.member.offset == range.end);
            let like = || self.headings.get(&analysis.sources[file?.origin.source()?].names[0]);
            let fits = |found: &&(usize, Range<u64>)| found.1.end - found.1.start == range.end - range.start;
            let found = self.headings.get(&path).filter(fits).or_else(|| like().filter(fits));
            if let Some((layer, old)) = found {
                pairs.push(Pair { range, layer: *layer, at: old.start });
            }
        }
        Ok(pairs)
    }
}

impl Stretch {
    /// `content`, which stands at `within` of a file, by its covers; a member of the file comes where it begins.
    pub fn file(
        &mut self,
        analysis: &Analysis,
        file: &NewFile,
        (within, content): (u64, &[u8]),
        covers: &[Cover],
        copy_from: usize,
    ) {
        let end = within + content.len() as u64;
        let mut done = within;
        let first = file.members.partition_point(|made| made.range.end <= within);
        for made in file.members[first..].iter().take_while(|made| made.range.start < end) {
            if made.range.start >= within {
                self.covered(
                    analysis,
                    content,
                    covers,
                    (done - within)..(made.range.start - within),
                    copy_from,
                );
                self.member(made);
            }
            done = made.range.end.min(end);
        }
        self.covered(analysis, content, covers, (done - within)..(end - within), copy_from);
    }

    /// The bytes of `content` in `range`, by what the covers have of them.
    fn covered(
        &mut self,
        analysis: &Analysis,
        content: &[u8],
        covers: &[Cover],
        range: Range<u64>,
        copy_from: usize,
    ) {
        let corpus = analysis.corpus.bytes();
        let (mut done, end) = (range.start as usize, range.end as usize);
        let first = covers.partition_point(|cover| cover.end() <= done);
        for cover in covers[first..].iter().take_while(|cover| cover.new < end) {
            let (from, to) = (cover.new.max(done), cover.end().min(end));
            self.data(&content[done..from]);
            let old = cover.old + (from - cover.new) as u64;
            let place = analysis.place_of(cover.span.source).on(old - cover.span.start);
            let old = old as usize;
            self.cover(place, &content[from..to], &corpus[old..old + to - from], copy_from);
            done = to;
        }
        self.data(&content[done..end]);
    }

    /// COPY for equal runs of at least `copy_from` bytes, ADD for what is between them.
    fn cover(&mut self, place: Place, new: &[u8], old: &[u8], copy_from: usize) {
        let (mut at, mut from) = (0, 0);
        while at < new.len() {
            let equal = common(&new[at..], &old[at..]);
            if equal >= copy_from || equal == new.len() {
                self.add(place.on(from as u64), &new[from..at], &old[from..at]);
                self.copy(place.on(at as u64), equal as u64);
                from = at + equal;
            }
            at += equal + 1;
        }
        self.add(place.on(from as u64), &new[from..], &old[from..]);
    }

    /// What stands between files: `new`, at `range` of its tar.
    ///
    /// # Errors
    /// When an old layer cannot be read.
    pub fn between(
        &mut self,
        old: &OldLayers,
        pairs: &[Pair],
        range: Range<u64>,
        new: &[u8],
        copy_from: usize,
    ) -> Result<()> {
        let within = |position: u64| (position - range.start) as usize;
        let mut done = 0;
        let first = pairs.partition_point(|pair| pair.range.start < range.start);
        for pair in pairs[first..].iter().take_while(|pair| pair.range.end <= range.end) {
            let Some(tar) = &old.tars[pair.layer] else { continue };
            let (start, end) = (within(pair.range.start), within(pair.range.end));
            let room = PADDING.min(pair.at).min((start - done) as u64);
            let mut before = vec![0; room as usize + end - start];
            tar.read_exact_at(&mut before, pair.at - room).at("old layer")?;
            let (padding, heading) = before.split_at(room as usize);
            let differing = new[start..end].iter().zip(heading).filter(|(n, o)| n != o).count();
            if differing > (end - start) / ALIKE {
                continue;
            }
            let same = new[done..start].iter().rev().zip(padding.iter().rev()).take_while(|(n, o)| n == o);
            let same = same.count();
            self.data(&new[done..start - same]);
            let place = Place { holder: pair.layer, at: pair.at - same as u64 };
            self.cover(place, &new[start - same..end], &before[room as usize - same..], copy_from);
            done = end;
        }
        self.data(&new[done..]);
        Ok(())
    }
}
