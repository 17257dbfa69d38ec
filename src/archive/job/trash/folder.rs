//! Moves the copy of a deleted job in one folder to its trash.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::batch::Batch;
use super::parts::Part;
use super::records::{self, RecordKind};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result, StagingContext};
use crate::archive::job::preconditions;
use crate::archive::job::ready::hold_locks;
use crate::archive::{archived_jobs, places, state_dir};
use crate::sys::at;
use crate::transfer::staging::Staging;
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::STAGING_PREFIX;
use crate::workspace::markers;

/// What became of the copy in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completed {
    /// It is in the folder's trash.
    Moved,
    /// The folder had none, or one that is newer than the deletion.
    Nothing,
    /// Another process works on it: it is moved later.
    Busy,
    /// The folder cannot be used now: the copy is moved when it is back.
    Away(String),
}

/// Why a folder cannot be used now, if so. A folder that shares the directory of another location has no copy of its own.
pub(in crate::archive) fn why_away(env: &Env<'_>, folder: &Location) -> Option<String> {
    match crate::archive::folder_alias::shared(env.view, folder) {
        Some(_) => None,
        None => archived_jobs::why_not(env, folder),
    }
}

/// Completes the deletion of a job in a folder, if the folder has its mark.
///
/// # Errors
///
/// An error of the folder's file system, or of the primary's. The mark stays then.
pub(in crate::archive) fn complete(
    env: &Env<'_>,
    folder: &Location,
    job: &JobId,
) -> Result<Completed> {
    let completed = complete_marked(env, folder, job);
    completed.map_err(|error| preconditions::name_own_obstacle(folder, error))
}

