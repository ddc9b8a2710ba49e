//! How a layer is kept: plain, gzip or zstd; readers by sniffing, of bzip2 and xz too, writers that are deterministic.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::str::FromStr;

use bzip2::bufread::MultiBzDecoder;
use flate2::write::GzEncoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use oci_spec::image::MediaType;

use crate::error::Error;
use crate::gunzip::Gunzip;

/// Largest zstd window that is accepted without a flag: 2^27 bytes, what libzstd's own tools accept.
pub const MAX_WINDOW_LOG: u32 = 27;

/// Most memory for an xz stream in bytes: four times what `xz -9` asks for.
const MAX_XZ_MEMORY: u64 = 256 << 20;

/// Bytes at the beginning that tell how a stream is compressed.
pub const HEAD: usize = 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";
/// A tar may begin with a file of this name, so the block after it must follow, or the end.
const BZIP2_MAGIC: [u8; 3] = *b"BZh";
const BZIP2_BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
const BZIP2_END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];

/// Size of the reads from a compressed stream.
const CHUNK: usize = 128 << 10;

/// How a layer is kept in a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// The tar itself.
    #[default]
    Plain,
    /// One gzip member, level 1 to 9.
    Gzip(u32),
    /// One zstd frame with a checksum, level 1 to 22.
    Zstd(i32),
}

impl Encoding {
    /// The OCI media type of a layer kept so (image-spec, layer.md).
    pub fn media_type(self) -> MediaType {
        match self {
            Encoding::Plain => MediaType::ImageLayer,
            Encoding::Gzip(_) => MediaType::ImageLayerGzip,
            Encoding::Zstd(_) => MediaType::ImageLayerZstd,
        }
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => {
                let level = level.parse().map_err(|_| format!("{level:?} is no compression level"))?;
                (name, Some(level))
            }
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Encoding::Plain),
            ("gzip", level @ (None | Some(1..=9))) => Ok(Encoding::Gzip(level.unwrap_or(6))),
            ("zstd", level @ (None | Some(1..=22))) => Ok(Encoding::Zstd(level.unwrap_or(3) as i32)),
            ("gzip" | "zstd", _) => {
                Err(format!("{name} has levels 1 to {}", if name == "gzip" { 9 } else { 22 }))
            }
            _ => Err(format!("{text:?} is none of none, gzip[:LEVEL], zstd[:LEVEL]")),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Encoding::Plain => f.write_str("none"),
            Encoding::Gzip(level) => write!(f, "gzip:{level}"),
            Encoding::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// What a stream is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Format {
    /// Needs [`HEAD`] bytes to know.
    pub(crate) fn sniff(head: &[u8]) -> Self {
        let bzip2 = head.strip_prefix(&BZIP2_MAGIC).and_then(|rest| rest.split_first());
        if head.starts_with(&GZIP_MAGIC) {
            Format::Gzip
        } else if head.starts_with(&ZSTD_MAGIC) || is_skippable(head) {
            Format::Zstd
        } else if head.starts_with(&XZ_MAGIC) {
            Format::Xz
        } else if let Some((b'1'..=b'9', rest)) = bzip2
            && (rest.starts_with(&BZIP2_BLOCK) || rest.starts_with(&BZIP2_END))
        {
            Format::Bzip2
        } else {
            Format::Plain
        }
    }
}

/// Is this the start of a compressed stream? Needs [`HEAD`] bytes to know.
pub fn is_compressed(head: &[u8]) -> bool {
    Format::sniff(head) != Format::Plain
}

/// The media type that a layer with these first bytes truly has. OCI has none for bzip2 and xz; theirs follow
/// the others.
pub fn media_type_of(head: &[u8]) -> MediaType {
    match Format::sniff(head) {
        Format::Plain => MediaType::ImageLayer,
        Format::Gzip => MediaType::ImageLayerGzip,
        Format::Zstd => MediaType::ImageLayerZstd,
        Format::Bzip2 => MediaType::Other("application/vnd.oci.image.layer.v1.tar+bzip2".into()),
        Format::Xz => MediaType::Other("application/vnd.oci.image.layer.v1.tar+xz".into()),
    }
}

/// A zstd skippable frame may stand first (RFC 8878, 3.1.2).
fn is_skippable(head: &[u8]) -> bool {
    head.len() >= 4 && (0x50..=0x5f).contains(&head[0]) && head[1..4] == [0x2a, 0x4d, 0x18]
}

/// Decompresses by what the first bytes say: gzip, bzip2, xz (all members), zstd (all frames) or as it is.
///
/// # Errors
/// When the reader fails.
pub fn decompress<'a>(
    reader: impl Read + Send + 'a,
    window_log: u32,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = [0; HEAD];
    let mut reader = reader;
    let n = read_full(&mut reader, &mut head)?;
    let format = Format::sniff(&head[..n]);
    let head = io::Cursor::new(head).take(n as u64);
    let mut reader = BufReader::with_capacity(CHUNK, head.chain(reader));
    Ok(match format {
        Format::Gzip => Box::new(Blame { stream: "gzip", inner: Gunzip::new(reader) }),
        Format::Bzip2 => Box::new(Blame { stream: "bzip2", inner: MultiBzDecoder::new(reader) }),
        Format::Xz => {
            let decoder = Stream::new_stream_decoder(MAX_XZ_MEMORY, CONCATENATED)?;
            Box::new(Blame { stream: "xz", inner: XzDecoder::new_stream(reader, decoder) })
        }
        Format::Zstd => {
            let mut inner = zstd::stream::read::Decoder::with_buffer(reader)?;
            inner.window_log_max(window_log)?;
            Box::new(Blame { stream: "zstd", inner })
        }
        Format::Plain => {
            reader.fill_buf()?;
            Box::new(reader)
        }
    })
}

