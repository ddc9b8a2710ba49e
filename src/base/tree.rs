//! The merged root file system of an image, as a producer of patches must see it.
//!
//! Built from the bottom up: a whiteout removes, an opaque directory empties, a
//! file replaces a directory with all that is below it, a directory replaces a
//! file. What is left and usable in the same way by every applier is a source.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::path::SourcePath;
use super::tar_index::LayerIndex;
use super::tar_walk::{FileNode, Node};

/// Links followed before a name is given up (`ELOOP` of Linux).
const MAX_LINKS: usize = 40;

/// The object store of ostree: appliers know its files by their deployed names only.
const UNDEPLOYED: &[u8] = b"sysroot/ostree/";

/// A file and all the names that it has in the merged tree.
#[derive(Debug)]
pub(super) struct Found {
    pub names: Vec<SourcePath>,
    pub layer: usize,
    pub file: FileNode,
}

type Tree = BTreeMap<Vec<u8>, (usize, Node)>;

/// The regular files of the merged tree of `layers` (bottom to top) that any
/// applier can read: not empty, world-readable, with a deployed UTF-8 name that
/// is reached without symbolic links. In the order of their first names.
pub(super) fn sources(layers: &[&LayerIndex]) -> Vec<Found> {
    let mut tree = Tree::new();
    for (at, layer) in layers.iter().enumerate() {
        stack(&mut tree, at, layer);
    }
    let mut found: Vec<Found> = Vec::new();
    let mut by_place = HashMap::new();
    for (path, (layer, node)) in &tree {
        let Node::File(file) = node else { continue };
        if file.size == 0 || !file.world_readable || !is_plain_name(path) || !is_reached(&tree, path) {
            continue;
        }
        let Ok(name) = SourcePath::clean(path) else { continue };
        let place = *by_place.entry((*layer, file.offset)).or_insert(found.len());
        match found.get_mut(place) {
            Some(known) => known.names.push(name),
            None => found.push(Found { names: vec![name], layer: *layer, file: *file }),
        }
    }
    found
}

fn is_plain_name(path: &[u8]) -> bool {
    !path.starts_with(UNDEPLOYED) && std::str::from_utf8(path).is_ok()
}

fn is_reached(tree: &Tree, path: &[u8]) -> bool {
    parents(path).all(|dir| tree.get(dir).is_none_or(|(_, node)| *node == Node::Directory))
}

fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(slash, _)| &path[..slash])
}

/// Puts a layer on top of the tree.
fn stack(tree: &mut Tree, at: usize, layer: &LayerIndex) {
    for dir in &layer.opaque {
        remove_below(tree, dir);
    }
    for path in &layer.whiteouts {
        tree.remove(path.as_bytes());
        remove_below(tree, path.as_bytes());
    }
    let mut checked = HashSet::new();
    for (path, node) in &layer.nodes {
        let path = path.as_bytes();
        for dir in parents(path) {
            if checked.insert(dir)
                && matches!(tree.get(dir), Some((below, Node::File(_) | Node::Other | Node::Link(_))) if *below < at)
            {
                tree.remove(dir);
            }
        }
        if *node != Node::Directory {
            remove_older_below(tree, path, at);
        }
        tree.insert(path.to_vec(), (at, node.clone()));
    }
    for (path, node) in &layer.nodes {
        if let Node::Link(target) = node
            && let Some(file) = resolve(tree, target)
        {
            tree.insert(path.as_bytes().to_vec(), file);
        }
    }
}

/// The file that a hard link stands for, with the layer that holds it.
fn resolve(tree: &Tree, target: &SourcePath) -> Option<(usize, Node)> {
    let mut target = target;
    for _ in 0..MAX_LINKS {
        match tree.get(target.as_bytes())? {
            (layer, Node::File(file)) => return Some((*layer, Node::File(*file))),
            (_, Node::Link(next)) => target = next,
            _ => return None,
        }
    }
    None
}

fn remove_below(tree: &mut Tree, dir: &[u8]) {
    remove_older_below(tree, dir, usize::MAX);
}

/// Removes what layers below `at` have in `dir`.
fn remove_older_below(tree: &mut Tree, dir: &[u8], at: usize) {
    let inside: Vec<Vec<u8>> = if dir.is_empty() {
        tree.keys().cloned().collect()
    } else {
        // '0' is the byte after '/'.
        let range = [dir, b"/"].concat()..[dir, b"0"].concat();
        tree.range(range).filter(|(_, (layer, _))| *layer < at).map(|(path, _)| path.clone()).collect()
    };
    for path in inside {
        tree.remove(&path);
    }
}
