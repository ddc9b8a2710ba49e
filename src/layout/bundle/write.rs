//! Writes the parts of a bundle: each blob once, checked before, and what makes it a layout last.

use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Descriptor;
use tempfile::NamedTempFile;

use crate::bundle::{TABLE, Table, TableBlob};
use crate::digest::{Digest, VerifyReader};
use crate::error::{Error, IoContext, Kind, Result};
use crate::layout::{Archive, IndexEdit, MARKER, persist, sync_dir};
use crate::region::Region;

/// Where stretches of blobs are that are too large for a part: `ranges/sha256/HEX/OFFSET`.
pub(in crate::layout) const RANGES: &str = "ranges/sha256";

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A folder.
    Folder,
    /// A tar of one.
    Archive,
}

/// The parts under work.
#[derive(Debug)]
pub struct Writer {
    table: Table,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Folder(PathBuf),
    /// Begun when its first blob comes.
    Archive(PathBuf, Mutex<Option<Archive>>),
}

/// Bytes around a member of an archive, and at its end.
const TAR_BLOCK: u64 = 512;
const TAR_END: u64 = 1024;

/// What makes a part a layout.
struct Ends {
    index: Vec<u8>,
    table: Vec<u8>,
}

impl Writer {
    /// Begins the bundle that `table` tells of in `to`, or goes on with it; nothing is written yet. Several parts get
    /// names of their own in a folder, and beside the first one as archives.
    ///
    /// # Errors
    /// Usage when something else is there; local I/O errors.
    pub fn begin(to: &Path, form: Form, table: Table) -> Result<Self> {
        let part = |number: usize| {
            let path = path_of(to, form, number, table.parts);
            match form {
                Form::Folder => begin_folder(path, &table, number),
                Form::Archive if path.exists() => Err(occupied(&path)),
                Form::Archive => Ok(Part::Archive(path, Mutex::default())),
            }
        };
        let parts = (1..=table.parts).map(part).collect::<Result<_>>()?;
        Ok(Writer { table, parts })
    }

    /// Bytes of all files that it has when it is finished.
    ///
    /// # Errors
    /// None in practice.
    pub fn bytes(&self, entries: &[(Descriptor, Option<String>)]) -> Result<u64> {
        let mut bytes = 0;
        for (at, part) in self.parts.iter().enumerate() {
            let stretches = self.table.blobs.values().flat_map(|blob| {
                let here = blob.parts.iter().filter(move |stretch| stretch.part == at + 1);
                here.map(|stretch| stretch.len.unwrap_or(blob.size))
            });
            let Ends { index, table } = self.ends(at + 1, entries)?;
            let ends = [MARKER.len(), index.len(), table.len()].map(|len| len as u64);
            let files = stretches.chain(ends);
            bytes += match part {
                Part::Folder(_) => files.sum::<u64>(),
                Part::Archive(..) => {
                    files.map(|len| TAR_BLOCK + len.next_multiple_of(TAR_BLOCK)).sum::<u64>() + TAR_END
                }
            };
        }
        Ok(bytes)
    }

