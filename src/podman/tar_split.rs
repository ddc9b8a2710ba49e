//! The tar of a layer, out of its tar-split file and its unpacked files.
//!
//! A tar-split file is gzip over lines of JSON: an entry of type 2 is bytes of the tar as they are (headers, padding),
//! one of type 1 a file, whose content of `size` bytes stands under its name in the layer's folder. What the lines
//! hold goes to the spool, since headers of a large layer are tens of megabytes; contents are read where they are.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Deserialize;

use super::LayerRecord;
use crate::cancel::Cancel;
use crate::descriptors;
use crate::error::{Error, IoContext as _, Result};
use crate::gunzip::Gunzip;
use crate::region::{ReadAt, Region};
use crate::spool::Spool;

/// Most entries of a tar-split file: two for each member of a tar, and ten times the largest distribution images.
const MAX_ENTRIES: usize = 20_000_000;

/// Longest line. The largest piece of a tar that is written as one is a MiB of padding or of an extension record.
const MAX_LINE: u64 = 4 << 20;

/// Most bytes of a tar that stand in its tar-split file: more than [`MAX_ENTRIES`] usual headers are.
const MAX_RAW: u64 = 16 << 30;

/// Most bytes of names of files with content: a GiB is ten million long ones.
const MAX_NAMES: usize = 1 << 30;

/// Files of one layer that are remembered as opened; how many are open is seen to elsewhere.
const REMEMBERED: usize = 64;

/// Beside the files of a layer that a newer storage keeps in another form.
const COMPOSEFS: &str = "composefs-data";

/// What to do where podman's storage is not what it was.
const GONE: &str = "podman may have removed the image meanwhile; run again";

/// What to do where podman's own files are wrong.
const DAMAGED: &str =
    "podman cannot give out this layer either; remove the image with podman rmi and pull it again";

/// An entry of a tar-split file.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: u32,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    /// The name, where it is not UTF-8, in base64.
    #[serde(borrow)]
    name_raw: Option<Cow<'a, str>>,
    size: Option<i64>,
    #[serde(borrow)]
    payload: Option<Cow<'a, str>>,
}

/// A stretch of the tar that ends where the next one begins.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// What the tar-split file has, from this byte on.
    Raw(u64),
    /// The content of the file with this number.
    File(u32),
}

/// The tar of a layer, readable anywhere.
struct VirtualTar {
    raw: Region,
    pieces: Vec<Piece>,
    len: u64,
    files: Arc<Files>,
    /// Those that were opened last, each in the only slot where it may be.
    opened: [Mutex<Option<(u32, Region)>>; REMEMBERED],
}

/// The unpacked files of a layer.
struct Files {
    dir: OwnedFd,
    shown: String,
    names: Vec<u8>,
    /// Where in `names` each one ends.
    ends: Vec<u32>,
}

impl VirtualTar {
    fn open(layer: &LayerRecord, spool: &Spool, cancel: &Cancel) -> Result<Self> {
        // Files are kept by their digests then.
        if layer.files.with_file_name(COMPOSEFS).exists() {
            let what =
                format!("layer {}: podman keeps it as composefs, which is not read here", layer.diff_id);
            return Err(Error::misfit(what)
                .with_hint("skopeo copy the image from containers-storage: to oci:DIR:NAME, then use that"));
        }
        let path = &layer.tar_split;
        let shown = path.display();
        let file = File::open(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Error::misfit(format!("layer {}: {shown} is not there", layer.diff_id)).with_hint(GONE)
            }
            _ => unreadable(e, &shown.to_string()),
        })?;
        let mut reading = Reading {
            raw: io::BufWriter::new(spool.begin().at(spool.dir().display())?),
            raw_len: 0,
            pieces: Vec::new(),
            len: 0,
            names: Vec::new(),
            ends: Vec::new(),
        };
        let mut lines = BufReader::new(Gunzip::new(BufReader::new(cancel.watch(file))));
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let n =
                lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| match e.kind() {
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof => damaged(&shown, &e.to_string()),
                    _ => Error::from_io(e, &shown),
                })?;
            if n == 0 {
                break;
            }
            if n as u64 == MAX_LINE {
                return Err(damaged(&shown, &format!("line {number} is longer than {MAX_LINE} bytes")));
            }
            reading.take(&line).map_err(|e| e.context(format!("{shown}: line {number}")))?;
        }
        if let Some(size) = layer.size.filter(|size| *size != reading.len) {
            let why = format!("it describes a tar of {} bytes, the layer has {size}", reading.len);
            return Err(damaged(&shown, &why));
        }
        reading.finish(&layer.files, spool)
    }

    /// The piece that `offset` is in, and how many bytes of it are from there on.
    fn piece(&self, offset: u64) -> Option<(Piece, u64)> {
        let next = self.pieces.partition_point(|piece| piece.start <= offset);
        let end = self.pieces.get(next).map_or(self.len, |piece| piece.start);
        Some((*self.pieces.get(next.checked_sub(1)?)?, end.checked_sub(offset)?))
    }

    /// A file, which has as many bytes as the layer says.
    fn file(&self, number: u32, size: u64) -> io::Result<Region> {
        let mut slot =
            self.opened[number as usize % REMEMBERED].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, file)) = &*slot
            && *held == number
        {
            return Ok(file.clone());
        }
        let files = self.files.clone();
        let file = descriptors::reopened(move || files.open(number))?;
        if file.len() != size {
            let what = self.files.what(number);
            return Err(Error::verification(format!(
                "podman's storage: {what} has {} bytes, its layer says {size}",
                file.len()
            ))
            .with_hint(DAMAGED)
            .into());
        }
        *slot = Some((number, file.clone()));
        Ok(file)
    }
}

