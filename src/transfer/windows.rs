//! Handles the cache for each window of a large file after it is read and written (see [`cache`]).
//!
//! This runs on a separate thread, because most of it is waiting for the disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use rustix::io::{Errno, Result};

use super::cache::{self, WINDOW};

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
    Beside(Sender<Window>, JoinHandle<Result<()>>),
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
        Some(Windows::Beside(sender, thread.ok()?))
    }

    /// Handles a window that has been read and written.
    ///
    /// # Errors
    ///
    /// An error of writing an earlier window to the disk; some errors are returned by [`Windows::finish`] only.
    pub(super) fn done(&self, window: Window) -> Result<()> {
        match self {
            Windows::Here(from, to) => take_care(from, to.as_ref(), window),
            Windows::Beside(sender, _) => {
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
            Windows::Beside(sender, thread) => {
                drop(sender);
                thread.join().unwrap_or(Err(Errno::IO))
            }
        }
    }
}

fn take_care(from: impl AsFd, to: Option<impl AsFd>, window: Window) -> Result<()> {
    if !window.was_cached {
        cache::drop(from, window.start, window.length);
    }
    match to {
        Some(to) => cache::written(to, window.start, window.length),
        None => Ok(()),
    }
}
