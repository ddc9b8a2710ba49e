//! Base files out of the layers of an image.
//!
//! Two views answer a path. *Merged* is the true root file system: a later
//! layer's entry of any type replaces a lower one, whiteouts and opaque
//! directories hide, a file hides what was below a directory of its name.
//! *Producer* is what the Go generator believes: only usable files (regular,
//! not empty, world-readable), hard links to them in the same tar, exact
//! whiteouts and opaque directories take a path over. Where the two differ, a
//! another round gives the other file, and the layer's diff_id decides.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use foldhash::fast::RandomState;

use super::inside::{Holder, Inside, Insides};
use super::layer::{BaseLayer, LayerBlob, LoadedLayer, TarLayer, Unpacking};
use super::tar_index::LayerIndex;
use super::tar_walk::{FileNode, Node};
use super::tree;
use super::{Doubt, OpenedFile, SourceFile, SourceFiles, SourcePath};
use crate::cancel::Cancel;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::parallel;
use crate::region::Region;
use crate::spool::Spool;

/// Links followed before a path is given up; the bound of Linux itself (`ELOOP`).
const MAX_LINKS: usize = 40;

/// A file of the merged root file system that a patch may name.
#[derive(Debug, Clone)]
pub struct Source {
    /// All its names, sorted; at least one.
    pub names: Vec<SourcePath>,
    /// The layer that it comes from, counted from the bottom.
    pub layer: usize,
    /// Its content.
    pub content: Region,
    /// Where that begins in the layer's tar.
    pub offset: u64,
}

/// The files of an image, by path.
#[derive(Debug)]
pub struct LayeredFiles {
    layers: Vec<Layer>,
    /// What was opened, by layer and place in it, to be looked at again when a layer comes out wrong.
    opened: Mutex<Opened>,
    insides: Insides,
}

type Opened = HashMap<(usize, u64), (SourcePath, FileNode), RandomState>;

#[derive(Debug)]
struct Layer {
    source: Box<dyn BaseLayer>,
    /// A damaged layer keeps its error text for everyone who asks.
    loaded: OnceLock<Result<Box<dyn LoadedLayer>>>,
    loading: Mutex<()>,
}

impl LayeredFiles {
    /// Takes the layers bottom to top. Nothing is read yet. Compressed layers
    /// are spooled to an unlinked file in `spool`, at most `max_layer` bytes each.
    pub fn new(layers: Vec<LayerBlob>, spool: &Path, max_layer: u64) -> Self {
        let (spool, cancel) = (Spool::in_dir(spool), Cancel::default());
        Self::of_blobs(layers, &Unpacking { spool, max_layer, cancel })
    }

    /// The same, unpacked as asked for.
    pub fn of_blobs(layers: Vec<LayerBlob>, unpacking: &Unpacking) -> Self {
        let layers = layers.into_iter().map(|layer| Box::new(TarLayer::new(layer, unpacking)) as _);
        Self::of_layers(layers.collect(), &unpacking.spool)
    }

    /// Takes layers of any sort, bottom to top. What is in compressed stretches of them is unpacked in `spool`.
    pub fn of_layers(layers: Vec<Box<dyn BaseLayer>>, spool: &Spool) -> Self {
        let layers = layers
            .into_iter()
            .map(|source| Layer { source, loaded: OnceLock::new(), loading: Mutex::new(()) })
            .collect();
        LayeredFiles { layers, opened: Mutex::default(), insides: Insides::new(spool.clone()) }
    }

    /// Loads some layers now, on up to `threads` threads.
    ///
    /// # Errors
    /// When a layer is damaged or the disk is full.
    pub fn preload(&self, layers: Range<usize>, threads: usize) -> Result<()> {
        let first = layers.start;
        parallel::for_each(layers.len(), threads, |at| self.loaded(first + at).map(drop))
    }

    /// The regular files of the merged root file system that a patch may name.
    ///
    /// # Errors
    /// When a layer is damaged or the disk is full.
    pub fn sources(&self) -> Result<Vec<Source>> {
        let layers: Vec<_> = (0..self.layers.len()).map(|at| self.loaded(at)).collect::<Result<_>>()?;
        let indexes: Vec<&LayerIndex> = layers.iter().map(|l| l.index()).collect();
        let found = tree::sources(&indexes).into_iter().map(|found| {
            let file = layers[found.layer].open(&found.names[0], &found.file)?;
            let (layer, offset) = (found.layer, found.file.offset);
            Ok(Source { names: found.names, layer, content: file.content, offset })
        });
        found.collect()
    }

