//! Unmounts: by `umount2(2)` for root, by `fusermount3 -u` for other users.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::error::DetachError;
use super::fusermount;

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Only if nothing uses the mount.
    Clean,
    /// At once from the tree of directories; what is open stays until it is closed.
    Lazy,
}

/// Unmounts the top-most mount at `mountpoint` (absolute, without symlinks). Walks no mount itself, so
/// that a daemon may call it for its own from a thread that answers no requests.
///
/// # Errors
///
/// [`DetachError::Busy`] with [`How::Clean`] when something uses it; otherwise why it stays mounted.
pub fn detach(mountpoint: &Path, how: How) -> Result<(), DetachError> {
    let lazy = match how {
        How::Clean => UnmountFlags::empty(),
        How::Lazy => UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(mountpoint, lazy | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => by_helper(mountpoint, how),
        Err(Errno::BUSY) => Err(DetachError::Busy(mountpoint.to_owned())),
        Err(Errno::INVAL | Errno::NOENT) => Err(DetachError::NotMounted(mountpoint.to_owned())),
        Err(errno) => Err(other(mountpoint, io::Error::from(errno).to_string())),
    }
}

fn by_helper(mountpoint: &Path, how: How) -> Result<(), DetachError> {
    let helper = fusermount::find().ok_or(DetachError::NoHelper)?;
    let mut command = Command::new(&helper);
    command.arg("-u");
    if how == How::Lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(mountpoint)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| other(mountpoint, format!("{}: {error}", helper.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let words = fusermount::on_one_line(&output.stderr);
    Err(if words.contains("Device or resource busy") {
        DetachError::Busy(mountpoint.to_owned())
    } else if words.contains("failed to open /etc/mtab") {
        DetachError::NoMtab(mountpoint.to_owned())
    } else if words.contains("not found in") || words.contains("not mounted") {
        // The helper looks for a FUSE mount of this user and does not distinguish the two cases.
        match crate::daemon::mounts::top_at(mountpoint) {
            Ok(Some(_)) => DetachError::NotYours(mountpoint.to_owned()),
            _ => DetachError::NotMounted(mountpoint.to_owned()),
        }
    } else {
        other(mountpoint, words)
    })
}

fn other(mountpoint: &Path, reason: String) -> DetachError {
    DetachError::Other {
        mountpoint: mountpoint.to_owned(),
        reason,
    }
}
