//! Copies a job out of its workspace, for a workspace at another path: from the primary, or from a folder if the primary lacks the job
//! or a purge has removed some of its files.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};

use super::{manifests, params, preconditions, recover, select};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result};
use crate::archive::places;
use crate::archive::space::Claim;
use crate::settings::Mode;
use crate::transfer::{self, Candidate, Copied, Manifest, Options, Originals, Size};
use crate::view::location::Role;
use crate::view::{InPrimary, Location, PRIMARY};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOB_STATE, PARAMS, PARTIALS};
use crate::workspace::{job_locks, markers, partials};

/// What can be done about a copy that differs from its manifest.
const VERIFY: &str = "`xpmfs jobs verify` shows how to mend it";

/// A directory that a job may be copied from.
#[derive(Debug)]
pub struct JobOrigin {
    /// The number of the location.
    pub location: u8,
    /// The job's directory.
    pub directory: OwnedFd,
    /// Its path, for messages.
    pub path: PathBuf,
    /// What the copy in a folder must contain, if the folder has a manifest of it.
    manifest: Option<Manifest>,
}

/// Opens the directories that a job may be copied from, the best one first: the primary's alone if it serves the job, else those of the
/// folders, finished ones before others.
///
/// # Errors
///
/// No location has the job, or a file system fails.
pub fn origins(env: &Env<'_>, job: &JobId) -> Result<Vec<JobOrigin>> {
    let primary = env.view.primary();
    let path = places::path(primary, job);
    let there = env.view.in_primary(job.task_id(), job.hash());
    if let InPrimary::Job = there.tried(job, "look up", &path)?
        && let Some(task) = places::task(primary, job).tried(job, "open", &path)?
    {
        // Followed: people put a job on another disk, and leave a symlink.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&*task, job.hash(), flags, FileMode::empty());
        return Ok(vec![JobOrigin {
            location: PRIMARY,
            directory: opened.tried(job, "open", &path)?,
            path,
            manifest: None,
        }]);
    }
    let mut found = Vec::new();
    for copy in recover::candidates(env, job, None)? {
        if copy.folder.role() == Role::Folder(Mode::Use) && !copy.finished {
            continue;
        }
        let path = places::path(copy.folder, job);
        if let Some(directory) = places::job(copy.folder, job).tried(job, "open", &path)? {
            found.push(JobOrigin {
                location: copy.folder.index(),
                directory,
                manifest: manifest(copy.folder, job, &path),
                path,
            });
        }
    }
    if found.is_empty() {
        let why = "no location has a finished copy of it".to_owned();
        return Err(JobError::new(job, Cause::Absent(why)));
    }
    Ok(found)
}

fn manifest(folder: &Location, job: &JobId, path: &Path) -> Option<Manifest> {
    manifests::read(folder, job).unwrap_or_else(|error| {
        tracing::warn!("cannot use the manifest of {}: {error}", path.display());
        None
    })
}

/// The size of a copy of a job.
///
/// # Errors
///
/// Fails with the error of the location's file system.
pub fn size(env: &Env<'_>, job: &JobId, origin: &JobOrigin) -> Result<Size> {
    with_options(env, job, None, |options| {
        let measured = transfer::measure(&origin.directory, options);
        Ok(measured.copying(job, &origin.path)?.size)
    })
}

/// Checks that no process holds the job's lock: a copy of a running job would be torn.
///
/// # Errors
///
/// A process holds the lock, or it cannot be looked at.
pub fn expect_idle(job: &JobId, origin: &JobOrigin) -> Result<()> {
    let locked = job_locks::is_locked(&origin.directory, job);
    match locked.tried(job, "look at the lock of", &origin.path)? {
        false => Ok(()),
        true => {
            let why = "a process holds its lock: it is running; copy it again when it has ended";
            Err(JobError::new(job, Cause::Busy(why.into())))
        }
    }
}

