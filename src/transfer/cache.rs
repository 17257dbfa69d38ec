//! The page cache is left as it was found: a copy of old results must not push out what is in use.
//!
//! Files are read and written in windows. A window of the source that was not cached before is
//! dropped once it is read. Written windows are sent to the disk while the next is filled, and dropped
//! when they are there, so that a large file never has more than two of them in memory.
//!
//! Small files stay in the cache after they are written: to drop them, they would have to be on the disk first, each
//! by itself.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::AsFd;

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, Result};

use super::sys::{Writeout, write_out};

/// Bytes of a window.
pub(super) const WINDOW: u64 = 8 << 20;

/// How far the kernel reads ahead, at least: a probe must be farther from what has been read.
const AHEAD: u64 = 256 << 10;

/// Whether a window of a file that is about to be read is in the cache: its middle, since its beginning may have been read
/// ahead; of a short one its beginning, where reading starts anyway. Where it cannot be told, it counts as
/// cached.
pub(super) fn is_cached(fd: impl AsFd, offset: u64, length: u64) -> bool {
    let probe = if length > 2 * AHEAD {
        offset + length / 2
    } else {
        offset
    };
    let mut byte = [0];
    let read = rustix::io::preadv2(
        fd,
        &mut [IoSliceMut::new(&mut byte)],
        probe,
        ReadWriteFlags::NOWAIT,
    );
    read != Err(Errno::AGAIN)
}

/// Drops a part of a file from the cache, as far as it is on the disk. A length of 0 is all that follows.
pub(super) fn drop(fd: impl AsFd, offset: u64, length: u64) {
    // It is advice: that it cannot be taken changes nothing.
    let _ = rustix::fs::fadvise(fd, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// A window has been written: it starts to go to the disk, and the one before leaves the cache.
pub(super) fn written(fd: impl AsFd, offset: u64, length: u64) -> Result<()> {
    write_out(&fd, offset, length, Writeout::Start)?;
    if let Some(before) = offset.checked_sub(WINDOW) {
        write_out(&fd, before, WINDOW, Writeout::Wait)?;
        drop(&fd, before, WINDOW);
    }
    Ok(())
}
