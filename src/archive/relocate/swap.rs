//! Replaces the primary's directory of a copied job by a symlink to the copy.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::retire::{Retired, Retiring};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result, StagingContext};
use crate::archive::job::ready::{LOCKED, WRITTEN, expect_unwritten, hold_locks, is_locked};
use crate::archive::job::{backups, internal_files, select};
use crate::archive::{folder_alias, places};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::staging::Staging;
use crate::transfer::{self, Candidate, Copied, writers};
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::STAGING_PREFIX;

/// Exchanges the primary's directory of a job with a symlink to a folder's copy, in one step, if the directory is still what was read of
/// it. The directory is removed later ([`super::retire`]).
///
/// The reasons against a move are checked twice: before the copy is read again, which takes long for a large job, so that a job in use
/// does not cost a read with each attempt; and after it, with the job's locks held.
///
/// # Errors
///
/// Fails if the copy does not match the job, if a process uses the job, or with the error of the primary's file system. The job is then
/// unchanged.
pub(super) fn swap(
    env: &Env<'_>,
    retired: &Retired,
    folder: &Location,
    job: &JobId,
    copied: Copied,
    source: OwnedFd,
) -> Result<()> {
    let primary = env.view.primary();
    let from = places::path(primary, job);
    if is_locked(&source, job).tried(job, "look at the lock of", &from)? {
        return Err(JobError::new(job, Cause::Busy(LOCKED.into())));
    }
    expect_idle(env, job, &source, &copied, &from)?;
    let archived = verify(env, folder, job, &copied)?;
    let Some(task) = places::task(primary, job).tried(job, "open", &from)? else {
        return Err(JobError::new(
            job,
            Cause::Changed("its directory is gone".to_owned()),
        ));
    };
    let Some(mut staging) = Staging::take(&*task, job.hash()).beside(job, &from)? else {
        return Err(JobError::new(
            job,
            Cause::Busy("another process recovers or moves it".into()),
        ));
    };
    // No process may begin to run the job now.
    let Some(locks) = hold_locks(&source, job).tried(job, "lock", &from)? else {
        return Err(JobError::new(job, Cause::Busy(LOCKED.into())));
    };
    expect_idle(env, job, &source, &copied, &from)?;
    let there = at::stat(&*task, job.hash()).tried(job, "look at", &from)?;
    let read = at::file_id(&source).tried(job, "look at", &from)?;
    if FileId::of(&there) != read {
        return Err(JobError::new(
            job,
            Cause::Changed("another directory is in its place".to_owned()),
        ));
    }
    let target = places::path(folder, job);
    leads_to(&target, &archived, folder, job)?;
    staging.link(&target).beside(job, &from)?;
    expect_apart(env, folder, job, &target)?;
    internal_files::remove_old_names(env.view, job);
    staging.exchange(&source).beside(job, &from)?;
    env.hooks.moved(job);
    // The path does not lead to the directory any more, so no other process can open it. And if the copy was the directory itself, under
    // another name that nothing has revealed, the symlink does not lead to it now.
    let led = leads_to(&target, &archived, folder, job);
    let written = writers::being_written(&source, &copied.manifest);
    if led.is_err() || !matches!(written, Ok(None)) {
        let undone = internal_files::put_back(env.view, job, &source, true, || staging.undo());
        undone.beside(job, &from)?;
        env.hooks.moved(job);
        staging.sync().beside(job, &from)?;
        return Err(led
            .err()
            .unwrap_or_else(|| JobError::new(job, Cause::Busy(WRITTEN.into()))));
    }
    staging.sync().beside(job, &from)?;
    retired.add(Retiring::new(
        job.clone(),
        staging,
        (copied, source),
        locks,
        target,
    ));
    retired.clear(env, false);
    Ok(())
}

/// Checks that no process writes to the job, that it is unchanged since it was read, that each backup matches it, and that this user may
/// remove its files.
fn expect_idle(
    env: &Env<'_>,
    job: &JobId,
    source: &OwnedFd,
    copied: &Copied,
    from: &Path,
) -> Result<()> {
    expect_unwritten(env, job)?;
    // In this order: a process that closes a file between the two checks has changed the job, which the second detects.
    let written = writers::being_written(source, &copied.manifest).copying(job, from)?;
    if written.is_some() {
        return Err(JobError::new(job, Cause::Busy(WRITTEN.into())));
    }
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    copied.unchanged(source, Some(&select)).copying(job, from)?;
    // After these: a process that wrote until now has outdated the backups.
    backups::expect(env, job, source, Some(&copied.manifest))?;
    match writers::unremovable(source, &copied.manifest).copying(job, from)? {
        None => Ok(()),
        Some(path) => Err(JobError::new(
            job,
            Cause::Unsafe(format!(
                "it cannot be moved: {} belongs to another user and could not be removed; its owner can archive it",
                from.join(path).display()
            )),
        )),
    }
}

/// Checks that the symlink beside the job is not beside the copy as well. Otherwise both are the same directory although their file
/// systems differ, as when the folder is the workspace through another mount.
fn expect_apart(env: &Env<'_>, folder: &Location, job: &JobId, target: &Path) -> Result<()> {
    let mut staging = OsString::from(STAGING_PREFIX);
    staging.push(job.hash());
    let at = target.with_file_name(&staging);
    let Some(task) = places::task(folder, job).tried(job, "open", &at)? else {
        return Ok(());
    };
    match at::absent(rustix::fs::readlinkat(&*task, &*staging, Vec::new())) {
        Ok(Some(there)) if there.as_bytes() == target.as_os_str().as_bytes() => Err(JobError::new(
            job,
            Cause::Folder {
                folder: folder.path().to_owned(),
                why: folder_alias::shares("`jobs`", env.view.primary().path()),
            },
        )),
        _ => Ok(()),
    }
}

/// Checks that the symlink will lead to the copy. The folder may have been unmounted or renamed a moment ago, while its open directory
/// still accepts copies.
fn leads_to(target: &Path, archived: &OwnedFd, folder: &Location, job: &JobId) -> Result<()> {
    let at = folder.path();
    let copy = at::file_id(archived).tried(job, "look at the copy in", at)?;
    match at::stat_path(target) {
        Ok(there) if FileId::of(&there) == copy => Ok(()),
        _ => Err(JobError::new(
            job,
            Cause::Folder {
                folder: at.to_owned(),
                why: "its path does not lead to it any more: see whether its disk is mounted"
                    .to_owned(),
            },
        )),
    }
}

/// Reads the folder's copy again from its disk, compares it with what was read of the job, and returns its directory.
fn verify(env: &Env<'_>, folder: &Location, job: &JobId, copied: &Copied) -> Result<OwnedFd> {
    let at = places::path(folder, job);
    let Some(archived) = places::job(folder, job).tried(job, "open", &at)? else {
        return Err(JobError::new(
            job,
            Cause::Changed(format!("{} is gone", at.display())),
        ));
    };
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = transfer::Options {
        select: Some(&select),
        bandwidth: env.bandwidth,
        threads: env.threads,
        ..transfer::Options::default()
    };
    let differences =
        transfer::verify(archived.as_fd(), &copied.manifest, &options).copying(job, &at)?;
    let mut content = differences
        .iter()
        .filter(|difference| difference.what.is_content());
    match content.next() {
        None => Ok(archived),
        Some(difference) => Err(JobError::new(
            job,
            Cause::Unsafe(format!(
                "the copy is not what the job is now (`xpmfs jobs archive --force` makes a new one): {} {}",
                at.join(&difference.path).display(),
                difference.what
            )),
        )),
    }
}
