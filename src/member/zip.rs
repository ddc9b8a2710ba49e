//! The deflated entries of a zip archive, a jar or a wheel (APPNOTE.TXT of PKWARE).
//!
//! They are told by the central directory: in jars, the headers before the entries often do not know their sizes. What is
//! odd in an archive only hides entries: it is data like any other.

use std::ops::Range;

use super::{Coding, Limits, MIN_PACKED, Member};
use crate::cancel::Cancel;
use crate::error::{IoContext as _, Result};
use crate::region::Region;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";

/// Bytes of the records, without the texts behind them.
const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;

/// The longest comment behind the last record.
const MAX_COMMENT: u64 = 0xffff;

/// The largest central directory that is read, in bytes: 65,535 entries with names of 200 bytes.
const MAX_DIRECTORY: u64 = 16 << 20;

/// The method of an entry that is deflated.
const DEFLATED: u64 = 8;
/// The flag of an entry that is encrypted.
const ENCRYPTED: u64 = 1;

/// Entries between two looks whether to stop.
const ROUND: usize = 1024;

/// Does a file that begins so have entries?
pub(super) fn is_archive(begin: &[u8]) -> bool {
    begin.starts_with(LOCAL)
}

/// The deflated entries. Of those that overlap, the first one.
pub(super) fn entries(content: &Region, limits: &Limits, cancel: &Cancel) -> Result<Vec<Member>> {
    let Some((directory, at)) = directory(content)? else { return Ok(Vec::new()) };
    let mut members = Vec::new();
    let mut rest = &directory[..];
    for count in 0.. {
        if count % ROUND == 0 {
            cancel.check()?;
        }
        let Some(entry) = Entry::first_of(rest) else { break };
        rest = rest.get(entry.len..).unwrap_or_default();
        if let Some(range) = entry.range(content, limits, at)? {
            members.push(Member { range, coding: Coding::Deflate });
        }
    }
    members.sort_by_key(|member| (member.range.start, member.range.end));
    let mut end = 0;
    members.retain(|member| {
        let is_behind = member.range.start >= end;
        end = end.max(member.range.end);
        is_behind
    });
    members.truncate(limits.members);
    Ok(members)
}

/// The central directory, and where it is.
fn directory(content: &Region) -> Result<Option<(Vec<u8>, u64)>> {
    let from = content.len().saturating_sub(END_LEN as u64 + MAX_COMMENT);
    let mut tail = vec![0; (content.len() - from) as usize];
    content.read_exact_at(&mut tail, from).at("zip archive")?;
    let is_end = |at: &usize| {
        let record = &tail[*at..];
        record.starts_with(END) && number(record, 20, 2) == Some((record.len() - END_LEN) as u64)
    };
    let Some(end) = (0..tail.len().saturating_sub(END_LEN - 1)).rev().find(is_end) else { return Ok(None) };
    let record = &tail[end..];
    let (Some(len), Some(at)) = (number(record, 12, 4), number(record, 16, 4)) else { return Ok(None) };
    // That of zip's larger form says numbers which are too large here.
    if len > MAX_DIRECTORY || at + len > from + end as u64 {
        return Ok(None);
    }
    let mut directory = vec![0; len as usize];
    content.read_exact_at(&mut directory, at).at("zip archive")?;
    Ok(Some((directory, at)))
}

/// An entry, as the central directory knows it.
struct Entry {
    flags: u64,
    method: u64,
    packed: u64,
    plain: u64,
    /// Where its local header is.
    header: u64,
    /// Bytes in the directory.
    len: usize,
}

impl Entry {
    fn first_of(directory: &[u8]) -> Option<Self> {
        let record = directory.get(..CENTRAL_LEN).filter(|record| record.starts_with(CENTRAL))?;
        let texts = number(record, 28, 2)? + number(record, 30, 2)? + number(record, 32, 2)?;
        Some(Entry {
            flags: number(record, 8, 2)?,
            method: number(record, 10, 2)?,
            packed: number(record, 20, 4)?,
            plain: number(record, 24, 4)?,
            header: number(record, 42, 4)?,
            len: CENTRAL_LEN + texts as usize,
        })
    }

    /// Where its stream is, if it is one that is looked into; no stream reaches the directory at `end`.
    fn range(&self, content: &Region, limits: &Limits, end: u64) -> Result<Option<Range<u64>>> {
        let is_deflated = self.method == DEFLATED && self.flags & ENCRYPTED == 0;
        let is_of_use = (MIN_PACKED..=limits.packed).contains(&self.packed) && self.plain <= limits.plain;
        if !is_deflated || !is_of_use || self.header + LOCAL_LEN as u64 > end {
            return Ok(None);
        }
        let mut local = [0; LOCAL_LEN];
        content.read_exact_at(&mut local, self.header).at("zip archive")?;
        let texts = number(&local, 26, 2).zip(number(&local, 28, 2));
        let Some((name, extra)) = texts.filter(|_| local.starts_with(LOCAL)) else { return Ok(None) };
        let start = self.header + LOCAL_LEN as u64 + name + extra;
        let range = start..start + self.packed;
        Ok((range.end <= end).then_some(range))
    }
}

/// The number of `len` bytes, at most four, at `at` of a record.
fn number(record: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = record.get(at..at + len)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
