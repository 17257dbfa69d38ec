//! Cleans up after crashed processes in folders: removes unfinished copies, and rewrites manifests that a power cut has emptied. Writes
//! the manifests that other programs leave out.
//!
//! A copy to a task's directory removes unfinished copies there; but once all jobs of a task are archived, no further copy does. A
//! manifest is rewritten only for a copy with its marker, which is copied last. The copy is read, and compared with the primary's job if
//! that is in the same state: otherwise the new manifest could confirm a damaged copy.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use super::compare::{Comparison, compare, marked};
use super::{manifests, select};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result, StagingContext};
use crate::archive::{folder_alias, places, state_dir};
use crate::sys::at;
use crate::transfer::staging::{Staging, sweep_with};
use crate::transfer::{self, Candidate, Manifest, Options};
use crate::view::{InPrimary, Location};
use crate::workspace::jobs::{JobId, is_job_entry};
use crate::workspace::markers;

/// Cleans up every task's directory in each `backup` and `move` folder ([`clear`]).
pub fn clear_all(env: &Env<'_>) {
    for folder in places::archives(env.view) {
        clear(env, folder);
    }
}

/// Rewrites the manifests of some jobs that a power cut has emptied, in each `backup` and `move` folder.
pub fn heal_of(env: &Env<'_>, jobs: &[JobId]) {
    let tasks: BTreeSet<&OsStr> = jobs.iter().map(JobId::task_id).collect();
    for folder in places::archives(env.view) {
        for task in &tasks {
            for job in cut_short(folder, task) {
                if jobs.contains(&job) {
                    heal_or_warn(env, folder, &job);
                }
            }
        }
    }
}

/// Removes the unfinished copies of crashed processes from a folder, and rewrites the manifests that a power cut has emptied. Returns the
/// jobs whose copies are damaged and must be archived again. Failures are logged, and retried by the next start.
pub fn clear(env: &Env<'_>, folder: &Location) -> Vec<JobId> {
    let mut damaged = Vec::new();
    // An entry `.tmp.<hash>` there may be a moved job's directory, which `relocate::unfinished` handles.
    if folder_alias::shared(env.view, folder).is_some() {
        return damaged;
    }
    for task in tasks(folder).unwrap_or_default() {
        if env.progress.is_cancelled() {
            break;
        }
        sweep_task(folder, &task);
        let cut_short = cut_short(folder, &task).into_iter();
        damaged.extend(cut_short.filter(|job| heal_or_warn(env, folder, job)));
    }
    damaged
}

/// The names of the directories that a folder has in `jobs`.
fn tasks(folder: &Location) -> rustix::io::Result<Vec<OsString>> {
    let Some(jobs) = at::absent(folder.root()?.jobs())? else {
        return Ok(Vec::new());
    };
    let mut tasks = crate::view::jobs::names(&jobs)?;
    tasks.retain(|task| is_job_entry(task));
    Ok(tasks)
}

fn sweep_task(folder: &Location, task: &OsStr) {
    let Ok(root) = folder.root() else { return };
    let Ok(directory) = root.task(task) else {
        return;
    };
    // StagingContext a symlink, `.tmp.<hash>` is the directory of a job that was moved from there: the folder is the primary of another workspace.
    let is_moved =
        &|hash: &OsStr| at::stat(&*directory, hash).is_ok_and(|stat| at::is_symlink(&stat));
    let manifest = &mut |hash: &OsStr| manifests::discard(&root, task, hash);
    match sweep_with(&*directory, is_moved, manifest) {
        Ok(0) => {}
        Ok(count) => tracing::info!(
            "removed {count} copies of {} in {} that were never completed",
            task.display(),
            folder.path().display()
        ),
        Err(error) => tracing::debug!(
            "cannot clear {} in {}: {error}",
            task.display(),
            folder.path().display()
        ),
    }
}

fn cut_short(folder: &Location, task: &OsStr) -> Vec<JobId> {
    manifests::cut_short(folder, task).unwrap_or_else(|errno| {
        tracing::debug!(
            "cannot look at the manifests of {} in {}: {errno}",
            task.display(),
            folder.path().display()
        );
        Vec::new()
    })
}

