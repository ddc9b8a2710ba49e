//! `oci-archive:` files: a tar of an OCI layout. A plain one is read in place, a compressed one or one that
//! comes through a pipe from an unlinked copy.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::bundle::RANGES;
use super::{MAX_INDEX_SIZE, Storage, file};
use crate::digest::Digest;
use crate::document::{self, Index};
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// Most members of an archive: an image has a handful a layer, a mirror of thousands of images still fits.
const MAX_MEMBERS: usize = 1 << 20;

/// Most bytes that a copy may have: 256 GiB, beyond any image seen.
const MAX_SPOOL: u64 = 256 << 30;

/// Names of standard input. Those in `/dev` cannot be opened where it is a socket.
const STANDARD_INPUT: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// What came through pipes, by device and inode: a pipe can be read once, and one run may look twice.
static PIPES: Mutex<Vec<((u64, u64), Region)>> = Mutex::new(Vec::new());

/// Offsets of the members, found by one walk over the headers.
#[derive(Debug)]
pub(super) struct OciArchive {
    shown: String,
    index: Region,
    /// By name.
    members: HashMap<String, Region>,
}

impl OciArchive {
    pub(super) fn open(path: &Path, spool_dir: &Path) -> Result<Self> {
        let shown = match path.to_str() {
            Some(path) if STANDARD_INPUT.contains(&path) => "standard input".to_owned(),
            _ => path.display().to_string(),
        };
        let region = whole(path, &shown, spool_dir)?;
        let mut members = walk(&region, &shown)?;
        let index = members.remove("index.json").ok_or_else(|| {
            let e = Error::misfit(format!("{shown}: not an oci-archive, it has no index.json"));
            match members.contains_key("manifest.json") {
                true => e.with_hint(format!(
                    "it looks like a docker-archive: skopeo copy docker-archive:{shown} oci:DIR:NAME"
                )),
                false => e,
            }
        })?;
        Ok(OciArchive { shown, index, members })
    }
}

impl OciArchive {
    fn read(&self, member: &Region, name: &str) -> Result<Vec<u8>> {
        if member.len() > MAX_INDEX_SIZE {
            return Err(Error::verification(format!(
                "{}: {name} is larger than {MAX_INDEX_SIZE} bytes",
                self.shown
            )));
        }
        let mut bytes = Vec::new();
        member.reader().read_to_end(&mut bytes).at(&self.shown)?;
        Ok(bytes)
    }
}

impl Storage for OciArchive {
    fn index(&self) -> Result<Index> {
        let bytes = self.read(&self.index, "index.json")?;
        document::index(&bytes, format_args!("{}: index.json", self.shown))
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        Ok(self.members.get(&format!("blobs/sha256/{}", digest.digest())).cloned())
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.members.get(name).map(|member| self.read(member, name)).transpose()
    }

    fn range(&self, digest: &Digest, offset: u64) -> Result<Option<Region>> {
        Ok(self.members.get(&format!("{RANGES}/{}/{offset}", digest.digest())).cloned())
    }
}

/// The tar, wherever it comes from.
fn whole(path: &Path, shown: &str, spool_dir: &Path) -> Result<Region> {
    let is_standard_input = path.to_str().is_some_and(|path| STANDARD_INPUT.contains(&path));
    let file = if is_standard_input {
        File::from(io::stdin().as_fd().try_clone_to_owned().at(shown)?)
    } else {
        let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => file::absent(path),
            _ => Error::from_io(e, shown),
        })?;
        if meta.is_dir() {
            return Err(Error::misfit(format!("{shown}: not an archive but a directory"))
                .with_hint(format!("oci:{shown} for a layout, dir:{shown} for skopeo's dir:")));
        }
        if !meta.is_file() && !meta.file_type().is_fifo() {
            return Err(Error::misfit(format!("{shown}: neither a file nor a pipe")));
        }
        File::open(path).at(shown)?
    };
    let meta = file.metadata().at(shown)?;
    let kind = meta.file_type();
    if kind.is_file() {
        let region = Region::whole(file).at(shown)?;
        let mut head = [0; encoding::HEAD];
        let n = region.read_at(&mut head, 0).at(shown)?;
        return match encoding::is_compressed(&head[..n]) {
            true => spool(region.reader(), shown, spool_dir),
            false => Ok(region),
        };
    }
    if !kind.is_fifo() && !kind.is_socket() {
        return Err(Error::misfit(format!("{shown}: neither a file nor a pipe")));
    }
    let pipe = (meta.dev(), meta.ino());
    let mut pipes = PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, region)) = pipes.iter().find(|(known, _)| *known == pipe) {
        return Ok(region.clone());
    }
    let region = spool(file, shown, spool_dir)?;
    pipes.push((pipe, region.clone()));
    Ok(region)
}

/// Copies an archive, decompressed, into an unlinked file.
fn spool(archive: impl Read + Send, shown: &str, dir: &Path) -> Result<Region> {
    let mut file = tempfile::tempfile_in(dir).at(dir.display())?;
    let mut plain = encoding::decompress(archive, encoding::MAX_WINDOW_LOG).at(shown)?.take(MAX_SPOOL + 1);
    let size = io::copy(&mut plain, &mut file).at(shown)?;
    if size > MAX_SPOOL {
        return Err(Error::verification(format!("{shown}: unpacks to more than {MAX_SPOOL} bytes")));
    }
    file.flush().at(shown)?;
    Region::whole(file).at(shown)
}

/// Finds the regular members, and what links to them; a later member wins.
fn walk(region: &Region, shown: &str) -> Result<HashMap<String, Region>> {
    let broken = |e: io::Error| Error::verification(format!("{shown}: broken archive: {e}")).with_source(e);
    let mut archive = tar::Archive::new(region.reader());
    let mut members: HashMap<String, Region> = HashMap::new();
    for (count, entry) in archive.entries_with_seek().map_err(broken)?.enumerate() {
        if count >= MAX_MEMBERS {
            return Err(Error::verification(format!("{shown}: more than {MAX_MEMBERS} members")));
        }
        let entry = entry.map_err(broken)?;
        let name = plain_name(&entry.path_bytes());
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            let target =
                entry.link_name_bytes().and_then(|target| members.get(&plain_name(&target)).cloned());
            members.extend(target.map(|region| (name, region)));
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            continue;
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > region.len()) {
            return Err(Error::verification(format!("{shown}: truncated archive")));
        }
        members.insert(name, region.slice(offset, size));
    }
    Ok(members)
}

/// A name without what means nothing: `./`, `//`, a leading `/`.
fn plain_name(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(prefix: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in [("index.json", &b"{}"[..]), ("blobs/sha256/ab", b"blob")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_path(name).unwrap();
            let bytes = header.as_mut_bytes();
            let full = format!("{prefix}{name}");
            bytes[..full.len()].copy_from_slice(full.as_bytes());
            header.set_cksum();
            tar.append(&header, data).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn region(bytes: &[u8]) -> Region {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(bytes).unwrap();
        Region::whole(f).unwrap()
    }

    #[test]
    fn members_are_found_with_and_without_a_dot() {
        for prefix in ["", "./", "/", ".//"] {
            let members = walk(&region(&archive(prefix)), "t").unwrap();
            let mut text = String::new();
            members["blobs/sha256/ab"].reader().read_to_string(&mut text).unwrap();
            assert_eq!(text, "blob");
        }
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let bytes = archive("");
        assert!(walk(&region(&bytes[..1024 + 512 + 2]), "t").is_err());
    }
}
