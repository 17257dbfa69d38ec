//! Calls of the kernel's FUSE device that fuser does not wrap, or only as `unsafe`.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use fuser::{BackingId, ReplyCreate, ReplyOpen};
use rustix::io::{Errno, Result};

/// `FUSE_DEV_IOC_BACKING_CLOSE`, in the kernel's `fuse.h`: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// Closes a backing file, by the number that the kernel has given to it.
///
/// # Errors
///
/// `ENOENT` if there is none with this number.
pub fn close_backing(device: impl AsFd, id: u32) -> Result<()> {
    let device = device.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open during the call, which reads one number from memory that lives until it returns.
    match unsafe { libc::ioctl(device, BACKING_CLOSE as _, &raw const id) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Makes `target` a descriptor of the open file of `by`. Whatever holds `target` uses the other file from then on.
///
/// # Errors
///
/// `EBUSY` if another thread opens a file at this moment.
pub fn replace_descriptor(target: BorrowedFd<'_>, by: impl AsFd) -> Result<()> {
    let (target, by) = (target.as_raw_fd(), by.as_fd().as_raw_fd());
    // SAFETY: both descriptors are open during the call. The holder of `target` keeps owning it: the number stays open.
    match unsafe { libc::dup3(by, target, libc::O_CLOEXEC) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

/// A reply that can name a backing file.
pub trait NamesBacking {
    /// The backing file with a number, as fuser has it. It must be given back by [`BackingId::into_raw`]: fuser closes
    /// the backing file otherwise.
    fn backing(&self, id: u32) -> BackingId;
}

impl NamesBacking for ReplyOpen {
    fn backing(&self, id: u32) -> BackingId {
        // SAFETY: a number is unsafe in that closing it twice would close another file; see the trait.
        unsafe { self.wrap_backing(id) }
    }
}

impl NamesBacking for ReplyCreate {
    fn backing(&self, id: u32) -> BackingId {
        // SAFETY: as above.
        unsafe { self.wrap_backing(id) }
    }
}
