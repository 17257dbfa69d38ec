//! Cleans up after crashed processes in the primary: finishes or reverts moves, and removes unfinished copies.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::retire::Retired;
use crate::archive::env::Env;
use crate::archive::error::{Context, CopyContext, Result, StagingContext};
use crate::archive::job::compare::{Comparison, compare, marked};
use crate::archive::job::ready::hold_locks;
use crate::archive::job::{internal_files, release, select, trash};
use crate::archive::places;
use crate::settings;
use crate::sys::at;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::staging::{Staging, sweep};
use crate::transfer::{self, Candidate, writers};
use crate::view::location::Role;
use crate::view::{InPrimary, Location};
use crate::workspace::jobs::{JobId, is_job_entry};
use crate::workspace::layout::STAGING_PREFIX;
use crate::workspace::markers;

/// Cleans up every task's directory in the primary ([`clear`]), and finishes interrupted releases and deletions.
///
/// # Errors
///
/// Fails if the tasks cannot be listed.
pub fn clear_all(env: &Env<'_>, retired: &Retired) -> rustix::io::Result<()> {
    release::clear(env);
    trash::finish::interrupted(env);
    let Some(jobs) = at::absent(env.view.primary().root()?.jobs())? else {
        return Ok(());
    };
    let Some(listed) = places::open(&*jobs, OsStr::new("."))? else {
        return Ok(());
    };
    let mut buffer = EntryBuffer::default();
    while read_dir::read_once(&listed, &mut buffer, |entry| {
        if is_job_entry(entry.name()) {
            clear_or_warn(env, retired, entry.name());
        }
    })? {}
    Ok(())
}

/// Cleans up the directories of the tasks of some jobs ([`clear`]), and finishes interrupted releases and deletions.
pub fn clear_of(env: &Env<'_>, retired: &Retired, jobs: &[JobId]) {
    release::clear(env);
    trash::finish::interrupted(env);
    let tasks: BTreeSet<&OsStr> = jobs.iter().map(JobId::task_id).collect();
    for task in tasks {
        clear_or_warn(env, retired, task);
    }
}

fn clear_or_warn(env: &Env<'_>, retired: &Retired, task: &OsStr) {
    if let Err(errno) = clear(env, retired, task) {
        tracing::warn!(
            "cannot clear {} in {}: {errno}",
            task.display(),
            env.view.primary().path().display()
        );
    }
}

/// Removes the entries `.tmp.<hash>` in a task's directory in the primary whose lock is free, and what an interrupted recovery has left of
/// the job's internal files. The directory of a moved job that was written to since is put back instead, and reported by `retired`.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
pub fn clear(env: &Env<'_>, retired: &Retired, task: &OsStr) -> rustix::io::Result<()> {
    let primary = env.view.primary();
    let Some(directory) = at::absent(primary.root()?.task(task))? else {
        return Ok(());
    };
    let Some(listed) = places::open(&*directory, OsStr::new("."))? else {
        return Ok(());
    };
    let mut names = Vec::new();
    let mut buffer = EntryBuffer::default();
    while read_dir::read_once(&listed, &mut buffer, |entry| {
        let name = entry.name().as_bytes();
        if let Some(hash) = name.strip_prefix(STAGING_PREFIX.as_bytes())
            && let Ok(job) = JobId::new(task, OsStr::from_bytes(hash))
        {
            names.push(job);
        }
    })? {}
    for job in names {
        if let Some(recovered) = of_lock(&job)
            && env.view.in_primary(task, recovered.hash()) == Ok(InPrimary::Job)
        {
            internal_files::remove_left(env.view, &recovered);
        }
        if let Err(error) = put_back(env, retired, &job) {
            tracing::warn!("{error}");
        }
    }
    match sweep(&*directory) {
        Ok(0) => {}
        Ok(count) => tracing::info!(
            "removed {count} unfinished copies and moved jobs of {} in {}",
            task.display(),
            primary.path().display()
        ),
        Err(error) => tracing::warn!(
            "cannot clear {} in {}: {error}",
            task.display(),
            primary.path().display()
        ),
    }
    Ok(())
}

/// The job of the lock file `.tmp.<hash>.lock`, whose name without its prefix was read as that of a job.
fn of_lock(named: &JobId) -> Option<JobId> {
    let hash = named.hash().as_bytes().strip_suffix(b".lock")?;
    JobId::new(named.task_id(), OsStr::from_bytes(hash)).ok()
}

