//! Operations for a stretch of a new layer, made by a worker, written later in order.

use std::io::{self, Write};
use std::ops::Range;

use super::analysis::{Analysis, NewFile, NewLayer, Origin};
use super::beside::{OldLayers, Pair};
use super::ops::{Stretch, payloads};
use super::search::{Cover, Search, common};
use crate::base::SourcePath;
use crate::error::{IoContext, Result};
use crate::tardiff::{OpWriter, Version, WriterOptions};

/// What a stretch of the layer is made of; payloads stand one after the other in `bytes`.
#[derive(Debug, Default)]
pub(super) struct Piece<'a> {
    ops: Vec<PieceOp<'a>>,
    bytes: Vec<u8>,
    /// The same for the extended patch, if there is to be one.
    pub beside: Option<Stretch>,
}

/// What the extended patch of a layer is made with.
pub(super) type Beside<'a> = (&'a OldLayers, &'a [Pair]);

#[derive(Debug)]
enum PieceOp<'a> {
    Data(usize),
    Open(&'a SourcePath),
    Seek(u64),
    Copy(u64),
    Add(usize),
    /// A frame of so many bytes, made with a file of so many.
    Dictionary(usize, u64),
}

impl<'a> Piece<'a> {
    /// Makes the operations for `range` of a layer.
    ///
    /// # Errors
    /// When the layer cannot be read.
    pub fn encode(
        search: &Search<'_>,
        analysis: &'a Analysis,
        layer: &NewLayer,
        beside: Option<Beside<'_>>,
        range: Range<u64>,
    ) -> Result<Self> {
        // Payloads are not longer than what they make, and growing by doubling would take more.
        let mut piece = Piece {
            bytes: Vec::with_capacity((range.end - range.start) as usize),
            beside: beside.map(|_| Stretch::default()),
            ..Piece::default()
        };
        let copy_from = search.weights.copy_from;
        let mut done = range.start;
        let first = layer.files.partition_point(|f| f.member.offset + f.member.size <= range.start);
        for file in &layer.files[first..] {
            let member = &file.member;
            if member.offset >= range.end {
                break;
            }
            let part = member.offset.max(range.start)..(member.offset + member.size).min(range.end);
            piece.between(layer, beside, done..part.start, copy_from)?;
            piece.file(search, analysis, layer, file, part.clone())?;
            done = part.end;
        }
        piece.between(layer, beside, done..range.end, copy_from)?;
        Ok(piece)
    }

