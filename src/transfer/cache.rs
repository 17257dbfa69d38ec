//! The page cache is left as it was found: a copy of old results must not push out what is in use.
//!
//! Files are read and written in windows. A window of the source that was not cached before is
//! dropped once it is read. Written windows are sent to the disk while the next are filled, and dropped when they are there, so that
//! a large file never has more than some of them in memory.
//!
//! What of a large file comes next is for the kernel to read ahead, which it does in larger pieces than it does on demand
//! (`POSIX_FADV_WILLNEED` brings single pages).
//!
//! Small files stay in the cache after they are written: to drop them, they would have to be on the disk first, each
//! by itself.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::AsFd;

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, Result};

use crate::sys::calls::{Writeout, cached, write_out};

/// Bytes of a window.
pub(super) const WINDOW: u64 = 8 << 20;

/// How many windows are on their way to the disk while another is filled: enough for it to have something to do, and few enough
/// for it to have room for what is read.
const UNDER_WAY: u64 = 4;

/// Which windows of a file were cached before it was read.
pub(super) struct Before(Vec<bool>);

impl Before {
    /// Asks for the whole file before any of it is read: the kernel reads ahead, and how far is its affair.
    pub(super) fn of(fd: impl AsFd, size: u64) -> Before {
        let mut windows = Vec::new();
        let mut offset = 0;
        while offset < size {
            let length = WINDOW.min(size - offset);
            match cached(&fd, offset, length) {
                Ok(bytes) => windows.push(bytes > length / 2),
                // A kernel that cannot tell, or does not tell everybody: the beginning speaks for all.
                Err(_) => {
                    windows = vec![begins_cached(&fd); 1];
                    break;
                }
            }
            offset += length;
        }
        Before(windows)
    }

    /// Whether the window at an offset was cached, or at least half of it.
    pub(super) fn was_cached(&self, offset: u64) -> bool {
        let window = usize::try_from(offset / WINDOW).unwrap_or(usize::MAX);
        let known = self.0.get(window).or(self.0.first());
        known.copied().unwrap_or(true)
    }

    /// Drops what is left of a file of several windows that was not cached, now that all of it is read: what was read ahead, and pieces
    /// that lie in two windows.
    pub(super) fn restore(&self, fd: impl AsFd) {
        if self.0.len() > 1 && !self.0.contains(&true) {
            drop(fd, 0, 0);
        }
    }
}

/// Has the kernel read further ahead than it does for who reads here and there.
pub(super) fn in_sequence(fd: impl AsFd) {
    // Advice, as below.
    let _ = rustix::fs::fadvise(fd, 0, None, Advice::Sequential);
}

/// Whether the first byte of a file can be read without waiting. Where it cannot be told, it counts as cached.
fn begins_cached(fd: impl AsFd) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let read = rustix::io::preadv2(fd, &mut buffers, 0, ReadWriteFlags::NOWAIT);
    read != Err(Errno::AGAIN)
}

/// Has the disk begin to bring a part of a file that is not cached, and does not wait.
pub(super) fn ask(fd: impl AsFd, offset: u64, length: u64) {
    // Advice, as below.
    let _ = rustix::fs::fadvise(fd, offset, NonZeroU64::new(length), Advice::WillNeed);
}

/// Drops a part of a file from the cache, as far as it is on the disk. A length of 0 is all that follows.
pub(super) fn drop(fd: impl AsFd, offset: u64, length: u64) {
    // It is advice: that it cannot be taken changes nothing.
    let _ = rustix::fs::fadvise(fd, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// A window has been written: it starts to go to the disk, and one that was written before leaves the cache.
pub(super) fn written(fd: impl AsFd, offset: u64, length: u64) -> Result<()> {
    write_out(&fd, offset, length, Writeout::Start)?;
    if let Some(before) = offset.checked_sub(UNDER_WAY * WINDOW) {
        write_out(&fd, before, WINDOW, Writeout::Wait)?;
        drop(&fd, before, WINDOW);
    }
    Ok(())
}