    /// The plain tar of layer `at`.
    ///
    /// # Errors
    /// When the layer is damaged or the disk is full.
    pub fn tar(&self, at: usize) -> Result<Region> {
        self.loaded(at)?.tar()
    }

    fn loaded(&self, at: usize) -> Result<&dyn LoadedLayer> {
        let layer = &self.layers[at];
        if layer.loaded.get().is_none() {
            // A poisoned lock only means that another thread died; the work is done anew.
            let _one = layer.loading.lock().unwrap_or_else(|e| e.into_inner());
            layer.loaded.get_or_init(|| layer.source.load());
        }
        match layer.loaded.get() {
            Some(Ok(loaded)) => Ok(&**loaded),
            Some(Err(e)) => Err(e.again().context(format!("base layer {}", layer.source.diff_id()))),
            None => Err(Error::local("base layer was not loaded")),
        }
    }

    /// What stands at exactly this path in the root file system of layers `..top`.
    fn merged(&self, path: &SourcePath, top: usize) -> Result<Option<(usize, &Node)>> {
        for at in (0..top).rev() {
            let index = self.loaded(at)?.index();
            if let Some(node) = index.nodes.get(path) {
                return Ok(Some((at, node)));
            }
            if hides(index, path) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Follows hard links down to a file in the merged view.
    fn merged_file<'a>(&'a self, mut path: &'a SourcePath) -> Result<Option<(usize, FileNode)>> {
        let mut top = self.layers.len();
        for _ in 0..MAX_LINKS {
            match self.merged(path, top)? {
                Some((at, Node::File(file))) => return Ok(Some((at, *file))),
                Some((at, Node::Link(target))) => {
                    top = at + 1;
                    path = target;
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The file that the Go generator would take for this path.
    fn producer_file(&self, path: &SourcePath) -> Result<Option<(usize, FileNode)>> {
        for at in (0..self.layers.len()).rev() {
            let index = self.loaded(at)?.index();
            if let Some(file) = usable(index, path) {
                return Ok(Some((at, file)));
            }
            if index.whiteouts.contains(path) || parents(path).any(|dir| index.opaque.contains(dir)) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The newest regular file that any layer has at this path, hidden or not.
    fn shadowed_file(&self, path: &SourcePath) -> Result<Option<(usize, FileNode)>> {
        for at in (0..self.layers.len()).rev() {
            if let Some(Node::File(file)) = self.loaded(at)?.index().nodes.get(path) {
                return Ok(Some((at, *file)));
            }
        }
        Ok(None)
    }

    /// The path with symbolic links in it resolved inside the root, by the merged view.
    fn resolve_links(&self, path: &SourcePath) -> Result<Option<SourcePath>> {
        let mut path = path.clone();
        for _ in 0..MAX_LINKS {
            let Some(next) = self.resolve_first_link(&path)? else { return Ok(Some(path)) };
            path = next;
        }
        Ok(None)
    }

    fn resolve_first_link(&self, path: &SourcePath) -> Result<Option<SourcePath>> {
        let bytes = path.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([bytes.len()]);
        for end in ends {
            let Ok(prefix) = SourcePath::clean(&bytes[..end]) else { continue };
            let Some((_, Node::Symlink(target))) = self.merged(&prefix, self.layers.len())? else { continue };
            let parent = bytes[..end].iter().rposition(|b| *b == b'/').map_or(&b""[..], |i| &bytes[..i]);
            let base = if target.starts_with(b"/") { &b""[..] } else { parent };
            let joined = [base, target, &bytes[end..]].join(&b'/');
            return Ok(Some(SourcePath::clean(&joined)?));
        }
        Ok(None)
    }

    /// Opens a file of a layer, and remembers it.
    fn open_in(&self, at: usize, path: &SourcePath, file: &FileNode) -> Result<Arc<SourceFile>> {
        let opened = self.loaded(at)?.open(path, file)?;
        let mut known = self.opened.lock().unwrap_or_else(|e| e.into_inner());
        known.entry((at, file.offset)).or_insert_with(|| (path.clone(), *file));
        Ok(Arc::new(opened))
    }

    /// The likelier file first, and no more than two.
    fn candidates(&self, path: &SourcePath) -> Result<(Vec<(usize, FileNode)>, Doubt)> {
        let merged = self.merged_file(path)?;
        let producer = self.producer_file(path)?;
        // A generator never names a file that it cannot use, so it meant the other one.
        let (mut found, doubt): (Vec<_>, _) = match (merged, producer) {
            (Some(merged), Some(producer)) if merged == producer => (vec![merged], Doubt::None),
            (Some(merged), Some(producer)) if !is_usable(&merged.1) => {
                (vec![producer, merged], Doubt::ProducerIsLikelier)
            }
            (Some(merged), Some(producer)) => (vec![merged, producer], Doubt::MergedIsLikelier),
            (merged, producer) => (merged.or(producer).into_iter().collect(), Doubt::None),
        };
        if found.is_empty()
            && let Some(resolved) = self.resolve_links(path)?
            && resolved != *path
        {
            found.extend(self.merged_file(&resolved)?);
        }
        if found.is_empty() {
            found.extend(self.shadowed_file(path)?);
        }
        Ok((found, doubt))
    }
}

impl SourceFiles for LayeredFiles {
    fn open(&self, path: &SourcePath, round: u32) -> Result<OpenedFile> {
        // As a rule both views have the same file.
        if let Some((at, Node::File(file))) = self.merged(path, self.layers.len())?
            && is_usable(file)
        {
            return Ok(OpenedFile { file: self.open_in(at, path, file)?, doubt: Doubt::None });
        }
        let (mut found, mut doubt) = self.candidates(path)?;
        if found.is_empty()
            && let Some(other) = etc_twin(path)
        {
            (found, doubt) = self.candidates(&other)?;
        }
        let taken = usize::from(doubt.takes_other(round));
        let (at, file) = found.get(taken).ok_or_else(|| {
            Error::misfit(format!("the base image has no file {path}")).with_hint("fetch the full image")
        })?;
        Ok(OpenedFile { file: self.open_in(*at, path, file)?, doubt })
    }

    fn layer(&self, diff_id: &DiffId) -> Result<Arc<SourceFile>> {
        let at = self.layers.iter().position(|layer| layer.source.diff_id() == diff_id);
        let at = at.ok_or_else(|| Error::misfit(format!("the base image has no layer {diff_id}")))?;
        let name = SourcePath::clean(diff_id.to_string().as_bytes())?;
        Ok(Arc::new(SourceFile::new(name, self.tar(at)?)))
    }

    fn inside(&self, inside: &Arc<Inside>) -> Result<Arc<SourceFile>> {
        self.insides.open(inside, || match &inside.holder {
            Holder::Layer(diff_id) => self.layer(diff_id),
            Holder::Inside(outer) => self.inside(outer),
        })
    }

    fn check_opened(&self) -> Result<()> {
        let opened = self.opened.lock().unwrap_or_else(|e| e.into_inner()).clone();
        for ((at, _), (path, file)) in opened {
            self.loaded(at)?.check(&path, &file)?;
        }
        Ok(())
    }
}

/// ostree keeps `etc` as `usr/etc`; a delta may name either.
pub(crate) fn etc_twin(path: &SourcePath) -> Option<SourcePath> {
    let bytes = path.as_bytes();
    if bytes.starts_with(b"etc/") {
        return SourcePath::clean(&[b"usr/", bytes].concat()).ok();
    }
    bytes.starts_with(b"usr/etc/").then(|| SourcePath::clean(&bytes[4..]).ok()).flatten()
}

/// Does this layer hide lower content at `path`, which it has no entry for?
fn hides(index: &LayerIndex, path: &SourcePath) -> bool {
    if index.whiteouts.contains(path) || index.opaque.contains(&b""[..]) {
        return true;
    }
    let is_in_the_way = |node: &Node| !matches!(node, Node::Directory | Node::Symlink(_));
    parents(path).any(|dir| {
        index.opaque.contains(dir)
            || index.whiteouts.contains(dir)
            || index.nodes.get(dir).is_some_and(is_in_the_way)
    })
}

/// The directories above a path, nearest first.
fn parents(path: &SourcePath) -> impl Iterator<Item = &[u8]> {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'/').map(|(i, _)| &bytes[..i])
}

/// Does a producer take it as a source?
fn is_usable(file: &FileNode) -> bool {
    file.size > 0 && file.world_readable
}

fn usable(index: &LayerIndex, path: &SourcePath) -> Option<FileNode> {
    let usable_node = |node: &Node| match node {
        Node::File(file) if is_usable(file) => Some(*file),
        _ => None,
    };
    let node = index.nodes.get(path)?;
    let linked = match node {
        Node::Link(target) => index.nodes.get(target).and_then(usable_node),
        node => usable_node(node),
    };
    linked.or_else(|| index.shadowed.get(path).and_then(usable_node))
}
