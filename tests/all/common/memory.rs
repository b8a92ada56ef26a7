//! The allocator of the tests, which counts what each thread has of the host's memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has taken and not given back, and the most that it had.
    static BYTES: Cell<[isize; 2]> = const { Cell::new([0; 2]) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends may free after its variables are gone.
    let _ = BYTES.try_with(|cell| {
        let [live, most] = cell.get();
        cell.set([live + bytes, most.max(live + bytes)]);
    });
}

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs this, and returns the most bytes that this thread had meanwhile beyond those it had before.
pub fn peak_bytes<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let [before, _] = BYTES.get();
    BYTES.set([before; 2]);
    let made = run();
    (made, BYTES.get()[1].saturating_sub(before) as u64)
}
