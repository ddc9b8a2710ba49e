//! Reads gzip streams of one or more members (RFC 1952).
//!
//! zlib-rs is called directly and not through flate2: of all the backends that a
//! build's crates ask flate2 for, it takes the system's zlib first, which needs
//! 1.6 times the CPU (`docs/benchmarks.md`).

use std::fmt;
use std::io::{self, BufRead, Read};

use zlib_rs::{Inflate, InflateFlush, Status};

/// The largest window of deflate, 2^15 bytes; 16 more asks zlib for a gzip header and trailer.
const GZIP_WINDOW: u8 = 15 + 16;

/// Decompresses all members. Zeros after the last one, which some tools pad with, are passed over.
pub struct Gunzip<R> {
    reader: R,
    inflate: Inflate,
    state: State,
    members: u64,
    padding: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Within,
    Between,
    End,
}

impl<R> fmt::Debug for Gunzip<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gunzip").field("members", &self.members).finish_non_exhaustive()
    }
}

impl<R: BufRead> Gunzip<R> {
    /// Starts at the header of the first member.
    pub fn new(reader: R) -> Self {
        let inflate = Inflate::new(true, GZIP_WINDOW);
        Gunzip { reader, inflate, state: State::Within, members: 0, padding: 0 }
    }

    /// Was there one member and nothing behind it? Known after the end.
    pub fn is_single_member(&self) -> bool {
        self.state == State::End && self.members == 1 && self.padding == 0
    }

    /// After the end of a member: another one, padding, or the end.
    fn next_member(&mut self) -> io::Result<()> {
        loop {
            let piece = self.reader.fill_buf()?;
            if piece.is_empty() {
                self.state = State::End;
                return Ok(());
            }
            let zeros = piece.iter().take_while(|byte| **byte == 0).count();
            if zeros < piece.len() {
                if self.padding > 0 || zeros > 0 {
                    return Err(broken("bytes behind the last member that are not zero"));
                }
                self.inflate = Inflate::new(true, GZIP_WINDOW);
                self.state = State::Within;
                return Ok(());
            }
            self.padding += zeros as u64;
            self.reader.consume(zeros);
        }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !buf.is_empty() && self.state != State::End {
            if self.state == State::Between {
                self.next_member()?;
                continue;
            }
            let input = self.reader.fill_buf()?;
            let is_end = input.is_empty();
            let (read, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, buf, InflateFlush::NoFlush);
            self.reader.consume((self.inflate.total_in() - read) as usize);
            let made = (self.inflate.total_out() - made) as usize;
            match status {
                Ok(Status::StreamEnd) => {
                    self.members += 1;
                    self.state = State::Between;
                }
                Ok(_) if made == 0 && is_end => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a member"));
                }
                Ok(_) => {}
                Err(error) => return Err(broken(self.inflate.error_message().unwrap_or(error.as_str()))),
            }
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut writer = flate2::GzBuilder::new()
            .filename("name")
            .comment("more")
            .write(Vec::new(), flate2::Compression::fast());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    /// The content and whether it was a single member, read in small pieces.
    fn read(blob: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        let mut gunzip = Gunzip::new(io::BufReader::with_capacity(7, blob));
        let (mut content, mut piece) = (Vec::new(), [0; 11]);
        loop {
            match gunzip.read(&mut piece)? {
                0 => return Ok((content, gunzip.is_single_member())),
                n => content.extend_from_slice(&piece[..n]),
            }
        }
    }

    #[test]
    fn one_member_or_many() {
        let content: Vec<u8> = (0..50_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        assert_eq!(read(&member(&content)).unwrap(), (content.clone(), true));
        assert_eq!(read(&member(b"")).unwrap(), (Vec::new(), true));
        let two = [member(b""), member(&content), member(b"end")].concat();
        assert_eq!(read(&two).unwrap(), ([&content[..], b"end"].concat(), false));
        let padded = [member(b"one"), vec![0; 512]].concat();
        assert_eq!(read(&padded).unwrap(), (b"one".to_vec(), false));
    }

    #[test]
    fn the_checksum_and_the_length_count() {
        let blob = member(b"some content");
        for at in blob.len() - 8..blob.len() {
            let mut wrong = blob.clone();
            wrong[at] ^= 1;
            assert_eq!(read(&wrong).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
    }

    #[test]
    fn cuts_and_garbage_are_errors() {
        let blob = member(b"some content");
        for cut in 0..blob.len() {
            assert_eq!(read(&blob[..cut]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "at {cut}");
        }
        for garbage in [&b"garbage"[..], b"\0\0x", &[0x1f, 0x8b, 9]] {
            assert!(read(&[&blob, garbage].concat()).is_err(), "{garbage:?}");
        }
    }
}
