//! fs-verity digests of files (kernel documentation, "fs-verity", Merkle tree and file digest).
//!
//! The blocks of a file are hashed independently of each other, and a processor with wide
//! registers hashes several at once: SHA-512 four times as fast as one after the other.

use commonware_cryptography::{Hasher, Sha256, Sha512};
use commonware_parallel::Sequential;
use composefs::fsverity::{Algorithm, FsVerityHashValue};
use zerocopy::IntoBytes;

/// Bytes of a block: the one size that composefs has.
pub(super) const BLOCK: usize = 4096;

/// Blocks of digests that are collected before they are hashed: as many as the widest registers take.
const GROUP: usize = 8;

/// Bytes of the descriptor whose digest is the file's (`struct fsverity_descriptor`).
const DESCRIPTOR: usize = 256;

/// Hashes one file, piece by piece.
#[derive(Debug)]
pub(super) struct FileDigest<H> {
    /// From the blocks of the file up: digests that none of the next level stands for yet.
    levels: Vec<Vec<H>>,
    size: u64,
}

impl<H: FsVerityHashValue> FileDigest<H> {
    pub(super) fn new() -> Self {
        FileDigest { levels: vec![Vec::new()], size: 0 }
    }

    /// Takes the next bytes of the file: whole blocks, but at its end.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.add(0, hash_blocks(bytes));
    }

    fn add(&mut self, level: usize, digests: Vec<H>) {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        let pending = &mut self.levels[level];
        pending.extend(digests);
        let whole = pending.len() - pending.len() % (GROUP * BLOCK / size_of::<H>());
        if whole > 0 {
            let above = hash_blocks(pending[..whole].as_bytes());
            pending.drain(..whole);
            self.add(level + 1, above);
        }
    }

    /// The digest of all that came.
    pub(super) fn finish(mut self) -> H {
        let mut level = 0;
        loop {
            let digests = std::mem::take(&mut self.levels[level]);
            level += 1;
            if level == self.levels.len() && digests.len() <= 1 {
                return hash(&[descriptor(self.size, digests.first())]).remove(0);
            }
            self.add(level, hash_blocks(digests.as_bytes()));
        }
    }
}

/// The digests of small files, given by their sizes. In `bytes` each begins a block, and zeros fill
/// its last one; there are no more blocks than one of digests has room for.
pub(super) fn of_small_files<H: FsVerityHashValue>(bytes: &[u8], sizes: &[usize]) -> Vec<H> {
    let leaves: Vec<H> = hash_blocks(bytes);
    // So a file's tree is one block of digests, or none over its only block.
    let trees = sizes.iter().scan(&leaves[..], |rest, size| {
        let (tree, behind) = rest.split_at(size.div_ceil(BLOCK));
        *rest = behind;
        Some(tree)
    });
    let trees: Vec<&[H]> = trees.collect();
    let above = trees.iter().filter(|tree| tree.len() > 1).map(|tree| block(tree.as_bytes()));
    let mut roots = hash::<H>(&above.collect::<Vec<_>>()).into_iter();
    let descriptors = sizes.iter().zip(trees).map(|(size, tree)| {
        let root = if tree.len() > 1 { roots.next() } else { tree.first().cloned() };
        descriptor(*size as u64, root.as_ref())
    });
    hash(&descriptors.collect::<Vec<_>>())
}

fn hash_blocks<H: FsVerityHashValue>(bytes: &[u8]) -> Vec<H> {
    let (whole, rest) = bytes.as_chunks::<BLOCK>();
    let mut digests = hash(whole);
    if !rest.is_empty() {
        digests.extend(hash::<H>(&[block(rest)]));
    }
    digests
}

/// `bytes`, and zeros behind them.
fn block(bytes: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    block
}

/// An empty file has no root.
fn descriptor<H: FsVerityHashValue>(size: u64, root: Option<&H>) -> [u8; DESCRIPTOR] {
    let mut descriptor = [0; DESCRIPTOR];
    descriptor[0] = 1; // version
    descriptor[1] = H::ALGORITHM.kernel_id();
    descriptor[2] = BLOCK.ilog2() as u8;
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    let root = root.map_or(&[][..], |root| root.as_bytes());
    descriptor[16..16 + root.len()].copy_from_slice(root);
    descriptor
}

/// The hash of each message.
fn hash<H: FsVerityHashValue>(messages: &[impl AsRef<[u8]> + Sync]) -> Vec<H> {
    match H::ALGORITHM {
        Algorithm::Sha256 { .. } => hash_with::<Sha256, H>(messages),
        Algorithm::Sha512 { .. } => hash_with::<Sha512, H>(messages),
    }
}

fn hash_with<D: Hasher, H: FsVerityHashValue>(messages: &[impl AsRef<[u8]> + Sync]) -> Vec<H> {
    let digests = D::hash_many(messages, &Sequential).into_iter().map(|digest| {
        let mut value = H::EMPTY;
        value.as_mut_bytes().copy_from_slice(digest.as_ref());
        value
    });
    digests.collect()
}

#[cfg(test)]
mod tests {
    use composefs::fsverity::{Sha256HashValue, Sha512HashValue, compute_verity};
    use proptest::prelude::*;

    use super::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 7 + (i >> 9)) as u8).collect()
    }

    /// Sizes beside which something ends: a block, one of digests, a group of them.
    fn sizes() -> impl Iterator<Item = usize> {
        let ends = [1, 64, 65, 128, 129, 512, 513, 1024, 1025, 4096, 4097].map(|blocks| blocks * BLOCK);
        [0, 1].into_iter().chain(ends.into_iter().flat_map(|end| [end - 1, end, end + 1]))
    }

    fn agrees_with_composefs<H: FsVerityHashValue>(piece: usize) {
        for size in sizes() {
            let bytes = content(size);
            let mut ours = FileDigest::<H>::new();
            bytes.chunks(piece).for_each(|piece| ours.update(piece));
            assert_eq!(ours.finish(), compute_verity::<H>(&bytes), "{size} bytes");
        }
    }

    #[test]
    fn the_digest_of_a_large_file_is_that_of_composefs() {
        for piece in [BLOCK, 256 << 10] {
            agrees_with_composefs::<Sha256HashValue>(piece);
            agrees_with_composefs::<Sha512HashValue>(piece);
        }
    }

    fn small_files_agree<H: FsVerityHashValue>(sizes: &[usize]) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for size in sizes {
            let file = content(*size);
            expected.push(compute_verity::<H>(&file));
            bytes.extend(file);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        assert_eq!(of_small_files::<H>(&bytes, sizes), expected);
    }

    proptest! {
        #[test]
        fn digests_of_small_files_are_those_of_composefs(
            sizes in proptest::collection::vec(0..5 * BLOCK, 0..12)
        ) {
            small_files_agree::<Sha256HashValue>(&sizes);
            small_files_agree::<Sha512HashValue>(&sizes);
        }
    }
}
