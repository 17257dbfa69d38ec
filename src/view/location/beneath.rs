//! Opens a folder whose path leads into a mount of xpmfs: beneath that mount, never through it.
//!
//! Two workspaces may attach each other, or three in a ring. Asked through their mounts, each daemon would wait for the other.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use crate::view::walk;

/// The error of a folder in an xpmfs mount beneath which it cannot be opened. No disk returns it.
pub const COVERED: Errno = Errno::MULTIHOP;

/// A mount of xpmfs, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountId {
    /// Its number in `/proc/self/mountinfo`; 0 if unknown.
    pub id: u64,
    /// Its file system's device number, major and minor.
    pub device: (u32, u32),
}

/// Opens the directories beneath mounts of xpmfs.
pub trait Beneath: Send + Sync {
    /// The directory on the disk that the root of a mount shows.
    ///
    /// # Errors
    ///
    /// [`COVERED`] if it cannot be opened, `ELOOP` for this process's own mount.
    fn open(&self, mount: MountId) -> Result<OwnedFd>;
}

/// Opens nothing.
pub(in crate::view) struct NoBeneath;

impl Beneath for NoBeneath {
    fn open(&self, _mount: MountId) -> Result<OwnedFd> {
        Err(COVERED)
    }
}

/// Opens one folder's path, repeatedly.
pub(super) struct Covered {
    beneath: Arc<dyn Beneath>,
    /// The directory last opened beneath a mount: while that mount exists, it is not requested again.
    kept: Mutex<Option<(MountId, OwnedFd)>>,
}

impl Covered {
    pub(super) fn new(beneath: Arc<dyn Beneath>) -> Covered {
        Covered {
            beneath,
            kept: Mutex::default(),
        }
    }

    /// Opens the directory that a path leads to, with the path that leads there without symlinks.
    ///
    /// # Errors
    ///
    /// As [`Beneath::open`] and `openat`.
    pub(super) fn open_dir(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        // The disk is not asked with the lock held.
        let mut kept = self.kept.lock().take();
        let mut used = None;
        let opened = walk::open_dir(path, &mut |root| {
            let (id, device) = walk::mount_of(root)?;
            let mount = MountId { id, device };
            let fd = match kept.take() {
                Some((known, fd)) if known == mount => fd,
                _ => self.beneath.open(mount)?,
            };
            used = Some((mount, rustix::io::fcntl_dupfd_cloexec(&fd, 0)?));
            Ok(fd)
        });
        *self.kept.lock() = used;
        opened
    }
}
