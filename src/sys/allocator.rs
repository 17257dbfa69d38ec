//! The allocator of the program: glibc's, with other settings, and with memory behind large buffers.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Settings of glibc's allocator, each with its value: how many arenas it makes, from what size on memory is mapped apart
/// from the heap, and how much free memory is kept at the end of the heap.
#[cfg(target_env = "gnu")]
const SETTINGS: [(libc::c_int, libc::c_int); 3] = [
    (libc::M_ARENA_MAX, 2),
    (libc::M_MMAP_THRESHOLD, 256 << 10),
    (libc::M_TRIM_THRESHOLD, 2 << 20),
];

/// Bounds the memory that glibc's allocator keeps without use. To be called before another thread is started.
///
/// By default, it makes an arena for each thread, up to eight for each processor, and memory that is free in one is of no
/// use to the threads of the others: in a daemon with some thirty threads, this share grows for hours while the memory in
/// use stays the same. And once a large buffer has been freed, later ones are taken from the heap, where they are cleared,
/// which makes all of their 16 MiB resident.
///
/// What is mapped apart is moved by the kernel when it grows, without a copy (`mremap`), and leaves no hole: the tables of a million
/// files would otherwise keep some 45 MiB of the heap without use, and take memory for what they reserve.
pub fn tune() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in SETTINGS {
        // SAFETY: sets a number, and no other thread allocates yet. A refusal leaves the default.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// Zeroed buffers of this length or more, in bytes, have memory behind their beginning as soon as they are allocated.
const LARGE: usize = 16 << 20;

/// How much of a large buffer that is, in bytes: more than the largest request of the kernel.
const BEGINNING: usize = (1 << 20) + (64 << 10);

/// The least size of a page: a step that touches every page.
const PAGE: usize = 4096;

/// The system's allocator, but for large zeroed buffers, into which a thread reads requests from `/dev/fuse`.
///
/// If the process is killed while the kernel copies a request into memory that is not there yet, the kernel can no longer
/// allocate it, and fails the request with `EIO`, although another process would answer it (`fuse_dev_do_read`; a page that is not
/// mapped is added by `get_user_pages`, which fails for a process that is being killed).
#[derive(Debug, Default)]
pub struct Allocator;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the rules of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let buffer = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= LARGE && !buffer.is_null() {
            for at in (0..BEGINNING).step_by(PAGE) {
                // SAFETY: the byte lies in the buffer, which nothing else uses yet, and is zero already.
                unsafe { buffer.add(at).write_volatile(0) };
            }
        }
        buffer
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, length) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}
