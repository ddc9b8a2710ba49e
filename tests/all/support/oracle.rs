//! A second opinion on deltas: the `oci-delta` crate applies them to an unpacked root.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use oci_delta_fetch::layout::Layout;
use oci_delta_fetch::platform::Platform;
use oci_delta_fetch::reference::Reference;
use oci_spec::image::Descriptor;
use tempfile::TempDir;

use super::images::Image;

/// Applies every layer of the delta at `reference` to `old`, unpacked, and compares with `new`.
pub fn check(reference: &str, old: &Image, new: &Image) {
    let root = unpack(old);
    let layout = open(reference);
    let manifest = layout.resolve(None, &Platform::host()).unwrap();
    let manifest = layout.read_blob(&manifest, 4 << 20).unwrap();
    let manifest: oci_spec::image::ImageManifest = serde_json::from_slice(&manifest).unwrap();
    assert!(oci_delta::is_delta_artifact(&manifest));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let parsed = runtime.block_on(oci_delta::parse_delta_manifest(&manifest, &Blobs(&layout))).unwrap();
    assert_eq!(parsed.target_manifest_raw, new.manifest);
    assert_eq!(parsed.source_config_digest, old.config_digest());
    for (layer, diff_id) in new.layers.iter().zip(new.diff_ids()) {
        let digest = oci_delta_fetch::digest::digest_of(&layer.blob);
        let Some(blob) = parsed.delta_layer_by_to.get(&digest) else {
            assert!(
                old.diff_ids().contains(&diff_id),
                "layer {diff_id} is neither in the delta nor in the base"
            );
            continue;
        };
        let mut source = Root { dir: root.path().to_owned(), current: None };
        let mut made = Vec::new();
        let bytes = read(&layout, blob);
        let expected = diff_id.parse().unwrap();
        oci_delta::reconstruct_layer_to(
            std::io::Cursor::new(bytes),
            blob.media_type(),
            &mut source,
            &expected,
            &mut made,
        )
        .unwrap_or_else(|e| panic!("the oci-delta crate: {e:#}"));
        assert_eq!(made, layer.tar);
    }
}

fn open(reference: &str) -> Layout {
    let reference: Reference = reference.parse().unwrap();
    Layout::open(&reference, &std::env::temp_dir()).unwrap().unwrap()
}

fn read(layout: &Layout, blob: &Descriptor) -> Vec<u8> {
    layout.read_blob(blob, u64::MAX).unwrap()
}

struct Blobs<'a>(&'a Layout);

impl oci_delta::DeltaBlobReader for Blobs<'_> {
    fn open_blob(&self, blob: &Descriptor) -> oci_delta::BlobStreamFuture<'_> {
        let bytes = read(self.0, blob);
        Box::pin(async move { Ok(Box::new(std::io::Cursor::new(bytes)) as Box<dyn oci_delta::BlobStream>) })
    }
}

/// The root file system of an image, as an engine would unpack it. The layers
/// of these tests have no owners, devices or attributes.
pub fn unpack(image: &Image) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for layer in &image.layers {
        whiteouts(root.path(), &layer.tar);
        let mut archive = tar::Archive::new(&layer.tar[..]);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(".wh.") {
                continue;
            }
            let place = root.path().join(&path);
            make_room(root.path(), &path, entry.header().entry_type().is_dir());
            match entry.header().entry_type() {
                tar::EntryType::Link => {
                    let target = root.path().join(entry.link_name().unwrap().unwrap());
                    fs::hard_link(target, place).unwrap();
                }
                tar::EntryType::Symlink => {
                    std::os::unix::fs::symlink(entry.link_name().unwrap().unwrap(), place).unwrap();
                }
                tar::EntryType::Directory => fs::create_dir_all(place).unwrap(),
                tar::EntryType::Regular => {
                    std::io::copy(&mut entry, &mut File::create(place).unwrap()).unwrap();
                }
                _ => {}
            }
        }
    }
    root
}

fn whiteouts(root: &Path, tar: &[u8]) {
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let path = entry.unwrap().path().unwrap().into_owned();
        let dir = root.join(path.parent().unwrap_or(Path::new("")));
        match path.file_name().unwrap_or_default().to_string_lossy().strip_prefix(".wh.") {
            Some(".wh..opq") => {
                for inside in fs::read_dir(&dir).into_iter().flatten() {
                    remove(&inside.unwrap().path());
                }
            }
            Some(name) => remove(&dir.join(name)),
            None => {}
        }
    }
}

/// Makes the parents and removes what is in the way, but not a directory for a directory.
fn make_room(root: &Path, path: &Path, is_dir: bool) {
    let mut parent = root.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        if !parent.is_dir() {
            remove(&parent);
            fs::create_dir(&parent).unwrap();
        }
    }
    let place = root.join(path);
    if !(is_dir && place.is_dir()) {
        remove(&place);
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Files below a directory, symbolic links not followed.
struct Root {
    dir: PathBuf,
    current: Option<File>,
}

impl Root {
    fn file(&mut self) -> anyhow::Result<&mut File> {
        self.current.as_mut().ok_or_else(|| anyhow::anyhow!("no file is open"))
    }
}

impl oci_delta::DeltaDataSource for Root {
    fn set_current_file(&mut self, path: &str) -> anyhow::Result<()> {
        let mut place = self.dir.clone();
        for part in path.split('/') {
            place.push(part);
            anyhow::ensure!(!fs::symlink_metadata(&place)?.is_symlink(), "{path} goes through a link");
        }
        anyhow::ensure!(place.is_file(), "{path} is no file");
        self.current = Some(File::open(place)?);
        Ok(())
    }

    fn read_exact_current(&mut self, buf: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.file()?.read_exact(buf)?)
    }

    fn seek_current(&mut self, offset: u64) -> anyhow::Result<u64> {
        Ok(self.file()?.seek(SeekFrom::Start(offset))?)
    }

    fn read_current_to_end(&mut self, max: u64) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.seek_current(0)?;
        self.file()?.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn copy_to(&mut self, dst: &mut dyn Write, n: u64) -> anyhow::Result<()> {
        anyhow::ensure!(std::io::copy(&mut self.file()?.take(n), dst)? == n, "short");
        Ok(())
    }
}
