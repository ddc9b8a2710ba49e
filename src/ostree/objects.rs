//! Objects of an ostree repository: found by checksum, and compared with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use rustix::fs::{AtFlags, FileType, Mode as Permissions, OFlags};
use rustix::io::Errno;

use super::gvariant::{self, Malformed, Structure};
use crate::base::Unpacking;
use crate::descriptors;
use crate::digest::Hasher;
use crate::error::{Error, IoContext, Result};
use crate::region::Region;

/// Most bytes of a commit or directory. libostree allows 128 MiB; a directory of 100,000 files takes 8.
const MAX_METADATA: u64 = 32 << 20;

/// Most bytes of what stands before the content of a compressed object: owner, mode, extended attributes. Those of a
/// file have 64 KiB each at most on Linux, and real ones a hundred bytes.
const MAX_HEADER: usize = 1 << 20;

/// Longest target of a symbolic link (`PATH_MAX`).
const MAX_TARGET: u64 = 4096;

/// Bytes that are hashed at once.
const CHUNK: usize = 256 << 10;

/// The attribute in which repositories of mode `bare-user` keep owner, mode and attributes of a file.
const USER_META: &str = "user.ostreemeta";

/// SHA-256 over an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Checksum([u8; 32]);

impl Checksum {
    /// Out of a directory or commit.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Checksum)
    }

    /// Out of a ref.
    pub fn of_hex(text: &str) -> Option<Self> {
        let mut sum = [0; 32];
        let length = base16ct::lower::decode(text, &mut sum).ok()?.len();
        (length == sum.len()).then_some(Checksum(sum))
    }

    pub fn hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

/// How a repository keeps files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As they are.
    Bare,
    /// Their owner, mode and attributes in an attribute.
    BareUser,
    /// Without owner and attributes.
    BareUserOnly,
    /// Compressed, behind a header.
    Archive,
}

impl Mode {
    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bare" => Mode::Bare,
            "bare-user" => Mode::BareUser,
            "bare-user-only" => Mode::BareUserOnly,
            "archive" | "archive-z2" => Mode::Archive,
            _ => return None,
        })
    }

    fn suffix(self) -> &'static str {
        match self {
            Mode::Archive => "filez",
            _ => "file",
        }
    }
}

/// What an object of a file is.
#[derive(Debug)]
pub(super) enum Content {
    /// A regular file.
    Regular(Region),
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
}

/// What a file's checksum is over beside its content.
struct Header {
    uid: u32,
    gid: u32,
    mode: u32,
    /// Of a symbolic link.
    target: Vec<u8>,
    /// As an array of pairs.
    attributes: Vec<u8>,
}

impl Header {
    fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.mode) == kind
    }

    /// As it is hashed: with its length before it, and as much as makes both a multiple of eight.
    fn hashed(&self) -> Vec<u8> {
        let numbers = [self.uid, self.gid, self.mode, 0].map(u32::to_be_bytes).concat();
        let target = [&self.target[..], b"\0"].concat();
        let header = gvariant::structure(&numbers, &[&target, &self.attributes]);
        [&(header.len() as u32).to_be_bytes()[..], &[0; 4], &header].concat()
    }
}

/// The objects of a repository.
#[derive(Debug)]
pub(super) struct Objects {
    repository: Arc<OwnedFd>,
    mode: Mode,
}

impl Objects {
    /// Those of the repository in this directory.
    pub fn new(repository: OwnedFd, mode: Mode) -> Self {
        Objects { repository: Arc::new(repository), mode }
    }

    /// A commit (`commit`) or directory (`dirtree`), compared with its checksum.
    ///
    /// # Errors
    /// Misfit when it is not there; Verification when it is another one, or too large.
    pub fn metadata(&self, checksum: Checksum, suffix: &str) -> Result<Vec<u8>> {
        let name = format!("ostree object {}.{suffix}", checksum.hex());
        let path = path(checksum, suffix);
        let file = open(&self.repository, &path).map_err(|e| unreachable(&name, e))?;
        let mut bytes = Vec::new();
        file.take(MAX_METADATA + 1).read_to_end(&mut bytes).at(&name)?;
        if bytes.len() as u64 > MAX_METADATA {
            let what = format!("{name} has more than the {MAX_METADATA} bytes that are allowed");
            return Err(Error::verification(what));
        }
        let mut hasher = Hasher::default();
        hasher.update(&bytes);
        agree(hasher, checksum, &name)?;
        Ok(bytes)
    }