impl ReadAt for VirtualTar {
    /// Ends at the end of a piece: who walks over the headers opens no files.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some((piece, left)) = self.piece(offset).filter(|_| offset < self.len) else { return Ok(0) };
        let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let inside = offset - piece.start;
        match piece.source {
            Source::Raw(at) => self.raw.read_at(&mut buf[..want], at + inside),
            Source::File(number) => self.file(number, inside + left)?.read_at(&mut buf[..want], inside),
        }
    }
}

impl fmt::Debug for VirtualTar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTar").field("len", &self.len).field("dir", &self.files.shown).finish()
    }
}

impl Files {
    fn name(&self, number: u32) -> &[u8] {
        let end = |at: u32| self.ends.get(at as usize).map_or(0, |end| *end as usize);
        let start = number.checked_sub(1).map_or(0, end);
        self.names.get(start..end(number)).unwrap_or_default()
    }

    fn what(&self, number: u32) -> String {
        format!("{}/{}", self.shown, self.name(number).escape_ascii())
    }

    fn open(&self, number: u32) -> io::Result<File> {
        // Podman unpacks with the folder as root, so links mean the same here. NONBLOCK: a FIFO must not hang us before
        // it is seen to be none of a regular file.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let what = || self.what(number);
        let opened = rustix::fs::openat2(&self.dir, self.name(number), flags, Mode::empty(), resolve);
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
                return Err(Error::misfit(format!("podman's storage: {} is not there", what()))
                    .with_hint(GONE)
                    .into());
            }
            // The caller closes others and tries again.
            Err(e @ (Errno::MFILE | Errno::NFILE)) => return Err(e.into()),
            Err(e) => return Err(unreadable(e.into(), &what()).into()),
        };
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(Error::verification(format!("podman's storage: {} is not a regular file", what()))
            .with_hint(DAMAGED)
            .into())
    }
}

