//! Whether a process holds a job's lock: whether the job runs, or a plan checks it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, Result};

use super::jobs::JobId;
use super::layout::JOB_STATE;
use crate::sys::at;

/// Whether a process holds a job's lock: `<name>.lock`, or `.experimaestro/<name>.lock` in older layouts.
///
/// # Errors
///
/// As `openat` and `flock`.
pub fn is_locked(job: impl AsFd, id: &JobId) -> Result<bool> {
    Ok(hold_locks(job, id)?.is_none())
}

/// Takes a job's locks as shared locks, held until the descriptors are closed; `None` if another process holds one exclusively. Skips a
/// lock that does not exist or cannot be opened.
///
/// # Errors
///
/// As `openat` and `flock`.
pub fn hold_locks(job: impl AsFd, id: &JobId) -> Result<Option<Vec<OwnedFd>>> {
    let mut name = id.name().to_owned();
    name.push(".lock");
    let mut held = Vec::new();
    let state = at::absent(at::open_dir(&job, OsStr::new(JOB_STATE)))?;
    let directories = [Some(job.as_fd()), state.as_ref().map(AsFd::as_fd)];
    for directory in directories.into_iter().flatten() {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = match rustix::fs::openat(directory, &name, flags, Mode::empty()) {
            Ok(lock) => lock,
            Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => continue,
            Err(error) => return Err(error),
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => held.push(lock),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // A file system without locks: no process can hold one.
            Err(Errno::NOSYS | Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(held))
}
