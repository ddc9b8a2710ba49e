//! The fix of a blob that no encoder makes alone.

use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroUsize;

use super::compare::{Verdict, compare};
use super::section::Section;
use super::split::{Kind, Piece, read, split};
use super::{Files, NotFound, Sizes, gzip};
use crate::deflate::Token;
use crate::deflate::parse::{BlockKind, CodeLengths, Parser, Step};
use crate::fix::blocks::{self, Head};
use crate::fix::body::{Models, counts};
use crate::fix::parts::{By, Member, Part, Parts};
use crate::fix::plain::Plain;
use crate::fix::range::Encoder;
use crate::fix::{FixDigest, MAGIC, RUN, SHARE, most};
use crate::recipe::{Deflate, MAX_HEADER, Method, Recipe, Wrap};

/// What is read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// After so many bytes of deflate streams, a fix that is twice as large as it may be will not become small enough.
const PROMISE: u64 = 4 << 20;
/// The longest header that is kept in a recipe with a fix, so that its text stays short.
const SHORT_HEADER: usize = 64;

/// A recipe, and its fix if it needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How the blob is made.
    pub recipe: Recipe,
    /// What its encoder does not give.
    pub fix: Option<Vec<u8>>,
}

/// As [`find`](super::find), and if there is no recipe, one with a fix is sought.
///
/// # Errors
///
/// There is no recipe, or the fix would be larger than [`most`].
pub fn find_or_fix<B: Read + Seek, P: Read + Seek>(
    blob: impl FnMut() -> io::Result<B>,
    plain: impl FnMut() -> io::Result<P>,
    threads: NonZeroUsize,
    mut cancelled: impl FnMut() -> bool,
) -> Result<Found, NotFound> {
    let mut files = Files { blob, plain, cancelled: &mut cancelled };
    let sizes = files.sizes()?;
    let reason = match files.search(&[], sizes, threads).and_then(super::short_enough) {
        Ok(recipe) => return Ok(Found { recipe, fix: None }),
        Err(error @ (NotFound::Io(_) | NotFound::Cancelled)) => return Err(error),
        Err(reason) => reason,
    };
    let pieces = match split(&mut (files.blob)()?, sizes, files.cancelled) {
        Ok(pieces) => pieces,
        Err(error @ (NotFound::Io(_) | NotFound::Cancelled | NotFound::ManyParts)) => return Err(error),
        // No member: the first reason says more.
        Err(_) => return Err(reason),
    };
    let Some(method) = files.method(&pieces, threads, &reason)? else { return Err(reason) };
    let fix = files.fix(&method, &pieces, sizes)?;
    let recipe = Recipe::new(sizes.blob, method)?.with_fix(FixDigest::of(&fix));
    let has_threads = recipe.method().has_threads() && threads.get() > 1;
    for threads in [NonZeroUsize::MIN, threads].into_iter().take(1 + usize::from(has_threads)) {
        let opened = ((files.blob)()?, (files.plain)()?);
        if compare((&recipe, Some(&fix)), opened, u64::MAX, threads, files.cancelled)? != Verdict::Same {
            return Err(reason);
        }
    }
    let recipe = super::short_enough(recipe)?;
    Ok(Found { recipe, fix: Some(fix) })
}