/// Is it about a file that is there, but not for this user?
pub(crate) fn is_out_of_reach(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

/// A file out of reach is no source; the next way to the layer may do.
fn unreadable(e: io::Error, what: &str) -> Error {
    match e.kind() {
        ErrorKind::PermissionDenied => Error::misfit(format!("podman's storage: {what}: {e}"))
            .with_hint(
                "files of a rootless storage that belong to other users are read under `podman unshare`",
            )
            .with_source(e),
        _ => Error::from_io(e, what),
    }
}

fn damaged(what: impl fmt::Display, why: &str) -> Error {
    Error::verification(format!("{what}: not a tar-split file: {why}")).with_hint(DAMAGED)
}

/// A tar-split file on its way into a tar.
struct Reading {
    raw: io::BufWriter<crate::spool::Spooled>,
    raw_len: u64,
    pieces: Vec<Piece>,
    len: u64,
    names: Vec<u8>,
    ends: Vec<u32>,
}

impl Reading {
    fn take(&mut self, line: &[u8]) -> Result<()> {
        let broken =
            |why: &str| Error::verification(format!("not a tar-split entry: {why}")).with_hint(DAMAGED);
        if self.pieces.len() >= MAX_ENTRIES {
            return Err(broken(&format!("there are more than {MAX_ENTRIES}")));
        }
        let entry: Entry<'_> = serde_json::from_slice(line).map_err(|e| broken(&e.to_string()))?;
        match entry.kind {
            1 => {
                let size = u64::try_from(entry.size.unwrap_or(0)).map_err(|_| broken("a negative size"))?;
                if size == 0 {
                    return Ok(());
                }
                let name = match (entry.name, entry.name_raw) {
                    (Some(name), _) if !name.is_empty() => name.into_owned().into_bytes(),
                    (_, Some(raw)) => {
                        STANDARD.decode(&*raw).map_err(|_| broken("a name that is no base64"))?
                    }
                    _ => return Err(broken("a file without a name")),
                };
                if self.names.len() + name.len() > MAX_NAMES {
                    return Err(broken(&format!("names of more than {MAX_NAMES} bytes")));
                }
                let source = Source::File(self.ends.len() as u32);
                self.names.extend_from_slice(&name);
                self.ends.push(self.names.len() as u32);
                self.piece(source, size)
            }
            2 => {
                let bytes = STANDARD.decode(&*entry.payload.unwrap_or_default());
                let bytes = bytes.map_err(|_| broken("bytes that are no base64"))?;
                self.raw_len += bytes.len() as u64;
                if self.raw_len > MAX_RAW {
                    return Err(broken(&format!("more than {MAX_RAW} bytes of a tar")));
                }
                self.raw.write_all(&bytes).at("spool")?;
                if bytes.is_empty() {
                    return Ok(());
                }
                self.piece(Source::Raw(self.raw_len - bytes.len() as u64), bytes.len() as u64)
            }
            other => Err(broken(&format!("type {other} is unknown"))),
        }
    }

    fn piece(&mut self, source: Source, size: u64) -> Result<()> {
        let start = self.len;
        self.len =
            start.checked_add(size).ok_or_else(|| Error::verification("a tar larger than all disks"))?;
        // Raw bytes that follow each other are one piece.
        let follows = matches!(
            (self.pieces.last(), source),
            (Some(Piece { source: Source::Raw(_), .. }), Source::Raw(_))
        );
        if !follows {
            self.pieces.push(Piece { start, source });
        }
        Ok(())
    }

    fn finish(self, dir: &Path, spool: &Spool) -> Result<VirtualTar> {
        let spooled = self.raw.into_inner();
        let raw = spooled.map_err(|e| Error::from_io(e.into_error(), spool.dir().display()))?.into_region();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shown = dir.display().to_string();
        let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR => {
                Error::misfit(format!("podman's storage: {shown} is not there")).with_hint(GONE)
            }
            e => unreadable(e.into(), &shown),
        })?;
        let files = Arc::new(Files { dir, shown, names: self.names, ends: self.ends });
        let opened = std::array::from_fn(|_| Mutex::default());
        Ok(VirtualTar { raw, pieces: self.pieces, len: self.len, files, opened })
    }
}

/// A tar that is put together when it is read.
pub(super) struct LazyTar {
    layer: Arc<LayerRecord>,
    spool: Spool,
    cancel: Cancel,
    /// One that is damaged keeps its error for everyone who asks.
    tar: OnceLock<Result<VirtualTar>>,
}

impl LazyTar {
    pub(super) fn new(layer: Arc<LayerRecord>, spool: Spool, cancel: Cancel) -> Self {
        LazyTar { layer, spool, cancel, tar: OnceLock::new() }
    }

    /// All of it.
    ///
    /// # Errors
    /// Where its size is not noted: what is wrong with it.
    pub(super) fn into_region(self) -> Result<Region> {
        let len = match self.layer.size {
            Some(size) => size,
            None => self.tar()?.len,
        };
        Ok(Region::of(Arc::new(self), len))
    }

    fn tar(&self) -> Result<&VirtualTar> {
        let open = || VirtualTar::open(&self.layer, &self.spool, &self.cancel);
        self.tar.get_or_init(open).as_ref().map_err(Error::again)
    }
}

impl ReadAt for LazyTar {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.tar()?.read_at(buf, offset)
    }
}

