//! Mounts `/dev/fuse` on a mount point, and unmounts it.
//!
//! This does not use fuser's own mounting, which gives root's mounts the type `fuse` instead of `fuse.xpmfs`, forces options,
//! and drops the messages of `fusermount3`.
//!
//! - `mountpoint`: which directories may be mounted on; clears dead mounts
//! - `mount`: mounts with `mount(2)`, or through `fusermount`, the setuid helper
//! - `detach`: unmounts, by either
//! - `remount`: changes the flags of a live mount, for root
//! - `error`: the errors, as sentences that say what to do

mod detach;
mod error;
mod fusermount;
mod mount;
mod mountpoint;
mod remount;

use std::ffi::OsString;
use std::path::PathBuf;

pub use detach::{How, detach};
pub use error::{AttachError, DetachError};
pub use mount::attach;
pub use mountpoint::{check_mountpoint, expect_no_silent_mount, resolve};
pub use remount::{RemountError, remount};

/// Where to mount, and with which options.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// The mount point, absolute and without symlinks, as [`check_mountpoint`] returns it.
    #[serde(with = "crate::sys::path_bytes")]
    pub mountpoint: PathBuf,
    /// The source in tables of mounts: the workspace's id or its path.
    pub source: OsString,
    /// No writing through the mount (`ro`).
    pub read_only: bool,
    /// Other users may enter (`allow_other`).
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
    /// Only this process's mount namespace has it, and it ends with the last other process there (`xpmfs run`).
    pub private: bool,
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
            private: false,
        }
    }
}
