//! Shares the compressed bytes of a patch out among the stretches of the layer that are made of them.
//!
//! While the patch is read, notes are taken of the stretches and of how far each stream was read for them; and of each stream,
//! marks that tie its compressed bytes to the decompressed ones.

use super::Account;
use crate::error::{Error, Result};
use crate::patch::STREAMS;
use crate::tardiff::Flow;

/// Bytes of the notes on stretches, some ten each, and of the marks. Real patches have some millions of operations, and
/// a stretch has several.
const MAX_NOTES: usize = 64 << 20;

/// Compressed bytes from one mark in a stream to the next, at least.
const STEP: u64 = 16 << 10;

/// A mark stands where an operation begins, for a place within it; so the operation has no more than this part of what was
/// read since the mark before.
const BLUR: u64 = 8;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Made {
    #[default]
    Copied = 0,
    Added = 1,
    Literal = 2,
    Encoded = 3,
}

/// Bytes of each stream of a patch, decompressed.
type OfStreams = [u64; STREAMS];

/// Bytes of the layer that are made in one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stretch {
    made: Made,
    len: u64,
    /// What was read for them.
    read: OfStreams,
}

/// Stretches as they are read.
#[derive(Default)]
pub(super) struct Stretches {
    meters: [Meter; STREAMS],
    /// Made by the present operation.
    pub made: Option<(Made, u64)>,
    /// What was read for operations without output.
    owed: OfStreams,
    /// It may still grow.
    last: Stretch,
    notes: Vec<u8>,
}

impl Stretches {
    /// The operation is read, which ends there in the streams.
    pub fn read_to(&mut self, flows: impl IntoIterator<Item = Flow>) -> Result<()> {
        // What opens a file is charged to the bytes that come from it: the next ones.
        let goes_on = self.owed == OfStreams::default();
        for ((meter, flow), owed) in self.meters.iter_mut().zip(flows).zip(&mut self.owed) {
            *owed += meter.read_to(flow);
        }
        match self.made.take() {
            Some((made, len)) if goes_on && made == self.last.made => self.go_on(len),
            Some((made, len)) => self.begin(made, len),
            None => {}
        }
        let marks: usize = self.meters.iter().map(|meter| size_of_val(&meter.marks[..])).sum();
        if self.notes.len() + marks > MAX_NOTES {
            return Err(Error::verification("patch has too many operations to be accounted for"));
        }
        Ok(())
    }

    /// The last stretch grows by `len` bytes, and by what was read.
    fn go_on(&mut self, len: u64) {
        self.last.len += len;
        for (read, owed) in self.last.read.iter_mut().zip(&mut self.owed) {
            *read += std::mem::take(owed);
        }
    }

    /// A stretch of `len` bytes begins, with what was read.
    pub fn begin(&mut self, made: Made, len: u64) {
        let read = std::mem::take(&mut self.owed);
        std::mem::replace(&mut self.last, Stretch { made, len, read }).note(&mut self.notes);
    }

    pub fn finish(mut self) -> Rest {
        self.last.note(&mut self.notes);
        self.meters.iter_mut().for_each(Meter::mark);
        Rest {
            notes: self.notes,
            noted: 0,
            current: None,
            position: 0,
            meters: self.meters,
            read: OfStreams::default(),
            packed: 0,
        }
    }
}

/// How compressed and decompressed bytes of a stream go together: what is read from one mark to the next is made of
/// what was taken in between.
#[derive(Debug, Default)]
struct Meter {
    /// Both numbers rise.
    marks: Vec<Flow>,
    now: Flow,
}

impl Meter {
    /// The stream is read up to there; gives the bytes that it was read on.
    fn read_to(&mut self, flow: Flow) -> u64 {
        let (read, last) = (flow.plain - self.now.plain, self.last());
        let is_due = self.now.packed >= last.packed + STEP && read <= (self.now.plain - last.plain) / BLUR;
        if is_due && flow.packed > self.now.packed {
            // More was needed, so nothing was left.
            self.mark();
        }
        self.now = flow;
        read
    }

    fn last(&self) -> Flow {
        self.marks.last().copied().unwrap_or_default()
    }

    fn mark(&mut self) {
        if self.now.plain > self.last().plain {
            self.marks.push(self.now);
        }
    }

    /// Compressed bytes that the first `plain` ones are made of.
    fn packed(&self, plain: u64) -> u64 {
        let at = self.marks.partition_point(|mark| mark.plain < plain);
        let before = at.checked_sub(1).map_or(Flow::default(), |before| self.marks[before]);
        let Some(after) = self.marks.get(at) else { return before.packed };
        let part = share(after.packed - before.packed, plain - before.plain, after.plain - before.plain);
        before.packed + part
    }
}

/// The part of `all` that `part` has of `whole`, which is not 0.
fn share(all: u64, part: u64, whole: u64) -> u64 {
    (u128::from(all) * u128::from(part) / u128::from(whole)) as u64
}

impl Stretch {
    /// The first `len` bytes, which are fewer than it has, and the others.
    fn split(self, len: u64) -> (Self, Self) {
        let first = self.read.map(|read| share(read, len, self.len));
        let mut others = self.read;
        others.iter_mut().zip(first).for_each(|(read, first)| *read -= first);
        (Stretch { len, read: first, ..self }, Stretch { len: self.len - len, read: others, ..self })
    }

