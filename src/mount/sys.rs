//! The system calls that no safe wrapper offers.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// Closes a duplicate of a descriptor, for the error that `close` may bring: network file systems
/// write back then, and tell only then that the disk is full.
///
/// # Errors
///
/// What `close` gives.
pub(super) fn close_duplicate(fd: impl AsFd) -> Result<()> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(fd, 0)?.into_raw_fd();
    // SAFETY: the descriptor has just been made, nobody else knows it, and it is not used again.
    if unsafe { libc::close(duplicate) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Gives the calling thread a mount namespace, a root directory and a current directory of its own.
///
/// # Errors
///
/// What `unshare` gives.
pub(crate) fn own_mount_namespace() -> Result<()> {
    // SAFETY: descriptors stay shared, which is what the call is unsafe for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}

/// Gives the calling thread a umask and a current directory of its own.
///
/// # Errors
///
/// What `unshare` gives.
pub(super) fn own_umask() -> Result<()> {
    // SAFETY: only CLONE_FILES is unsafe, which would part this thread from the others' descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// The name of a descriptor's object below `/proc`, for calls that take no descriptor of this kind.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
