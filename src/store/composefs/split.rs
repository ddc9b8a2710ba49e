//! Takes a layer tar apart as it streams by, just as cfsctl does: headers,
//! padding and small files on one side, the content of files on the other.

use composefs::INLINE_CONTENT_MAX_V0;
use tar_core::parse::{ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, HEADER_SIZE};

use crate::error::{Error, Result};

/// Most bytes between two files with objects: the stream writer holds them in
/// memory. A hundred thousand directories in a row have half of it.
const MAX_INLINE_RUN: u64 = 128 << 20;

/// What a stretch of the tar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To be kept in the stream.
    Inline,
    /// A piece of the file that [`Parts::begin_file`] announced.
    Content,
}

/// Receives the parts in order.
pub(super) trait Parts {
    /// The content of a file of `size` bytes comes next.
    fn begin_file(&mut self, size: u64) -> Result<()>;

    /// A piece of the tar.
    fn part(&mut self, part: Part, bytes: &[u8]) -> Result<()>;
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Collects headers, until there are `need` bytes.
    Headers { need: usize },
    /// Passes on bytes: the content of a file with an object, then its padding.
    File { content: u64, padding: u64 },
    /// Passes on bytes of an entry that stays in the stream.
    Inline { left: u64 },
    /// Everything behind the end-of-archive blocks.
    Trailer,
}

/// The state between two writes.
#[derive(Debug)]
pub(super) struct Splitter {
    parser: Parser,
    headers: Vec<u8>,
    state: State,
    run: u64,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Splitter {
            parser: Parser::with_defaults(),
            headers: Vec::with_capacity(HEADER_SIZE),
            state: State::Headers { need: HEADER_SIZE },
            run: 0,
        }
    }

    /// Splits the next bytes of the tar.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut impl Parts) -> Result<()> {
        while !bytes.is_empty() {
            match self.state {
                State::Headers { need } => {
                    let n = bytes.len().min(need - self.headers.len());
                    self.headers.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    if self.headers.len() == need {
                        self.parse(out)?;
                    }
                }
                State::File { content: 0, padding: 0 } | State::Inline { left: 0 } => self.next_entry(),
                State::File { content: 0, padding } => {
                    let n = pass(&mut bytes, padding);
                    self.inline(n, out)?;
                    self.state = State::File { content: 0, padding: padding - n.len() as u64 };
                }
                State::File { content, padding } => {
                    let n = pass(&mut bytes, content);
                    out.part(Part::Content, n)?;
                    self.state = State::File { content: content - n.len() as u64, padding };
                }
                State::Inline { left } => {
                    let n = pass(&mut bytes, left);
                    self.inline(n, out)?;
                    self.state = State::Inline { left: left - n.len() as u64 };
                }
                State::Trailer => {
                    self.inline(bytes, out)?;
                    bytes = &[];
                }
            }
        }
        Ok(())
    }

    /// The tar is over. One end-of-archive block instead of two is enough.
    pub(super) fn finish(&mut self, out: &mut impl Parts) -> Result<()> {
        let complete = match self.state {
            State::Headers { .. } if self.headers.iter().all(|b| *b == 0) => {
                let rest = std::mem::take(&mut self.headers);
                return self.inline(&rest, out);
            }
            State::Headers { .. } => false,
            State::File { content, padding } => content == 0 && padding == 0,
            State::Inline { left } => left == 0,
            State::Trailer => true,
        };
        if complete { Ok(()) } else { Err(broken("it ends early")) }
    }

    fn next_entry(&mut self) {
        self.state = State::Headers { need: HEADER_SIZE };
    }

    fn inline(&mut self, bytes: &[u8], out: &mut impl Parts) -> Result<()> {
        self.run += bytes.len() as u64;
        if self.run > MAX_INLINE_RUN {
            return Err(broken(&format!("more than {MAX_INLINE_RUN} bytes in a row are no file content")));
        }
        out.part(Part::Inline, bytes)
    }

    fn parse(&mut self, out: &mut impl Parts) -> Result<()> {
        let mut headers = std::mem::take(&mut self.headers);
        let event = self.parser.parse(&headers).map_err(|e| broken(&e.to_string()).with_source(e))?;
        let (consumed, next) = match event {
            ParseEvent::NeedData { min_bytes } => (0, State::Headers { need: min_bytes }),
            ParseEvent::GlobalExtensions { consumed, .. } => (consumed, State::Headers { need: HEADER_SIZE }),
            ParseEvent::End { consumed } => (consumed, State::Trailer),
            ParseEvent::SparseEntry { entry, .. } => return Err(unfit(&entry.path, "a sparse file")),
            ParseEvent::Entry { consumed, entry } => {
                check(&entry)?;
                let stored = entry.size.checked_next_multiple_of(HEADER_SIZE as u64);
                let stored = stored.ok_or_else(|| broken("a file is too large"))?;
                if entry.entry_type.is_file() && entry.size > INLINE_CONTENT_MAX_V0 as u64 {
                    let padding = stored - entry.size;
                    (consumed, State::File { content: entry.size, padding })
                } else {
                    (consumed, State::Inline { left: stored })
                }
            }
        };
        self.state = next;
        if consumed == 0 {
            self.headers = headers;
            if let State::Headers { need } = next
                && need <= self.headers.len()
            {
                return Err(broken("its headers make no sense"));
            }
            return Ok(());
        }
        self.inline(&headers[..consumed], out)?;
        if let State::File { content, .. } = next {
            self.run = 0;
            out.begin_file(content)?;
        }
        let rest = headers.split_off(consumed);
        headers.clear();
        self.headers = headers; // for its room
        self.push(&rest, out)
    }
}

/// Cuts at most `most` bytes off the front.
fn pass<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let n = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    let (front, rest) = bytes.split_at(n);
    *bytes = rest;
    front
}

/// Refuses what composefs reads as something else than all other readers of layers, or not at all. For those, only
/// files have content, whatever size another entry states.
fn check(entry: &ParsedEntry<'_>) -> Result<()> {
    let what = match entry.entry_type {
        EntryType::Regular if entry.path.ends_with(b"/") => "a directory",
        EntryType::Regular | EntryType::Continuous => return Ok(()),
        EntryType::Directory => "a directory",
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a FIFO",
        other => return Err(unfit(&entry.path, &format!("an entry of the unknown type {other:?}"))),
    };
    match entry.size {
        0 => Ok(()),
        size => Err(unfit(&entry.path, &format!("{what} with a size, {size} bytes"))),
    }
}

fn unfit(path: &[u8], what: &str) -> Error {
    Error::misfit(format!("composefs cannot store {}: {what}", path.escape_ascii()))
        .with_hint("pull the image into an OCI layout, which takes layers as they are")
}

fn broken(how: &str) -> Error {
    Error::verification(format!("broken tar: {how}"))
}
