//! xz by liblzma: what a stream says of the settings of its encoder, and the encoder.
//!
//! The check, the filters and the dictionary stand in the headers, the bits of contexts in the first chunk of LZMA2. The
//! preset, which is how hard the encoder searches, does not: it is found by trying. (The .xz file format 1.2.1.)

use std::fmt;
use std::io;
use std::num::NonZeroUsize;

use liblzma::stream::{Check, Filters, LzmaOptions, MtStreamBuilder, Stream};
use serde::Deserialize;

use super::lzma::{self, CoderText, DEFAULT_PROPS, MAX_DICTIONARY, MAX_MEMORY, invalid};

/// The least bytes of a block that the library cuts by itself.
const MIN_BLOCK: u64 = 1 << 20;
/// The most: three of the largest dictionaries, as the library has it.
const MAX_BLOCK: u64 = 3 * MAX_DICTIONARY as u64;

/// The identifier of the filter LZMA2 in a header.
const LZMA2: u8 = 0x21;

/// Most filters of a stream.
const MAX_FILTERS: usize = 4;

/// All that the library is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    check: u8,
    chain: Chain,
    coder: lzma::Settings,
    /// Plain bytes of a block, where threads make blocks with sizes in their headers; 0 for one block without.
    block: u64,
}

/// The filters of a block, as they stand in its header, LZMA2 and its dictionary the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain(Vec<u8>);

/// The fields of a recipe.
#[derive(Deserialize)]
pub(super) struct Text {
    check: u8,
    filters: String,
    #[serde(flatten)]
    coder: CoderText,
    #[serde(default)]
    block: u64,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filters = base16ct::lower::encode_string(&self.chain.0);
        write!(f, r#""check":{},"filters":"{filters}",{}"#, self.check, self.coder)?;
        if self.block > 0 { write!(f, r#","block":{}"#, self.block) } else { Ok(()) }
    }
}

impl TryFrom<Text> for Settings {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let flags = base16ct::lower::decode_vec(&text.filters).ok();
        let found =
            flags.and_then(|flags| Chain::read(&flags).filter(|(chain, _)| chain.0.len() == flags.len()));
        let (chain, dictionary) = found.ok_or_else(|| format!("a recipe with filters {:?}", text.filters))?;
        let coder = text.coder.with(dictionary)?;
        let settings = Settings { check: text.check, chain, coder, block: text.block };
        settings.bound()?;
        Ok(settings)
    }
}

impl Chain {
    /// The filters at the beginning, if they are known here, and the dictionary in bytes.
    fn read(bytes: &[u8]) -> Option<(Self, u32)> {
        let mut at = 0;
        for _ in 0..MAX_FILTERS {
            let [id, len] = *bytes.get(at..)?.first_chunk()?;
            let properties = bytes.get(at + 2..at + 2 + usize::from(len))?;
            at += 2 + usize::from(len);
            if id == LZMA2 {
                let dictionary = dictionary(*properties.first().filter(|_| len == 1)?)?;
                return Some((Chain(bytes[..at].to_vec()), dictionary));
            }
            with_filter(&mut Filters::new(), id, properties)?;
        }
        None
    }

    /// For the library.
    fn filters(&self, options: &LzmaOptions) -> Option<Filters> {
        let mut filters = Filters::new();
        let mut rest = &self.0[..];
        while let [id, len, more @ ..] = rest {
            let (properties, behind) = more.split_at_checked(usize::from(*len))?;
            if *id == LZMA2 {
                filters.lzma2(options);
            } else {
                with_filter(&mut filters, *id, properties)?;
            }
            rest = behind;
        }
        Some(filters)
    }
}

/// Adds a filter by its identifier, unless it is not known or its properties make no sense.
fn with_filter(filters: &mut Filters, id: u8, properties: &[u8]) -> Option<()> {
    let added = match id {
        0x03 => filters.delta_properties(properties),
        0x04 => filters.x86_properties(properties),
        0x05 => filters.powerpc_properties(properties),
        0x07 => filters.arm_properties(properties),
        0x08 => filters.arm_thumb_properties(properties),
        0x0a => filters.arm64_properties(properties),
        0x0b => filters.riscv_properties(properties),
        _ => return None,
    };
    added.ok().map(|_| ())
}

/// The bytes of a dictionary, by the byte in the header; `None` above the limit.
fn dictionary(byte: u8) -> Option<u32> {
    let bytes = 2 | u32::from(byte & 1);
    let bytes = bytes.checked_shl(u32::from(byte / 2) + 11).filter(|_| byte < 40)?;
    (bytes <= MAX_DICTIONARY).then_some(bytes)
}

impl Settings {
    fn bound(&self) -> Result<(), String> {
        if check(self.check).is_none() {
            return Err(format!("a recipe with check {}", self.check));
        }
        // Smaller blocks are possible, but clearing a dictionary for each of them could take very long.
        let least = MIN_BLOCK.max(self.coder.dictionary.into());
        if self.block > 0 && !(least..=MAX_BLOCK).contains(&self.block) {
            return Err(format!(
                "a recipe with blocks of {} bytes, {least} to {MAX_BLOCK} are possible",
                self.block
            ));
        }
        Ok(())
    }

