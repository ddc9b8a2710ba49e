//! The patch codec: what is written is read back, applied right, and judged the
//! same by the `oci-delta` crate, an implementation that is not ours.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use oci_delta_fetch::apply::{ApplyStats, apply_patch};
use oci_delta_fetch::base::{Doubt, OpenedFile, SourceFile, SourceFiles, SourcePath, View};
use oci_delta_fetch::error::{Error, Kind, Result};
use oci_delta_fetch::region::Region;
use oci_delta_fetch::tardiff::{Limits, OpWriter, Version, WriterOptions};
use proptest::prelude::*;

/// Base files in memory, for both implementations.
#[derive(Debug, Default, Clone)]
struct Memory {
    files: BTreeMap<Vec<u8>, Arc<Vec<u8>>>,
    current: Option<Arc<Vec<u8>>>,
    cursor: usize,
}

impl SourceFiles for Memory {
    fn open(&self, path: &SourcePath, _round: u32) -> Result<OpenedFile> {
        let file = self.files.get(path.as_bytes()).ok_or_else(|| Error::misfit("absent"))?;
        let mut copy = tempfile::tempfile().unwrap();
        copy.write_all(file).unwrap();
        let file = SourceFile::new(path.clone(), Region::whole(copy).unwrap());
        Ok(OpenedFile { file: Arc::new(file), doubt: Doubt::None })
    }
}

impl oci_delta::DeltaDataSource for Memory {
    fn set_current_file(&mut self, path: &str) -> anyhow::Result<()> {
        self.current =
            Some(self.files.get(path.as_bytes()).ok_or_else(|| anyhow::anyhow!("absent"))?.clone());
        self.cursor = 0;
        Ok(())
    }

    fn read_exact_current(&mut self, buf: &mut [u8]) -> anyhow::Result<()> {
        let file = self.current.as_ref().ok_or_else(|| anyhow::anyhow!("none open"))?;
        let piece = file.get(self.cursor..self.cursor + buf.len());
        buf.copy_from_slice(piece.ok_or_else(|| anyhow::anyhow!("short"))?);
        self.cursor += buf.len();
        Ok(())
    }

    fn seek_current(&mut self, offset: u64) -> anyhow::Result<u64> {
        self.cursor = offset as usize;
        Ok(offset)
    }

    fn read_current_to_end(&mut self, _max: u64) -> anyhow::Result<Vec<u8>> {
        let file = self.current.as_ref().ok_or_else(|| anyhow::anyhow!("none open"))?;
        self.cursor = file.len();
        Ok(file.to_vec())
    }

    fn copy_to(&mut self, dst: &mut dyn Write, n: u64) -> anyhow::Result<()> {
        let mut buf = vec![0; n as usize];
        self.read_exact_current(&mut buf)?;
        Ok(dst.write_all(&buf)?)
    }
}

