//! The encoders that are possible, the likeliest first.

mod libzstd;
mod zlib;

use super::deflate::{Block, Looks, Shape, Tail};
use super::{Sizes, zstd};
use crate::deflate::{go, kp};
use crate::pgzip::BlockSize;
use crate::recipe::{Deflate, Frame, KpVersion, Method, Wrap};
use crate::zstd::klauspost as kp_zstd;

/// What the first block says about the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Stored blocks only.
    Stored,
    /// Literals only.
    Literals,
    /// Blocks of 65,535 plain bytes.
    Fast,
    /// Blocks of 16,384 or 32,768 tokens.
    Slow,
    /// Nothing.
    Unknown,
}

impl Kind {
    fn of(blocks: &[Block]) -> Self {
        let Some(first) = blocks.first() else { return Self::Unknown };
        if blocks.iter().all(|block| block.shape == Shape::Stored) {
            return Self::Stored;
        }
        if first.size == 65_535 {
            return Self::Fast;
        }
        match first.tokens {
            _ if blocks.iter().all(|block| !block.has_matches) => Self::Literals,
            16_384 | 32_768 => Self::Slow,
            _ => Self::Unknown,
        }
    }

    /// Whether a level is less likely, given the first slow one.
    fn is_against(self, level: i8, slow: i8) -> bool {
        match self {
            Self::Stored => level != 0,
            Self::Literals => level != -2,
            Self::Fast => !(0..slow).contains(&level),
            Self::Slow => level < slow,
            Self::Unknown => false,
        }
    }
}

/// Whether the header speaks against a level: Go and klauspost name the fastest and the best.
fn is_flagged_otherwise(header: Option<&[u8]>, level: i8) -> bool {
    let Some(flags) = header.and_then(|header| header.get(8)) else { return false };
    *flags
        != match level {
            1 => 4,
            9 => 2,
            _ => 0,
        }
}

/// The encoders of deflate that may have made a stream.
pub(super) fn deflate(header: Option<Vec<u8>>, looks: &Looks, sizes: Sizes) -> Vec<Method> {
    let header_seen = header.as_deref();
    let encoders = match looks.tail {
        // Go up to 1.26 ends so, and the others do not.
        Tail::Stored => go_encoders(header_seen, looks),
        Tail::MarkerAndFixed | Tail::Other => {
            let mut encoders = Vec::new();
            let (zlib_likely, zlib_possible) = zlib::encoders(header_seen, looks);
            encoders.extend(zlib_likely);
            let is_pgzip = looks.tail == Tail::MarkerAndFixed;
            for block in is_pgzip.then(|| block_sizes(looks, sizes)).into_iter().flatten() {
                encoders.extend(kp_encoders(header_seen, looks, Frame::Pgzip(block)));
            }
            // A marker within a stream is none of the encoder's.
            let is_whole = looks.markers.first().is_none_or(|marker| is_pgzip && *marker == sizes.plain);
            if is_whole && looks.fillers.is_empty() {
                encoders.extend(kp_encoders(header_seen, looks, Frame::Stream));
            }
            encoders.extend(zlib_possible);
            encoders
        }
    };
    let wrap = header.map_or(Wrap::Raw, |header| Wrap::Gzip { header });
    encoders.into_iter().map(|encoder| Method::Deflate { wrap: wrap.clone(), encoder }).collect()
}

fn go_encoders(header: Option<&[u8]>, looks: &Looks) -> Vec<Deflate> {
    let kind = Kind::of(&looks.blocks);
    let mut levels = vec![6, 1, 9, 5, 4, 3, 2, 7, 8, 0, -2];
    levels.sort_by_key(|level| (is_flagged_otherwise(header, *level), kind.is_against(*level, 2)));
    let levels = levels.into_iter().filter_map(|level| go::Level::new(level.into()).ok());
    levels.map(|level| Deflate::Go { level }).collect()
}

