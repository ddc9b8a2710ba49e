//! A base of one file at every path, patches of given operations, and a sink with a bound.
#![allow(dead_code)] // each target uses some of it

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};

use liblzma::stream::{LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use oci_delta_fetch::base::{Doubt, Inside, OpenedFile, SourceFile, SourceFiles, SourcePath};
use oci_delta_fetch::digest::DiffId;
use oci_delta_fetch::error::Result;
use oci_delta_fetch::layer_write::LayerWrite;
use oci_delta_fetch::region::Region;

#[derive(Debug)]
pub struct OneFile;

impl SourceFiles for OneFile {
    fn open(&self, path: &SourcePath, _round: u32) -> Result<OpenedFile> {
        static CONTENT: LazyLock<Region> = LazyLock::new(|| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[7; 4096]).unwrap();
            Region::whole(file).unwrap()
        });
        let file = SourceFile::new(path.clone(), CONTENT.clone());
        Ok(OpenedFile { file: Arc::new(file), doubt: Doubt::None })
    }

    fn layer(&self, _diff_id: &DiffId) -> Result<Arc<SourceFile>> {
        self.open(&SourcePath::clean(b"layer")?, 0).map(|opened| opened.file)
    }

    fn inside(&self, _inside: &Arc<Inside>) -> Result<Arc<SourceFile>> {
        self.open(&SourcePath::clean(b"inside")?, 0).map(|opened| opened.file)
    }
}

/// How members are made.
const RECIPE: &[u8] = br#"{"v":1,"wrap":"bzip2","lvl":9}"#;

/// A table of that recipe, two layers, a stretch of one of them and a stretch in that, and members: what bzip2 makes of
/// nothing and of one byte, and one that cannot be as large as it says.
fn table() -> Vec<u8> {
    let mut table = [&[1, RECIPE.len() as u8][..], RECIPE, &[4]].concat();
    for layer in [1, 2] {
        table.extend([0].into_iter().chain([layer; 32]));
    }
    table.extend([1, 0, 100, 1, 99, 3, 20, 100, 3, 99]);
    table.extend([3, 0, 14, 0, 0, 37, 1, 0, 60, 9]);
    table
}

/// An extended patch with that table; behind the first byte, each byte's lowest bits say which stream the next one belongs
/// to. The first byte's bits say which of the streams are in LZMA.
pub fn extended(data: &[u8]) -> Vec<u8> {
    let mut streams: [Vec<u8>; 5] = Default::default();
    let (in_lzma, data) = data.split_first().unwrap_or((&0, &[]));
    for pair in data.chunks_exact(2) {
        streams[usize::from(pair[0]) % 5].push(pair[1]);
    }
    let mut patch = begun(&table());
    for (number, stream) in streams.iter().enumerate() {
        let packed =
            if in_lzma >> number & 1 == 1 { lzma(stream) } else { zstd::encode_all(&stream[..], 1).unwrap() };
        for block in packed.chunks(100) {
            patch.extend([number as u8, block.len() as u8]);
            patch.extend(block);
        }
    }
    patch
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let mut options = LzmaOptions::new_preset(0).unwrap();
    options.dict_size(4096);
    let mut encoder = XzEncoder::new_stream(Vec::new(), Stream::new_lzma_encoder(&options).unwrap());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What stands before the streams of an extended patch.
pub fn begun(table: &[u8]) -> Vec<u8> {
    let frame = zstd::encode_all(table, 1).unwrap();
    let mut patch = b"odfpat1\n".to_vec();
    let mut len = frame.len();
    while len >= 0x80 {
        patch.push(len as u8 | 0x80);
        len >>= 7;
    }
    patch.push(len as u8);
    [patch, frame].concat()
}

/// A well-formed stream of the bytes behind the first, which picks the version.
pub fn patch(data: &[u8]) -> Vec<u8> {
    let (version, ops) = data.split_first().unwrap_or((&0, &[]));
    let mut patch = if version & 1 == 0 { b"tardf1\n\0".to_vec() } else { b"tardf2\n\0".to_vec() };
    patch.extend(zstd::encode_all(ops, 1).unwrap());
    patch
}

/// Takes 1 MiB, as a layer's bound would.
pub struct Bounded(pub usize);

impl Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 += buf.len();
        if self.0 > 1 << 20 { Err(io::Error::other("bound")) } else { Ok(buf.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LayerWrite for Bounded {}
