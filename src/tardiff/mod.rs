//! The tar-diff patch format, versions 1 and 2.
//!
//! A patch is an 8-byte magic and one zstd stream. Inside the stream stand
//! operations until its end: a code byte, a size as unsigned LEB128, and for
//! some codes that many bytes of payload.
//!
//! | code | name | payload | effect |
//! |---|---|---|---|
//! | 0 | data | bytes | append them to the output |
//! | 1 | open | path | make this base file the current one, cursor at 0 |
//! | 2 | copy | – | append `size` bytes from the cursor, advance it |
//! | 3 | add | bytes | append base bytes plus payload bytes, modulo 256, advance |
//! | 4 | seek | – | set the cursor to `size` |
//! | 5 | dictionary | zstd frame | (v2) append the frame's content, with the whole current file as raw dictionary; cursor to its end |
//!
//! The output is a layer's plain tar. Nothing in the patch says how long it is
//! or what its digest must be; whoever applies it compares the diff_id.

use std::num::NonZeroUsize;
use std::path::PathBuf;

mod decode;
mod encode;
mod frame;

pub(crate) use decode::{Counted, varint};
pub use decode::{Flow, Op, OpReader};
pub use encode::{OpWriter, WriterOptions};
pub(crate) use frame::decode_frame;

/// Bytes of the magic.
pub const MAGIC_LEN: usize = 8;
const MAGIC_V1: [u8; MAGIC_LEN] = *b"tardf1\n\0";
const MAGIC_V2: [u8; MAGIC_LEN] = *b"tardf2\n\0";

const DATA: u8 = 0;
const OPEN: u8 = 1;
const COPY: u8 = 2;
const ADD: u8 = 3;
const SEEK: u8 = 4;
const DICTIONARY: u8 = 5;

/// Longest ADD that other appliers accept in bytes (the Go tool and the `oci-delta` crate).
pub const MAX_ADD: u64 = 100 << 20;

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `tardf1`: without dictionary frames.
    V1,
    /// `tardf2`.
    V2,
}

impl Version {
    fn magic(self) -> [u8; MAGIC_LEN] {
        match self {
            Version::V1 => MAGIC_V1,
            Version::V2 => MAGIC_V2,
        }
    }
}

/// Do these first bytes begin a patch, of a known version or not?
pub fn is_patch(head: &[u8]) -> bool {
    head.starts_with(b"tardf")
}

/// Bounds on what a patch may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest window of the outer stream, as a power of two. 27 is what other
    /// appliers accept; each step doubles the memory.
    pub window_log: u32,
    /// Largest window of a dictionary frame. 29 is the producers' own bound.
    pub dictionary_window_log: u32,
    /// Largest base file that serves as dictionary, in bytes: it is held in
    /// memory. 512 MiB is the producers' own bound.
    pub dictionary: u64,
    /// Most operations in a row that put nothing out. A producer needs two
    /// (open, seek); the bound stops streams that only burn time.
    pub idle_ops: u32,
    /// Most bytes, unpacked, of all compressed stretches that an extended patch opens or makes, together.
    pub members: u64,
    /// Encoders of such stretches that work side by side.
    pub threads: NonZeroUsize,
    /// Where a large dictionary frame is decoded, in an unlinked file. Without it that happens in memory.
    pub spool: Option<PathBuf>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            window_log: 27,
            dictionary_window_log: 29,
            dictionary: 512 << 20,
            idle_ops: 100_000,
            members: 16 << 30,
            threads: NonZeroUsize::MIN,
            spool: None,
        }
    }
}
