//! Files of a commit by path, under the names that an image has for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gvariant::{self, Malformed, Structure};
use super::objects::{Checksum, Content, Objects};
use crate::base::{Doubt, OpenedFile, SourceFile, SourceFiles, SourcePath, Unpacking, etc_twin};
use crate::error::{Error, Result};
use crate::region::Region;

/// Symbolic links followed before a name is given up (`ELOOP` of Linux).
const MAX_LINKS: usize = 40;

/// Directories whose tables are kept; those of a full operating system are ten times as many, but a patch goes
/// through them in order.
const MAX_TABLES: usize = 1024;

/// The files of an image that was written into a repository.
#[derive(Debug)]
pub(crate) struct OstreeFiles {
    objects: Arc<Objects>,
    root: Checksum,
    unpacking: Unpacking,
    tables: Mutex<HashMap<Checksum, Arc<Table>>>,
    /// What was opened; a compressed object is unpacked once.
    opened: Mutex<HashMap<Checksum, Region>>,
}

/// What is in a directory, by name.
#[derive(Debug)]
struct Table(HashMap<Box<[u8]>, Entry>);

#[derive(Debug, Clone, Copy)]
enum Entry {
    File(Checksum),
    Directory(Checksum),
}

/// What a path led to.
enum Found {
    File(Checksum, Region),
    /// A link on the way: the path to go on with.
    Elsewhere(Vec<u8>),
    Nothing,
}

impl OstreeFiles {
    pub(super) fn new(objects: Arc<Objects>, root: Checksum, unpacking: &Unpacking) -> Self {
        let unpacking = unpacking.clone();
        OstreeFiles { objects, root, unpacking, tables: Mutex::default(), opened: Mutex::default() }
    }

    /// The regular file at this path of the commit.
    fn find(&self, path: &SourcePath) -> Result<Option<Region>> {
        let mut path = path.clone();
        for _ in 0..MAX_LINKS {
            match self.step(path.as_bytes())? {
                Found::File(checksum, content) => {
                    lock(&self.opened).insert(checksum, content.clone());
                    return Ok(Some(content));
                }
                Found::Nothing => return Ok(None),
                Found::Elsewhere(next) => match SourcePath::clean(&next) {
                    Ok(next) => path = next,
                    Err(_) => return Ok(None),
                },
            }
        }
        Ok(None)
    }

    /// Goes down to what is at `path`, or to the first link.
    fn step(&self, path: &[u8]) -> Result<Found> {
        let mut directory = self.root;
        let mut start = 0;
        loop {
            let end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |n| start + n);
            match self.table(directory)?.0.get(&path[start..end]) {
                Some(Entry::Directory(next)) if end < path.len() => directory = *next,
                Some(Entry::File(checksum)) => return self.file(*checksum, path, start, end),
                _ => return Ok(Found::Nothing),
            }
            start = end + 1;
        }
    }

    /// The file whose name is `path[start..end]`.
    fn file(&self, checksum: Checksum, path: &[u8], start: usize, end: usize) -> Result<Found> {
        if let Some(known) = lock(&self.opened).get(&checksum) {
            return Ok(if end == path.len() { Found::File(checksum, known.clone()) } else { Found::Nothing });
        }
        Ok(match self.objects.content(checksum, &self.unpacking)? {
            Content::Regular(content) if end == path.len() => Found::File(checksum, content),
            Content::Regular(_) => Found::Nothing,
            Content::Symlink(target) => {
                let from = if target.starts_with(b"/") { &b""[..] } else { &path[..start] };
                Found::Elsewhere([from, &target, &path[end..]].concat())
            }
        })
    }

    fn table(&self, directory: Checksum) -> Result<Arc<Table>> {
        if let Some(table) = lock(&self.tables).get(&directory) {
            return Ok(table.clone());
        }
        let bytes = self.objects.metadata(directory, "dirtree")?;
        let table = Table::read(&bytes).map_err(|Malformed| {
            Error::verification(format!("ostree object {}.dirtree is no directory", directory.hex()))
        })?;
        let table = Arc::new(table);
        let mut tables = lock(&self.tables);
        if tables.len() >= MAX_TABLES {
            tables.clear();
        }
        tables.insert(directory, table.clone());
        Ok(table)
    }
}

impl Table {
    /// `(a(say)a(sayay))`: files with their checksums, then directories with those of what is in them and of their
    /// mode.
    fn read(bytes: &[u8]) -> std::result::Result<Self, Malformed> {
        let both = Structure::new(bytes, 1)?;
        let mut table = HashMap::new();
        for file in gvariant::array(both.member(0, 0)?, 1)? {
            let file = Structure::new(file, 1)?;
            let checksum = Checksum::of_bytes(file.member(file.end(0)?, 1)?).ok_or(Malformed)?;
            table.insert(file.text(0, 0)?.into(), Entry::File(checksum));
        }
        for directory in gvariant::array(both.member(both.end(0)?, 1)?, 1)? {
            let directory = Structure::new(directory, 2)?;
            let checksum = Checksum::of_bytes(directory.member(directory.end(0)?, 1)?).ok_or(Malformed)?;
            table.insert(directory.text(0, 0)?.into(), Entry::Directory(checksum));
        }
        Ok(Table(table))
    }
}

impl SourceFiles for OstreeFiles {
    fn open(&self, path: &SourcePath, _round: u32) -> Result<OpenedFile> {
        let mut content = self.find(path)?;
        for other in [etc_twin(path), factory_twin(path)].into_iter().flatten() {
            if content.is_none() {
                content = self.find(&other)?;
            }
        }
        let content = content.ok_or_else(|| {
            Error::misfit(format!("the ostree commit has no file {path}")).with_hint("fetch the full image")
        })?;
        Ok(OpenedFile { file: Arc::new(SourceFile::new(path.clone(), content)), doubt: Doubt::None })
    }

    fn check_opened(&self) -> Result<()> {
        let opened: Vec<Checksum> = lock(&self.opened).keys().copied().collect();
        opened.into_iter().try_for_each(|checksum| self.objects.check(checksum))
    }
}

/// Older versions of ostree move what an image has in `var`.
fn factory_twin(path: &SourcePath) -> Option<SourcePath> {
    let bytes = path.as_bytes();
    bytes
        .starts_with(b"var/")
        .then(|| SourcePath::clean(&[b"usr/share/factory/", bytes].concat()).ok())
        .flatten()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
