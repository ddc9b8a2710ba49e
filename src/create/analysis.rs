//! What the old image offers for each new file: the same content, a twin by name, similar bytes.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::Xxh3;

use super::corpus::{Corpus, Span};
use super::index::{Density, GramIndex};
use super::ops::{Made, Place};
use crate::base::{Member, Source, SourcePath};
use crate::error::{IoContext, Result};
use crate::parallel;
use crate::region::Region;

/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;

/// Old layers of up to this many bytes are searched whole.
const LITTLE: u64 = 64 << 20;

/// An old layer that lives on unchanged is read for more than this share of the new bytes only: to find
/// one file in it, an applier reads all its headers, and unpacks it if it is compressed.
const HARDLY: u64 = 4096;

/// Fast and not cryptographic: a collision makes a wrong patch, which the self-check finds.
pub(super) type ContentHash = u128;

/// A changed layer of the new image.
#[derive(Debug)]
pub(super) struct NewLayer {
    /// Its plain tar.
    pub tar: Region,
    /// Its regular files.
    pub files: Vec<NewFile>,
}

impl NewLayer {
    /// Bytes that the patch will have before compression, at most: all that is not copied whole.
    pub fn expected_patch(&self) -> u64 {
        let same = self.files.iter().filter(|f| matches!(f.origin, Origin::Same(_)));
        self.tar.len() - same.map(|f| f.member.size).sum::<u64>()
    }
}

/// A file of a changed layer and what it is made from.
#[derive(Debug)]
pub(super) struct NewFile {
    pub member: Member,
    pub origin: Origin,
    /// Members that are made in the extended patch from what is in them, in ascending order.
    pub members: Vec<Arc<Made>>,
}

impl NewFile {
    /// The old file of its name, if it changed.
    pub fn twin(&self) -> Option<usize> {
        match self.origin {
            Origin::Changed(twin) => twin,
            Origin::Same(_) => None,
        }
    }
}

/// Where a new file's bytes can be had from. Numbers are positions in the list of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An old file is the same.
    Same(usize),
    /// It changed, or is new; perhaps there is an old file of that name.
    Changed(Option<usize>),
}

impl Origin {
    /// The old file, if there is one.
    pub fn source(self) -> Option<usize> {
        match self {
            Origin::Same(source) => Some(source),
            Origin::Changed(twin) => twin,
        }
    }
}

/// The old image, ready for comparison.
#[derive(Debug)]
pub(super) struct Analysis {
    pub sources: Vec<Source>,
    pub corpus: Corpus,
    pub index: GramIndex,
}

/// How the index is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means<'a> {
    pub density: Density,
    /// Bytes for the index.
    pub memory: u64,
    pub threads: usize,
    /// For unlinked files: the copy of the old files and the index.
    pub spool: &'a Path,
}

impl Analysis {
    /// Compares old sources with the files of the new layers. `unchanged(layer)`
    /// says whether an old layer is also in the new image.
    ///
    /// # Errors
    /// When a file cannot be read or the disk is full.
    pub fn new(
        sources: Vec<Source>,
        tars: Vec<(Region, Vec<Member>)>,
        unchanged: impl Fn(usize) -> bool,
        means: Means<'_>,
    ) -> Result<(Self, Vec<NewLayer>)> {
        let hashes = Hashes::new(&sources, &tars, means.threads)?;
        let names = Names::new(&sources);
        let mut layers: Vec<NewLayer> = tars
            .into_iter()
            .zip(&hashes.new)
            .map(|((tar, members), hashed)| {
                let files = members.into_iter().zip(hashed).map(|(member, hash)| {
                    let origin = match hash.get().and_then(|hash| hashes.same(&sources, &member, *hash)) {
                        Some(same) => Origin::Same(same),
                        None => Origin::Changed(names.twin(&member)),
                    };
                    NewFile { member, origin, members: Vec::new() }
                });
                NewLayer { tar, files: files.collect() }
            })
            .collect();
        leave_alone(&hardly_used(&sources, &layers, &unchanged), &sources, &mut layers);
        let chosen = worth_searching(&sources, &layers, unchanged);
        let corpus = Corpus::build(&sources, &chosen, means.spool)?;
        let index = GramIndex::build(&corpus, means.density, means.memory, means.threads, means.spool)?;
        Ok((Analysis { sources, corpus, index }, layers))
    }

