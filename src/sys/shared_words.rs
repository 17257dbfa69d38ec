//! Words of memory that outlive the process that writes them, as long as another one has their descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use rustix::fs::MemfdFlags;
use rustix::io::Result;

use super::segment::{SEGMENT, Segment};

/// The maximum number of segments.
const SEGMENTS_MAX: usize = 4096;

/// An array of words in a file in memory. It grows as it is used, and never shrinks.
#[derive(Debug)]
pub struct SharedWords {
    fd: OwnedFd,
    segments: Box<[OnceLock<Segment>]>,
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
        let segment = Segment::map(&self.fd, number)?;
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