    /// The content of a file. That of a compressed one is compared with its checksum on the way, see
    /// [`check`](Self::check) for others.
    ///
    /// # Errors
    /// Misfit when it is not there or out of reach; Verification when it is broken.
    pub fn content(&self, checksum: Checksum, unpacking: &Unpacking) -> Result<Content> {
        let name = self.name(checksum);
        let path = path(checksum, self.mode.suffix());
        match self.mode {
            Mode::Archive => self.unpacked(checksum, &path, unpacking),
            Mode::Bare | Mode::BareUserOnly => {
                let stat = rustix::fs::statat(&*self.repository, &path, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| unreachable(&name, e))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    let target = rustix::fs::readlinkat(&*self.repository, &path, Vec::new());
                    return Ok(Content::Symlink(target.map_err(|e| unreachable(&name, e))?.into_bytes()));
                }
                self.in_place(path, &name).map(Content::Regular)
            }
            Mode::BareUser => {
                let file = open(&self.repository, &path).map_err(|e| unreachable(&name, e))?;
                if user_header(&file, &name)?.is(FileType::Symlink) {
                    let mut target = Vec::new();
                    file.take(MAX_TARGET).read_to_end(&mut target).at(&name)?;
                    return Ok(Content::Symlink(target));
                }
                self.in_place(path, &name).map(Content::Regular)
            }
        }
    }

    /// Compares a regular file with its checksum, where everything that it is over can be seen.
    ///
    /// # Errors
    /// Verification when it is another one.
    pub fn check(&self, checksum: Checksum) -> Result<()> {
        let name = self.name(checksum);
        let path = path(checksum, self.mode.suffix());
        // Attributes that only root sees would be missing.
        let sees_all = self.mode != Mode::Bare || rustix::process::geteuid().is_root();
        if self.mode == Mode::Archive || !sees_all {
            return Ok(());
        }
        let mut file = open(&self.repository, &path).map_err(|e| unreachable(&name, e))?;
        let header = match self.mode {
            Mode::BareUser => user_header(&file, &name)?,
            mode => {
                let stat = file.metadata().at(&name)?;
                let keeps_owner = mode == Mode::Bare;
                Header {
                    uid: if keeps_owner { stat.uid() } else { 0 },
                    gid: if keeps_owner { stat.gid() } else { 0 },
                    mode: stat.mode(),
                    target: Vec::new(),
                    attributes: if keeps_owner { attributes(&file).at(&name)? } else { Vec::new() },
                }
            }
        };
        let mut hasher = Hasher::default();
        hasher.update(&header.hashed());
        copy(&mut file, u64::MAX, |chunk| {
            hasher.update(chunk);
            Ok(())
        })
        .at(&name)?;
        agree(hasher, checksum, &name)
    }

    fn name(&self, checksum: Checksum) -> String {
        format!("ostree object {}.{}", checksum.hex(), self.mode.suffix())
    }

    fn in_place(&self, path: String, name: &str) -> Result<Region> {
        let repository = self.repository.clone();
        let region = descriptors::reopened(move || open(&repository, &path).map_err(io::Error::from));
        region.map_err(|e| match Errno::from_io_error(&e) {
            Some(errno) => unreachable(name, errno),
            None => Error::from_io(e, name),
        })
    }

    /// Header, then the content as a stream of deflate without any wrapper.
    fn unpacked(&self, checksum: Checksum, path: &str, unpacking: &Unpacking) -> Result<Content> {
        let name = self.name(checksum);
        let mut file = open(&self.repository, path).map_err(|e| unreachable(&name, e))?;
        let mut start = [0; 8];
        file.read_exact(&mut start).at(&name)?;
        let length = u32::from_be_bytes([start[0], start[1], start[2], start[3]]) as usize;
        if length > MAX_HEADER {
            let what = format!("{name} has a header of {length} bytes, at most {MAX_HEADER} are allowed");
            return Err(Error::verification(what));
        }
        let mut header = vec![0; length];
        file.read_exact(&mut header).at(&name)?;
        let (header, size) = packed_header(&header).map_err(|Malformed| malformed(&name))?;
        let mut hasher = Hasher::default();
        hasher.update(&header.hashed());
        if header.is(FileType::Symlink) {
            agree(hasher, checksum, &name)?;
            return Ok(Content::Symlink(header.target));
        }
        if size > unpacking.max_layer {
            let most = unpacking.max_layer;
            return Err(Error::verification(format!("{name} has {size} bytes, at most {most} are allowed")));
        }
        let mut out = unpacking.spool.begin().at(unpacking.spool.dir().display())?;
        let mut content = DeflateDecoder::new(unpacking.cancel.watch(file));
        // One byte more shows that there is more.
        let copied = copy(&mut content, size.saturating_add(1), |chunk| {
            hasher.update(chunk);
            out.write_all(chunk)
        });
        let copied = copied.map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => malformed(&name),
            _ => Error::from_io(e, &name),
        })?;
        if copied != size {
            return Err(malformed(&name));
        }
        agree(hasher, checksum, &name)?;
        Ok(Content::Regular(out.into_region()))
    }
}

