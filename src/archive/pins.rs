//! Pins: jobs whose copy in the primary is never released, recorded as `<primary>/.xpmfs/pins/<task_id>/<hash>`.
//!
//! A lost pin does harm: the job would be released. So a file or symlink in the place of one of the directories is an error,
//! and not a missing pin.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::io::{Errno, Result};

use super::{obstacle, places, state_dir};
use crate::sys::{at, shared_dir};
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::XPMFS;

/// The directory of the pins, in the primary's `.xpmfs`.
pub(super) const PINS: &str = "pins";

/// Whether a job is pinned.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`explain`] says.
pub fn is_pinned(primary: &Location, job: &JobId) -> Result<bool> {
    match open(primary, job)? {
        Some(dir) => Ok(at::absent(at::stat(dir, job.hash()))?.is_some()),
        None => Ok(false),
    }
}

/// Pins a job, or removes its pin. Returns whether that changed anything.
///
/// # Errors
///
/// As [`is_pinned`].
pub fn set_pinned(primary: &Location, job: &JobId, pinned: bool) -> Result<bool> {
    if pinned {
        let dir = places::make_own(primary, [OsStr::new(PINS), job.task_id()])?;
        return match state_dir::create(primary.root()?.fd(), &dir, job.hash()) {
            Err(Errno::EXIST) => Ok(false),
            created => created.map(|_| true),
        };
    }
    let Some(dir) = open(primary, job)? else {
        return Ok(false);
    };
    let removed = at::absent(rustix::fs::unlinkat(dir, job.hash(), AtFlags::empty()))?;
    Ok(removed.is_some())
}

/// Explains an error of this module, as a clause.
#[must_use]
pub fn explain(primary: &Location, job: &JobId, error: Errno) -> String {
    let names = [OsStr::new(PINS), job.task_id()];
    let obstacle = (error == Errno::NOTDIR).then(|| obstacle::of_own(primary, &names));
    match obstacle.flatten() {
        Some(obstacle) => obstacle.to_string(),
        None => {
            let path = primary.path().join(XPMFS).join(PINS);
            format!(
                "cannot use {}: {}",
                path.display(),
                std::io::Error::from(error)
            )
        }
    }
}

/// Opens the directory of the pins of a job's task; `None` only if it does not exist.
fn open(primary: &Location, job: &JobId) -> Result<Option<OwnedFd>> {
    let names = [OsStr::new(XPMFS), OsStr::new(PINS), job.task_id()];
    match shared_dir::open_shared(primary.root()?.fd(), names.into_iter()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
