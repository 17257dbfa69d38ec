//! Leaves the page cache as it was, so that a copy of old results does not evict data in use.
//!
//! Files are read and written in windows. A window of the source that was not cached before is dropped once it is read.
//! Written windows are sent to the disk while the next ones are filled, and dropped when they are on the disk, so that
//! only a few windows of a large file are in memory.
//!
//! Most of that is waiting for the disk, so large files have a thread for it.
//!
//! Reading ahead in a large file is left to the kernel, which reads larger pieces than on demand
//! (`POSIX_FADV_WILLNEED` reads single pages).
//!
//! Small files stay in the cache after they are written: dropping them would require a separate wait for the disk for
//! each.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, Result};

use crate::sys::calls::{Writeout, cached, write_out};

/// The size of a window in bytes.
pub(super) const WINDOW: u64 = 8 << 20;

/// How many windows are being written to the disk while another is filled: enough to keep the disk busy, and few enough
/// to leave it time for reads.
const UNDER_WAY: u64 = 4;

/// Which windows of a file were cached before it was read.
pub(super) struct Before(Vec<bool>);

impl Before {
    /// Checks the whole file before any of it is read, because the kernel reads ahead by an unknown distance.
    pub(super) fn of(fd: impl AsFd, size: u64) -> Before {
        let mut windows = Vec::new();
        let mut offset = 0;
        while offset < size {
            let length = WINDOW.min(size - offset);
            match cached(&fd, offset, length) {
                Ok(bytes) => windows.push(bytes > length / 2),
                // The kernel does not say which pages are cached, or not to this user: the first byte decides for the
                // whole file.
                Err(_) => {
                    windows = vec![begins_cached(&fd); 1];
                    break;
                }
            }
            offset += length;
        }
        Before(windows)
    }

    /// Whether more than half of the window at an offset was cached.
    pub(super) fn was_cached(&self, offset: u64) -> bool {
        let window = usize::try_from(offset / WINDOW).unwrap_or(usize::MAX);
        let known = self.0.get(window).or(self.0.first());
        known.copied().unwrap_or(true)
    }

    /// Drops the remaining pages of a file of several windows none of which was cached, after the file has been read:
    /// pages that were read ahead, and pages that belong to two windows.
    pub(super) fn restore(&self, fd: impl AsFd) {
        if self.0.len() > 1 && !self.0.contains(&true) {
            uncache(fd, 0, 0);
        }
    }
}

/// Makes the kernel read further ahead than for random access.
pub(super) fn in_sequence(fd: impl AsFd) {
    // Only advice, as in `uncache`.
    let _ = rustix::fs::fadvise(fd, 0, None, Advice::Sequential);
}

/// Whether the first byte of a file can be read without waiting. If this is unknown, the byte counts as cached.
fn begins_cached(fd: impl AsFd) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let read = rustix::io::preadv2(fd, &mut buffers, 0, ReadWriteFlags::NOWAIT);
    read != Err(Errno::AGAIN)
}

/// Starts reading a part of a file into the cache, and does not wait.
pub(super) fn ask(fd: impl AsFd, offset: u64, length: u64) {
    // Only advice, as in `uncache`.
    let _ = rustix::fs::fadvise(fd, offset, NonZeroU64::new(length), Advice::WillNeed);
}

/// Drops the part of a file that is on the disk from the cache. A length of 0 means up to the end.
pub(super) fn uncache(fd: impl AsFd, offset: u64, length: u64) {
    // Only advice: a refusal changes nothing.
    let _ = rustix::fs::fadvise(fd, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// Starts to write a filled window to the disk, and drops an earlier window from the cache.
pub(super) fn finish_window(fd: impl AsFd, offset: u64, length: u64) -> Result<()> {
    write_out(&fd, offset, length, Writeout::Start)?;
    if let Some(before) = offset.checked_sub(UNDER_WAY * WINDOW) {
        write_out(&fd, before, WINDOW, Writeout::Wait)?;
        uncache(&fd, before, WINDOW);
    }
    Ok(())
}

/// The smallest file for which a separate thread is started.
const LARGE: u64 = 4 * WINDOW;

/// The maximum number of finished windows queued for that thread.
const WAITING: usize = 4;

/// A window that has been read, and written if there is a copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) length: u64,
    /// Whether the window was cached before it was read.
    pub(super) was_cached: bool,
}

/// The windows of one file.
pub(super) enum Windows<'a> {
    /// Handled by the thread that reads and writes.
    Here(BorrowedFd<'a>, Option<BorrowedFd<'a>>),
    /// Handled by another thread.
    StagingContext(Sender<Window>, JoinHandle<Result<()>>),
}

impl<'a> Windows<'a> {
    /// For a file of this size that is read, and for its copy, if that is large enough for its windows to be sent to
    /// the disk. Uses a separate thread only if `threads` permits it, and if one can be started.
    pub(super) fn new(
        from: BorrowedFd<'a>,
        to: Option<BorrowedFd<'a>>,
        size: u64,
        threads: usize,
    ) -> Windows<'a> {
        let to = to.filter(|_| size > WINDOW);
        if size < LARGE || threads < 2 {
            return Windows::Here(from, to);
        }
        Windows::beside(from, to).unwrap_or(Windows::Here(from, to))
    }

    fn beside(from: BorrowedFd<'a>, to: Option<BorrowedFd<'a>>) -> Option<Windows<'a>> {
        let duplicate = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 0).ok();
        let from = duplicate(from)?;
        let to: Option<OwnedFd> = match to {
            Some(to) => Some(duplicate(to)?),
            None => None,
        };
        let (sender, windows) = bounded(WAITING);
        let work = move || {
            windows
                .iter()
                .try_for_each(|window| take_care(&from, to.as_ref(), window))
        };
        let thread = Builder::new().name("xpmfs-windows".to_owned()).spawn(work);
        Some(Windows::StagingContext(sender, thread.ok()?))
    }

    /// Handles a window that has been read and written.
    ///
    /// # Errors
    ///
    /// An error of writing an earlier window to the disk; some errors are returned by [`Windows::finish`] only.
    pub(super) fn done(&self, window: Window) -> Result<()> {
        match self {
            Windows::Here(from, to) => take_care(from, to.as_ref(), window),
            Windows::StagingContext(sender, _) => {
                // If sending fails, the thread has ended with an error, which `finish` returns.
                let _ = sender.send(window);
                Ok(())
            }
        }
    }

    /// Waits until all windows are handled.
    ///
    /// # Errors
    ///
    /// An error of writing a window to the disk.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Windows::Here(..) => Ok(()),
            Windows::StagingContext(sender, thread) => {
                drop(sender);
                thread.join().unwrap_or(Err(Errno::IO))
            }
        }
    }
}

fn take_care(from: impl AsFd, to: Option<impl AsFd>, window: Window) -> Result<()> {
    if !window.was_cached {
        uncache(from, window.start, window.length);
    }
    match to {
        Some(to) => finish_window(to, window.start, window.length),
        None => Ok(()),
    }
}
