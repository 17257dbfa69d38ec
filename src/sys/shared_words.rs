//! Words of memory that outlive the process that writes them, as long as another one has their descriptor.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use rustix::fs::MemfdFlags;
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags};

/// How many words are mapped at once.
const SEGMENT: usize = 128 * 1024;
const SEGMENT_BYTES: usize = SEGMENT * size_of::<u64>();

/// The maximum number of segments.
const SEGMENTS_MAX: usize = 4096;

/// An array of words in a file in memory. It grows as it is used, and never shrinks.
#[derive(Debug)]
pub struct SharedWords {
    fd: OwnedFd,
    segments: Box<[OnceLock<Segment>]>,
}

/// A part of the file that is mapped, until this is dropped.
#[derive(Debug)]
struct Segment(NonNull<AtomicU64>);

// SAFETY: the memory is mapped for as long as the value lives, and is used as atomic words only.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    fn map(fd: BorrowedFd<'_>, number: usize) -> Result<Segment> {
        let from = number as u64 * SEGMENT_BYTES as u64;
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

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: the word lies in the mapping, which is aligned to a page and lives as long as `self`.
        (at < SEGMENT).then(|| unsafe { self.0.add(at).as_ref() })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference to it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), SEGMENT_BYTES) };
    }
}

impl SharedWords {
    /// Makes an array of zeros.
    ///
    /// # Errors
    ///
    /// Out of descriptors or memory.
    pub fn new() -> Result<SharedWords> {
        let fd = rustix::fs::memfd_create("xpmfs", MemfdFlags::CLOEXEC)?;
        Ok(SharedWords::open(fd))
    }

    /// The words that another process has written.
    #[must_use]
    pub fn open(fd: OwnedFd) -> SharedWords {
        SharedWords {
            fd,
            segments: (0..SEGMENTS_MAX).map(|_| OnceLock::new()).collect(),
        }
    }

    /// A word; `None` without memory for it.
    #[must_use]
    pub fn word(&self, at: usize) -> Option<&AtomicU64> {
        let number = at / SEGMENT;
        let slot = self.segments.get(number)?;
        let segment = match slot.get() {
            Some(segment) => segment,
            None => self.map(number, slot).ok()?,
        };
        segment.word(at % SEGMENT)
    }

    fn map<'a>(&self, number: usize, slot: &'a OnceLock<Segment>) -> Result<&'a Segment> {
        let end = (number as u64 + 1) * SEGMENT_BYTES as u64;
        if u64::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or(0) < end {
            // Two threads may do this at once; a larger size of another one must stay.
            rustix::fs::fallocate(&self.fd, rustix::fs::FallocateFlags::empty(), end - 1, 1)?;
        }
        let segment = Segment::map(self.fd.as_fd(), number)?;
        Ok(slot.get_or_init(|| segment))
    }

    /// How many words can have been written.
    ///
    /// # Errors
    ///
    /// As `fstat`.
    pub fn length(&self) -> Result<usize> {
        let bytes = usize::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or(0);
        Ok(bytes / size_of::<u64>())
    }

    /// Their descriptor, for the process that keeps them.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn words_are_what_another_process_has_written() {
        let words = SharedWords::new().unwrap();
        let places = [0, 1, SEGMENT - 1, SEGMENT, 5 * SEGMENT + 7];
        for (value, at) in (1..).zip(places) {
            words.word(at).unwrap().store(value, Ordering::Relaxed);
        }
        let fd = rustix::io::fcntl_dupfd_cloexec(words.fd(), 0).unwrap();
        drop(words);
        let words = SharedWords::open(fd);
        assert_eq!(words.length().unwrap(), 6 * SEGMENT);
        for (value, at) in (1..).zip(places) {
            assert_eq!(words.word(at).unwrap().load(Ordering::Relaxed), value);
        }
        assert_eq!(words.word(2).unwrap().load(Ordering::Relaxed), 0);
        assert!(words.word(SEGMENTS_MAX * SEGMENT).is_none());
    }
}
