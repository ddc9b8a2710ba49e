//! A bundle that was cut into parts, read as one layout: those parts that are there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::bundle::{TABLE, Table};
use crate::digest::Digest;
use crate::document::Index;
use crate::error::{Error, IoContext as _, Result};
use crate::layout::{Storage, archive, dir};
use crate::region::{ReadAt, Region};

/// The parts of a bundle.
#[derive(Debug)]
pub(in crate::layout) struct Parts {
    shown: String,
    table: Table,
    /// By number.
    parts: BTreeMap<usize, Box<dyn Storage>>,
}

impl Parts {
    /// The parts in the folder `root`; `None` when there is none.
    pub(in crate::layout) fn open(root: &Path, spool: &Path) -> Result<Option<Self>> {
        let mut found: Option<Parts> = None;
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(root).at(root.display())? {
            paths.push(entry.at(root.display())?.path());
        }
        paths.sort();
        for path in paths {
            let Some(storage) = storage(&path, spool)? else { continue };
            let Some(table) = storage.file(TABLE)? else { continue };
            let shown = path.display().to_string();
            let table = Table::parse(&table, &format!("{shown}/{TABLE}"))?;
            let parts = found.get_or_insert_with(|| Parts {
                shown: root.display().to_string(),
                table: table.clone(),
                parts: BTreeMap::new(),
            });
            if parts.table.id != table.id {
                return Err(Error::misfit(format!("{shown} is a part of another bundle"))
                    .with_hint("keep the parts of one bundle in a folder of their own"));
            }
            parts.parts.insert(table.part, storage);
        }
        Ok(found)
    }
}

/// What may be a part.
fn storage(path: &Path, spool: &Path) -> Result<Option<Box<dyn Storage>>> {
    if path.is_dir() && path.join("index.json").is_file() {
        return Ok(Some(Box::new(dir::OciDir::open(path)?)));
    }
    if path.is_file() && path.extension().is_some_and(|extension| extension == "tar") {
        return Ok(Some(Box::new(archive::OciArchive::open(path, spool)?)));
    }
    Ok(None)
}

impl Storage for Parts {
    /// The entries of all parts that are there.
    fn index(&self) -> Result<Index> {
        let mut all = Index::default();
        for part in self.parts.values() {
            all.entries.extend(part.index()?.entries);
        }
        Ok(all)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        let Some(blob) = self.table.blobs.get(&digest.to_string()) else {
            return Ok(None);
        };
        let mut pieces = Vec::new();
        for stretch in &blob.parts {
            let missing = || {
                let (part, parts) = (stretch.part, self.table.parts);
                Error::misfit(format!(
                    "{}: blob {digest} is in part {part} of {parts}, which is not there",
                    self.shown
                ))
                .with_hint("bring the part, and run again")
            };
            let part = self.parts.get(&stretch.part).ok_or_else(missing)?;
            let piece = match blob.is_whole() {
                true => part.blob(digest)?,
                false => part.range(digest, stretch.offset)?,
            };
            let expected = stretch.len.unwrap_or(blob.size);
            match piece {
                Some(piece) if piece.len() == expected => pieces.push(piece),
                Some(piece) => {
                    let found = piece.len();
                    return Err(Error::verification(format!(
                        "{}: part {}: a stretch of blob {digest} has {found} bytes, expected {expected}",
                        self.shown, stretch.part
                    )));
                }
                None => return Err(missing()),
            }
        }
        Ok(Some(match <[Region; 1]>::try_from(pieces) {
            Ok([piece]) => piece,
            Err(pieces) => Region::of(Arc::new(Joined(pieces)), blob.size),
        }))
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.parts.values().next().map_or(Ok(None), |part| part.file(name))
    }
}

/// Stretches that follow each other.
#[derive(Debug)]
struct Joined(Vec<Region>);

impl ReadAt for Joined {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let mut start = 0;
        for piece in &self.0 {
            if offset < start + piece.len() {
                return piece.read_at(buf, offset - start);
            }
            start += piece.len();
        }
        Ok(0)
    }
}