/// Puts the directory of a moved job back if it is newer than the folder's copy, or open for writing; otherwise removes it.
fn put_back(env: &Env<'_>, retired: &Retired, job: &JobId) -> Result<()> {
    let primary = env.view.primary();
    let path = places::path(primary, job);
    let Some(task) = places::task(primary, job).tried(job, "open", &path)? else {
        return Ok(());
    };
    if aside(&task, job, &path)?.is_none() {
        return Ok(());
    }
    let Some(mut staging) = Staging::take(&*task, job.hash()).beside(job, &path)? else {
        return Ok(());
    };
    // Before the lock was taken, another process may have removed it or put it back.
    let Some((aside, link)) = aside(&task, job, &path)? else {
        return staging.finish(None).beside(job, &path);
    };
    let folders = env.view.folders().iter();
    let (moves, others): (Vec<_>, Vec<_>) =
        folders.partition(|folder| folder.role() == Role::Folder(settings::Mode::Move));
    // The symlink leads to a `move` folder; the other folders come after these.
    let archived = moves
        .into_iter()
        .chain(others)
        .find_map(|folder| copy_in(folder, job));
    let newer = match &archived {
        // The directory may be the only copy.
        None => markers::is_done(&aside, job.name()).unwrap_or(true),
        Some(archived) => {
            let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
            let options = transfer::Options {
                select: Some(&select),
                ..transfer::Options::default()
            };
            let ours = transfer::outline(&aside, &options).copying(job, &path)?;
            let theirs = transfer::outline(archived, &options).copying(job, &path)?;
            let done = markers::done(job.name());
            let comparison = compare(&ours, &theirs, &done);
            let exchanged = staging.exchanged().beside(job, &path)?;
            // A process that has a file of it open continues to write to it.
            let written = exchanged != Some(false)
                && !matches!(writers::being_written(&aside, &ours), Ok(None));
            match exchanged {
                _ if written => true,
                Some(true) => {
                    matches!(comparison, Comparison::Newer | Comparison::Mixed { .. })
                }
                // The copy of an interrupted recovery. Its unfinished files are newer than all others.
                Some(false) => false,
                // A copy gets its marker last: if it has the folder's marker, all of its files are complete.
                None => {
                    comparison == Comparison::Newer
                        && match (marked(&ours, &done), marked(&theirs, &done)) {
                            (Some(ours), Some(theirs)) => ours.order(theirs).is_eq(),
                            (ours, theirs) => ours == theirs,
                        }
                }
            }
        }
    };
    if newer {
        tracing::warn!("{job} was written to while it was moved, and is put back");
        let locks = hold_locks(&aside, job).tried(job, "lock", &path)?;
        staging.adopt(&aside).beside(job, &path)?;
        // Otherwise a program holds a lock of the directory itself.
        let keep = locks.is_some();
        let exchanged =
            internal_files::put_back(env.view, job, &aside, keep, || staging.exchange(&link));
        exchanged.beside(job, &path)?;
        staging.sync().beside(job, &path)?;
        env.hooks.moved(job);
        retired.put_back(job.clone());
    }
    staging.finish(None).beside(job, &path)
}

/// The replaced directory of a moved job, and the symlink in its place.
fn aside(task: &OwnedFd, job: &JobId, path: &Path) -> Result<Option<(OwnedFd, OwnedFd)>> {
    let mut name = OsString::from(STAGING_PREFIX);
    name.push(job.hash());
    let Some(aside) = places::open(task, &name).tried(job, "open", path)? else {
        return Ok(None);
    };
    // Only a symlink in its place shows that the job was moved. Without an entry there, this is an unfinished copy.
    let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::openat(task, job.hash(), itself, Mode::empty());
    let Some(link) = at::absent(link).tried(job, "open", path)? else {
        return Ok(None);
    };
    let moved = at::is_symlink(&at::stat_fd(&link).tried(job, "look at", path)?);
    Ok(moved.then_some((aside, link)))
}

fn copy_in(folder: &Location, job: &JobId) -> Option<OwnedFd> {
    let directory = places::job(folder, job).ok().flatten()?;
    markers::is_done(&directory, job.name())
        .unwrap_or(false)
        .then_some(directory)
}
