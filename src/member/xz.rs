//! xz by liblzma: what a stream says of the settings of its encoder, and the encoder.
//!
//! The check, the filters and the dictionary stand in the headers, the bits of contexts in the first chunk of LZMA2. The
//! preset, which is how hard the encoder searches, does not: it is found by trying. (The .xz file format 1.2.1.)

use std::fmt;
use std::io;
use std::num::NonZeroUsize;

use liblzma::stream::{Check, Filters, LzmaOptions, MtStreamBuilder, PRESET_EXTREME, Stream};
use serde::Deserialize;

/// Most memory that an encoder may touch, in bytes: enough for a kernel image with a dictionary of 32 MiB, which has 66 MB of
/// content in Debian 12 (measured: 373 MiB), as for `xz -8`. It is more than all else of an update needs.
pub const MAX_MEMORY: u64 = 400 << 20;

/// The largest dictionary, 128 MiB: that of kernel images from 6.12 on.
const MAX_DICTIONARY: u32 = 128 << 20;

/// The least bytes of a block that the library cuts by itself.
const MIN_BLOCK: u64 = 1 << 20;
/// The most: three of the largest dictionaries, as the library has it.
const MAX_BLOCK: u64 = 3 * MAX_DICTIONARY as u64;

/// The identifier of the filter LZMA2 in a header.
const LZMA2: u8 = 0x21;

/// Most filters of a stream.
const MAX_FILTERS: usize = 4;

/// The least of the properties byte that makes no sense: (pb * 5 + lp) * 9 + lc, with pb up to 4.
const PROPS_END: u8 = 5 * 5 * 9;
/// lc 3, lp 0, pb 2.
const DEFAULT_PROPS: u8 = 0x5d;

/// How hard the encoder searches: the presets of the library that differ in more than the dictionary, as they are named
/// in recipes, the likeliest first.
const PRESETS: [(&str, u32); 9] = [
    ("6", 6),
    ("6e", 6 | PRESET_EXTREME),
    ("5", 5),
    ("4", 4),
    ("3", 3),
    ("2", 2),
    ("1", 1),
    ("0", 0),
    ("3e", 3 | PRESET_EXTREME),
];

/// Those that keep a tree of all they have seen, not chains.
const TREE_FROM: u32 = 4;

/// All that the library is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    check: u8,
    chain: Chain,
    props: u8,
    /// A place in [`PRESETS`].
    preset: usize,
    /// Plain bytes of a block, where threads make blocks with sizes in their headers; 0 for one block without.
    block: u64,
}

/// The filters of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    /// As they stand in the block's header, LZMA2 and its dictionary the last.
    flags: Vec<u8>,
    dictionary: u32,
}

/// The fields of a recipe.
#[derive(Deserialize)]
pub(super) struct Text {
    check: u8,
    filters: String,
    #[serde(default = "default_props")]
    props: u8,
    preset: String,
    #[serde(default)]
    block: u64,
}

