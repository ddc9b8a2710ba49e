//! For the benchmarks: applies a delta with the `oci-delta` crate.
//!
//! `crate-apply DELTA_LAYOUT ROOT OUT_DIR` rebuilds every patch of the delta from
//! the unpacked base in ROOT.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_delta::DeltaDataSource;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

struct Root {
    dir: PathBuf,
    current: Option<File>,
}

impl Root {
    fn file(&mut self) -> Result<&mut File> {
        self.current.as_mut().context("no file is open")
    }
}

impl DeltaDataSource for Root {
    fn set_current_file(&mut self, path: &str) -> Result<()> {
        self.current = Some(File::open(self.dir.join(path))?);
        Ok(())
    }

    fn read_exact_current(&mut self, buf: &mut [u8]) -> Result<()> {
        Ok(self.file()?.read_exact(buf)?)
    }

    fn seek_current(&mut self, offset: u64) -> Result<u64> {
        Ok(self.file()?.seek(SeekFrom::Start(offset))?)
    }

    fn read_current_to_end(&mut self, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.seek_current(0)?;
        self.file()?.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn copy_to(&mut self, dst: &mut dyn Write, n: u64) -> Result<()> {
        anyhow::ensure!(std::io::copy(&mut self.file()?.take(n), dst)? == n, "short");
        Ok(())
    }
}

struct Blobs(PathBuf);

impl Blobs {
    fn open(&self, blob: &Descriptor) -> Result<File> {
        Ok(File::open(self.0.join("blobs/sha256").join(blob.digest().digest()))?)
    }
}

impl oci_delta::DeltaBlobReader for Blobs {
    fn open_blob(&self, blob: &Descriptor) -> oci_delta::BlobStreamFuture<'_> {
        let file = self.open(blob);
        Box::pin(async move { Ok(Box::new(file?) as Box<dyn oci_delta::BlobStream>) })
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = || args.next().context("usage: crate-apply DELTA_LAYOUT ROOT OUT_DIR");
    let (blobs, root, out) = (Blobs(next()?), next()?, next()?);
    let index: ImageIndex = serde_json::from_reader(File::open(blobs.0.join("index.json"))?)?;
    let manifest: ImageManifest = serde_json::from_reader(blobs.open(&index.manifests()[0])?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let delta = runtime.block_on(oci_delta::parse_delta_manifest(&manifest, &blobs))?;
    std::fs::create_dir_all(&out)?;
    let diff_ids = delta.target_config.rootfs().diff_ids();
    for (layer, diff_id) in delta.target_manifest.layers().iter().zip(diff_ids) {
        let Some(blob) = delta.delta_layer_by_to.get(layer.digest()) else { continue };
        let mut source = Root { dir: root.clone(), current: None };
        let expected = diff_id.parse()?;
        let mut file = std::io::BufWriter::new(File::create(out.join(expected_name(diff_id)))?);
        oci_delta::reconstruct_layer_to(
            blobs.open(blob)?,
            blob.media_type(),
            &mut source,
            &expected,
            &mut file,
        )?;
        file.flush()?;
    }
    Ok(())
}

fn expected_name(diff_id: &str) -> &str {
    diff_id.split_once(':').map_or(diff_id, |(_, hex)| hex)
}
