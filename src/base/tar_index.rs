//! The table of contents of one layer tar, from a walk over its headers.

use std::collections::HashSet;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use super::path::{Paths, SourcePath};
use super::tar_walk::{Node, walk};
use crate::error::Result;
use crate::region::Region;

/// All paths of a layer.
#[derive(Debug, Default)]
pub struct LayerIndex {
    /// What a path finally is in this layer.
    pub nodes: Paths<Node>,
    /// Files that a later entry of the same layer replaced by something that is
    /// no usable file; the Go generator takes these for sources.
    pub shadowed: Paths<Node>,
    /// Paths that this layer removes from those below.
    pub whiteouts: HashSet<SourcePath, RandomState>,
    /// Directories whose lower content this layer hides.
    pub opaque: HashSet<Vec<u8>, RandomState>,
}

impl LayerIndex {
    /// Walks the headers of a plain layer tar.
    ///
    /// # Errors
    /// Verification when it is no sound tar.
    pub fn read(tar: &Region) -> Result<Self> {
        let mut index = LayerIndex::default();
        walk(tar, |path, node, _| index.insert(path, node))?;
        Ok(index)
    }

    /// Adds an entry, which replaces an earlier one of its path; whiteouts become what they mean.
    pub(crate) fn insert(&mut self, path: SourcePath, node: Node) {
        let bytes = path.as_bytes();
        let (dir, name) = match bytes.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
            None => (&b""[..], bytes),
        };
        if name == b".wh..wh..opq" {
            self.opaque.insert(dir.to_vec());
            return;
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            let full = if dir.is_empty() { hidden.to_vec() } else { [dir, hidden].join(&b'/') };
            self.whiteouts.extend(clean(&full));
            return;
        }
        match self.nodes.entry(path) {
            Entry::Vacant(place) => drop(place.insert(node)),
            Entry::Occupied(mut place) => {
                let old = place.insert(node);
                if matches!(&old, Node::File(f) if f.size > 0) {
                    self.shadowed.insert(place.key().clone(), old);
                }
            }
        }
    }
}

fn clean(raw: &[u8]) -> Option<SourcePath> {
    SourcePath::clean(raw).ok()
}