fn default_props() -> u8 {
    DEFAULT_PROPS
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filters = base16ct::lower::encode_string(&self.chain.flags);
        let (check, preset) = (self.check, PRESETS[self.preset].0);
        write!(f, r#""check":{check},"filters":"{filters}","props":{},"preset":"{preset}""#, self.props)?;
        if self.block > 0 { write!(f, r#","block":{}"#, self.block) } else { Ok(()) }
    }
}

impl TryFrom<Text> for Settings {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let flags = base16ct::lower::decode_vec(&text.filters).ok();
        let chain = flags.and_then(|flags| Chain::read(&flags).filter(|(_, len)| *len == flags.len()));
        let (chain, _) = chain.ok_or_else(|| format!("a recipe with filters {:?}", text.filters))?;
        let preset = PRESETS.iter().position(|(name, _)| *name == text.preset);
        let preset = preset.ok_or_else(|| format!("a recipe with preset {:?}", text.preset))?;
        let settings = Settings { check: text.check, chain, props: text.props, preset, block: text.block };
        settings.bound()?;
        Ok(settings)
    }
}

impl Chain {
    /// The filters of that many at the beginning, if they are known here, and how many bytes they take.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        for _ in 0..MAX_FILTERS {
            let [id, len] = *bytes.get(at..)?.first_chunk()?;
            let properties = bytes.get(at + 2..at + 2 + usize::from(len))?;
            at += 2 + usize::from(len);
            if id == LZMA2 {
                let dictionary = dictionary(*properties.first().filter(|_| len == 1)?)?;
                return Some((Chain { flags: bytes[..at].to_vec(), dictionary }, at));
            }
            with_filter(&mut Filters::new(), id, properties)?;
        }
        None
    }

    /// For the library.
    fn filters(&self, options: &LzmaOptions) -> Option<Filters> {
        let mut filters = Filters::new();
        let mut rest = &self.flags[..];
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
        let (lc, lp) = (self.props % 9, self.props / 9 % 5);
        if self.props >= PROPS_END || lc + lp > 4 {
            return Err(format!("a recipe with properties {}", self.props));
        }
        if check(self.check).is_none() {
            return Err(format!("a recipe with check {}", self.check));
        }
        // Smaller blocks are possible, but clearing a dictionary for each of them could take very long.
        let least = MIN_BLOCK.max(self.chain.dictionary.into());
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
        let dictionary = u64::from(self.chain.dictionary);
        let of_plain = |most: u64| most.min(plain);
        // Positions of each byte of the dictionary, or two of them; by hashes, of as many as half of its bytes.
        let each = if PRESETS[self.preset].1 & !PRESET_EXTREME < TREE_FROM { 4 } else { 8 };
        let hashes = 4 * (dictionary.next_power_of_two() / 2).clamp(1 << 16, 1 << 25);
        let window = of_plain(dictionary + dictionary / 2);
        let block = if self.block > 0 { 2 * of_plain(self.block) } else { 0 };
        each * of_plain(dictionary) + hashes + window + block + (3 << 20)
    }

    /// An encoder on so many threads, of which one block has one.
    pub(super) fn encoder(&self, plain: u64, threads: NonZeroUsize) -> io::Result<Stream> {
        let memory = self.memory(plain);
        if memory > MAX_MEMORY {
            let (memory, most) = (memory >> 20, MAX_MEMORY >> 20);
            return Err(invalid(format!(
                "xz with these settings takes {memory} MiB of memory, more than {most}"
            )));
        }
        let mut options = LzmaOptions::new_preset(PRESETS[self.preset].1)?;
        let props = u32::from(self.props);
        options.dict_size(self.chain.dictionary);
        options
            .literal_context_bits(props % 9)
            .literal_position_bits(props / 9 % 5)
            .position_bits(props / 45);
        let filters = self.chain.filters(&options).ok_or_else(|| invalid("filters".to_owned()))?;
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

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
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
        let (chain, _) = Chain::read(rest)?;
        let block = match first {
            Some(first) if first < plain => first,
            // What the library takes if nothing is said.
            Some(_) => (3 * u64::from(chain.dictionary)).max(MIN_BLOCK),
            None => 0,
        };
        let payload = STREAM_HEADER + size;
        // A chunk that is compressed, which tells the properties: the first such one of a block does.
        let props = match begin.get(payload..)?.first_chunk::<6>() {
            Some([0xc0..=0xff, _, _, _, _, props]) => *props,
            _ => DEFAULT_PROPS,
        };
        let settings = Settings { check, chain, props, preset: 0, block };
        settings.bound().ok()?;
        Some(Seen { payload: payload as u64, settings })
    }

    /// What may have made it, the likeliest first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Settings> {
        (0..PRESETS.len()).map(|preset| Settings { preset, ..self.settings.clone() })
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
        (STREAM_HEADER + (2 + self.chain.flags.len() + 4).next_multiple_of(4)) as u64
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
