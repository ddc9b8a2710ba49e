//! Layer tars entry by entry: types, modes, links, names of any length and bytes.

use tar::{EntryType, Header};

/// A tar entry under construction.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    File(&'a [u8], &'a [u8]),
    Mode(&'a [u8], &'a [u8], u32),
    Link(&'a [u8], &'a [u8]),
    Symlink(&'a [u8], &'a [u8]),
    Dir(&'a [u8]),
    Fifo(&'a [u8]),
}
use Entry::{Dir, Fifo, File, Link, Mode, Symlink};

/// Writes entries; names of any length and any bytes, by GNU long name records.
pub fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (kind, path, target, data, mode): (_, &[u8], &[u8], &[u8], u32) = match *entry {
            File(path, data) => (EntryType::Regular, path, b"", data, 0o644),
            Mode(path, data, mode) => (EntryType::Regular, path, b"", data, mode),
            Link(path, target) => (EntryType::Link, path, target, b"", 0o644),
            Symlink(path, target) => (EntryType::Symlink, path, target, b"", 0o777),
            Dir(path) => (EntryType::Directory, path, b"", b"", 0o755),
            Fifo(path) => (EntryType::Fifo, path, b"", b"", 0o644),
        };
        if path.len() > 100 {
            record(&mut out, EntryType::GNULongName, b"././@LongLink", b"", &[path, b"\0"].concat(), 0o644);
        }
        if target.len() > 100 {
            record(&mut out, EntryType::GNULongLink, b"././@LongLink", b"", &[target, b"\0"].concat(), 0o644);
        }
        record(&mut out, kind, path, target, data, mode);
    }
    out.extend([0; 1024]);
    out
}

pub fn record(out: &mut Vec<u8>, kind: EntryType, path: &[u8], target: &[u8], data: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    let bytes = header.as_mut_bytes();
    bytes[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
    bytes[157..157 + target.len().min(100)].copy_from_slice(&target[..target.len().min(100)]);
    header.set_cksum();
    out.extend(header.as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}
