//! The parts of a blob.

use super::FixError;
use super::blocks::Count;
use super::range::{Chance, Coder, Number};
use crate::recipe::MAX_SIZE;

/// One part, in the order of the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The blob ends.
    End,
    /// Bytes as they are.
    Raw {
        length: u64,
        /// So many plain bytes are passed over, because they are in these.
        plain: u64,
    },
    /// A member of gzip, a frame of zstd, or a bare stream.
    Member(Member),
}

/// A member and its plain bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) by: By,
    /// How many plain bytes are in it.
    pub(crate) plain: u64,
    /// Its header, if there is one in this wrapper.
    pub(crate) header: Vec<u8>,
}

/// Who makes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The encoder of the recipe.
    Encoder,
    /// Nobody: blocks and tokens are in the fix.
    Fix,
}

const END: usize = 0;
const RAW: usize = 1;
const ENCODER: usize = 2;
const FIX: usize = 3;

/// The model of the parts.
#[derive(Debug)]
pub(crate) struct Parts {
    before: usize,
    kinds: [[Chance; 8]; 8],
    raw: Number,
    passed: Count,
    plain: Count,
    header: Vec<u8>,
    is_same: Chance,
    header_length: Number,
    bytes: [Chance; 256],
}

impl Parts {
    /// With the header of the recipe.
    pub(crate) fn new(header: Vec<u8>) -> Self {
        Self {
            before: END,
            kinds: Default::default(),
            raw: Number::default(),
            passed: Count::default(),
            plain: Count::default(),
            header,
            is_same: Chance::default(),
            header_length: Number::default(),
            bytes: [Chance::default(); 256],
        }
    }

    /// Codes the next part, without the bytes of a raw one and the blocks of a member.
    pub(crate) fn code(&mut self, coder: &mut impl Coder, part: Part) -> Result<Part, FixError> {
        let number = match &part {
            Part::End => END,
            Part::Raw { .. } => RAW,
            Part::Member(Member { by: By::Encoder, .. }) => ENCODER,
            Part::Member(Member { by: By::Fix, .. }) => FIX,
        };
        let number = coder.symbol(&mut self.kinds[self.before], number);
        self.before = number;
        let by = match number {
            END => return Ok(Part::End),
            RAW => {
                let (length, plain) =
                    if let Part::Raw { length, plain } = part { (length, plain) } else { (0, 0) };
                let length = coder.number(&mut self.raw, length);
                let plain = limited(self.passed.code(coder, plain))?;
                return Ok(Part::Raw { length, plain });
            }
            ENCODER => By::Encoder,
            FIX => By::Fix,
            _ => return Err(FixError::Part),
        };
        let (plain, header) = match part {
            Part::Member(Member { plain, header, .. }) => (plain, header),
            _ => (0, Vec::new()),
        };
        let plain = limited(self.plain.code(coder, plain))?;
        self.code_header(coder, header)?;
        Ok(Part::Member(Member { by, plain, header: self.header.clone() }))
    }

    /// Most members have the header of the one before.
    fn code_header(&mut self, coder: &mut impl Coder, mut header: Vec<u8>) -> Result<(), FixError> {
        if coder.bit(&mut self.is_same, header == self.header) {
            return Ok(());
        }
        let length = coder.number(&mut self.header_length, header.len() as u64);
        if length > super::MAX_HEADER as u64 {
            return Err(FixError::Limit { what: "bytes in a header", most: super::MAX_HEADER as u64 });
        }
        header.resize(length as usize, 0);
        self.bytes(coder, &mut header);
        self.header = header;
        Ok(())
    }

    /// Codes bytes, in their place.
    pub(crate) fn bytes(&mut self, coder: &mut impl Coder, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = coder.symbol(&mut self.bytes, usize::from(*byte)) as u8;
        }
    }
}

fn limited(plain: u64) -> Result<u64, FixError> {
    if plain > MAX_SIZE { Err(FixError::Limit { what: "plain bytes", most: MAX_SIZE }) } else { Ok(plain) }
}
