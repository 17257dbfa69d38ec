//! A part of a file in memory, mapped as words that several threads and processes use at once.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags};

/// How many words a segment has. A file of one segment is shorter than usual limits of file sizes (`ulimit -f`).
pub(super) const SEGMENT: usize = 32 * 1024;
/// The length of a segment in bytes.
pub(super) const SEGMENT_BYTES: usize = SEGMENT * size_of::<u64>();

/// A segment that is mapped, until this is dropped.
#[derive(Debug)]
pub(super) struct Segment(NonNull<AtomicU64>);

// SAFETY: the memory is mapped for as long as the value lives, and is used as atomic words only.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps segment `number` of a file that `memfd_create` has made, which grows as far as needed.
    ///
    /// # Errors
    ///
    /// Out of memory.
    pub(super) fn map(fd: impl AsFd, number: usize) -> Result<Segment> {
        let length = SEGMENT_BYTES as u64;
        let from = number as u64 * length;
        if u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0) < from + length {
            // Two threads may do this at once; a larger size of another one must stay. All of it is allocated: a page for which there is no
            // memory later would end the process (SIGBUS).
            rustix::fs::fallocate(&fd, FallocateFlags::empty(), from, length)?;
        }
        Segment::map_at(fd.as_fd(), from)
    }

    fn map_at(fd: BorrowedFd<'_>, from: u64) -> Result<Segment> {
        // SAFETY: a new mapping at an address that the kernel chooses replaces no other. The file is private to xpmfs and
        // never made shorter, so each page of the mapping can be read and written.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                SEGMENT_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                from,
            )?
        };
        NonNull::new(mapped.cast()).map(Segment).ok_or(Errno::FAULT)
    }

    /// A word; `None` behind the end of the segment.
    pub(super) fn word(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: the word lies in the mapping, which is aligned to a page and lives as long as `self`.
        (at < SEGMENT).then(|| unsafe { self.0.add(at).as_ref() })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map_at` with this length, and no reference to it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), SEGMENT_BYTES) };
    }
}