/// The sizes of pgzip's blocks that explain the markers.
fn block_sizes(looks: &Looks, sizes: Sizes) -> Vec<BlockSize> {
    let whole = sizes.plain;
    let exact = |size: u64| usize::try_from(size).ok().and_then(BlockSize::new);
    match looks.markers.as_slice() {
        [] => Vec::new(),
        // One block, not full. Any size that is larger makes the same.
        [marker] if *marker == whole => {
            let larger = whole.saturating_add(1).next_power_of_two().max(BlockSize::DEFAULT.get() as u64);
            exact(larger).into_iter().collect()
        }
        // A full block has one more behind it.
        [marker, ..] => exact(*marker).into_iter().collect(),
    }
}

fn kp_encoders(header: Option<&[u8]>, looks: &Looks, frame: Frame) -> Vec<Deflate> {
    let kind = Kind::of(&looks.blocks);
    let mut shapes = looks.blocks.iter().map(|block| block.shape);
    let is_old = shapes.find(|shape| matches!(shape, Shape::Dynamic { .. }))
        == Some(Shape::Dynamic { has_all_lengths: true });
    // Go's own gzip writes no time, klauspost's the year zero.
    let is_go = frame == Frame::Stream && header.and_then(|header| header.get(4..8)) == Some(&[0; 4]);
    let c = if is_go { KpVersion::Go127 } else { KpVersion::Family(kp::Family::C) };
    let [a, a118, b] = [kp::Family::A, kp::Family::A118, kp::Family::B].map(KpVersion::Family);
    let versions = if is_old { [a, a118, c, b] } else { [c, b, a, a118] };
    let levels: [i8; 11] =
        if is_go { [6, 1, 9, 5, 4, 3, 2, 7, 8, 0, -2] } else { [5, 6, 1, 9, 4, 3, 2, 7, 8, 0, -2] };
    let mut all = Vec::new();
    for (rank, version) in versions.into_iter().enumerate() {
        for number in levels {
            let Some(level) = kp::Level::new(number) else { continue };
            // Of the others it makes what A makes.
            if version == a118 && number != 4 {
                continue;
            }
            let order = (is_flagged_otherwise(header, number), kind.is_against(number, 7), rank);
            all.push((order, Deflate::Kp { version, level, rounding: kp::Rounding::Twice, frame }));
        }
    }
    all.sort_by_key(|(order, _)| *order);
    all.into_iter().map(|(_, encoder)| encoder).collect()
}

/// The encoders of zstd that may have made a frame.
pub(super) fn zstd(looks: &zstd::Looks, sizes: Sizes) -> Vec<Method> {
    use kp_zstd::{Calls, Family, Level};
    // A window of the level's size, or one that says nothing.
    let levels: &[(Level, u64)] = match (looks.window, looks.content) {
        (Some(0x60), None) => &[(Level::Fastest, 64 << 10)],
        (Some(0x68), None) => &[(Level::Default, 128 << 10)],
        _ => &[(Level::Default, 128 << 10), (Level::Fastest, 64 << 10)],
    };
    let mut all = Vec::new();
    // It always writes a checksum.
    for (level, block) in levels.iter().filter(|_| looks.has_checksum) {
        let calls = match looks.content {
            Some(size) => Calls::Whole { size },
            None => Calls::Stream { flushes: flushes(looks, sizes, *block) },
        };
        for family in Family::ALL {
            all.push(Method::Zstd { family, level: *level, calls: calls.clone() });
        }
    }
    all.extend(libzstd::methods(looks, sizes));
    all
}

/// Where flushes must have been: after a first block that is not full, and at the end before an empty one.
fn flushes(looks: &zstd::Looks, sizes: Sizes, block: u64) -> Vec<u64> {
    let first = looks.first.filter(|first| *first < block);
    let mut flushes: Vec<u64> = first.into_iter().collect();
    let rest = sizes.plain.saturating_sub(first.unwrap_or(0));
    if looks.ends_empty && !rest.is_multiple_of(block) {
        flushes.push(sizes.plain);
    }
    flushes
}
