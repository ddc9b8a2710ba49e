//! Making a blob from its plain bytes, the recipe's encoder, and a fix.

use std::fmt;
use std::num::NonZeroUsize;

use super::body::{Body, Models, Progress};
use super::parts::{By, Member, Part, Parts};
use super::range::Decoder;
use super::{FREE_PARTS, FixError, MAGIC, MAX_PARTS, PLAIN_PER_PART};
use crate::Encoder;
use crate::recipe::Method;

/// Raw bytes are written in pieces of so many.
const PIECE: usize = 64 << 10;
/// Members of so many plain bytes get more than one thread.
const LARGE: u64 = 8 << 20;

/// A blob in the making.
pub(crate) struct Follow {
    method: Method,
    threads: NonZeroUsize,
    coder: Decoder,
    parts: Parts,
    /// Made with the first member that needs them.
    models: Option<Box<Models>>,
    /// The parts so far, and their plain bytes.
    count: usize,
    plain: u64,
    state: State,
}

enum State {
    Between,
    Raw { left: u64, pass: u64 },
    Encoder { encoder: Box<dyn Encoder>, left: u64 },
    Fix { body: Body, trailer: Option<Trailer> },
    End,
}

impl Follow {
    /// Follows `fix` for a blob that `method` makes but for that.
    pub(crate) fn new(method: &Method, fix: Vec<u8>, threads: NonZeroUsize) -> Result<Self, FixError> {
        if !fix.starts_with(&MAGIC) {
            return Err(FixError::Magic);
        }
        Ok(Self {
            method: method.clone(),
            threads,
            coder: Decoder::new(fix, MAGIC.len()),
            parts: Parts::new(method.header().to_vec()),
            models: None,
            count: 0,
            plain: 0,
            state: State::Between,
        })
    }

    /// Takes some of the plain bytes, and appends what is ready, in a bounded step.
    pub(crate) fn step(&mut self, plain: &mut &[u8], out: &mut Vec<u8>) -> Result<Progress, FixError> {
        match &mut self.state {
            State::Between => self.next_part(out)?,
            State::Raw { left: 0, pass: 0 } => self.state = State::Between,
            State::Raw { left: 0, .. } if plain.is_empty() => return Ok(Progress::NeedsPlain),
            State::Raw { left: 0, pass } => {
                take(plain, *pass, pass);
            }
            State::Raw { left, .. } => {
                let mut piece = vec![0; (*left).min(PIECE as u64) as usize];
                *left -= piece.len() as u64;
                self.parts.bytes(&mut self.coder, &mut piece);
                out.append(&mut piece);
            }
            State::Encoder { left, .. } if *left > 0 && plain.is_empty() => return Ok(Progress::NeedsPlain),
            State::Encoder { encoder, left } if *left > 0 => {
                encoder.push(take(plain, *left, left), out);
            }
            State::Encoder { .. } => {
                if let State::Encoder { encoder, .. } = std::mem::replace(&mut self.state, State::Between) {
                    encoder.finish(out);
                }
            }
            State::Fix { body, trailer } => {
                let mut left = body.plain.left();
                let taken = take(plain, left, &mut left);
                body.push(taken);
                if let Some(trailer) = trailer {
                    trailer.update(taken);
                }
                let models = self.models.get_or_insert_with(|| Box::new(Models::new()));
                match body.step(models, &mut self.coder, out)? {
                    Progress::Done => {
                        if let Some(trailer) = trailer.take() {
                            trailer.finish(out);
                        }
                        self.state = State::Between;
                    }
                    Progress::NeedsPlain if plain.is_empty() => return Ok(Progress::NeedsPlain),
                    Progress::NeedsPlain | Progress::More => {}
                }
            }
            State::End if plain.is_empty() => return Ok(Progress::Done),
            State::End => return Err(FixError::Plain),
        }
        if self.coder.is_beyond_end() {
            return Err(FixError::CutOff);
        }
        Ok(Progress::More)
    }

    fn next_part(&mut self, out: &mut Vec<u8>) -> Result<(), FixError> {
        if self.count > MAX_PARTS {
            return Err(FixError::Limit { what: "parts", most: MAX_PARTS as u64 });
        }
        let most = FREE_PARTS + self.plain / PLAIN_PER_PART;
        if self.count as u64 > most {
            return Err(FixError::Limit { what: "parts of so few plain bytes", most });
        }
        self.count += 1;
        let part = self.parts.code(&mut self.coder, Part::End)?;
        if let Part::Raw { plain, .. } | Part::Member(Member { plain, .. }) = part {
            self.plain = self.plain.saturating_add(plain);
        }
        if self.coder.is_beyond_end() {
            return Err(FixError::CutOff);
        }
        self.state = match part {
            Part::End if self.coder.is_at_end() => State::End,
            Part::End => return Err(FixError::Trailing),
            Part::Raw { length, plain } => State::Raw { left: length, pass: plain },
            // Where none is written, none is wanted.
            Part::Member(Member { header, .. }) if !header.is_empty() && !self.method.is_gzip() => {
                return Err(FixError::Part);
            }
            Part::Member(Member { by: By::Encoder, plain, header }) => {
                let threads = if plain < LARGE { NonZeroUsize::MIN } else { self.threads };
                let encoder = self.method.of_member(header, plain).encoder(threads);
                State::Encoder { encoder: encoder.ok_or(FixError::Part)?, left: plain }
            }
            Part::Member(Member { by: By::Fix, plain, header }) => {
                if !matches!(self.method, Method::Deflate { .. }) {
                    return Err(FixError::Part);
                }
                if let Some(models) = &mut self.models {
                    models.tokens.restart();
                }
                out.extend(header);
                let trailer = self.method.is_gzip().then(Trailer::default);
                State::Fix { body: Body::new(plain), trailer }
            }
        };
        Ok(())
    }
}

/// Takes at most `most` bytes from the front, and lowers `left` by as many.
fn take<'a>(plain: &mut &'a [u8], most: u64, left: &mut u64) -> &'a [u8] {
    let count = plain.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    let (now, later) = plain.split_at(count);
    *plain = later;
    *left -= count as u64;
    now
}

/// The end of a gzip member.
#[derive(Default)]
struct Trailer {
    checksum: crc32fast::Hasher,
    size: u32,
}

impl Trailer {
    fn update(&mut self, plain: &[u8]) {
        self.checksum.update(plain);
        self.size = self.size.wrapping_add(plain.len() as u32);
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.checksum.finalize().to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("method", &self.method)
            .field("parts", &self.count)
            .finish_non_exhaustive()
    }
}
