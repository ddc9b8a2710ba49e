//! A base of one file at every path, and a sink with a bound.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};

use oci_delta_fetch::base::{Doubt, OpenedFile, SourceFile, SourceFiles, SourcePath};
use oci_delta_fetch::error::Result;
use oci_delta_fetch::layer_write::LayerWrite;
use oci_delta_fetch::region::Region;

#[derive(Debug)]
pub struct OneFile;

impl SourceFiles for OneFile {
    fn open(&self, path: &SourcePath, _attempt: u32) -> Result<OpenedFile> {
        static CONTENT: LazyLock<Region> = LazyLock::new(|| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[7; 4096]).unwrap();
            Region::whole(file).unwrap()
        });
        let file = SourceFile { path: path.clone(), content: CONTENT.clone(), object: None };
        Ok(OpenedFile { file: Arc::new(file), doubt: Doubt::None })
    }
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