fn complete_marked(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<Completed> {
    let primary = env.view.primary();
    let at = places::path(folder, job);
    let mark = records::read(primary, RecordKind::Marks(folder), job);
    let Some(mark) = mark.tried(job, "read the mark of", &at)? else {
        return Ok(Completed::Nothing);
    };
    if let Some(why) = why_away(env, folder) {
        return Ok(Completed::Away(why));
    }
    let task = places::task(folder, job).tried(job, "open", &at)?;
    let mut moved = false;
    if let Some(task) = task {
        if is_being_moved(&task, job) {
            return Ok(Completed::Busy);
        }
        let Some(staging) = Staging::take(&*task, job.hash()).beside(job, &at)? else {
            return Ok(Completed::Busy);
        };
        let Some(done) = discard(folder, &mark.batch, job)? else {
            return Ok(Completed::Busy);
        };
        moved = done;
        staging.finish(None).beside(job, &at)?;
    } else {
        discard_manifest(folder, &mark.batch, job)?;
    }
    if !moved && let Some(why) = lacks_in_another_directory(env, folder, job) {
        return Ok(Completed::Away(why));
    }
    let _ = state_dir::set_damaged(primary, folder, job, None);
    let taken = env.view.take_off_record(folder, job.task_id(), job.hash());
    if let Err(error) = taken {
        tracing::debug!(
            "{job} stays on the record of {}: {error}",
            folder.path().display()
        );
    }
    // A node for which the folder is away takes the job for one that the folder has, until its record is brought up to date.
    if !env.view.has_on_record(folder, job.task_id(), job.hash()) {
        let removed = records::remove(primary, RecordKind::Marks(folder), job);
        removed.tried(job, "remove the mark of", &at)?;
    }
    Ok(match moved {
        true => Completed::Moved,
        false => Completed::Nothing,
    })
}

/// Why a deletion is not complete in a folder that lacks the copy: the copy is on record, and another directory is in the place of the one
/// that had it. The old one may come back.
pub(super) fn lacks_in_another_directory(
    env: &Env<'_>,
    folder: &Location,
    job: &JobId,
) -> Option<String> {
    let root = folder.root().ok()?;
    if folder.is_same_directory(&root) != Some(false) {
        return None;
    }
    let (task, hash) = (job.task_id(), job.hash());
    let is_on_record =
        env.view.has_on_record(folder, task, hash) || env.view.is_gone(folder, task, hash);
    let directory = places::task(folder, job).ok()?;
    let is_there = directory.is_some_and(|it| at::stat(&*it, hash).is_ok());
    (is_on_record && !is_there).then(|| folder.replaced())
}

/// Whether the folder is another workspace's own directory, from which the job was moved a moment ago: `.tmp.<hash>` beside its symlink is the
/// old directory, which that workspace removes or puts back.
fn is_being_moved(task: &OwnedFd, job: &JobId) -> bool {
    let mut aside = OsString::from(STAGING_PREFIX);
    aside.push(job.hash());
    at::stat(task, job.hash()).is_ok_and(|stat| at::is_symlink(&stat))
        && at::stat(task, &aside).is_ok_and(|stat| at::is_dir(&stat))
}

/// As [`complete`], for a caller that has the lock of the job's staging in the folder, and is about to archive a job of this name there. The
/// mark is removed in any case.
///
/// # Errors
///
/// As [`complete`]; `Busy` if the copy is in use.
pub(in crate::archive) fn make_way(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<()> {
    let primary = env.view.primary();
    if !folder.has_deleted(job.task_id(), job.hash()) {
        return Ok(());
    }
    let at = places::path(folder, job);
    let mark = records::read(primary, RecordKind::Marks(folder), job);
    if let Some(mark) = mark.tried(job, "read the mark of", &at)?
        && discard(folder, &mark.batch, job)?.is_none()
    {
        let why = "the deleted copy in the folder is in use";
        return Err(JobError::new(job, Cause::Busy(why.into())));
    }
    let removed = records::remove(primary, RecordKind::Marks(folder), job);
    removed.tried(job, "remove the mark of", &at)?;
    env.view.look_for_deleted();
    Ok(())
}

/// Moves the copy that was deleted at `batch`, with its manifest. Returns whether there was one; `None` if a process runs it.
fn discard(folder: &Location, batch: &Batch, job: &JobId) -> Result<Option<bool>> {
    let at = places::path(folder, job);
    let task = places::task(folder, job).tried(job, "open", &at)?;
    let there = match &task {
        Some(task) => at::absent(at::stat(&**task, job.hash())).tried(job, "look at", &at)?,
        None => None,
    };
    let Some(stat) = there else {
        discard_manifest(folder, batch, job)?;
        return Ok(Some(false));
    };
    let copy = places::job(folder, job).tried(job, "open", &at)?;
    // The folder may be another workspace's own directory, in which the job was run again.
    let _locks = match &copy {
        Some(copy) => match hold_locks(copy, job).tried(job, "lock", &at)? {
            Some(locks) => locks,
            None => return Ok(None),
        },
        None => Vec::new(),
    };
    let ended = match &copy {
        Some(copy) => marker_time(copy, job).tried(job, "look into", &at)?,
        None => None,
    };
    if ended.unwrap_or_else(|| mtime(&stat)) > SystemTime::from(batch.at()) {
        tracing::info!(
            "{} is newer than the job that was deleted, and stays",
            at.display()
        );
        return Ok(Some(false));
    }
    Part::Job
        .discard(folder, batch, job)
        .tried(job, "move to the trash", &at)?;
    discard_manifest(folder, batch, job)?;
    Ok(Some(true))
}

fn discard_manifest(folder: &Location, batch: &Batch, job: &JobId) -> Result<()> {
    let at = crate::archive::job::manifests::path(folder, job);
    let moved = Part::Manifest.discard(folder, batch, job);
    moved.tried(job, "move to the trash", &at).map(drop)
}

/// When a job ended, by its marker.
fn marker_time(copy: &OwnedFd, job: &JobId) -> rustix::io::Result<Option<SystemTime>> {
    for marker in [markers::done(job.name()), markers::failed(job.name())] {
        match at::stat(copy, &marker) {
            Ok(stat) => return Ok(Some(mtime(&stat))),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn mtime(stat: &Statx) -> SystemTime {
    let seconds = u64::try_from(stat.stx_mtime.tv_sec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, stat.stx_mtime.tv_nsec)
}
