//! The module's memory: freed blocks are kept by size and used again. A payment asks for some thirty blocks, of the sizes that the
//! last one left behind, so each costs a few instructions where the general allocator takes a hundred.
//!
//! Blocks of more than [`SIZE_MAX`] bytes are the general allocator's. Of each smaller size [`KEPT_BYTES_MAX`] are kept, and the rest is
//! given back: a client that chooses the sizes of blocks must not make memory grow with each of them. A worker's VM is one thread.

#![expect(unsafe_code, reason = "an allocator deals in raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

#[cfg(target_feature = "atomics")]
compile_error!("the pool is made for one thread");

/// Largest block that is kept, in bytes.
const SIZE_MAX: usize = 1024;
/// Sizes are rounded up to multiples of it.
const STEP: usize = 16;
/// Bytes of free blocks that are kept of each size: a megabyte of all sizes together.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// The alignment of all blocks that are kept: the largest of any value.
const ALIGN: usize = 16;

/// A block that is free.
struct Free {
    next: *mut Self,
}

/// The free blocks of a size.
#[derive(Clone, Copy)]
struct List {
    first: *mut Free,
    /// What its blocks have together.
    bytes: usize,
}

struct Pool {
    lists: UnsafeCell<[List; SIZE_MAX / STEP]>,
}

// SAFETY: WebAssembly modules of this target have one thread.
unsafe impl Sync for Pool {}

#[global_allocator]
static POOL: Pool = Pool { lists: UnsafeCell::new([List { first: null_mut(), bytes: 0 }; SIZE_MAX / STEP]) };

/// What a block of a list is to the general allocator.
const fn block(at: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and the sizes are far from overflow.
    unsafe { Layout::from_size_align_unchecked(at.wrapping_add(1).wrapping_mul(STEP), ALIGN) }
}

/// Which list has blocks of this layout; `None` if they are not kept.
const fn list(layout: Layout) -> Option<usize> {
    // Without bytes it would be beyond the last one.
    let at = layout.size().wrapping_sub(1) / STEP;
    if at < SIZE_MAX / STEP && layout.align() <= ALIGN { Some(at) } else { None }
}

impl Pool {
    fn list(&self, at: usize) -> *mut List {
        self.lists.get().cast::<List>().wrapping_add(at)
    }
}

// SAFETY: a block is in use or in one list, never both. Those of a list have its whole size and alignment.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(at) = list(layout) else {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        };
        let list = self.list(at);
        // SAFETY: `list` returns a place of the array, and what it holds is null or a free block.
        unsafe {
            let free = (*list).first;
            if free.is_null() {
                return System.alloc(block(at));
            }
            (*list).first = (*free).next;
            (*list).bytes = (*list).bytes.wrapping_sub(block(at).size());
            free.cast()
        }
    }

    unsafe fn dealloc(&self, freed: *mut u8, layout: Layout) {
        let Some(at) = list(layout) else {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(freed, layout) };
        };
        let list = self.list(at);
        // SAFETY: the block has this list's size, which has room for an address, and its alignment; no one uses it any more.
        unsafe {
            if (*list).bytes >= KEPT_BYTES_MAX {
                return System.dealloc(freed, block(at));
            }
            let free = freed.cast::<Free>();
            *free = Free { next: (*list).first };
            (*list).first = free;
            (*list).bytes = (*list).bytes.wrapping_add(block(at).size());
        }
    }

    unsafe fn realloc(&self, own: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list(layout), list(wanted)) {
            // SAFETY: as the caller promises.
            (None, None) => unsafe { System.realloc(own, layout, size) },
            (from, to) if from == to => own,
            // SAFETY: both blocks are as large as what is copied, and they are different ones.
            (_, _) => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(own, layout.size().min(size));
                    self.dealloc(own, layout);
                }
                moved
            },
        }
    }
}
