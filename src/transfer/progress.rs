//! Counts the progress of a copy, and cancels it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// An amount to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Entries, directories not counted.
    pub files: u64,
    /// Bytes of files, each file once, holes included.
    pub bytes: u64,
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Size>>(sizes: I) -> Size {
        sizes.fold(Size::default(), |all, size| Size {
            files: all.files.saturating_add(size.files),
            bytes: all.bytes.saturating_add(size.bytes),
        })
    }
}

/// The progress of a copy or a verification, for other threads to read while it runs. Several copies may share it, and
/// then add to the same counts.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    cancelled: AtomicBool,
    /// The total amount, if known.
    expected: Mutex<Option<Size>>,
}

impl Progress {
    /// No progress yet.
    #[must_use]
    pub fn new() -> Progress {
        Progress::default()
    }

    /// The number of finished entries, without directories.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// The number of finished bytes of files, holes included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The total amount, if the caller that started the work has set it. May be less than the finished amount, where a
    /// file has grown since, or a copy was repeated.
    #[must_use]
    pub fn expected(&self) -> Option<Size> {
        *self.expected.lock()
    }

    /// Sets the total amount.
    pub fn expect(&self, size: Size) {
        *self.expected.lock() = Some(size);
    }

    /// Adds to the total amount.
    pub fn expect_more(&self, size: Size) {
        let mut expected = self.expected.lock();
        let sizes = [expected.unwrap_or_default(), size];
        *expected = Some(sizes.into_iter().sum());
    }

    /// Subtracts a part that will not be copied after all from the total amount.
    pub fn forgo(&self, size: Size) {
        if let Some(expected) = &mut *self.expected.lock() {
            expected.files = expected.files.saturating_sub(size.files);
            expected.bytes = expected.bytes.saturating_sub(size.bytes);
        }
    }

    /// Makes running work end soon, with [`Error::Cancelled`](super::Error::Cancelled). Cannot be undone.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the work was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of files as finished.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_be_done_is_not_expected() {
        let progress = Progress::new();
        let size = |files, bytes| Size { files, bytes };
        progress.forgo(size(1, 1));
        assert_eq!(progress.expected(), None);
        progress.expect([size(2, 30), size(1, 10)].into_iter().sum());
        progress.forgo(size(2, 30));
        assert_eq!(progress.expected(), Some(size(1, 10)));
        progress.expect_more(size(1, 5));
        assert_eq!(progress.expected(), Some(size(2, 15)));
    }
}