    /// The span of the twin in the corpus.
    pub fn twin_span(&self, twin: Option<usize>) -> Option<Span> {
        self.corpus.span_of(twin?)
    }

    /// Where a source begins.
    pub fn place_of(&self, source: usize) -> Place {
        let Source { layer, offset, .. } = self.sources[source];
        Place { holder: layer, at: offset }
    }

    /// The name by which a source is opened for a file: its own, where the source has it.
    pub fn name_for(&self, source: usize, file: &Member) -> &SourcePath {
        let names = &self.sources[source].names;
        names.binary_search(&file.path).map_or(&names[0], |at| &names[at])
    }
}

/// The old layers that are in the new image too, and could give hardly any of the bytes of its other layers.
fn hardly_used(sources: &[Source], layers: &[NewLayer], unchanged: impl Fn(usize) -> bool) -> HashSet<usize> {
    let mut at_most: HashMap<usize, u64> = HashMap::new();
    for file in layers.iter().flat_map(|l| &l.files) {
        if let Some(source) = file.origin.source() {
            *at_most.entry(sources[source].layer).or_default() += file.member.size;
        }
    }
    let new_bytes = layers.iter().map(NewLayer::expected_patch).sum::<u64>();
    at_most.retain(|layer, bytes| unchanged(*layer) && *bytes < new_bytes / HARDLY);
    at_most.into_keys().collect()
}

/// Takes nothing from these old layers.
fn leave_alone(old: &HashSet<usize>, sources: &[Source], layers: &mut [NewLayer]) {
    for file in layers.iter_mut().flat_map(|l| &mut l.files) {
        if file.origin.source().is_some_and(|source| old.contains(&sources[source].layer)) {
            file.origin = Origin::Changed(None);
        }
    }
}

/// Old files to look for similar bytes in: those that went or changed, and the
/// twins of new files. What lives on unchanged seldom has a second use, so it is
/// left out unless it is little.
fn worth_searching(sources: &[Source], layers: &[NewLayer], unchanged: impl Fn(usize) -> bool) -> Vec<usize> {
    let (mut same, mut twins) = (HashSet::new(), HashSet::new());
    for file in layers.iter().flat_map(|l| &l.files) {
        match file.origin {
            Origin::Same(source) => drop(same.insert(source)),
            Origin::Changed(twin) => twins.extend(twin),
        }
    }
    let size = |at: &usize| sources[*at].content.len();
    let of_changed_layers = |at: &usize| !unchanged(sources[*at].layer);
    let is_little = (0..sources.len()).filter(of_changed_layers).map(|at| size(&at)).sum::<u64>() <= LITTLE;
    (0..sources.len())
        .filter(|at| twins.contains(at) || of_changed_layers(at) && (is_little || !same.contains(at)))
        .collect()
}

/// Content hashes, only where another file has the same size.
struct Hashes {
    old: HashMap<(u64, ContentHash), usize>,
    old_by_source: Vec<OnceLock<ContentHash>>,
    new: Vec<Vec<OnceLock<ContentHash>>>,
}

impl Hashes {
    fn new(sources: &[Source], tars: &[(Region, Vec<Member>)], threads: usize) -> Result<Self> {
        let old_sizes: HashSet<u64> = sources.iter().map(|s| s.content.len()).collect();
        let new_sizes: HashSet<u64> = tars.iter().flat_map(|(_, m)| m).map(|m| m.size).collect();
        let old_by_source: Vec<OnceLock<_>> = sources.iter().map(|_| OnceLock::new()).collect();
        parallel::for_each(sources.len(), threads, |at| {
            if new_sizes.contains(&sources[at].content.len()) {
                let _ = old_by_source[at].set(content_hash(&sources[at].content)?);
            }
            Ok(())
        })?;
        let new: Vec<Vec<OnceLock<_>>> =
            tars.iter().map(|(_, members)| members.iter().map(|_| OnceLock::new()).collect()).collect();
        for ((tar, members), hashes) in tars.iter().zip(&new) {
            parallel::for_each(members.len(), threads, |at| {
                if old_sizes.contains(&members[at].size) {
                    let content = tar.slice(members[at].offset, members[at].size);
                    let _ = hashes[at].set(content_hash(&content)?);
                }
                Ok(())
            })?;
        }
        let mut old = HashMap::new();
        for (at, (source, hash)) in sources.iter().zip(&old_by_source).enumerate() {
            if let Some(hash) = hash.get() {
                old.entry((source.content.len(), *hash)).or_insert(at);
            }
        }
        Ok(Hashes { old, old_by_source, new })
    }

