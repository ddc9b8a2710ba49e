//! The old bytes that new files are compared with, in one mapped file.

use std::io::{BufWriter, Write};
use std::path::Path;

use memmap2::Mmap;

use crate::base::Source;
use crate::error::{IoContext, Result};
use crate::region::{Frozen, Region};

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// Old files one after the other. Never truncated while it is mapped: the file
/// is ours, has no name, and was written before.
#[derive(Debug)]
pub(super) struct Corpus {
    map: Option<Mmap>,
    spans: Vec<Span>,
}

/// Where an old file lies in the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Position in the list of sources.
    pub source: usize,
}

impl Corpus {
    /// Copies the `chosen` sources into an unlinked file in `dir`.
    ///
    /// # Errors
    /// When a source cannot be read or the disk is full.
    pub fn build(sources: &[Source], chosen: &[usize], dir: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir).at(dir.display())?;
        let mut out = BufWriter::with_capacity(CHUNK, &file);
        let mut spans = Vec::with_capacity(chosen.len());
        let mut start = 0;
        for &source in chosen {
            let content = &sources[source].content;
            let copied = std::io::copy(&mut content.reader(), &mut out).at(dir.display())?;
            spans.push(Span { start, end: start + copied, source });
            start += copied;
        }
        out.flush().at(dir.display())?;
        drop(out);
        let written = Region::whole(file).at(dir.display())?;
        let map = if start == 0 { None } else { Some(Frozen::promised(written).map().at(dir.display())?) };
        Ok(Corpus { map, spans })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// The span that holds `position`.
    pub fn span_at(&self, position: u64) -> Option<Span> {
        let after = self.spans.partition_point(|s| s.start <= position);
        self.spans.get(after.checked_sub(1)?).copied().filter(|s| position < s.end)
    }

    /// The sources that were chosen.
    pub fn sources(&self) -> impl Iterator<Item = usize> {
        self.spans.iter().map(|span| span.source)
    }

    /// The span of a source, if it was chosen. `chosen` was in ascending order.
    pub fn span_of(&self, source: usize) -> Option<Span> {
        self.spans.binary_search_by_key(&source, |s| s.source).ok().map(|at| self.spans[at])
    }
}