    /// Writes a note of it: what it is, then numbers as unsigned LEB128.
    fn note(self, notes: &mut Vec<u8>) {
        notes.push(self.made as u8);
        for mut number in [self.len].into_iter().chain(self.read) {
            while number >= 0x80 {
                notes.push(number as u8 | 0x80);
                number >>= 7;
            }
            notes.push(number as u8);
        }
    }

    /// Reads the note that begins at `at`, and moves on to the next.
    fn read(notes: &[u8], at: &mut usize) -> Option<Self> {
        let mut byte = || {
            let byte = notes.get(*at).copied();
            *at += 1;
            byte
        };
        let made = match byte()? {
            0 => Made::Copied,
            1 => Made::Added,
            2 => Made::Literal,
            _ => Made::Encoded,
        };
        let mut number = || {
            let mut value = 0;
            for shift in (0..u64::BITS).step_by(7) {
                let group = byte()?;
                value |= u64::from(group & 0x7f) << shift;
                if group < 0x80 {
                    break;
                }
            }
            Some(value)
        };
        let mut stretch = Stretch { made, len: number()?, read: OfStreams::default() };
        for read in &mut stretch.read {
            *read = number()?;
        }
        Some(stretch)
    }
}

/// Hands the stretches of the notes out up to positions in the layer.
pub(super) struct Rest {
    notes: Vec<u8>,
    /// Bytes of them that were read.
    noted: usize,
    current: Option<Stretch>,
    position: u64,
    meters: [Meter; STREAMS],
    /// Where the streams are at that position.
    read: OfStreams,
    /// Compressed bytes that were charged to somebody.
    pub packed: u64,
}

impl Rest {
    pub fn take_to(&mut self, end: u64) -> Account {
        let mut account = Account::default();
        while self.position < end {
            let next = self.current.take().or_else(|| Stretch::read(&self.notes, &mut self.noted));
            let Some(mut stretch) = next else { break };
            let room = end - self.position;
            if room < stretch.len {
                let (first, others) = stretch.split(room);
                (stretch, self.current) = (first, Some(others));
            }
            self.position += stretch.len;
            account.bytes += stretch.len;
            account.patch_bytes += self.charge(&stretch.read);
            *match stretch.made {
                Made::Copied => &mut account.copied,
                Made::Added => &mut account.added,
                Made::Literal => &mut account.literal,
                Made::Encoded => &mut account.encoded,
            } += stretch.len;
        }
        account
    }

    /// The compressed bytes that these next ones of the streams are made of.
    fn charge(&mut self, read: &OfStreams) -> u64 {
        let mut packed = 0;
        for ((at, read), meter) in self.read.iter_mut().zip(read).zip(&self.meters) {
            let before = meter.packed(*at);
            *at += read;
            packed += meter.packed(*at) - before;
        }
        self.packed += packed;
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_on_operations_without_end_do_not_fill_the_memory() {
        let mut stretches = Stretches::default();
        let mut ended = Ok(());
        for n in 1..=MAX_NOTES as u64 {
            let made = if n % 2 == 0 { Made::Copied } else { Made::Added };
            stretches.made = Some((made, u64::MAX));
            ended = stretches.read_to([Flow { packed: n / 1_000_000, plain: 2 * n }]);
            assert!(stretches.notes.len() < 2 * MAX_NOTES);
            if ended.is_err() {
                break;
            }
        }
        assert!(ended.unwrap_err().to_string().contains("too many operations"));
    }

    #[test]
    fn marks_in_streams_without_end_do_not_fill_the_memory() {
        let mut stretches = Stretches::default();
        stretches.meters[0].marks = vec![Flow::default(); MAX_NOTES / size_of::<Flow>()];
        stretches.read_to([]).unwrap();
        stretches.meters[1].marks.push(Flow::default());
        assert!(stretches.read_to([]).unwrap_err().to_string().contains("too many operations"));
    }

    #[test]
    fn what_is_taken_in_is_shared_out_among_those_that_are_made_of_it() {
        let mut stretches = Stretches::default();
        let flow = |(blocks, plain)| Flow { packed: blocks * STEP, plain };
        // A block for two stretches and one for the third; one of another stream for the last two.
        let (first, second) = ([(1, 100), (1, 800), (2, 900)], [(0, 0), (1, 10), (1, 30)]);
        for (n, (first, second)) in first.into_iter().zip(second).enumerate() {
            stretches.made = Some(([Made::Literal, Made::Added][n % 2], 10));
            stretches.read_to([first, second].map(flow)).unwrap();
        }
        let mut rest = stretches.finish();
        let mut next = || rest.take_to(rest.position + 10).patch_bytes;
        assert_eq!([next(), next(), next()], [STEP / 8, 7 * STEP / 8 + STEP / 3, 2 * STEP - STEP / 3]);
        assert_eq!(rest.packed, 3 * STEP);
    }

    #[test]
    fn a_note_reads_as_it_was_written() {
        let mut notes = Vec::new();
        let stretches = [
            (Made::Copied, 0, 0),
            (Made::Added, 127, 128),
            (Made::Literal, u64::MAX, 1 << 63),
            (Made::Encoded, 1, u64::MAX),
        ];
        let stretches = stretches.map(|(made, len, last)| {
            let mut read = [1; STREAMS];
            read[STREAMS - 1] = last;
            Stretch { made, len, read }
        });
        stretches.iter().for_each(|stretch| stretch.note(&mut notes));
        let mut at = 0;
        for stretch in stretches {
            assert_eq!(Stretch::read(&notes, &mut at), Some(stretch));
        }
        assert_eq!(Stretch::read(&notes, &mut at), None);
    }
}
