//! Buffers that come back to be filled again: new memory, which the system has to clear and map, costs
//! as much as filling it.

use std::sync::mpsc::{Receiver, Sender, channel};

/// Gives buffers out.
#[derive(Debug)]
pub(super) struct Buffers {
    capacity: usize,
    back: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    /// Those that came back; the last one is still in the processor's cache.
    spare: Vec<Vec<u8>>,
}

/// Bytes in a buffer that goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Filled {
    bytes: Vec<u8>,
    back: Sender<Vec<u8>>,
}

impl Buffers {
    /// Of `capacity` bytes each.
    pub(super) fn new(capacity: usize) -> Self {
        let (back, empty) = channel();
        Buffers { capacity, back, empty, spare: Vec::new() }
    }

    /// Takes what was filled, and leaves an empty buffer.
    pub(super) fn swap(&mut self, bytes: &mut Vec<u8>) -> Filled {
        self.spare.extend(self.empty.try_iter());
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.capacity));
        Filled { bytes: std::mem::replace(bytes, next), back: self.back.clone() }
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let _ = self.back.send(bytes); // nobody waits for the last ones
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty() {
        let mut buffers = Buffers::new(100);
        let mut bytes = Vec::new();
        let first = buffers.swap(&mut bytes);
        assert_eq!((first.as_ref(), bytes.capacity()), (&[][..], 100));
        bytes.extend(b"abc");
        let place = bytes.as_ptr();
        let filled = buffers.swap(&mut bytes);
        assert_eq!(filled.as_ref(), b"abc");
        drop(filled);
        buffers.swap(&mut bytes);
        assert_eq!((bytes.as_ptr(), bytes.len()), (place, 0));
    }
}