    /// The source with this content; the one of the same name before others.
    fn same(&self, sources: &[Source], file: &Member, hash: ContentHash) -> Option<usize> {
        let first = *self.old.get(&(file.size, hash))?;
        // Copies of one content lie anywhere; the names are sorted, and so are the sources by first name.
        let own = sources.binary_search_by(|s| s.names[0].cmp(&file.path)).ok();
        let equal = |at: &usize| {
            sources[*at].content.len() == file.size && self.old_by_source[*at].get() == Some(&hash)
        };
        Some(own.filter(equal).unwrap_or(first))
    }
}

pub(super) fn content_hash(content: &Region) -> Result<ContentHash> {
    let mut hasher = Xxh3::new();
    let mut reader = content.reader();
    let mut chunk = vec![0; CHUNK.min(content.len() as usize)];
    loop {
        match reader.read(&mut chunk).at("layer")? {
            0 => return Ok(hasher.digest128()),
            n => hasher.update(&chunk[..n]),
        }
    }
}

/// Sizes in bytes and sources, sorted.
type BySize = Vec<(u64, usize)>;

/// Finds old files by what their names have in common with a new one.
struct Names {
    exact: HashMap<SourcePath, usize>,
    /// By weaker and weaker keys; within a key sorted by size.
    loose: [HashMap<Vec<u8>, BySize>; 3],
}

impl Names {
    fn new(sources: &[Source]) -> Self {
        let mut names = Names { exact: HashMap::new(), loose: Default::default() };
        for (at, source) in sources.iter().enumerate() {
            for name in &source.names {
                names.exact.insert(name.clone(), at);
                for (map, key) in names.loose.iter_mut().zip(loose_keys(name)) {
                    map.entry(key).or_default().push((source.content.len(), at));
                }
            }
        }
        names.loose.iter_mut().flat_map(HashMap::values_mut).for_each(|list| list.sort_unstable());
        names
    }

    fn twin(&self, file: &Member) -> Option<usize> {
        if let Some(exact) = self.exact.get(&file.path) {
            return Some(*exact);
        }
        let keys = loose_keys(&file.path);
        self.loose.iter().zip(keys).find_map(|(map, key)| closest(map.get(&key)?, file.size))
    }
}

/// The old file whose size is closest.
fn closest(by_size: &[(u64, usize)], size: u64) -> Option<usize> {
    let above = by_size.partition_point(|(s, _)| *s < size);
    let below = above.checked_sub(1).map(|at| by_size[at]);
    let nearest = below.into_iter().chain(by_size.get(above).copied()).min_by_key(|(s, _)| s.abs_diff(size));
    nearest.map(|(_, at)| at)
}

/// The path without versions, the file name, the file name without versions.
fn loose_keys(path: &SourcePath) -> [Vec<u8>; 3] {
    let bytes = path.as_bytes();
    let name = bytes.iter().rposition(|b| *b == b'/').map_or(bytes, |slash| &bytes[slash + 1..]);
    [without_versions(bytes), name.to_vec(), without_versions(name)]
}

/// Each run of digits, with dots between, becomes one mark.
fn without_versions(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        let in_version = byte.is_ascii_digit()
            || (*byte == b'.'
                && out.last() == Some(&b'#')
                && text.get(at + 1).is_some_and(u8::is_ascii_digit));
        match in_version {
            true if out.last() == Some(&b'#') => {}
            true => out.push(b'#'),
            false => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_names_do_not_matter() {
        for (old, new) in [
            ("usr/lib/libssl.so.1.1.1", "usr/lib/libssl.so.3"),
            ("boot/vmlinuz-6.1.0-55", "boot/vmlinuz-6.1.0-56"),
            ("lib/modules/6.1.0/x.ko", "lib/modules/6.12.1/x.ko"),
        ] {
            assert_eq!(without_versions(old.as_bytes()), without_versions(new.as_bytes()));
        }
        assert_eq!(without_versions(b"a.b1.c"), b"a.b#.c");
    }

    #[test]
    fn of_several_twins_the_closest_in_size_is_taken() {
        let list = [(10, 1), (100, 2), (1000, 3)];
        assert_eq!(closest(&list, 90), Some(2));
        assert_eq!(closest(&list, 5000), Some(3));
        assert_eq!(closest(&list, 1), Some(1));
        assert_eq!(closest(&[], 1), None);
    }
}