/// What a generator may do; positions are clipped to the file.
#[derive(Debug, Clone)]
enum Step {
    Data(Vec<u8>),
    Open(usize),
    Seek(usize),
    Copy(usize),
    Add(Vec<u8>),
    Dictionary(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let step = prop_oneof![
        bytes(300).prop_map(Step::Data),
        (0..3usize).prop_map(Step::Open),
        (0..5000usize).prop_map(Step::Seek),
        (0..5000usize).prop_map(Step::Copy),
        bytes(600).prop_map(Step::Add),
        bytes(600).prop_map(Step::Dictionary),
    ];
    proptest::collection::vec(step, 0..40)
}

fn base() -> Memory {
    let mut files = BTreeMap::new();
    for (n, path) in ["a", "usr/lib/b", "c"].into_iter().enumerate() {
        let content: Vec<u8> = (0..4000 * n).map(|i| (i * (n + 7) / 3) as u8).collect();
        files.insert(path.as_bytes().to_vec(), Arc::new(content));
    }
    Memory { files, ..Memory::default() }
}

/// Writes the steps as a patch, and does them by hand.
fn write(steps: &[Step], version: Version) -> (Vec<u8>, Vec<u8>) {
    let base = base();
    let mut patch =
        OpWriter::new(Vec::new(), version, WriterOptions { level: 1, window_log: 20, ..Default::default() })
            .unwrap();
    let mut expected = Vec::new();
    let mut current: Option<Arc<Vec<u8>>> = None;
    let mut cursor = 0;
    for step in steps {
        match (step, &current) {
            (Step::Data(data), _) => {
                patch.data(data).unwrap();
                expected.extend_from_slice(data);
            }
            (Step::Open(n), _) => {
                let (path, content) = base.files.iter().nth(*n).unwrap();
                patch.open(&SourcePath::clean(path).unwrap()).unwrap();
                current = Some(content.clone());
                cursor = 0;
            }
            (Step::Seek(to), Some(file)) => {
                cursor = (*to).min(file.len());
                patch.seek(cursor as u64);
            }
            (Step::Copy(len), Some(file)) => {
                let len = (*len).min(file.len() - cursor);
                patch.copy(len as u64).unwrap();
                expected.extend_from_slice(&file[cursor..cursor + len]);
                cursor += len;
            }
            (Step::Add(sums), Some(file)) => {
                let sums = &sums[..sums.len().min(file.len() - cursor)];
                patch.add_data(sums).unwrap();
                expected.extend(sums.iter().zip(&file[cursor..]).map(|(s, b)| s.wrapping_add(*b)));
                cursor += sums.len();
            }
            (Step::Dictionary(data), Some(file)) if version == Version::V2 => {
                let content = [&file[..file.len() / 2], data].concat();
                let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 3, file).unwrap();
                encoder.write_all(&content).unwrap();
                patch.dictionary(&encoder.finish().unwrap(), file.len() as u64).unwrap();
                expected.extend_from_slice(&content);
                cursor = file.len();
            }
            _ => {}
        }
    }
    (patch.finish().unwrap(), expected)
}

fn apply(patch: impl Read) -> Result<(Vec<u8>, ApplyStats)> {
    let mut out = Vec::new();
    apply_patch(patch, &View::new(&base(), 0), &Limits::default(), &mut out).map(|stats| (out, stats))
}

/// Hands its bytes out in small, uneven pieces.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 31 % 97 + 1;
        let n = self.1.min(buf.len()).min(self.0.len());
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_applied(steps in steps(), v2 in any::<bool>()) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let (patch, expected) = write(&steps, version);
        let (out, stats) = apply(&patch[..]).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(stats.copied + stats.added + stats.literal + stats.dictionary, expected.len() as u64);
        prop_assert_eq!(apply(Trickle(&patch, 5)).unwrap().0, expected, "in any pieces");
    }

    #[test]
    fn the_other_implementation_agrees(steps in steps(), v2 in any::<bool>()) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let (patch, expected) = write(&steps, version);
        let mut out = Vec::new();
        oci_delta::tar_patch_apply(&patch[..], &mut base(), &mut out).unwrap();
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn no_cut_goes_unnoticed(steps in steps(), at in 0.0..1.0f64) {
        let (patch, _) = write(&steps, Version::V1);
        let cut = (patch.len() as f64 * at) as usize;
        prop_assert!(apply(&patch[..cut]).is_err(), "cut at {} of {}", cut, patch.len());
    }

    #[test]
    fn any_bytes_end_in_a_verdict(magic in 0..2usize, ops in proptest::collection::vec(any::<u8>(), 0..400)) {
        let magic = [b"tardf1\n\0", b"tardf2\n\0"][magic];
        let patch = [&magic[..], &zstd::encode_all(&ops[..], 1).unwrap()].concat();
        let mut out = Vec::new();
        if let Err(e) = apply_patch(&patch[..], &View::new(&base(), 0), &Limits::default(), &mut out) {
            prop_assert!(matches!(e.kind(), Kind::Misfit | Kind::Verification), "{e}");
        }
    }
}

#[test]
fn a_patch_of_nothing_is_an_empty_layer() {
    let (patch, _) = write(&[], Version::V1);
    assert_eq!(apply(&patch[..]).unwrap().0, b"");
}