impl fmt::Debug for LazyTar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyTar").field("layer", &self.layer.diff_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;
    use crate::digest::{DiffId, digest_of};
    use crate::error::Kind;

    /// A layer of these lines and files.
    fn layer(lines: &[u8], size: Option<u64>, files: &[(&str, &[u8])]) -> (TempDir, LayerRecord) {
        let dir = tempfile::tempdir().unwrap();
        let (tar_split, diff) = (dir.path().join("x.tar-split.gz"), dir.path().join("diff"));
        std::fs::create_dir(&diff).unwrap();
        for (name, content) in files {
            std::fs::create_dir_all(diff.join(name).parent().unwrap()).unwrap();
            std::fs::write(diff.join(name), content).unwrap();
        }
        let mut gzip = GzEncoder::new(File::create(&tar_split).unwrap(), flate2::Compression::fast());
        gzip.write_all(lines).unwrap();
        gzip.finish().unwrap();
        let diff_id = DiffId::new(digest_of(b"any"));
        (dir, LayerRecord { diff_id, size, blob: None, parent: None, tar_split, files: diff })
    }

    fn raw(bytes: &[u8]) -> String {
        format!("{{\"type\":2,\"payload\":\"{}\",\"position\":0}}\n", STANDARD.encode(bytes))
    }

    fn file(name: &str, size: i64) -> String {
        format!(
            "{{\"type\":1,\"name\":{name:?},\"size\":{size},\"payload\":\"AAAAAAAAAAA=\",\"position\":1}}\n"
        )
    }

    /// All of the tar.
    fn read(layer: LayerRecord, dir: &TempDir) -> Result<Vec<u8>> {
        let tar =
            LazyTar::new(Arc::new(layer), Spool::in_dir(dir.path()), Cancel::default()).into_region()?;
        let mut bytes = Vec::new();
        tar.reader().read_to_end(&mut bytes).at("tar")?;
        Ok(bytes)
    }

    #[test]
    fn pieces_are_joined_and_read_anywhere() {
        let odd = STANDARD.encode(b"d/\xff");
        let odd = format!("{{\"type\":1,\"name_raw\":\"{odd}\",\"size\":3}}\n");
        let lines =
            [raw(b"one"), raw(b"two"), file("d/f", 4), file("e", 0), raw(b""), odd, raw(b"end")].concat();
        let (dir, layer) = layer(lines.as_bytes(), Some(16), &[("d/f", b"FILE")]);
        use std::os::unix::ffi::OsStrExt as _;
        std::fs::write(layer.files.join(std::ffi::OsStr::from_bytes(b"d/\xff")), "ODD").unwrap();
        let expected = b"onetwoFILEODDend";
        let tar = LazyTar::new(Arc::new(layer), Spool::in_dir(dir.path()), Cancel::default())
            .into_region()
            .unwrap();
        for from in 0..=expected.len() {
            for to in from..=expected.len() {
                let mut found = vec![0; to - from];
                tar.read_exact_at(&mut found, from as u64).unwrap();
                assert_eq!(found, expected[from..to], "{from}..{to}");
            }
        }
        let mut headers = [0; 16];
        assert_eq!(tar.read_at(&mut headers, 0).unwrap(), 6, "raw bytes alone");
    }

    #[test]
    fn links_stay_within_the_layer() {
        let lines = [file("l/f", 4), file("up/f", 4)].concat();
        let (dir, layer) = layer(lines.as_bytes(), None, &[("usr/f", b"FILE"), ("f", b"ROOT")]);
        std::os::unix::fs::symlink("/usr", layer.files.join("l")).unwrap();
        std::os::unix::fs::symlink("../../../..", layer.files.join("up")).unwrap();
        assert_eq!(read(layer, &dir).unwrap(), b"FILEROOT");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let long = format!("{{\"type\":2,\"payload\":\"{}\"}}\n", "A".repeat(MAX_LINE as usize));
        let fine = file("f", 4);
        for (lines, size, kind, expected) in [
            ("{\n".to_owned(), None, Kind::Verification, "line 1: not a tar-split entry"),
            (raw(b"x") + "{\"type\":3}\n", None, Kind::Verification, "line 2: not a tar-split entry: type 3"),
            ("{\"type\":1,\"size\":9}\n".into(), None, Kind::Verification, "without a name"),
            (file("f", -4), None, Kind::Verification, "negative"),
            ("{\"type\":2,\"payload\":\"?\"}\n".into(), None, Kind::Verification, "no base64"),
            (long, None, Kind::Verification, "longer than"),
            (file("f", i64::MAX).repeat(3), None, Kind::Verification, "larger than all disks"),
            (fine.clone(), Some(5), Kind::Verification, "describes a tar of 4 bytes, the layer has 5"),
            (file("f", 5), None, Kind::Verification, "has 4 bytes, its layer says 5"),
            (file("gone", 4), None, Kind::Misfit, "gone is not there"),
            (file("d", 4), None, Kind::Verification, "not a regular file"),
            (file("fifo", 4), None, Kind::Verification, "not a regular file"),
        ] {
            let (dir, layer) = layer(lines.as_bytes(), size, &[("f", b"FILE"), ("d/x", b"")]);
            rustix::fs::mknodat(CWD, layer.files.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
                .unwrap();
            let e = read(layer, &dir).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.to_string().contains(expected), "{e}");
            assert!(e.hint().is_some() || expected.contains("disks"), "{e}");
        }
        let (dir, layer) = layer(fine.as_bytes(), None, &[("f", b"FILE")]);
        let cut = std::fs::read(&layer.tar_split).unwrap();
        std::fs::write(&layer.tar_split, &cut[..cut.len() - 9]).unwrap();
        assert_eq!(read(layer.clone(), &dir).unwrap_err().kind(), Kind::Verification);
        std::fs::create_dir(layer.files.with_file_name(COMPOSEFS)).unwrap();
        let other = read(layer, &dir).unwrap_err();
        assert!(other.kind() == Kind::Misfit && other.to_string().contains("as composefs"), "{other}");
        let gone = LayerRecord { tar_split: PathBuf::from("/nowhere"), ..self::layer(b"", None, &[]).1 };
        assert_eq!(read(gone, &dir).unwrap_err().kind(), Kind::Misfit);
    }
}
