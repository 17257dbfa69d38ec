//! How far a copy has come, and stopping it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// How much there is to copy.
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

/// How far a copy or a verification has come, for whoever asks while it runs. May be shared by
/// several, which then add to the same counts.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    cancelled: AtomicBool,
    /// What there is to do, if that is known.
    expected: Mutex<Option<Size>>,
}

impl Progress {
    /// Nothing done yet.
    #[must_use]
    pub fn new() -> Progress {
        Progress::default()
    }

    /// How many entries are done, directories not counted.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// How many bytes of files are done, holes included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How much there is to do in all, if whoever began it has said so; less than what is done where something has grown since,
    /// or was begun anew.
    #[must_use]
    pub fn expected(&self) -> Option<Size> {
        *self.expected.lock()
    }

    /// Says how much there is to do in all.
    pub fn expect(&self, size: Size) {
        *self.expected.lock() = Some(size);
    }

    /// Says that a part of what was expected is not to be done after all.
    pub fn forgo(&self, size: Size) {
        if let Some(expected) = &mut *self.expected.lock() {
            expected.files = expected.files.saturating_sub(size.files);
            expected.bytes = expected.bytes.saturating_sub(size.bytes);
        }
    }

    /// Has what runs end soon, with [`Error::Cancelled`](super::Error::Cancelled). Cannot be undone.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
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
    }
}
