//! The one system call that no safe wrapper offers.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

/// How much of `sync_file_range` is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Writeout {
    /// Writing starts, and is not waited for.
    Start,
    /// All is written when the call returns. This is no `fsync`: it says nothing of metadata.
    Wait,
}

/// Writes a part of a file's cached pages to the disk.
///
/// # Errors
///
/// What writing met since this was last asked with the same open file: `EIO`, `ENOSPC`.
pub(super) fn write_out(fd: impl AsFd, offset: u64, length: u64, how: Writeout) -> Result<()> {
    let flags = match how {
        Writeout::Start => libc::SYNC_FILE_RANGE_WRITE,
        Writeout::Wait => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    let length = i64::try_from(length).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open for the length of the call, which takes no memory of ours.
    let done = unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), offset, length, flags) };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
        // A file system that cannot, or a sandbox that forbids it: it was advice.
        Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::SPIPE => Ok(()),
        errno => Err(errno),
    }
}
