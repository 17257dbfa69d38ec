//! Checks before a move that each `backup` folder has the job in its current state.
//!
//! The job may change between its backup and its move: the move may wait for a folder that is full or missing, or for a process that
//! writes. A disk may be removed meanwhile.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::compare::{Comparison, compare};
use super::{manifests, select};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::places;
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::Manifest;
use crate::view::Location;
use crate::view::location::{Role, why_not};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How long a `backup` folder may take to reply. If it hangs, the move is retried later.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks that each `backup` folder that does not exclude a job has a finished copy of it at its current path: the disk may have been
/// removed or replaced since the job was copied. `source` is the primary's directory of the job. If `read`, what was read of the job, is
/// given, the manifest of each copy must match it.
///
/// # Errors
///
/// Fails with [`Cause::NoBackup`] if a folder lacks the copy or does not reply: the job must be archived there first. Fails with
/// [`Cause::Unsafe`] if a copy differs only in content, with the same size and time: archiving the job again would not replace it.
pub(in crate::archive) fn expect(
    env: &Env<'_>,
    job: &JobId,
    source: &OwnedFd,
    read: Option<&Manifest>,
) -> Result<()> {
    for folder in env.view.folders() {
        let excluded = env
            .out
            .is_some_and(|out| out.is_excluded_from(folder.index(), job));
        if folder.role() != Role::Folder(Mode::Backup) || excluded {
            continue;
        }
        let mut lacks = lacks(env, folder, job, source)?;
        if let (None, Some(read)) = (&lacks, read) {
            lacks = why_behind(folder, job, read)?;
        }
        if let Some(why) = lacks {
            let folder = folder.path().to_owned();
            return Err(JobError::new(job, Cause::NoBackup { folder, why }));
        }
    }
    Ok(())
}

/// Why a folder does not have a usable copy of a job, if so.
fn lacks(
    env: &Env<'_>,
    folder: &Location,
    job: &JobId,
    source: &OwnedFd,
) -> Result<Option<String>> {
    let path = places::path(folder, job);
    let theirs = job.clone();
    let copy = match folder.answer(BACKUP_TIMEOUT, move || copy(&path, &theirs)) {
        Ok(Ok(copy)) => copy,
        Ok(Err(error)) | Err(error) => return Ok(Some(why_not(error))),
    };
    let Some(copy) = copy else {
        return Ok(Some("see whether its disk is mounted".to_owned()));
    };
    let primary = env.view.primary().path();
    let source = at::file_id(source).tried(job, "look at", primary)?;
    let is_one = || "the workspace's own job is there under another name".to_owned();
    Ok((copy == source).then(is_one))
}

/// Why a folder's copy of a job does not match what was read of the job, if so.
fn why_behind(folder: &Location, job: &JobId, read: &Manifest) -> Result<Option<String>> {
    let Ok(Some(theirs)) = manifests::read(folder, job) else {
        return Ok(Some("its copy there has no manifest".to_owned()));
    };
    let differences = theirs.differences(read);
    let Some(first) = differences.iter().find(|it| select::is_of_content(it)) else {
        return Ok(None);
    };
    match compare(read, &theirs, &markers::done(job.name())) {
        // Archiving it there again would not replace the copy.
        Comparison::Same => {
            let why = format!(
                "its backup has another content, with the same size and time of change (`xpmfs jobs archive --force` makes a new one): {}",
                places::path(folder, job).join(&first.path).display()
            );
            Err(JobError::new(job, Cause::Unsafe(why)))
        }
        _ => Ok(Some("it has changed since it was copied there".to_owned())),
    }
}

/// The identity of the finished copy of a job at a path, if there is one. Goes by the path, not by the folder's open directory, which may
/// be that of an unmounted disk; but does not follow a symlink in the place of the job's directory.
fn copy(path: &Path, job: &JobId) -> rustix::io::Result<Option<FileId>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let task = path.parent().unwrap_or(path);
    let Some(task) = at::absent(rustix::fs::open(task, flags, FileMode::empty()))? else {
        return Ok(None);
    };
    let Some(copy) = places::open(&task, job.hash())? else {
        return Ok(None);
    };
    let done = markers::is_done(&copy, job.name());
    match done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))? {
        true => at::file_id(&copy).map(Some),
        false => Ok(None),
    }
}
