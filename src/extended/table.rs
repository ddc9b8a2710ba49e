//! What stands before the operations: the recipes, the holders of old bytes and the members to make, which operations
//! name by number.

use std::collections::HashMap;
use std::io::Read;
use std::str::FromStr as _;
use std::sync::Arc;

use super::streams::{broken, number};
use super::{MAX_DEPTH, MAX_LAYERS, MAX_TABLE, TABLE_WINDOW_LOG};
use crate::base::{Holder, Inside};
use crate::digest::{DiffId, Digest};
use crate::error::{Error, IoContext as _, Result};
use crate::member::{Coding, Packing, Recipe, Sizes};
use crate::tardiff::Limits;

/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// Of an encoder's memory a share of one in so many counts as bytes that are in its member.
const MEMORY_SHARE: u64 = 256;

/// The level of zstd for it.
const LEVEL: i32 = 19;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) holders: Vec<Holder>,
    pub(super) members: Vec<Packing>,
}

impl Table {
    /// Reads it, from its length on.
    ///
    /// # Errors
    /// Verification where it makes no sense or goes beyond a limit.
    pub(super) fn read(reader: &mut impl Read, limits: &Limits) -> Result<Self> {
        let len = number(reader)?.filter(|len| *len <= MAX_TABLE);
        let len = len.ok_or_else(|| broken(&format!("a table of more than {MAX_TABLE} bytes")))?;
        let damaged = |e: std::io::Error| broken(&format!("its table: {e}")).with_source(e);
        let mut packed = Vec::new();
        reader.take(len).read_to_end(&mut packed).at("patch")?;
        if (packed.len() as u64) < len {
            return Err(broken("truncated in its table"));
        }
        let mut plain =
            zstd::stream::read::Decoder::with_buffer(&packed[..]).map_err(damaged)?.single_frame();
        plain.window_log_max(TABLE_WINDOW_LOG).map_err(damaged)?;
        let mut bytes = Vec::new();
        plain.by_ref().take(MAX_TABLE + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 > MAX_TABLE {
            return Err(broken(&format!("a table of more than {MAX_TABLE} bytes")));
        }
        if !plain.finish().is_empty() {
            return Err(broken("bytes behind the frame of its table"));
        }
        let mut rows = Rows { rest: &bytes, members: limits.members };
        let recipes = rows.recipes()?;
        let holders = rows.holders()?;
        let members = rows.members(&recipes)?;
        match rows.rest.len() {
            0 => Ok(Table { holders, members }),
            rest => Err(broken(&format!("{rest} bytes behind its table"))),
        }
    }

    /// As a patch has it.
    ///
    /// # Errors
    /// Misfit for what no table can hold.
    pub(super) fn write(&self, limits: &Limits) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let of_member: Vec<usize> = self
            .members
            .iter()
            .map(|packing| {
                let text = packing.recipe.to_string();
                *known.entry(text).or_insert_with_key(|text| {
                    texts.push(text.clone());
                    texts.len() - 1
                })
            })
            .collect();
        put(&mut plain, texts.len() as u64);
        for text in &texts {
            put(&mut plain, text.len() as u64);
            plain.extend_from_slice(text.as_bytes());
        }
        self.write_holders(&mut plain)?;
        put(&mut plain, self.members.len() as u64);
        for (packing, recipe) in self.members.iter().zip(of_member) {
            for of_it in [recipe as u64, packing.sizes.packed, packing.sizes.plain] {
                put(&mut plain, of_it);
            }
        }
        let stretches = self.holders.iter().map(|holder| match holder {
            Holder::Layer(_) => 0,
            Holder::Inside(inside) => inside.plain,
        });
        let all = stretches.chain(self.members.iter().map(charge)).fold(0, u64::saturating_add);
        if all > limits.members {
            return Err(Error::misfit(format!("{all} bytes in members are too many for an extended patch")));
        }
        if plain.len() as u64 > MAX_TABLE {
            return Err(Error::misfit(format!("more than {MAX_TABLE} bytes of table for an extended patch")));
        }
        let frame = zstd::bulk::compress(&plain, LEVEL).at("patch")?;
        let mut table = Vec::new();
        put(&mut table, frame.len() as u64);
        table.extend(frame);
        Ok(table)
    }

    fn write_holders(&self, plain: &mut Vec<u8>) -> Result<()> {
        put(plain, self.holders.len() as u64);
        let mut numbers: HashMap<&Holder, usize> = HashMap::new();
        let mut ends = vec![0; self.holders.len()];
        for (at, holder) in self.holders.iter().enumerate() {
            match holder {
                Holder::Layer(diff_id) => {
                    put(plain, 0);
                    plain.extend(bytes_of(diff_id)?);
                }
                Holder::Inside(inside) => {
                    let outer = numbers.get(&inside.holder).copied();
                    let outer =
                        outer.ok_or_else(|| Error::misfit(format!("{holder}: its holder is not listed")))?;
                    let Inside { range, coding, plain: content, .. } = &**inside;
                    let gap = zigzag(range.start.wrapping_sub(ends[outer]) as i64);
                    ends[outer] = range.end;
                    for of_it in
                        [outer as u64 + 1, gap, range.end - range.start, coding.number().into(), *content]
                    {
                        put(plain, of_it);
                    }
                }
            }
            numbers.insert(holder, at);
        }
        Ok(())
    }
}

/// Reads the table's numbers.
struct Rows<'a> {
    rest: &'a [u8],
    /// Bytes that may still be in members.
    members: u64,
}

