//! Putting `/dev/fuse` on a mount point, and taking it away again.
//!
//! We do it ourselves, and not through fuser: its own mounting gives root's mounts the type `fuse`
//! instead of `fuse.xpmfs`, forces options, and swallows what `fusermount3` says.
//!
//! - `mountpoint`: which directories may be mounted on; clears dead mounts
//! - `syscall`: `mount(2)`, for who has `CAP_SYS_ADMIN`
//! - `fusermount`: the setuid helper, for everybody else
//! - `detach`: unmounting, by either
//! - `remount`: changing the flags of a live mount, for root
//! - `error`: what can go wrong, as sentences that say what to do

mod detach;
mod error;
mod fusermount;
mod mountpoint;
mod remount;
mod syscall;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

pub use detach::{DetachError, How, detach};
pub use error::AttachError;
pub use mountpoint::{expect_no_silent_mount, prepare, resolve};
pub use remount::{RemountError, remount};

/// How to attach: where, and with which options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Where, absolute and without symlinks, as [`prepare`] gives it.
    pub mountpoint: PathBuf,
    /// What the tables of mounts call it: the workspace's id or its path.
    pub source: OsString,
    /// No writing through the mount (`ro`).
    pub read_only: bool,
    /// Users other than the one who mounts may enter (`allow_other`).
    pub allow_other: bool,
    /// The kernel checks permissions by mode and owner (`default_permissions`).
    pub default_permissions: bool,
    /// Longest read in bytes that the kernel asks for (`max_read=`); the kernel's own limit if `None`.
    pub max_read: Option<u32>,
    /// Device nodes work (`dev`); only for root.
    pub dev: bool,
    /// Set-user-id bits work (`suid`); only for root.
    pub suid: bool,
    /// Programs can be run (`exec`).
    pub exec: bool,
    /// Times of access are kept (`atime`).
    pub atime: bool,
}

impl Attachment {
    /// At `mountpoint`, shown as `source`, with the usual options: read-write, `nosuid`, `nodev`.
    pub fn new(mountpoint: impl Into<PathBuf>, source: impl Into<OsString>) -> Self {
        Self {
            mountpoint: mountpoint.into(),
            source: source.into(),
            read_only: false,
            allow_other: false,
            default_permissions: false,
            max_read: None,
            dev: false,
            suid: false,
            exec: true,
            atime: true,
        }
    }
}

/// Mounts, and gives the `/dev/fuse` descriptor that the kernel's requests come from.
///
/// Root mounts with `mount(2)`, also the root of a user namespace; everybody else, and a root without
/// `CAP_SYS_ADMIN`, through `fusermount3`. Until somebody serves the descriptor, every use of the mount
/// point waits; when it is closed, the mount is dead but stays.
///
/// # Errors
///
/// A sentence that says what to do; nothing is mounted then.
pub fn attach(attachment: &Attachment) -> Result<OwnedFd, AttachError> {
    let device = open_device()?;
    if !rustix::process::geteuid().is_root() {
        return fusermount::attach(attachment);
    }
    match syscall::attach(attachment, device) {
        Err(AttachError::NotPermitted) => {
            fusermount::attach(attachment).map_err(|error| match error {
                // Not for lack of a helper: it is the privilege that is missing.
                AttachError::NoHelper | AttachError::Helper(_) => AttachError::NotPermitted,
                other => other,
            })
        }
        attached => attached,
    }
}

/// Opens `/dev/fuse`; `fusermount3` needs it too, and opens it with the caller's rights.
fn open_device() -> Result<OwnedFd, AttachError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
            AttachError::NoDevice
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => AttachError::DeviceDenied,
        other => AttachError::Device(io::Error::from(other)),
    })
}