/// Rewrites a manifest, and logs failures; returns whether the copy is damaged.
pub(super) fn heal_or_warn(env: &Env<'_>, folder: &Location, job: &JobId) -> bool {
    let at = places::path(folder, job);
    match heal(env, folder, job) {
        Ok(Healed::Yes) => {
            tracing::info!(
                "rewrote the manifest of {}, which could not be read",
                at.display()
            );
        }
        Ok(Healed::No) => {}
        Ok(Healed::Damaged(finding)) => {
            tracing::warn!(
                "{} has no manifest that can be read: {finding}",
                at.display()
            );
            let primary = env.view.primary();
            let _ = state_dir::set_damaged(primary, folder, job, Some(&finding));
            return true;
        }
        Err(error) if error.is_cancelled() => {}
        Err(error) => tracing::warn!("cannot rewrite the manifest of {}: {error}", at.display()),
    }
    false
}

/// The result of healing a manifest.
enum Healed {
    /// It was rewritten.
    Yes,
    /// There was nothing to do, or it is not possible.
    No,
    /// The copy differs from the primary's job in the same state; the text says how.
    Damaged(String),
}

/// Rewrites the manifest of a folder's copy of a job, if it is damaged and the copy was completed.
fn heal(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<Healed> {
    let at = places::path(folder, job);
    let Some(task) = places::task(folder, job).tried(job, "open", &at)? else {
        return Ok(Healed::No);
    };
    let Some(staging) = Staging::take(&*task, job.hash()).beside(job, &at)? else {
        // The process that holds the lock rewrites it.
        return Ok(Healed::No);
    };
    let healed = heal_locked(env, folder, job);
    staging.finish(None).beside(job, &at)?;
    healed
}

/// Writes the manifest of a copy that has none, of a finished job that was moved to the folder by another program.
///
/// Such a copy is complete: a program that copies a job, as experimaestro does, gives the copy its name at the end. But until that program
/// has replaced the original and released the lock of the job's staging, it may still change the copy. The manifest states what the copy
/// holds now: the original is gone. But xpmfs may have made the copy, or a backup that is lost, and the manifest of one may be left: then
/// the copy must match it.
///
/// # Errors
///
/// `Busy` while another process holds that lock; `Unsafe` if the copy is damaged, by what `verify` found or by another copy's manifest; or
/// an error of a file system.
pub(super) fn add_manifest(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<()> {
    let at = places::path(folder, job);
    let gone = || JobError::new(job, Cause::Changed(format!("{} is gone", at.display())));
    let task = places::task(folder, job).tried(job, "open", &at)?;
    let task = task.ok_or_else(gone)?;
    let Some(staging) = Staging::take(&*task, job.hash()).beside(job, &at)? else {
        let why = "another process copies or moves it";
        return Err(JobError::new(job, Cause::Busy(why.into())));
    };
    let added = add_manifest_locked(env, folder, job);
    staging.finish(None).beside(job, &at)?;
    added
}

fn add_manifest_locked(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<()> {
    let at = places::path(folder, job);
    let primary = env.view.primary();
    if !matches!(manifests::read(folder, job), Ok(None)) {
        return Ok(());
    }
    let damage = state_dir::damage_of(primary, folder, job);
    if let Some(finding) = state_dir::checked(primary, job, "look up", damage)? {
        let why = format!("{}: {finding}", at.display());
        return Err(JobError::new(job, Cause::Unsafe(why)));
    }
    let there = env.view.in_primary(job.task_id(), job.hash());
    let copy = places::job(folder, job).tried(job, "open", &at)?;
    let copy = copy.filter(|copy| markers::is_done(copy, job.name()).unwrap_or(false));
    let moved = there.tried(job, "look at", primary.path())? != InPrimary::Job;
    let (Some(copy), true) = (copy, moved) else {
        let why = "another process has replaced it".to_owned();
        return Err(JobError::new(job, Cause::Changed(why)));
    };
    let root = folder.root().tried(job, "open", &at)?;
    let read = with_options(env, job, |options| transfer::read(&copy, options));
    let read = read.copying(job, &at)?;
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    read.unchanged(&copy, Some(&select)).copying(job, &at)?;
    expect_same_elsewhere(env, folder, job, &read.manifest)?;
    let written = manifests::write(&root, job, &read.manifest);
    written.tried(job, "write", &manifests::path(folder, job))?;
    tracing::info!("wrote the manifest of {}, which had none", at.display());
    Ok(())
}

/// Checks that a copy is what the manifests of the same run of the job say in other folders.
fn expect_same_elsewhere(
    env: &Env<'_>,
    folder: &Location,
    job: &JobId,
    copy: &Manifest,
) -> Result<()> {
    let done = markers::done(job.name());
    let others = places::archives(env.view).filter(|other| other.index() != folder.index());
    for other in others {
        let Ok(Some(manifest)) = manifests::read(other, job) else {
            continue;
        };
        if marked(&manifest, &done) != marked(copy, &done) {
            continue;
        }
        let differences = manifest.differences(copy);
        if let Some(first) = differences.iter().find(|it| select::is_of_content(it)) {
            let why = format!(
                "{} has no manifest, and is not what the manifest in {} says: {} {}",
                places::path(folder, job).display(),
                other.path().display(),
                first.path.display(),
                first.what
            );
            return Err(JobError::new(job, Cause::Unsafe(why)));
        }
    }
    Ok(())
}

fn heal_locked(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<Healed> {
    let at = places::path(folder, job);
    match manifests::read(folder, job) {
        Ok(_) => return Ok(Healed::No),
        Err(error) if error.is_damage() => {}
        // The next copy of the primary's job replaces it, or reports it.
        Err(_) if is_in_primary(env, job) => return Ok(Healed::No),
        Err(error) => return Err(manifests::unreadable(folder, job, error)),
    }
    let root = folder.root().tried(job, "open", &at)?;
    let Some(copy) = places::job(folder, job).tried(job, "open", &at)? else {
        return Ok(Healed::No);
    };
    if !markers::is_done(&copy, job.name()).tried(job, "look into", &at)? {
        return Ok(Healed::No);
    }
    let mut manifest = read(env, job, folder, &copy)?;
    let primary = env.view.primary();
    let from = places::path(primary, job);
    if let Some(source) = places::job(primary, job).tried(job, "open", &from)? {
        manifest = match compare_contents(env, job, &source, manifest)? {
            Ok(manifest) => manifest,
            Err(finding) => return Ok(Healed::Damaged(finding)),
        };
    }
    manifests::write(&root, job, &manifest).tried(job, "write", &manifests::path(folder, job))?;
    // `verify` may have recorded that it cannot be read.
    let _ = state_dir::set_damaged(primary, folder, job, None);
    Ok(Healed::Yes)
}

fn is_in_primary(env: &Env<'_>, job: &JobId) -> bool {
    let there = env.view.in_primary(job.task_id(), job.hash());
    matches!(there, Ok(InPrimary::Job))
}

fn read(env: &Env<'_>, job: &JobId, location: &Location, tree: &OwnedFd) -> Result<Manifest> {
    let at = places::path(location, job);
    let read = with_options(env, job, |options| transfer::read(tree, options));
    Ok(read.copying(job, &at)?.manifest)
}

/// Compares what was read of a copy with the primary's job, if that is in the same state. Returns the manifest to write, that of the
/// primary if possible, since its times have full precision; or how the copy is damaged.
fn compare_contents(
    env: &Env<'_>,
    job: &JobId,
    source: &OwnedFd,
    copy: Manifest,
) -> Result<std::result::Result<Manifest, String>> {
    let primary = env.view.primary();
    let from = places::path(primary, job);
    let outline = with_options(env, job, |options| transfer::outline(source, options));
    let outline = outline.copying(job, &from)?;
    if compare(&outline, &copy, &markers::done(job.name())) != Comparison::Same {
        return Ok(Ok(copy));
    }
    let original = read(env, job, primary, source)?;
    let differences = original.differences(&copy);
    let Some(first) = differences.iter().find(|it| select::is_of_content(it)) else {
        return Ok(Ok(original));
    };
    let (path, what) = (first.path.display(), &first.what);
    Ok(Err(format!("the copy is damaged: {path} {what}")))
}

fn with_options<T>(env: &Env<'_>, job: &JobId, call: impl FnOnce(&Options<'_>) -> T) -> T {
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    call(&env.options(&select))
}
