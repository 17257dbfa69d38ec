//! A lock for commands that mount at the same place at once, so that one starts the daemon and the others wait for it.
//!
//! Without the lock all of them would start a daemon, and all daemons but one would fail. Commands that see different directories for
//! control sockets do not exclude each other: their daemons do.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat};

use crate::daemon::control::runtime_directory;
use crate::sys::deadline::wait_until;

/// How long a command waits for the lock: another one may wait for a slow disk.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The lock; its file goes when this is dropped.
#[derive(Debug)]
pub struct LaunchLock {
    path: PathBuf,
    /// Closing it unlocks.
    _file: OwnedFd,
}

impl LaunchLock {
    /// Waits for the lock of a mount point. `None` if it cannot be taken: the command goes on without it.
    #[must_use]
    pub fn wait(mountpoint: &Path) -> Option<LaunchLock> {
        let hash = blake3::hash(mountpoint.as_os_str().as_bytes()).to_hex();
        let name = format!("mounting-{}.lock", hash.get(..16)?);
        let path = runtime_directory()?.join(name);
        let mut locked = None;
        wait_until(TIMEOUT, || {
            locked = lock(&path);
            locked.is_some()
        });
        locked.map(|file| LaunchLock { path, _file: file })
    }
}

/// Locks the file, unless another process has it, or has removed it meanwhile.
fn lock(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let named = fs::symlink_metadata(path).ok()?;
    let own = fstat(&file).ok()?;
    (named.ino() == own.st_ino).then_some(file)
}

impl Drop for LaunchLock {
    fn drop(&mut self) {
        // Still locked: no other process has this file.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_lock_and_no_file_remains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = lock(&path).unwrap();
        assert!(lock(&path).is_none());
        let held = LaunchLock {
            path: path.clone(),
            _file: file,
        };
        drop(held);
        assert!(!path.exists());
        assert!(lock(&path).is_some());
    }
}
