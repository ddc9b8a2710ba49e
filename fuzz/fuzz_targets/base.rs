//! A base of one file at every path, and a sink with a bound.

use std::io::{self, Write};
use std::sync::Arc;

use oci_delta_fetch::base::{LayerWrite, OpenedFile, SourceFile, SourceFiles, SourcePath};
use oci_delta_fetch::error::{Error, Result};

#[derive(Debug)]
pub struct OneFile;

impl SourceFiles for OneFile {
    fn open(&self, _path: &SourcePath, _attempt: u32) -> Result<OpenedFile> {
        Ok(OpenedFile { file: Arc::new(OneFile), ambiguous: false })
    }
}

impl SourceFile for OneFile {
    fn size(&self) -> u64 {
        4096
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size()) {
            return Err(Error::misfit("past the end"));
        }
        buf.fill(7);
        Ok(())
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