/// Tells a decoder's own complaints, which are about the content, from faults of the source.
struct Blame<R> {
    stream: &'static str,
    inner: R,
}

impl<R: Read> Read for Blame<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|e| {
            let ours = e.get_ref().is_some_and(|inner| inner.is::<Error>());
            if ours || e.raw_os_error().is_some() || e.kind() == io::ErrorKind::Interrupted {
                return e;
            }
            Error::verification(format!("broken {} stream: {e}", self.stream)).with_source(e).into()
        })
    }
}

/// Reads until `buf` is full or the reader ends; returns how much that was.
///
/// # Errors
/// The reader's.
pub fn read_full(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Compresses what is written; the same input gives the same bytes.
pub struct EncodingWriter<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> fmt::Debug for EncodingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncodingWriter")
    }
}

impl<W: Write> EncodingWriter<W> {
    /// Starts a stream.
    ///
    /// # Errors
    /// When libzstd has no memory.
    pub fn new(writer: W, encoding: Encoding) -> io::Result<Self> {
        Ok(EncodingWriter(match encoding {
            Encoding::Plain => Inner::Plain(writer),
            // GzBuilder writes mtime 0 and no name by default.
            Encoding::Gzip(level) => {
                Inner::Gzip(flate2::GzBuilder::new().write(writer, flate2::Compression::new(level)))
            }
            Encoding::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(writer, level)?;
                encoder.include_checksum(true)?;
                Inner::Zstd(encoder)
            }
        }))
    }

    /// Ends the stream and gives the inner writer back.
    ///
    /// # Errors
    /// The inner writer's.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::Plain(w) => Ok(w),
            Inner::Gzip(w) => w.finish(),
            Inner::Zstd(w) => w.finish(),
        }
    }
}

impl<W: Write> Write for EncodingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(w) => w.write(buf),
            Inner::Gzip(w) => w.write(buf),
            Inner::Zstd(w) => w.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(w) => w.flush(),
            Inner::Gzip(w) => w.flush(),
            Inner::Zstd(w) => w.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(data: &[u8], encoding: &str) -> Vec<u8> {
        let mut w = EncodingWriter::new(Vec::new(), encoding.parse().unwrap()).unwrap();
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn decode(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(blob, MAX_WINDOW_LOG)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_encoding_is_sniffed_and_read_back() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for encoding in ["none", "gzip", "gzip:1", "zstd", "zstd:19"] {
            let blob = encode(&data, encoding);
            assert_eq!(blob, encode(&data, encoding), "{encoding} is deterministic");
            assert_eq!(media_type_of(&blob), encoding.parse::<Encoding>().unwrap().media_type());
            assert_eq!(decode(&blob).unwrap(), data, "{encoding}");
        }
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"ab").unwrap(), b"ab");
    }

    #[test]
    fn several_members_frames_and_padding_are_read() {
        for encoding in ["gzip", "zstd"] {
            let mut blob = encode(b"one ", encoding);
            blob.extend(encode(b"two", encoding));
            assert_eq!(decode(&blob).unwrap(), b"one two", "{encoding}");
        }
        let mut padded = encode(b"one", "gzip");
        padded.extend([0; 512]);
        assert_eq!(decode(&padded).unwrap(), b"one");
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        skippable.extend(encode(b"x", "zstd"));
        assert_eq!(decode(&skippable).unwrap(), b"x");
    }

    #[test]
    fn garbage_after_the_end_and_cuts_are_errors() {
        for encoding in ["gzip", "zstd"] {
            let blob = encode(b"some content that is long enough", encoding);
            let mut garbage = blob.clone();
            garbage.extend(b"garbage!");
            assert!(decode(&garbage).is_err(), "{encoding}");
            for cut in 5..blob.len() {
                assert!(decode(&blob[..cut]).is_err(), "{encoding} cut at {cut}");
            }
        }
    }

    #[test]
    fn bzip2_and_xz_are_read() {
        // Of "one ", by bzip2 and xz.
        const BZIP2: &[u8] = b"BZh91AY&SY\xcf\xba\xa0\xb4\x00\x00\x01\x91\x00@\x00\x02\x01\xa0\x00!\x9ah3M\x0c\xbc]\xc9\x14\xe1BC>\xea\x82\xd0";
        const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x03one \x00Z\x8c\x83\xa315\xef~\x00\x01\x1c\x04o,\x9c\xc1\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";
        for blob in [BZIP2, XZ] {
            assert!(is_compressed(&blob[..HEAD]));
            assert_eq!(decode(blob).unwrap(), b"one ");
            assert_eq!(decode(&[blob, blob].concat()).unwrap(), b"one one ");
            for cut in HEAD..blob.len() {
                assert!(decode(&blob[..cut]).is_err(), "cut at {cut}");
            }
        }
        // A dictionary of 1.5 GiB, with the checksum of the header.
        let mut large = XZ.to_vec();
        large[16] = 0x25;
        large[20..24].copy_from_slice(&[59, 120, 123, 65]);
        assert!(decode(&large).unwrap_err().to_string().contains("memory"));
        assert_eq!(decode(b"BZh9/file").unwrap(), b"BZh9/file", "a name in a tar");
        assert_eq!(decode(b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0").unwrap(), b"");
    }

    #[test]
    fn levels_are_checked() {
        for bad in ["gzip:0", "gzip:10", "zstd:23", "none:1", "xz", "gzip:x", ""] {
            assert!(bad.parse::<Encoding>().is_err(), "{bad}");
        }
    }
}
