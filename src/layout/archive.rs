//! `oci-archive:` files: a tar of an OCI layout, read in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use oci_spec::image::ImageIndex;

use super::{MAX_INDEX_SIZE, Storage, parse_index};
use crate::digest::Digest;
use crate::encoding;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// Most members of an archive: an image has a handful a layer, a mirror of thousands of images still fits.
const MAX_MEMBERS: usize = 1 << 20;

/// Most bytes that a compressed archive may unpack to: 256 GiB, beyond any image seen.
const MAX_SPOOL: u64 = 256 << 30;

/// Offsets of the members, found by one walk over the headers.
#[derive(Debug)]
pub(super) struct OciArchive {
    shown: String,
    index: Region,
    blobs: HashMap<String, Region>,
}

impl OciArchive {
    pub(super) fn open(path: &Path, spool_dir: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let file = File::open(path).at(&shown)?;
        let mut region = Region::whole(file).at(&shown)?;
        if is_compressed(&region).at(&shown)? {
            region = spool(&region, &shown, spool_dir)?;
        }
        let mut members = walk(&region, &shown)?;
        let index = members
            .remove("index.json")
            .ok_or_else(|| Error::misfit(format!("{shown}: not an oci-archive, it has no index.json")))?;
        let blobs = members
            .into_iter()
            .filter_map(|(name, region)| Some((name.strip_prefix("blobs/sha256/")?.to_owned(), region)))
            .collect();
        Ok(OciArchive { shown, index, blobs })
    }
}

impl Storage for OciArchive {
    fn index(&self) -> Result<ImageIndex> {
        if self.index.len() > MAX_INDEX_SIZE {
            return Err(Error::verification(format!(
                "{}: index.json is larger than {MAX_INDEX_SIZE} bytes",
                self.shown
            )));
        }
        let mut bytes = Vec::new();
        self.index.reader().read_to_end(&mut bytes).at(&self.shown)?;
        parse_index(&bytes, &format!("{}: index.json", self.shown))
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Region>> {
        Ok(self.blobs.get(digest.digest()).cloned())
    }
}

fn is_compressed(region: &Region) -> io::Result<bool> {
    let mut head = [0; 4];
    let n = region.read_at(&mut head, 0)?;
    Ok(encoding::is_compressed(&head[..n]))
}

fn spool(region: &Region, shown: &str, dir: &Path) -> Result<Region> {
    let mut file = tempfile::tempfile_in(dir).at(dir.display())?;
    let mut plain =
        encoding::decompress(region.reader(), encoding::MAX_WINDOW_LOG).at(shown)?.take(MAX_SPOOL + 1);
    let size = io::copy(&mut plain, &mut file).at(shown)?;
    if size > MAX_SPOOL {
        return Err(Error::verification(format!("{shown}: unpacks to more than {MAX_SPOOL} bytes")));
    }
    file.flush().at(shown)?;
    Region::whole(file).at(shown)
}

/// Finds the regular members; `./` before a name is dropped, a later member wins.
fn walk(region: &Region, shown: &str) -> Result<HashMap<String, Region>> {
    let broken = |e: io::Error| Error::verification(format!("{shown}: broken archive: {e}")).with_source(e);
    let mut archive = tar::Archive::new(region.reader());
    let mut members = HashMap::new();
    for (count, entry) in archive.entries_with_seek().map_err(broken)?.enumerate() {
        if count >= MAX_MEMBERS {
            return Err(Error::verification(format!("{shown}: more than {MAX_MEMBERS} members")));
        }
        let entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > region.len()) {
            return Err(Error::verification(format!("{shown}: truncated archive")));
        }
        let path = entry.path_bytes();
        let name = String::from_utf8_lossy(path.strip_prefix(b"./").unwrap_or(&path)).into_owned();
        members.insert(name, region.slice(offset, size));
    }
    Ok(members)
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
        for prefix in ["", "./"] {
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