    /// What an encoder touches at most for so many plain bytes, in bytes.
    pub(super) fn memory(&self, plain: u64) -> u64 {
        let block = if self.block > 0 { 2 * self.block.min(plain) } else { 0 };
        self.coder.memory(plain) + block
    }

    /// An encoder on so many threads, of which one block has one.
    pub(super) fn encoder(&self, plain: u64, threads: NonZeroUsize) -> io::Result<Stream> {
        let memory = self.memory(plain);
        lzma::require(memory)?;
        let filters =
            self.chain.filters(&self.coder.options()?).ok_or_else(|| invalid("filters".to_owned()))?;
        let check = check(self.check).ok_or_else(|| invalid("check".to_owned()))?;
        if self.block == 0 {
            return Ok(Stream::new_stream_encoder(&filters, check)?);
        }
        let most = (MAX_MEMORY / memory).max(1);
        let threads = (threads.get() as u64).min(most).min(plain.div_ceil(self.block).max(1));
        let mut builder = MtStreamBuilder::new();
        builder.threads(threads as u32).block_size(self.block).filters(filters).check(check);
        Ok(builder.encoder()?)
    }
}

/// The check of a number in the format.
fn check(number: u8) -> Option<Check> {
    [Check::None, Check::Crc32, Check::Crc64, Check::Sha256].into_iter().find(|check| *check as u8 == number)
}

/// Bytes of a stream's header.
const STREAM_HEADER: usize = 12;
/// The most bytes of a stream that are looked at: its header, that of its first block, and of the first chunk in that.
pub(super) const BEGIN: usize = STREAM_HEADER + 1024 + 6;

/// A stream's beginning.
#[derive(Debug)]
pub(super) struct Seen {
    /// Where its first chunk is.
    pub(super) payload: u64,
    settings: Settings,
}

impl Seen {
    /// What can be seen of a stream with so many plain bytes; `None` if its settings are none that are known here.
    pub(super) fn read(begin: &[u8], plain: u64) -> Option<Self> {
        let check = *begin.get(7)?;
        let size = usize::from(*begin.get(STREAM_HEADER)?) * 4 + 4;
        let header = begin.get(STREAM_HEADER..STREAM_HEADER + size)?;
        let flags = *header.get(1)?;
        let mut rest = header.get(2..)?;
        let has = |flag: u8| flags & flag != 0;
        // Both sizes or none: nobody writes one alone.
        let first = match (has(0x40), has(0x80)) {
            (true, true) => {
                number(&mut rest)?;
                Some(number(&mut rest)?)
            }
            (false, false) => None,
            _ => return None,
        };
        let (chain, dictionary) = Chain::read(rest)?;
        let block = match first {
            Some(first) if first < plain => first,
            // What the library takes if nothing is said.
            Some(_) => (3 * u64::from(dictionary)).max(MIN_BLOCK),
            None => 0,
        };
        let payload = STREAM_HEADER + size;
        // A chunk that is compressed, which tells the properties: the first such one of a block does.
        let props = match begin.get(payload..)?.first_chunk::<6>() {
            Some([0xc0..=0xff, _, _, _, _, props]) => *props,
            _ => DEFAULT_PROPS,
        };
        let settings = Settings { check, chain, coder: lzma::Settings::new(dictionary, props)?, block };
        settings.bound().ok()?;
        Some(Seen { payload: payload as u64, settings })
    }

    /// What may have made it, the likeliest first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Settings> {
        self.settings.coder.candidates().map(|coder| Settings { coder, ..self.settings.clone() })
    }
}

impl Settings {
    /// The same in one block, if it is none: it begins as the first of several, for the plain bytes of that.
    pub(super) fn in_one_block(&self) -> Option<(Self, u64)> {
        (self.block > 0).then(|| (Settings { block: 0, ..self.clone() }, self.block))
    }

    /// Where the first chunk is in what it makes in one block.
    pub(super) fn payload(&self) -> u64 {
        // Size, flags, filters and checksum, on a multiple of four bytes.
        (STREAM_HEADER + (2 + self.chain.0.len() + 4).next_multiple_of(4)) as u64
    }
}

/// A number of the format: seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