impl<B, P, F, G> Files<'_, F, G>
where
    B: Read + Seek,
    P: Read + Seek,
    F: FnMut() -> io::Result<B>,
    G: FnMut() -> io::Result<P>,
{
    /// Both sides of a piece.
    fn open(&mut self, piece: &Piece) -> io::Result<(Section<B>, Section<P>)> {
        let blob = Section::new((self.blob)()?, piece.blob.clone())?;
        Ok((blob, Section::new((self.plain)()?, piece.plain.clone())?))
    }

    /// The encoder of the largest member, which tells most; without one, that of `tokens` where it serves.
    fn method(
        &mut self,
        pieces: &[Piece],
        threads: NonZeroUsize,
        reason: &NotFound,
    ) -> Result<Option<Method>, NotFound> {
        let members = pieces.iter().filter(|piece| piece.kind != Kind::Raw);
        let Some(largest) = members.max_by_key(|piece| piece.plain.end - piece.plain.start) else {
            return Ok(None);
        };
        let header = self.header(largest)?;
        // A header that no recipe holds is left out of the search.
        let inner = if header.len() > MAX_HEADER { largest.stream() } else { largest.clone() };
        let mut encoder = Deflate::Tokens;
        // A blob of one member was searched already.
        if pieces.len() > 1 || !matches!(reason, NotFound::UnknownEncoder(_)) {
            let found = {
                let Files { blob, plain, cancelled } = self;
                let blob = || Section::new(blob()?, inner.blob.clone());
                let plain = || Section::new(plain()?, inner.plain.clone());
                Files { blob, plain, cancelled: *cancelled }.search(&[], inner.sizes(), threads)
            };
            match found.map(|recipe| recipe.method().clone()) {
                Ok(Method::Deflate { encoder: found, .. }) => encoder = found,
                Ok(method) => return Ok(Some(method)),
                Err(error @ (NotFound::Io(_) | NotFound::Cancelled)) => return Err(error),
                Err(_) => {}
            }
        }
        // The fix has the header if it is long.
        let header = if header.len() > SHORT_HEADER { Vec::new() } else { header };
        let is_gzip = largest.kind != Kind::Zstd;
        Ok(is_gzip.then_some(Method::Deflate { wrap: Wrap::Gzip { header }, encoder }))
    }

    fn header(&mut self, piece: &Piece) -> Result<Vec<u8>, NotFound> {
        let mut header = Vec::new();
        if let Kind::Gzip { header: length } = piece.kind {
            self.open(piece)?.0.take(length).read_to_end(&mut header)?;
        }
        Ok(header)
    }

    /// Whether the encoder makes a member.
    fn is_made(&mut self, method: &Method, piece: &Piece) -> Result<bool, NotFound> {
        if matches!(method, Method::Deflate { encoder: Deflate::Tokens, .. }) {
            return Ok(false);
        }
        let recipe = Recipe::new(piece.sizes().blob, method.clone())?;
        let opened = self.open(piece)?;
        let verdict = compare((&recipe, None), opened, u64::MAX, NonZeroUsize::MIN, self.cancelled)?;
        Ok(verdict == Verdict::Same)
    }

    /// Tells all pieces.
    fn fix(&mut self, method: &Method, pieces: &[Piece], sizes: Sizes) -> Result<Vec<u8>, NotFound> {
        let mut teller = Teller {
            coder: Encoder::new(MAGIC.to_vec()),
            parts: Parts::new(method.header().to_vec()),
            models: None,
            most: most(sizes.blob),
            told: 0,
        };
        for piece in pieces {
            let Sizes { blob: length, plain } = piece.sizes();
            let header = self.header(piece)?;
            let is_member = piece.kind != Kind::Raw;
            // The header is taken over as it is.
            let bare =
                Piece { blob: piece.blob.start + header.len() as u64..piece.blob.end, ..piece.clone() };
            if is_member && self.is_made(&method.of_member(Vec::new(), plain), &bare)? {
                teller.part(Part::Member(Member { by: By::Encoder, plain, header }))?;
            } else if let Kind::Gzip { header: skipped } = piece.kind {
                teller.part(Part::Member(Member { by: By::Fix, plain, header }))?;
                let (mut blob, source) = self.open(piece)?;
                blob.seek(SeekFrom::Start(skipped))?;
                let stream = blob.take(length - skipped - gzip::TRAILER);
                teller.stream(stream, (source, plain), self.cancelled)?;
            } else {
                teller.part(Part::Raw { length, plain })?;
                teller.raw(self.open(piece)?.0, self.cancelled)?;
            }
        }
        teller.part(Part::End)?;
        let fix = teller.coder.finish();
        if fix.len() as u64 > teller.most { Err(NotFound::LongFix) } else { Ok(fix) }
    }
}

/// A fix in the making.
struct Teller {
    coder: Encoder,
    parts: Parts,
    models: Option<Box<Models>>,
    /// The most bytes it may have.
    most: u64,
    /// The bytes of deflate streams that were told.
    told: u64,
}

impl Teller {
    fn check(&self) -> Result<(), NotFound> {
        let length = self.coder.len() as u64;
        let is_hopeless = self.told > PROMISE && length > 2 * self.told / SHARE;
        if length > self.most || is_hopeless { Err(NotFound::LongFix) } else { Ok(()) }
    }

    fn part(&mut self, part: Part) -> Result<(), NotFound> {
        // What it refuses, the comparison finds.
        let _ = self.parts.code(&mut self.coder, part);
        self.check()
    }