/// Copies a job to the empty, private directory `to`, durably, and lets the paths in it lead to the workspace at `workspace`. `at` is the
/// path that the job will have, for messages.
///
/// # Errors
///
/// The job is running, changes meanwhile, or does not match its manifest; a file system fails. The caller must remove the partial copy.
pub fn export(
    env: &Env<'_>,
    job: &JobId,
    origin: &JobOrigin,
    (to, at): (&OwnedFd, &Path),
    workspace: &Path,
) -> Result<Copied> {
    expect_idle(job, origin)?;
    let originals = origin.manifest.as_ref();
    let originals = originals.map_or_else(Originals::default, Originals::of);
    let copied = with_options(env, job, Some(&originals), |options| {
        transfer::copy(&origin.directory, to, options)
    });
    let copied = copied.copying_between(job, &origin.path, at)?;
    for loss in &copied.losses {
        tracing::warn!("{job}: {loss}");
    }
    expect_whole(job, origin, &copied)?;
    rebase(job, (to, at), workspace)?;
    Ok(copied)
}

/// Lets the paths in a copy of a job lead to the workspace at `workspace`. `at` is the path that the job will have, for messages.
///
/// # Errors
///
/// A file cannot be written.
pub fn rebase(job: &JobId, (copy, at): (&OwnedFd, &Path), workspace: &Path) -> Result<()> {
    // First: the former workspace is in `params.json`.
    let rebased = partials::rebase_links(copy, copy, workspace);
    rebased.tried(job, "rewrite the symlinks to partials of", at)?;
    params::rebase(job, copy, at, workspace)
}

/// Copies the entries of a job that have paths in them to the empty directory `to`, and lets these paths lead to the workspace at
/// `workspace`: what replaces them in a copy that another program makes of the job.
///
/// # Errors
///
/// As [`export`].
pub fn export_paths(
    job: &JobId,
    origin: &JobOrigin,
    (to, at): (&OwnedFd, &Path),
    workspace: &Path,
) -> Result<()> {
    let select = |candidate: &Candidate<'_>| has_paths(candidate);
    let options = Options {
        select: Some(&select),
        threads: 1,
        ..Options::default()
    };
    let copied = transfer::copy(&origin.directory, to, &options);
    copied.copying_between(job, &origin.path, at)?;
    rebase(job, (to, at), workspace)
}

/// Whether an entry of a job has paths in it, or is a directory above such an entry.
fn has_paths(candidate: &Candidate<'_>) -> bool {
    let (name, is_directory) = (candidate.name(), candidate.is_directory());
    match candidate.depth() {
        0 => name == PARAMS || (is_directory && name == JOB_STATE),
        1 => is_directory && candidate.parent() == JOB_STATE && name == PARTIALS,
        2 => candidate.parent() == PARTIALS && !is_directory,
        _ => false,
    }
}

/// Reads a job without copying it, and checks that it may be copied: that it is not running, and matches its manifest, if it has one.
///
/// # Errors
///
/// As [`export`].
pub fn check(env: &Env<'_>, job: &JobId, origin: &JobOrigin) -> Result<()> {
    expect_idle(job, origin)?;
    if origin.manifest.is_none() {
        return Ok(());
    }
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = Options {
        select: Some(&select),
        threads: env.threads,
        ..Options::default()
    };
    let read = transfer::read(&origin.directory, &options).copying(job, &origin.path)?;
    expect_whole(job, origin, &read)
}

/// Claims so many free bytes of the primary for a copy of a job, for as long as the result is kept.
///
/// # Errors
///
/// It has less, or cannot be looked at.
pub fn claim_space(env: &Env<'_>, job: &JobId, bytes: u64) -> Result<Option<Claim>> {
    preconditions::claim_space(env, env.view.primary(), job, Some(bytes), || Ok(bytes))
}

fn expect_whole(job: &JobId, origin: &JobOrigin, copied: &Copied) -> Result<()> {
    match &origin.manifest {
        Some(manifest) => recover::check(job, &origin.path, (manifest, VERIFY), copied),
        None => Ok(()),
    }
}

fn with_options<T>(
    env: &Env<'_>,
    job: &JobId,
    originals: Option<&Originals>,
    call: impl FnOnce(&Options<'_>) -> T,
) -> T {
    let done = markers::done(job.name());
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    call(&Options {
        last: Some(&done),
        originals,
        ..env.options(&select)
    })
}
