//! zlib, pigz, GNU gzip and zlib-ng.

use super::is_flagged_otherwise;
use crate::deflate::{ng, zlib};
use crate::find::deflate::{Looks, Shape, Tail};
use crate::pigz::{self, BlockSize, Cut, Dictionary};
use crate::recipe::Deflate;

/// zlib's own levels, the likeliest first.
const LEVELS: [u8; 9] = [6, 9, 1, 5, 4, 3, 2, 7, 8];
/// What zlib-ng was likely given at once, in bytes.
const PIECES: [usize; 3] = [32 << 10, 8 << 10, 64 << 10];
/// GNU gzip ends blocks at multiples of so many tokens.
const GNU_PERIOD: u64 = 4096;

/// Who ends blocks as it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    /// zlib and zlib-ng: 16,383 tokens.
    Usual,
    /// zlib with more memory, and GNU gzip: 32,767 tokens.
    Long,
    /// GNU gzip: fewer, but a multiple of 4096.
    Gnu,
    /// zlib-ng's fastest level: fixed codes only.
    Fixed,
    /// Nothing is seen.
    Unknown,
    /// None of them.
    Others,
}

impl Blocks {
    fn of(looks: &Looks) -> Self {
        let Some(block) = looks.blocks.iter().find(|block| block.shape != Shape::Stored) else {
            return Self::Unknown;
        };
        match block.tokens {
            16_383 => Self::Usual,
            32_767 => Self::Long,
            tokens if tokens.is_multiple_of(GNU_PERIOD) && tokens > 0 => Self::Gnu,
            _ if block.shape == Shape::Fixed => Self::Fixed,
            _ => Self::Others,
        }
    }
}

/// The encoders that are likely, and those that are only possible: less likely than others.
pub(super) fn encoders(header: Option<&[u8]>, looks: &Looks) -> (Vec<Deflate>, Vec<Deflate>) {
    let pieces = Pieces { header, levels: levels(header) };
    let border = looks.markers.iter().chain(&looks.fillers).min().copied();
    if let Some(border) = border {
        // Streams of zlib that are flushed otherwise are not known.
        let encoders = if looks.tail == Tail::Other { pieces.pigz(looks, border) } else { Vec::new() };
        return (encoders, Vec::new());
    }
    let [usual, most] = zlib::Memory::ALL.map(|memory| pieces.zlib(memory));
    let (gnu, ng) = (pieces.gnu(), pieces.ng());
    match Blocks::of(looks) {
        Blocks::Usual => ([usual, ng].concat(), Vec::new()),
        Blocks::Long if pieces.is_unix() => ([gnu, most].concat(), Vec::new()),
        Blocks::Long => ([most, gnu].concat(), Vec::new()),
        Blocks::Gnu if pieces.is_unix() => (gnu, Vec::new()),
        Blocks::Gnu => (Vec::new(), gnu),
        Blocks::Fixed => (Vec::new(), ng),
        Blocks::Unknown if pieces.is_unix() => ([gnu, usual, most, ng].concat(), Vec::new()),
        Blocks::Unknown => (Vec::new(), [usual, ng, most, gnu].concat()),
        Blocks::Others => (Vec::new(), Vec::new()),
    }
}

fn levels(header: Option<&[u8]>) -> Vec<zlib::Level> {
    let mut levels = LEVELS;
    levels.sort_by_key(|level| is_flagged_otherwise(header, *level as i8));
    levels.into_iter().filter_map(zlib::Level::new).collect()
}

/// What candidates are put together from.
struct Pieces<'a> {
    header: Option<&'a [u8]>,
    levels: Vec<zlib::Level>,
}

impl Pieces<'_> {
    /// Whether the header is that of a program, not of a library in another language.
    fn is_unix(&self) -> bool {
        self.header.and_then(|header| header.get(9)) == Some(&3)
    }

    fn zlib(&self, memory: zlib::Memory) -> Vec<Deflate> {
        let settings = self.levels.iter().map(|&level| zlib::Settings { level, memory });
        settings.map(|settings| Deflate::Zlib { settings }).collect()
    }

    fn gnu(&self) -> Vec<Deflate> {
        self.levels.iter().map(|&level| Deflate::GnuGzip { level }).collect()
    }

    fn ng(&self) -> Vec<Deflate> {
        let pieces = PIECES.into_iter().filter_map(ng::Piece::new);
        let settings =
            pieces.flat_map(|piece| self.levels.iter().map(move |&level| ng::Settings { level, piece }));
        settings.map(|settings| Deflate::ZlibNg { settings }).collect()
    }

    /// pigz, whose first job or piece that is seen to end does so at a border.
    fn pigz(&self, looks: &Looks, border: u64) -> Vec<Deflate> {
        // With it, each end is marked twice.
        let dictionary = match looks.markers.as_slice() {
            [first, second] if first == second => Dictionary::Absent,
            _ => Dictionary::Present,
        };
        let mut cuts = Vec::new();
        let usual = BlockSize::DEFAULT.get() as u64;
        // An end is not always marked: the first that is seen may be the second.
        let sizes = [if border.is_multiple_of(usual) { usual } else { border }, border, border / 2];
        for size in sizes.into_iter().filter_map(|size| BlockSize::new(usize::try_from(size).ok()?)) {
            if !cuts.contains(&(size, Cut::Even)) {
                cuts.push((size, Cut::Even));
            }
        }
        if !border.is_multiple_of(usual) {
            cuts.push((BlockSize::DEFAULT, Cut::Rsyncable));
        }
        let settings = cuts.into_iter().flat_map(|(block, cut)| {
            self.levels.iter().map(move |&level| pigz::Settings { level, block, dictionary, cut })
        });
        settings.map(|settings| Deflate::Pigz { settings }).collect()
    }
}
