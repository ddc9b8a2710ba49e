//! LZMA by liblzma: what its encoder is told, and the format of a bare stream (`.lzma`), in which boot loaders and older
//! kernels are packed.
//!
//! A bare stream begins with the byte of properties, the dictionary and a size. liblzma leaves the size open and writes a mark
//! at the end; what the LZMA SDK writes, with a size and no mark, it does not make. (xz 5.4, doc/lzma-file-format.txt.)

use std::fmt;
use std::io;

use liblzma::stream::{LzmaOptions, PRESET_EXTREME, Stream};
use serde::Deserialize;

/// Most memory that an encoder may touch, in bytes: enough for a kernel image with a dictionary of 32 MiB, which has 66 MB of
/// content in Debian 12 (measured: 373 MiB), as for `xz -8`. It is more than all else of an update needs.
pub(super) const MAX_MEMORY: u64 = 400 << 20;

/// The largest dictionary, 128 MiB: that of kernel images from 6.12 on.
pub(super) const MAX_DICTIONARY: u32 = 128 << 20;

/// The least of the properties byte that makes no sense: (pb * 5 + lp) * 9 + lc, with pb up to 4.
const PROPS_END: u8 = 5 * 5 * 9;
/// lc 3, lp 0, pb 2.
pub(super) const DEFAULT_PROPS: u8 = 0x5d;

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

/// How the encoder of LZMA works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// Bytes.
    pub(super) dictionary: u32,
    /// (pb * 5 + lp) * 9 + lc.
    pub(super) props: u8,
    /// A place in [`PRESETS`].
    preset: usize,
}

/// The fields of a recipe.
#[derive(Deserialize)]
pub(super) struct Text {
    dict: u32,
    #[serde(flatten)]
    coder: CoderText,
}

/// Those that xz has as well.
#[derive(Deserialize)]
pub(super) struct CoderText {
    #[serde(default = "default_props")]
    props: u8,
    preset: String,
}

fn default_props() -> u8 {
    DEFAULT_PROPS
}

/// Those fields, as they are written.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""props":{},"preset":"{}""#, self.props, PRESETS[self.preset].0)
    }
}

impl TryFrom<Text> for Settings {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let known = is_dictionary(text.dict).then_some(text.dict);
        let dictionary = known.ok_or_else(|| format!("a recipe with a dictionary of {} bytes", text.dict))?;
        text.coder.with(dictionary)
    }
}

impl CoderText {
    /// With the dictionary, in bytes.
    pub(super) fn with(self, dictionary: u32) -> Result<Settings, String> {
        let preset = PRESETS.iter().position(|(name, _)| *name == self.preset);
        let preset = preset.ok_or_else(|| format!("a recipe with preset {:?}", self.preset))?;
        let settings = Settings { dictionary, props: self.props, preset };
        if settings.has_props() {
            Ok(settings)
        } else {
            Err(format!("a recipe with properties {}", self.props))
        }
    }
}

/// Bytes of a bare stream's header.
pub(super) const HEADER: usize = 13;

/// What a bare stream begins with that liblzma has made, of which ten bytes are enough; `None` for all else.
pub(super) fn sniff(begin: &[u8]) -> Option<Settings> {
    let (&[props, d0, d1, d2, d3], size) = begin.split_first_chunk()?;
    let settings = Settings { dictionary: u32::from_le_bytes([d0, d1, d2, d3]), props, preset: 0 };
    let is_open = size.len() >= 5 && size.iter().take(8).all(|byte| *byte == 0xff);
    (is_open && settings.has_props() && is_dictionary(settings.dictionary)).then_some(settings)
}

/// A power of two, or the sum of two that follow each other; so the library writes them.
fn is_dictionary(bytes: u32) -> bool {
    let has_form = bytes.is_power_of_two() || bytes.is_multiple_of(3) && (bytes / 3).is_power_of_two();
    has_form && (4 << 10..=MAX_DICTIONARY).contains(&bytes)
}

impl Settings {
    /// The likeliest with these.
    pub(super) fn new(dictionary: u32, props: u8) -> Option<Self> {
        Some(Settings { dictionary, props, preset: 0 }).filter(Settings::has_props)
    }

    fn has_props(&self) -> bool {
        self.props < PROPS_END && self.props % 9 + self.props / 9 % 5 <= 4
    }

    /// All that tell the same of themselves, the likeliest first.
    pub(super) fn candidates(self) -> impl Iterator<Item = Self> {
        (0..PRESETS.len()).map(move |preset| Settings { preset, ..self })
    }

    /// What an encoder touches at most for so many plain bytes, in bytes.
    pub(super) fn memory(&self, plain: u64) -> u64 {
        let dictionary = u64::from(self.dictionary);
        let of_plain = |most: u64| most.min(plain);
        // Positions of each byte of the dictionary, or two of them; by hashes, of as many as half of its bytes.
        let each = if PRESETS[self.preset].1 & !PRESET_EXTREME < TREE_FROM { 4 } else { 8 };
        let hashes = 4 * (dictionary.next_power_of_two() / 2).clamp(1 << 16, 1 << 25);
        each * of_plain(dictionary) + hashes + of_plain(dictionary + dictionary / 2) + (3 << 20)
    }

    /// For the library.
    pub(super) fn options(&self) -> io::Result<LzmaOptions> {
        let props = u32::from(self.props);
        let mut options = LzmaOptions::new_preset(PRESETS[self.preset].1)?;
        options.dict_size(self.dictionary);
        options
            .literal_context_bits(props % 9)
            .literal_position_bits(props / 9 % 5)
            .position_bits(props / 45);
        Ok(options)
    }

    /// An encoder of a bare stream.
    pub(super) fn encoder(&self, plain: u64) -> io::Result<Stream> {
        require(self.memory(plain))?;
        Ok(Stream::new_lzma_encoder(&self.options()?)?)
    }
}

/// Refuses an encoder that may touch so many bytes of memory.
pub(super) fn require(memory: u64) -> io::Result<()> {
    let (found, most) = (memory >> 20, MAX_MEMORY >> 20);
    if memory <= MAX_MEMORY {
        return Ok(());
    }
    Err(invalid(format!("an encoder with these settings takes {found} MiB of memory, more than {most}")))
}

pub(super) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