    /// Writes the operations.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, writer: &mut OpWriter<impl Write>) -> io::Result<()> {
        write(&self.ops, &self.bytes, writer)
    }

    /// Headers and padding, which are literal where only files can be read.
    fn between(
        &mut self,
        layer: &NewLayer,
        beside: Option<Beside<'_>>,
        range: Range<u64>,
        copy_from: usize,
    ) -> Result<()> {
        let start = self.read(layer, range.clone())?;
        if let (Some(stretch), Some((old, pairs))) = (&mut self.beside, beside) {
            stretch.between(old, pairs, range, &self.bytes[start..], copy_from)?;
        }
        self.data(self.bytes.len() - start);
        Ok(())
    }

    /// Appends bytes of the layer to the payload; returns where they begin.
    fn read(&mut self, layer: &NewLayer, range: Range<u64>) -> Result<usize> {
        let start = self.bytes.len();
        self.bytes.resize(start + (range.end - range.start) as usize, 0);
        layer.tar.read_exact_at(&mut self.bytes[start..], range.start).at("layer")?;
        Ok(start)
    }

    fn data(&mut self, len: usize) {
        if len > 0 {
            self.ops.push(PieceOp::Data(len));
        }
    }

    fn file(
        &mut self,
        search: &Search<'_>,
        analysis: &'a Analysis,
        layer: &NewLayer,
        file: &NewFile,
        part: Range<u64>,
    ) -> Result<()> {
        let member = &file.member;
        let within = part.start - member.offset;
        let twin = match file.origin {
            Origin::Same(source) => {
                if let Some(stretch) = &mut self.beside {
                    stretch.copy(analysis.place_of(source).on(within), part.end - part.start);
                }
                let name = analysis.name_for(source, member);
                // Naming the source must not cost more than the content.
                if member.size > name.as_bytes().len() as u64 + 4 {
                    self.ops.push(PieceOp::Open(name));
                    self.ops.push(PieceOp::Seek(within));
                    self.ops.push(PieceOp::Copy(part.end - part.start));
                    return Ok(());
                }
                None
            }
            Origin::Changed(twin) => analysis.twin_span(twin),
        };
        let mut content = vec![0; (part.end - part.start) as usize];
        layer.tar.read_exact_at(&mut content, part.start).at("layer")?;
        let (ops, bytes) = (self.ops.len(), self.bytes.len());
        let covers = search.covers(&content, twin.map(|span| (span, within)));
        if let (Some(stretch), Origin::Changed(_)) = (&mut self.beside, file.origin) {
            stretch.file(analysis, file, (within, &content), &covers, search.weights.copy_from);
        }
        let mut done = 0;
        for cover in &covers {
            self.copy_in(&content[done..cover.new]);
            self.ops.push(PieceOp::Open(analysis.name_for(cover.span.source, member)));
            self.ops.push(PieceOp::Seek(cover.old - cover.span.start));
            self.cover(&content, analysis.corpus.bytes(), cover, search.weights.copy_from);
            done = cover.new + cover.len;
        }
        self.copy_in(&content[done..]);
        if let (Some(frames), Some(source), Some(span)) = (search.frames, file.twin(), twin)
            && content.len() as u64 == member.size
        {
            let old = &analysis.corpus.bytes()[span.start as usize..span.end as usize];
            let cost = packed_size(&self.ops[ops..], &self.bytes[bytes..], frames.level).at("patch")?;
            if let Some(frame) = frames.beating(cost, &content, old).at("dictionary frame")? {
                self.ops.truncate(ops);
                self.bytes.truncate(bytes);
                self.ops.push(PieceOp::Open(analysis.name_for(source, member)));
                self.ops.push(PieceOp::Dictionary(frame.len(), span.end - span.start));
                self.bytes.extend(frame);
            }
        }
        Ok(())
    }

    fn copy_in(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.data(bytes.len());
    }

    /// COPY for long equal runs, ADD for what is between them.
    fn cover(&mut self, content: &[u8], corpus: &[u8], cover: &Cover, copy_from: usize) {
        let new = &content[cover.new..cover.new + cover.len];
        let old = &corpus[cover.old as usize..cover.old as usize + cover.len];
        let (mut at, mut from) = (0, 0);
        while at < new.len() {
            let equal = common(&new[at..], &old[at..]);
            if equal >= copy_from || equal == new.len() {
                self.add(&new[from..at], &old[from..at]);
                self.ops.push(PieceOp::Copy(equal as u64));
                from = at + equal;
            }
            at += equal + 1;
        }
        self.add(&new[from..], &old[from..]);
    }

    fn add(&mut self, new: &[u8], old: &[u8]) {
        if !new.is_empty() {
            self.bytes.extend(new.iter().zip(old).map(|(n, o)| n.wrapping_sub(*o)));
            self.ops.push(PieceOp::Add(new.len()));
        }
    }
}

fn write(ops: &[PieceOp<'_>], bytes: &[u8], writer: &mut OpWriter<impl Write>) -> io::Result<()> {
    let mut take = payloads(bytes);
    for op in ops {
        match op {
            PieceOp::Data(n) => writer.data(take(*n))?,
            PieceOp::Open(path) => writer.open(path)?,
            PieceOp::Seek(position) => writer.seek(*position),
            PieceOp::Copy(len) => writer.copy(*len)?,
            PieceOp::Add(n) => writer.add_data(take(*n))?,
            PieceOp::Dictionary(n, file_size) => writer.dictionary(take(*n), *file_size)?,
        }
    }
    Ok(())
}

/// Bytes of these operations in a stream of their own.
fn packed_size(ops: &[PieceOp<'_>], bytes: &[u8], level: i32) -> io::Result<usize> {
    let window_log = (bytes.len() as u64).next_power_of_two().ilog2().clamp(16, 27);
    let options = WriterOptions { level, window_log, ..WriterOptions::default() };
    let mut writer = OpWriter::new(Vec::new(), Version::V2, options)?;
    write(ops, bytes, &mut writer)?;
    Ok(writer.finish()?.len())
}