#[test]
fn several_frames_are_one_stream() {
    let ops = [&[0, 3][..], b"abc", &[1, 1], b"c", &[2, 4]].concat();
    for cut in 0..ops.len() {
        let frames = [zstd::encode_all(&ops[..cut], 1).unwrap(), zstd::encode_all(&ops[cut..], 1).unwrap()];
        let patch = [&b"tardf1\n\0"[..], &frames.concat()].concat();
        assert_eq!(apply(&patch[..]).unwrap().0.len(), 7, "cut at {cut}");
    }
}

#[test]
fn long_varints_and_idle_operations_are_borne() {
    // Go writes empty ADDs and SEEKs that do not move; sizes may have empty groups.
    let ops = [&[1, 1][..], b"c", &[3, 0, 4, 0x80, 0x00, 2, 0x83, 0x80, 0x00, 4, 0]].concat();
    let patch = [&b"tardf1\n\0"[..], &zstd::encode_all(&ops[..], 1).unwrap()].concat();
    assert_eq!(apply(&patch[..]).unwrap().0.len(), 3);
}

#[test]
fn a_dictionary_above_its_limit_is_not_read() {
    let ops = [&[1, 9][..], b"usr/lib/b", &[5, 1, 0]].concat();
    let patch = [&b"tardf2\n\0"[..], &zstd::encode_all(&ops[..], 1).unwrap()].concat();
    let limits = Limits { dictionary: 100, ..Limits::default() };
    let e = apply_patch(&patch[..], &View::new(&base(), 0), &limits, &mut Vec::new()).unwrap_err();
    assert!(e.to_string().contains("at most 100"), "{e}");
}

#[test]
fn the_writer_leaves_out_what_has_no_effect() {
    let path = SourcePath::clean(b"usr/lib/b").unwrap();
    let mut ops = OpWriter::new(Vec::new(), Version::V1, WriterOptions::default()).unwrap();
    ops.open(&path).unwrap();
    ops.seek(50);
    ops.seek(0);
    ops.copy(10).unwrap();
    ops.copy(0).unwrap();
    ops.copy(10).unwrap();
    ops.add_data(&[]).unwrap();
    ops.seek(7);
    ops.open(&path).unwrap();
    ops.seek(20);
    ops.copy(5).unwrap();
    ops.data(b"a").unwrap();
    ops.data(b"b").unwrap();
    let patch = ops.finish().unwrap();
    let (_, stats) = apply(&patch[..]).unwrap();
    assert_eq!(stats.ops, 3, "open, one copy, one data");
}

/// A patch with one frame of the file as it was, twice, so that half of it refers back to the rest.
fn patch_of_a_large_frame(file: &[u8], cut: usize) -> Vec<u8> {
    let content = [file, file].concat();
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 1, file).unwrap();
    encoder.set_pledged_src_size(Some(content.len() as u64)).unwrap();
    encoder.include_contentsize(true).unwrap();
    encoder.window_log(25).unwrap();
    encoder.write_all(&content).unwrap();
    let frame = encoder.finish().unwrap();
    let options = WriterOptions { level: 1, window_log: 20, ..Default::default() };
    let mut patch = OpWriter::new(Vec::new(), Version::V2, options).unwrap();
    patch.open(&SourcePath::clean(b"large").unwrap()).unwrap();
    patch.dictionary(&frame[..frame.len() - cut], file.len() as u64).unwrap();
    patch.finish().unwrap()
}

#[test]
fn a_large_frame_is_decoded_in_a_file_or_in_memory_alike() {
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let file: Arc<Vec<u8>> = Arc::new((0..9 << 20).map(|_| noise()).collect());
    let base = Memory { files: [(b"large".to_vec(), file.clone())].into(), ..Default::default() };
    let spool = tempfile::tempdir().unwrap();
    for spool in [Some(spool.path().to_owned()), None] {
        let limits = Limits { spool, ..Limits::default() };
        let mut out = Vec::new();
        apply_patch(&patch_of_a_large_frame(&file, 0)[..], &View::new(&base, 0), &limits, &mut out).unwrap();
        assert!(out == [&file[..], &file[..]].concat());
        let cut = patch_of_a_large_frame(&file, 3);
        let e = apply_patch(&cut[..], &View::new(&base, 0), &limits, &mut Vec::new()).unwrap_err();
        assert_eq!(e.kind(), Kind::Verification, "{e}");
    }
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
}