    /// Is this blob there already, undamaged?
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        let blob = self.blob(digest)?;
        let mut content: Box<dyn Read> = Box::new(std::io::empty());
        for stretch in &blob.parts {
            let Part::Folder(root) = &self.parts[stretch.part - 1] else { return Ok(false) };
            match fs::File::open(root.join(name_of(digest, blob, stretch.offset))) {
                Ok(file) => content = Box::new(content.chain(file)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(Error::from_io(e, root.display())),
            }
        }
        match VerifyReader::new(content, digest.clone(), blob.size).drain().at(digest) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == Kind::Verification => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Puts a blob there, whose digest was checked.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn put(&self, digest: &Digest, content: &Region) -> Result<()> {
        let blob = self.blob(digest)?;
        for stretch in &blob.parts {
            let bytes = content.slice(stretch.offset, stretch.len.unwrap_or(blob.size));
            let name = name_of(digest, blob, stretch.offset);
            match &self.parts[stretch.part - 1] {
                Part::Folder(root) => {
                    let path = root.join(&name);
                    let dir = path.parent().unwrap_or(root);
                    fs::create_dir_all(dir).at(dir.display())?;
                    let mut file = begin_file(dir, &name).at(path.display())?;
                    std::io::copy(&mut bytes.reader(), &mut file).at(path.display())?;
                    persist(file, &path)?;
                }
                Part::Archive(path, archive) => {
                    let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                    let archive = match &mut *archive {
                        Some(archive) => archive,
                        none => none.insert(begin_archive(path)?),
                    };
                    archive.append(&name, bytes.len(), bytes.reader())?;
                }
            }
        }
        Ok(())
    }

    /// Ends each part with its table, and an index of those `entries` whose manifests it has.
    ///
    /// # Errors
    /// Local I/O errors.
    pub fn finish(self, entries: &[(Descriptor, Option<String>)]) -> Result<Vec<PathBuf>> {
        let numbers = 1..=self.parts.len();
        let ends = numbers.map(|number| self.ends(number, entries)).collect::<Result<Vec<_>>>()?;
        let mut paths = Vec::new();
        for (part, Ends { index, table }) in self.parts.into_iter().zip(ends) {
            match part {
                Part::Folder(root) => {
                    let blobs = root.join("blobs/sha256");
                    fs::create_dir_all(&blobs).at(blobs.display())?;
                    sync_dir(&blobs)?;
                    write_once(&root, "oci-layout", MARKER)?;
                    write_once(&root, TABLE, &table)?;
                    write_once(&root, "index.json", &index)?;
                    sync_dir(&root)?;
                    paths.push(root);
                }
                Part::Archive(path, archive) => {
                    let archive = archive.into_inner().unwrap_or_else(PoisonError::into_inner);
                    let mut archive = archive.map_or_else(|| begin_archive(&path), Ok)?;
                    archive.append(TABLE, table.len() as u64, &table[..])?;
                    archive.append("index.json", index.len() as u64, &index[..])?;
                    paths.push(archive.finish()?);
                }
            }
        }
        Ok(paths)
    }

    /// The table of part `number`, and an index of those `entries` whose manifests it has.
    fn ends(&self, number: usize, entries: &[(Descriptor, Option<String>)]) -> Result<Ends> {
        let mut index = IndexEdit::default();
        let is_here = |entry: &Descriptor| {
            let blob = self.table.blobs.get(&entry.digest().to_string());
            blob.and_then(|blob| blob.parts.first()).is_some_and(|stretch| stretch.part == number)
        };
        for (entry, name) in entries.iter().filter(|(entry, _)| is_here(entry)) {
            index.put(entry, name.as_deref(), &[])?;
        }
        Ok(Ends { index: index.to_bytes()?, table: self.table.of_part(number).to_json()? })
    }

    fn blob(&self, digest: &Digest) -> Result<&TableBlob> {
        let blob = self.table.blobs.get(&digest.to_string());
        blob.ok_or_else(|| Error::local(format!("blob {digest} is not in the table of the bundle")))
    }
}

/// The name of a stretch in its part.
pub(crate) fn name_of(digest: &Digest, blob: &TableBlob, offset: u64) -> String {
    match blob.is_whole() {
        true => format!("blobs/sha256/{}", digest.digest()),
        false => format!("{RANGES}/{}/{offset}", digest.digest()),
    }
}

/// Where part `number` of `parts` goes.
fn path_of(to: &Path, form: Form, number: usize, parts: usize) -> PathBuf {
    match form {
        _ if parts == 1 => to.to_owned(),
        Form::Folder => to.join(format!("part-{number}-of-{parts}")),
        Form::Archive => {
            let stem = to.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            to.with_file_name(format!("{stem}.part-{number}-of-{parts}.tar"))
        }
    }
}

fn begin_folder(root: PathBuf, table: &Table, number: usize) -> Result<Part> {
    let index = root.join("index.json");
    if index.exists() {
        let there = fs::read(root.join(TABLE)).unwrap_or_default();
        if there != table.of_part(number).to_json()? {
            return Err(occupied(&root));
        }
    }
    Ok(Part::Folder(root))
}

/// A file that gets its name when it is complete. What a run that was killed left of it goes.
fn begin_file(dir: &Path, name: &str) -> std::io::Result<NamedTempFile> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let (prefix, suffix) = (format!(".{name}"), ".part");
    match fs::remove_file(dir.join(format!("{prefix}{suffix}"))) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    tempfile::Builder::new().prefix(&prefix).suffix(suffix).rand_bytes(0).tempfile_in(dir)
}

fn begin_archive(path: &Path) -> Result<Archive> {
    let mut archive = Archive::create(path)?;
    archive.append("oci-layout", MARKER.len() as u64, MARKER)?;
    Ok(archive)
}

fn occupied(path: &Path) -> Error {
    Error::usage(format!("{}: something else is there", path.display()))
        .with_hint("a bundle changes nothing that is on a medium; give another place")
}

/// Media that are written once take no second one.
fn write_once(root: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = root.join(name);
    if fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let mut file = begin_file(root, name).at(path.display())?;
    file.write_all(bytes).at(path.display())?;
    persist(file, &path)
}
