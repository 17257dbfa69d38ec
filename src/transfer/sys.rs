//! The system calls that no safe wrapper offers.
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

/// `F_SETSIG` of Linux (fcntl(2)).
const SETSIG: libc::c_int = 10;

/// Whether anybody has a file open for writing, as far as the kernel tells: it gives a lease for reading only if nobody has.
/// The file must be open for reading only.
pub(super) fn has_writers(fd: impl AsFd) -> bool {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the length of these calls, which take numbers alone.
    let control = |what, number: libc::c_int| unsafe { libc::fcntl(fd, what, number) };
    // A lease that is broken before it is given back sends a signal: SIGIO, which would end the process, unless it is
    // told to be this one, which does nothing.
    if control(SETSIG, libc::SIGURG) != 0 {
        return false;
    }
    if control(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        control(libc::F_SETLEASE, libc::F_UNLCK);
        return false;
    }
    let error = std::io::Error::last_os_error();
    error.raw_os_error() == Some(libc::EAGAIN)
}

/// `IOPRIO_WHO_PROCESS`, and the lowest priority of the class best-effort (`ioprio_set(2)`).
const WHO_PROCESS: libc::c_int = 1;
const LOWEST: libc::c_int = (2 << 13) | 7;

/// Gives the calling thread the lowest priority at disks among those that get on at all.
///
/// # Errors
///
/// `ENOSYS` where the kernel has no priorities.
pub(super) fn lowest_io_priority() -> Result<()> {
    // SAFETY: the call takes three numbers, and changes nothing but the scheduling of the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LOWEST) };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// `cachestat` (Linux 6.5) has this number on every architecture that Rust knows.
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// What `cachestat` tells, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    written: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many bytes of a part of a file are cached.
///
/// # Errors
///
/// `ENOSYS` before Linux 6.5; `EPERM` for a file that the caller neither owns nor may write.
pub(super) fn cached(fd: impl AsFd, offset: u64, length: u64) -> Result<u64> {
    let range = Range { offset, length };
    let mut stat = CacheStat::default();
    let (from, to) = (&raw const range, &raw mut stat);
    // SAFETY: both structures are what the call expects, and live until it returns.
    let done = unsafe { libc::syscall(CACHESTAT, fd.as_fd().as_raw_fd(), from, to, 0) };
    if done == 0 {
        return Ok(stat
            .cached
            .saturating_mul(rustix::param::page_size() as u64));
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
