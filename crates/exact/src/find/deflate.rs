//! What the beginning and the end of a deflate stream say about its encoder.

use std::io::{Read, Seek, SeekFrom};

use super::NotFound;
use crate::deflate::parse::{BlockKind, Parser, Step};
use crate::pgzip::BlockSize;

/// What is read at once, in bytes.
const PIECE: usize = 16 << 10;
/// So many blocks are looked at.
const MOST_BLOCKS: usize = 64;
/// How many sizes of blocks are told.
const TOLD: usize = 4;

/// A block that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) shape: Shape,
    /// The plain bytes.
    pub(super) size: u64,
    pub(super) tokens: u64,
    pub(super) has_matches: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Stored,
    Fixed,
    Dynamic {
        /// Whether all code lengths are in the header, needed or not.
        has_all_lengths: bool,
    },
}

/// The end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// An empty stored block.
    Stored,
    /// A sync marker, and an empty block with fixed codes.
    MarkerAndFixed,
    Other,
}

/// What is seen of a stream.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) tail: Tail,
    /// The first blocks, without markers and the last.
    pub(super) blocks: Vec<Block>,
    /// The plain bytes before the first two sync markers.
    pub(super) markers: Vec<u64>,
    /// The plain bytes before the first empty blocks with fixed codes.
    pub(super) fillers: Vec<u64>,
}

impl Looks {
    /// The plain bytes of the first blocks.
    pub(super) fn first_sizes(&self) -> Vec<u64> {
        self.blocks.iter().take(TOLD).map(|block| block.size).collect()
    }
}

/// Looks at the stream between two positions of the blob: at so many plain bytes, if nothing marks their pieces.
pub(super) fn look(
    blob: &mut (impl Read + Seek),
    begin: u64,
    end: u64,
    most: u64,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<Looks, NotFound> {
    let mut looks =
        Looks { tail: tail(blob, begin, end)?, blocks: Vec::new(), markers: Vec::new(), fillers: Vec::new() };
    blob.seek(SeekFrom::Start(begin))?;
    let mut stream = blob.take(end - begin);
    let mut parser = Parser::new();
    let mut buffer = vec![0; PIECE];
    let mut open = None;
    loop {
        match parser.step()? {
            Step::NeedsInput => {
                if cancelled() {
                    return Err(NotFound::Cancelled);
                }
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Err(NotFound::CutOff);
                }
                parser.feed(&buffer[..count]);
            }
            Step::Block(head) => {
                let shape = match &head.kind {
                    BlockKind::Stored { length: 0, .. } if !head.is_final => {
                        looks.markers.push(head.plain_position);
                        None
                    }
                    _ if head.is_final => None,
                    BlockKind::Stored { .. } => Some(Shape::Stored),
                    BlockKind::Fixed => Some(Shape::Fixed),
                    BlockKind::Dynamic(lengths) => Some(Shape::Dynamic {
                        has_all_lengths: (lengths.litlen, lengths.distance) == (286, 30),
                    }),
                };
                open = shape.map(|shape| Block {
                    shape,
                    size: head.plain_position,
                    tokens: 0,
                    has_matches: false,
                });
            }
            Step::Tokens(tokens) => {
                if let Some(block) = &mut open {
                    block.tokens += tokens.len() as u64;
                    block.has_matches |= tokens.iter().any(|token| token.is_match());
                }
            }
            Step::Stored(_) => {}
            Step::BlockEnd { plain_position, .. } => {
                if let Some(mut block) = open.take()
                    && looks.blocks.len() < MOST_BLOCKS
                {
                    if plain_position == block.size && block.shape == Shape::Fixed {
                        looks.fillers.push(plain_position);
                        continue;
                    }
                    block.size = plain_position - block.size;
                    looks.blocks.push(block);
                }
            }
            Step::End => {
                // All of it may not have been read yet.
                let more = parser.rest().len() as u64 + stream.limit();
                return if more == 0 { Ok(looks) } else { Err(NotFound::Trailing) };
            }
        }
        let enough = match (looks.tail, looks.markers.as_slice()) {
            // Far markers tell the size of blocks.
            (Tail::MarkerAndFixed, []) => BlockSize::MAX as u64,
            (_, []) => most,
            // Is there a second one right behind it?
            (_, [marker]) => *marker,
            _ => return Ok(looks),
        };
        if parser.plain_position() > enough {
            return Ok(looks);
        }
    }
}

fn tail(blob: &mut (impl Read + Seek), begin: u64, end: u64) -> Result<Tail, NotFound> {
    let start = end.saturating_sub(6).max(begin);
    let mut tail = Vec::new();
    blob.seek(SeekFrom::Start(start))?;
    blob.take(end - start).read_to_end(&mut tail)?;
    Ok(match tail.as_slice() {
        // No code ends so: the bits of the last one are zero, and so is the padding.
        [.., 0, 0, 0xff, 0xff] => Tail::Stored,
        [0, 0, 0xff, 0xff, 3, 0] => Tail::MarkerAndFixed,
        _ => Tail::Other,
    })
}