    /// Tells bytes as they are.
    fn raw(&mut self, mut bytes: impl Read, cancelled: &mut dyn FnMut() -> bool) -> Result<(), NotFound> {
        let mut buffer = vec![0; BUFFER];
        loop {
            if cancelled() {
                return Err(NotFound::Cancelled);
            }
            let count = read(&mut bytes, &mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.parts.bytes(&mut self.coder, &mut buffer[..count]);
            self.check()?;
        }
    }

    /// Tells the blocks and tokens of a deflate stream.
    fn stream(
        &mut self,
        mut stream: impl Read,
        (source, size): (impl Read, u64),
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<(), NotFound> {
        let mut models = self.models.take().unwrap_or_else(|| Box::new(Models::new()));
        models.tokens.restart();
        let mut plain = Followed { plain: Plain::new(size), source, at: 0, buffer: vec![0; BUFFER] };
        let mut parser = Parser::new();
        let mut buffer = vec![0; BUFFER];
        let mut block = Block::default();
        loop {
            match parser.step()? {
                Step::NeedsInput => {
                    if cancelled() {
                        return Err(NotFound::Cancelled);
                    }
                    self.check()?;
                    let count = read(&mut stream, &mut buffer)?;
                    if count == 0 {
                        return Err(NotFound::CutOff);
                    }
                    self.told += count as u64;
                    parser.feed(&buffer[..count]);
                }
                Step::Block(head) => {
                    let (kind, lengths) = match head.kind {
                        BlockKind::Stored { length, padding } => {
                            (blocks::Kind::Stored { length, padding }, None)
                        }
                        BlockKind::Fixed => (blocks::Kind::Fixed, None),
                        BlockKind::Dynamic(lengths) => (blocks::Kind::Dynamic, Some(lengths)),
                    };
                    let head = Head { is_final: head.is_final, kind };
                    // Any head can be told.
                    let _ = models.blocks.head(&mut self.coder, head);
                    block.has_runs = !matches!(kind, blocks::Kind::Stored { .. });
                    block.lengths = lengths;
                }
                Step::Stored(bytes) => {
                    for _ in bytes {
                        plain.fill()?;
                        models.tokens.skip(plain.plain.view(plain.at));
                        plain.at += 1;
                    }
                }
                Step::Tokens(tokens) => {
                    for &token in tokens {
                        block.held.push(token);
                        if block.held.len() == RUN {
                            block.tell(&mut models, &mut self.coder, &mut plain)?;
                        }
                    }
                }
                Step::BlockEnd { .. } if block.has_runs => {
                    block.tell(&mut models, &mut self.coder, &mut plain)?
                }
                Step::BlockEnd { .. } => {}
                Step::End => {
                    self.models = Some(models);
                    return Ok(());
                }
            }
        }
    }
}

/// The plain bytes of a member, as far as the telling is.
struct Followed<P> {
    plain: Plain,
    source: P,
    at: u64,
    buffer: Vec<u8>,
}

impl<P: Read> Followed<P> {
    /// Reads what is wanted for the next token.
    fn fill(&mut self) -> Result<(), NotFound> {
        while self.plain.wanted(self.at) > 0 {
            let most = self.buffer.len().min(usize::try_from(self.plain.left()).unwrap_or(usize::MAX));
            let count = read(&mut self.source, &mut self.buffer[..most])?;
            if count == 0 {
                return Err(NotFound::OtherBytes);
            }
            self.plain.push(&self.buffer[..count], self.at);
        }
        Ok(())
    }
}

/// A block that is told when its tokens are known.
#[derive(Default)]
struct Block {
    has_runs: bool,
    /// Until they are told.
    lengths: Option<CodeLengths>,
    held: Vec<Token>,
}

impl Block {
    /// Tells the tokens that are held, and then the code lengths if they are still to be told.
    fn tell(
        &mut self,
        models: &mut Models,
        coder: &mut Encoder,
        plain: &mut Followed<impl Read>,
    ) -> Result<(), NotFound> {
        let _ = models.blocks.run(coder, self.held.len());
        for &token in &self.held {
            plain.fill()?;
            if models.tokens.code(coder, plain.plain.view(plain.at), token) != Ok(token) {
                return Err(NotFound::OtherBytes);
            }
            plain.at += token.plain_len() as u64;
        }
        if let Some(lengths) = self.lengths.take() {
            let _ = models.blocks.lengths(coder, &counts(&self.held), &lengths);
        }
        self.held.clear();
        Ok(())
    }
}
