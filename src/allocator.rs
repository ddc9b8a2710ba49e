//! The program's allocator: the system's, with large blocks and most of the heap on huge pages
//! where the kernel has them, and with one arena.
//!
//! The match tables of a compressor are read at random. On pages of 2 MiB the processor
//! finds them with far fewer misses: a sixth of the CPU time of `create --preset best`. A fetch into a
//! composefs repository has a table of the base and makes an image in the heap: two to three per cent.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::hint::black_box;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Blocks from this size on, in bytes: the tables of a compressor, and the window of 2^25 bytes of who
/// applies, whose memory is rounded up by 2 MiB at most.
const LARGE: usize = 32 << 20;

/// Bytes of the heap before its huge pages. Who has little to do needs no more, and to clear huge
/// pages takes a millisecond.
#[cfg(target_env = "gnu")]
const SMALL: usize = 4 << 20;

/// Advises the kernel of large blocks; all else is [`System`]'s.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: every block is System's, whose contract holds; advice does not change its content.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Blocks from this size on, in bytes, are mapped one by one. By itself the GNU C library raises its
/// limit to the largest block that was freed, the window of 32 MiB; what grows is copied from block
/// to block in the heap then, and the old ones stay: 8 MiB while composefs makes an image.
#[cfg(target_env = "gnu")]
const MAPPED: i32 = 2 << 20;

/// Free bytes at the end of the heap that are kept for later, instead of being given back and asked
/// for again page by page.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 64 << 20;

/// Blocks that are mapped at once: the C library's own limit.
#[cfg(target_env = "gnu")]
const MOST_MAPPED: i32 = 65536;

/// Settings that keep memory low and warm; to be called first. All threads share one arena: the GNU C
/// library has eight for each core, and what one thread has freed no other can have, as the table of
/// the base image, in whose place a composefs image is made: a third of a fetch's page faults, and
/// three per cent of its CPU time. Threads that work side by side pass buffers on, and allocate little.
#[allow(unsafe_code)]
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    // SAFETY: settings of the allocator, which it is free to ignore.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        // Blocks that may not be mapped are the heap's beginning, the large one advised. Freed, they are
        // kept.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        let [mut small, mut large] = [const { Vec::<u8>::new() }; 2];
        if small.try_reserve_exact(SMALL).is_ok() && large.try_reserve_exact(LARGE).is_ok() {
            drop(black_box([small, large]));
        }
        libc::mallopt(libc::M_MMAP_MAX, MOST_MAPPED);
    }
}

#[allow(unsafe_code)]
fn advised(block: *mut u8, size: usize) -> *mut u8 {
    if size >= LARGE && !block.is_null() {
        let skipped = block.align_offset(page_size());
        // SAFETY: the pages lie within the block, and this advice leaves their content as it is.
        // A kernel without huge pages refuses it, which costs nothing but time.
        let _ = unsafe {
            madvise(block.wrapping_add(skipped).cast::<c_void>(), size - skipped, Advice::LinuxHugepage)
        };
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn blocks_of_any_size_are_usable() {
        for size in [1, LARGE - 1, LARGE, 3 * LARGE + 5] {
            let layout = Layout::from_size_align(size, 16).unwrap();
            // SAFETY: the layout is not empty, and the block is freed with it.
            unsafe {
                let block = Allocator.alloc_zeroed(layout);
                assert_eq!((*block, *block.add(size - 1)), (0, 0));
                block.add(size - 1).write(7);
                let grown = Allocator.realloc(block, layout, size + LARGE);
                assert_eq!(*grown.add(size - 1), 7);
                Allocator.dealloc(grown, Layout::from_size_align(size + LARGE, 16).unwrap());
            }
        }
    }
}
