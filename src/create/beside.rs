//! What a stretch of a new layer is made of in the extended patch, which stands beside the standard one: the same
//! covers, placed in the old layers' tars, and headers as differences from old headers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;

use super::analysis::{Analysis, NewLayer, Place};
use super::search::{Cover, common};
use crate::base::{self, LayeredFiles, SourcePath};
use crate::digest::DiffId;
use crate::error::{IoContext, Result};
use crate::extended;
use crate::region::Region;

/// Bytes before a header that are looked at for going on from the file before: padding.
const PADDING: u64 = 512;

/// A header of which more than this share differs from the old one is as good as new.
const ALIKE: usize = 4;

/// The old image's layers as tars, and the headers in those that changed.
#[derive(Debug)]
pub(super) struct OldLayers<'a> {
    diff_ids: &'a [DiffId],
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

impl<'a> OldLayers<'a> {
    /// Reads the headers of the layers that the new image does not have.
    ///
    /// # Errors
    /// When a layer is damaged.
    pub fn read(
        files: &LayeredFiles,
        diff_ids: &'a [DiffId],
        unchanged: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let mut old = OldLayers { diff_ids, tars: Vec::new(), headings: HashMap::new() };
        for layer in 0..diff_ids.len() {
            let tar = if unchanged(layer) { None } else { Some(files.tar(layer)?) };
            for heading in tar.iter().map(base::headings).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                old.headings.insert(heading.path, (layer, heading.range));
            }
            old.tars.push(tar);
        }
        Ok(old)
    }

    /// The digest of a layer's tar.
    pub fn name(&self, layer: usize) -> DiffId {
        self.diff_ids[layer].clone()
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

/// The operations; payloads stand one after the other in `bytes`.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    ops: Vec<StretchOp>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum StretchOp {
    Data(usize),
    Copy(Place, u64),
    Add(Place, usize),
}

impl Stretch {
    /// Literal bytes.
    pub fn data(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.ops.push(StretchOp::Data(bytes.len()));
        }
    }

    /// Old bytes as they are.
    pub fn copy(&mut self, from: Place, len: u64) {
        if len > 0 {
            self.ops.push(StretchOp::Copy(from, len));
        }
    }

    /// A stretch of a file, by its covers.
    pub fn file(&mut self, analysis: &Analysis, content: &[u8], covers: &[Cover], copy_from: usize) {
        let corpus = analysis.corpus.bytes();
        let mut done = 0;
        for cover in covers {
            self.data(&content[done..cover.new]);
            let place = analysis.place_of(cover.span.source).on(cover.old - cover.span.start);
            let (end, from) = (cover.new + cover.len, cover.old as usize);
            self.cover(place, &content[cover.new..end], &corpus[from..from + cover.len], copy_from);
            done = end;
        }
        self.data(&content[done..]);
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

    fn add(&mut self, place: Place, new: &[u8], old: &[u8]) {
        if !new.is_empty() {
            self.bytes.extend(new.iter().zip(old).map(|(n, o)| n.wrapping_sub(*o)));
            self.ops.push(StretchOp::Add(place, new.len()));
        }
    }

    /// What stands between files: `new`, at `range` of its tar.
    ///
    /// # Errors
    /// When an old layer cannot be read.
    pub fn between(
        &mut self,
        old: &OldLayers<'_>,
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
            let place = Place { layer: pair.layer, at: pair.at - same as u64 };
            self.cover(place, &new[start - same..end], &before[room as usize - same..], copy_from);
            done = end;
        }
        self.data(&new[done..]);
        Ok(())
    }

    /// Writes the operations.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, writer: &mut extended::OpWriter<impl Write>) -> io::Result<()> {
        let mut rest = &self.bytes[..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head
        };
        for op in &self.ops {
            match *op {
                StretchOp::Data(n) => writer.data(take(n))?,
                StretchOp::Copy(Place { layer, at }, len) => writer.copy(layer, at, len)?,
                StretchOp::Add(Place { layer, at }, n) => writer.add(layer, at, take(n))?,
            }
        }
        Ok(())
    }
}
