//! Checks before a job is copied to a location: its directories, its disk, and its space.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::space::{Claim, Disk, Refused};
use crate::archive::{folder_alias, obstacle, places, state_dir};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::location::deleted::DELETED;
use crate::view::{Location, Root};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, RELEASED, TRASH};

const LOOK_AT_SPACE: &str = "look at the space of";

/// With this many free bytes, the size of the copy is not computed: that reads the metadata of each file.
const FREE_BYTES_ENOUGH: u64 = 64 << 30;

/// Opens the directory of a task, and makes it if it is missing ([`places::make_task`]). An error names the obstacle, if any.
pub(super) fn make_task(location: &Location, job: &JobId, from: &Location) -> Result<Arc<OwnedFd>> {
    let made = places::make_task(location, job.task_id(), from);
    if let Err(Errno::NOTDIR) = made {
        expect_no_obstacle(location, job)?;
    }
    let at = places::path(location, job);
    made.tried(job, "make the directory of", &at)
}

/// Opens the directory of a job in its task's ([`places::open`]). An error names the obstacle, if any.
pub(super) fn open(location: &Location, task: &OwnedFd, job: &JobId) -> Result<Option<OwnedFd>> {
    match places::open_exactly(task, job.hash()) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => expect_no_obstacle(location, job).map(|()| None),
        Err(errno) => Err(errno).tried(job, "open", &places::path(location, job)),
    }
}

/// Checks that no file or symlink is in the place of one of the job's directories.
fn expect_no_obstacle(location: &Location, job: &JobId) -> Result<()> {
    match obstacle::of(location, job) {
        Some(obstacle) => Err(JobError::new(job, Cause::Obstacle(obstacle))),
        None => Ok(()),
    }
}

/// Replaces `ENOTDIR` by an error that names the file or symlink in the place of one of xpmfs's own directories in a location, if there is one.
pub(super) fn name_own_obstacle(location: &Location, error: JobError) -> JobError {
    if error.cause.errno() != Some(Errno::NOTDIR) {
        return error;
    }
    let own: [&[&str]; 4] = [
        &[TRASH],
        &[RELEASED],
        &[ARCHIVE, DELETED],
        &[places::MANIFESTS],
    ];
    let found = own.iter().find_map(|names| {
        let names = names.iter().map(OsStr::new);
        let names: Vec<&OsStr> = names.chain([error.job.task_id()]).collect();
        obstacle::of_own(location, &names)
    });
    match found {
        Some(obstacle) => JobError::new(&error.job, Cause::Obstacle(obstacle)),
        None => error,
    }
}

/// Returns the error that a folder cannot be used.
fn unusable(folder: &Location, job: &JobId, why: impl Into<String>) -> JobError {
    let (folder, why) = (folder.path().to_owned(), why.into());
    JobError::new(job, Cause::Folder { folder, why })
}

/// Checks that the folder's directory of a task, `task`, is not that of another location under another name.
///
/// Otherwise a job would count as a copy of itself, and would be moved to the directory that it is already in.
pub(super) fn expect_distinct(
    env: &Env<'_>,
    folder: &Location,
    job: &JobId,
    task: &OwnedFd,
) -> Result<()> {
    if let Some(why) = folder_alias::shared(env.view, folder) {
        return Err(unusable(folder, job, why));
    }
    let primary = env.view.primary();
    let at = primary.path();
    if let Some(theirs) = places::task(primary, job).tried(job, "open", at)?
        && folder_alias::is_same(&theirs, task).tried(job, "look at", at)?
    {
        let why = folder_alias::shares("directory of the task", at);
        return Err(unusable(folder, job, why));
    }
    Ok(())
}

/// Checks that a folder that was archived to before still has its `jobs`.
///
/// Without `jobs`, its disk is not mounted, and the copy would fill another disk. Fails as well if the primary's
/// record of the folder cannot be read.
pub(super) fn expect_disk(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<()> {
    let primary = env.view.primary();
    let known = state_dir::is_known(primary, folder);
    let known = state_dir::checked(primary, job, "look up", known)?;
    let root = folder.root().tried(job, "open", folder.path())?;
    match root.jobs() {
        Ok(_) => return Ok(()),
        Err(Errno::NOTDIR) => expect_no_obstacle(folder, job)?,
        Err(_) => {}
    }
    match known {
        true => Err(unusable(folder, job, places::NO_DISK)),
        false => Ok(()),
    }
}

/// Checks that the folder's path leads to the same directory as when the batch began, `root`.
///
/// A disk may have been mounted or unmounted there since, and the copy must not continue on another disk.
pub(super) fn expect_same_folder(folder: &Location, root: &Arc<Root>, job: &JobId) -> Result<()> {
    let at = folder.path();
    let known = match folder.root() {
        Ok(now) => Arc::ptr_eq(&now, root),
        // The folder hangs, or did a moment ago: the copy in progress continues.
        Err(errno) => errno == Errno::TIMEDOUT,
    };
    let begun = at::file_id(root.fd()).tried(job, "look at", at)?;
    // The symlink may have changed a moment ago, and commands run without a watcher.
    if !root.has_same_jobs() {
        let why = "its `jobs` is a symlink that leads elsewhere than when it was opened: mount the workspace again";
        return Err(unusable(folder, job, why));
    }
    match at::stat_path(at) {
        Ok(now) if known && FileId::of(&now) == begun => Ok(()),
        _ => {
            let why = "its path does not lead to the directory any more that the job was copied to: see whether its disk is mounted";
            Err(unusable(folder, job, why))
        }
    }
}

/// Claims the free bytes of a location that a copy of a job needs, so that the copy does not fill a disk that others use.
///
/// `known`: how many these are, if that is known. If not, calls `needed` only if less than [`FREE_BYTES_ENOUGH`] is free, and claims nothing
/// otherwise.
pub(super) fn claim_space(
    env: &Env<'_>,
    location: &Location,
    job: &JobId,
    known: Option<u64>,
    needed: impl FnOnce() -> Result<u64>,
) -> Result<Option<Claim>> {
    let at = location.path();
    let disk = Disk::of_jobs(location).tried(job, "open", at)?;
    let needed = match known {
        Some(bytes) => bytes,
        None if disk.unclaimed().tried(job, LOOK_AT_SPACE, at)? >= FREE_BYTES_ENOUGH => {
            return Ok(None);
        }
        None => needed()?,
    };
    let claim = disk.claim(needed, || env.progress.is_cancelled());
    claim.map(Some).map_err(|refused| match refused {
        Refused::Lacking { .. } => {
            let (path, why) = (at.to_owned(), refused.to_string());
            JobError::new(job, Cause::NoSpace { path, why })
        }
        Refused::Cancelled => JobError::new(job, Cause::Cancelled),
        Refused::System(errno) => JobError::new(job, Cause::io(LOOK_AT_SPACE, at, errno)),
    })
}
