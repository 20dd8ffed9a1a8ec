//! The module's memory: freed blocks are kept by size and used again. A payment asks for some thirty blocks, of the sizes that the
//! last one left behind, so each costs a few instructions where the general allocator takes a hundred.
//!
//! Blocks of more than [`SIZE_MAX`] bytes are the general allocator's. A smaller one is never given back to it: each size holds
//! as many as were in use at once. A worker's VM is one thread.

#![expect(unsafe_code, reason = "an allocator deals in raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// Largest block that is kept, in bytes.
const SIZE_MAX: usize = 1024;
/// Sizes are rounded up to multiples of it.
const STEP: usize = 16;
/// The alignment of all blocks that are kept: the largest of any value.
const ALIGN: usize = 16;

/// A block that is free.
struct Free {
    next: *mut Self,
}

struct Pool {
    free: UnsafeCell<[*mut Free; SIZE_MAX / STEP]>,
}

// SAFETY: WebAssembly modules of this target have one thread.
unsafe impl Sync for Pool {}

#[global_allocator]
static POOL: Pool = Pool { free: UnsafeCell::new([null_mut(); SIZE_MAX / STEP]) };

/// Which list has blocks of this layout; `None` if they are not kept.
const fn list(layout: Layout) -> Option<usize> {
    // Without bytes it would be beyond the last one.
    let at = layout.size().wrapping_sub(1) / STEP;
    if at < SIZE_MAX / STEP && layout.align() <= ALIGN { Some(at) } else { None }
}

impl Pool {
    /// The first block of a list.
    fn first(&self, at: usize) -> *mut *mut Free {
        self.free.get().cast::<*mut Free>().wrapping_add(at)
    }
}

// SAFETY: a block is in use or in one list, never both. Those of a list have its whole size and alignment.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(at) = list(layout) else {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        };
        let first = self.first(at);
        // SAFETY: `list` returns a place of the array, and what it holds is null or a free block.
        unsafe {
            let block = *first;
            if block.is_null() {
                return System.alloc(Layout::from_size_align_unchecked(at.wrapping_add(1).wrapping_mul(STEP), ALIGN));
            }
            *first = (*block).next;
            block.cast()
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(at) = list(layout) else {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(block, layout) };
        };
        let (first, block) = (self.first(at), block.cast::<Free>());
        // SAFETY: the block has this list's size, which has room for an address, and its alignment; no one uses it any more.
        unsafe {
            *block = Free { next: *first };
            *first = block;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list(layout), list(wanted)) {
            // SAFETY: as the caller promises.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (own, other) if own == other => block,
            // SAFETY: both blocks are as large as what is copied, and they are different ones.
            (_, _) => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}