fn path(checksum: Checksum, suffix: &str) -> String {
    let hex = checksum.hex();
    format!("objects/{}/{}.{suffix}", &hex[..2], &hex[2..])
}

/// NONBLOCK: nothing here is a FIFO, but somebody may have put one there.
fn open(repository: &OwnedFd, path: &str) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(repository, path, flags, Permissions::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        _ => Err(Errno::NXIO),
    }
}

fn unreachable(name: &str, e: Errno) -> Error {
    let hint = "fetch the full image";
    match e {
        Errno::NOENT | Errno::NXIO | Errno::LOOP => {
            Error::misfit(format!("{name} is missing")).with_hint(hint)
        }
        Errno::ACCESS | Errno::PERM => Error::misfit(format!("{name} is out of reach: {e}")).with_hint(hint),
        e => Error::from_io(e.into(), name),
    }
}

fn malformed(name: &str) -> Error {
    Error::verification(format!("{name} is damaged: it is not what its kind says"))
        .with_hint("`ostree fsck` finds all objects that are damaged")
}

fn agree(hasher: Hasher, checksum: Checksum, name: &str) -> Result<()> {
    let (found, expected) = (hasher.finish(), checksum.hex());
    if found.digest() == expected {
        return Ok(());
    }
    Err(Error::verification(format!("{name} is damaged: its checksum is {}", found.digest()))
        .with_hint("`ostree fsck` finds all objects that are damaged"))
}

/// Owner, mode and attributes as mode `bare-user` keeps them: `(uuua(ayay))`.
fn user_header(file: &File, name: &str) -> Result<Header> {
    let meta = attribute(file, USER_META).at(name)?;
    let (numbers, attributes) = meta.split_at_checked(12).ok_or_else(|| malformed(name))?;
    let [uid, gid, mode] = [0, 4, 8].map(|at| number(numbers, at));
    Ok(Header { uid, gid, mode, target: Vec::new(), attributes: attributes.to_vec() })
}

/// The header of a compressed object, `(tuuuusa(ayay))`, and the size of its content.
fn packed_header(bytes: &[u8]) -> std::result::Result<(Header, u64), Malformed> {
    let header = Structure::new(bytes, 1)?;
    let target = header.text(24, 0)?.to_vec();
    let attributes = header.member(header.end(0)?, 1)?.to_vec();
    let [uid, gid, mode] = [8, 12, 16].map(|at| number(bytes, at));
    let size = u64::from(number(bytes, 0)) << 32 | u64::from(number(bytes, 4));
    Ok((Header { uid, gid, mode, target, attributes }, size))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// All extended attributes by name, as pairs of texts.
fn attributes(file: &File) -> io::Result<Vec<u8>> {
    let mut names = vec![0; rustix::fs::flistxattr_query(file)?];
    let length = rustix::fs::flistxattr(file, &mut names[..])?;
    let mut names: Vec<&[u8]> = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let pair = |name: &[u8]| {
        let value = attribute(file, name)?;
        Ok(gvariant::structure(b"", &[&[name, b"\0"].concat(), &value]))
    };
    Ok(gvariant::array_of(&names.into_iter().map(pair).collect::<io::Result<Vec<_>>>()?))
}

fn attribute(file: &File, name: impl rustix::path::Arg + Copy) -> io::Result<Vec<u8>> {
    let mut value = vec![0; rustix::fs::fgetxattr_query(file, name)?];
    let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// Hands on at most `most` bytes; how many there were.
fn copy(from: &mut impl Read, most: u64, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut from = from.take(most);
    let (mut chunk, mut copied) = (vec![0; CHUNK], 0);
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(copied),
            Ok(n) => {
                to(&chunk[..n])?;
                copied += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