impl Rows<'_> {
    fn number(&mut self) -> Result<u64> {
        number(&mut self.rest)?.ok_or_else(|| broken("a number of 2^63 or more in its table"))
    }

    /// How many rows follow, of at least so many bytes each.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.number()?;
        let most = (self.rest.len() / least) as u64;
        if count > most {
            return Err(broken(&format!("its table has {count} rows in {} bytes", self.rest.len())));
        }
        Ok(count as usize)
    }

    fn take(&mut self, len: usize) -> Result<&[u8]> {
        let taken = self.rest.split_at_checked(len).ok_or_else(|| broken("truncated in its table"))?;
        self.rest = taken.1;
        Ok(taken.0)
    }

    fn recipes(&mut self) -> Result<Vec<Arc<Recipe>>> {
        let count = self.count(2)?;
        (0..count)
            .map(|_| {
                let len = self.number()?;
                let text = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
                let text = std::str::from_utf8(text).map_err(|e| broken(&format!("a recipe: {e}")))?;
                // A newer one may know more encoders.
                let recipe = Recipe::from_str(text)
                    .map_err(|e| Error::misfit(format!("an extended patch with {e}")))?;
                Ok(Arc::new(recipe))
            })
            .collect()
    }

    fn holders(&mut self) -> Result<Vec<Holder>> {
        let count = self.count(2)?;
        // With the end of the last stretch of each, and how many are around it.
        let mut holders: Vec<(Holder, u64, u32)> = Vec::new();
        let mut layers = 0;
        for _ in 0..count {
            let (holder, depth) = match self.number()?.checked_sub(1) {
                None => {
                    layers += 1;
                    let mut digest = [0; DIGEST];
                    digest.copy_from_slice(self.take(DIGEST)?);
                    (Holder::Layer(diff_id(&digest)?), 0)
                }
                Some(outer) => self.inside(outer, &mut holders)?,
            };
            if layers > MAX_LAYERS {
                return Err(broken(&format!("more than {MAX_LAYERS} layers")));
            }
            holders.push((holder, 0, depth));
        }
        Ok(holders.into_iter().map(|(holder, ..)| holder).collect())
    }

    fn inside(&mut self, outer: u64, holders: &mut [(Holder, u64, u32)]) -> Result<(Holder, u32)> {
        let listed = holders.len();
        let outer = usize::try_from(outer).ok().and_then(|outer| holders.get_mut(outer));
        let (holder, last, depth) = outer.ok_or_else(|| {
            broken(&format!("a stretch of what its table does not have before: {listed} rows"))
        })?;
        if *depth >= MAX_DEPTH {
            return Err(broken(&format!("more than {MAX_DEPTH} compressed stretches in each other")));
        }
        let gap = signed(self.number()?);
        let (len, coding, plain) = (self.number()?, self.number()?, self.number()?);
        let start = last.checked_add_signed(gap);
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        let range = range.ok_or_else(|| broken("a stretch outside of everything"))?;
        let known = u8::try_from(coding).ok().and_then(Coding::from_number);
        let coding = known.ok_or_else(|| {
            Error::misfit(format!("an extended patch with a stretch of coding {coding}"))
                .with_hint("a newer oci-delta-fetch may know it")
        })?;
        *last = range.end;
        let (holder, depth) = (holder.clone(), *depth + 1);
        self.opens(plain)?;
        Ok((Holder::Inside(Arc::new(Inside { holder, range, coding, plain })), depth))
    }

    fn members(&mut self, recipes: &[Arc<Recipe>]) -> Result<Vec<Packing>> {
        let count = self.count(3)?;
        (0..count)
            .map(|_| {
                let (recipe, packed, plain) = (self.number()?, self.number()?, self.number()?);
                let found = usize::try_from(recipe).ok().and_then(|recipe| recipes.get(recipe));
                let recipe = found.cloned();
                let recipe =
                    recipe.ok_or_else(|| broken("a member by a recipe that its table does not have"))?;
                let packing = Packing { recipe, sizes: Sizes { packed, plain } };
                self.opens(charge(&packing))?;
                Ok(packing)
            })
            .collect()
    }

    /// So many bytes more are in members.
    fn opens(&mut self, plain: u64) -> Result<()> {
        let left = self.members.checked_sub(plain);
        self.members = left.ok_or_else(|| broken("its members hold more bytes than are allowed"))?;
        Ok(())
    }
}

/// What a member counts: what is in it, and so that no patch keeps encoders busy with nothing but their beginnings.
fn charge(packing: &Packing) -> u64 {
    packing.sizes.plain.saturating_add(packing.recipe.memory(packing.sizes) / MEMORY_SHARE)
}

fn diff_id(digest: &[u8; DIGEST]) -> Result<DiffId> {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = Digest::from_str(&format!("sha256:{hex}"));
    digest.map(DiffId::new).map_err(|e| broken(&format!("the table of layers: {e}")))
}

/// The 32 bytes of a SHA-256.
fn bytes_of(diff_id: &DiffId) -> Result<Vec<u8>> {
    let hex = diff_id.as_digest().digest();
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    let bytes = pairs.map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    bytes.collect::<Option<_>>().ok_or_else(|| Error::misfit(format!("{diff_id} is no SHA-256")))
}

fn put(out: &mut Vec<u8>, number: u64) {
    let (bytes, len) = leb128(number);
    out.extend_from_slice(&bytes[..len]);
}

/// A number as unsigned LEB128, and how many of the bytes it takes.
pub(super) fn leb128(mut number: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut len) = ([0; 10], 0);
    while number >= 0x80 {
        bytes[len] = number as u8 | 0x80;
        number >>= 7;
        len += 1;
    }
    bytes[len] = number as u8;
    (bytes, len + 1)
}

/// Of 0, 1, 2, 3, 4… makes 0, -1, 1, -2, 2…
pub(super) fn signed(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// The reverse.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}
