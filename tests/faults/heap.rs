//! The allocations of a thread, counted. `tests/faults` and `tests/allocations.rs` use this file.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "each of the programs that share this uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
struct Counting;

// The counters are per thread, because the test harness runs the tests on several threads.
thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes of the blocks that this thread allocated, minus those of the blocks that it freed.
    static HELD: Cell<i64> = const { Cell::new(0) };
    /// The largest number of bytes held at once.
    static MOST: Cell<i64> = const { Cell::new(0) };
    /// The size of the largest block.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The number of allocations of this thread.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// The bytes that this thread holds.
pub(crate) fn held() -> i64 {
    HELD.get()
}

/// The largest number of bytes that this thread has held since [`forget_most`].
pub(crate) fn most_held() -> i64 {
    MOST.get()
}

/// Begins to look for the largest number again.
pub(crate) fn forget_most() {
    MOST.set(HELD.get());
}

/// The size of the largest block that this thread has allocated since this function was called last.
pub(crate) fn take_largest() -> usize {
    LARGEST.take()
}

fn count(made: usize, given_back: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + u64::from(made > 0));
    HELD.set(HELD.get() + made as i64 - given_back as i64);
    MOST.set(MOST.get().max(HELD.get()));
    LARGEST.set(LARGEST.get().max(made));
}

// SAFETY: every call is forwarded unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this method, which is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this method, which is that of the system's allocator.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract of this method, which is that of the system's allocator.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract of this method, which is that of the system's allocator.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
