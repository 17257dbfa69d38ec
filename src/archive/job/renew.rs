//! Makes the backups of a moved job from the folder that the job was moved to: missing ones, and on request damaged ones anew.
//!
//! xpmfs moves a job after it has made the backups. But experimaestro's own archiving may move a job before that, and leaves a copy without
//! a manifest; and a `backup` folder may be new, or have lost its copies.

use super::ready::{Judge, LOCKED, Readiness, is_locked, unknown};
use super::store::{Due, Stored, store_from};
use super::{crash_recovery, manifests};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::job::opt_out::Eligibility;
use crate::archive::{folder_alias, places, state_dir};
use crate::settings::Mode;
use crate::view::location::Role;
use crate::view::{InPrimary, Location, PRIMARY, Served};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{Recognition, recognise};
use crate::workspace::markers::{self, State};

/// Copies those of these jobs that are moved jobs from the `move` folder `source` to a `backup` folder that lacks them. Calls `due` for
/// each of them before any is copied. Returns the result of each job, in order: `None` for a job that must not be copied.
///
/// # Errors
///
/// Each job has its own; none leaves a partial copy under the job's name.
pub(in crate::archive) fn back_up(
    env: &Env<'_>,
    judge: &Judge,
    (source, folder): (&Location, &Location),
    jobs: &[JobId],
    due: &mut dyn FnMut(&JobId),
) -> Vec<Result<Option<Stored>>> {
    // Its jobs are the primary's own.
    if folder_alias::shared(env.view, source).is_some() {
        return jobs.iter().map(|_| Ok(None)).collect();
    }
    let mut ready = Vec::new();
    let prepared: Vec<Result<bool>> = jobs
        .iter()
        .map(|job| {
            if env.progress.is_cancelled() {
                return Err(JobError::new(job, Cause::Cancelled));
            }
            let Some(found) = find_due(env, judge, source, job)? else {
                return Ok(false);
            };
            due(job);
            make_manifest(env, source, job)?;
            ready.push(found);
            Ok(true)
        })
        .collect();
    let mut stored = store_from(env, source, folder, &ready).into_iter();
    let results = prepared.into_iter().zip(jobs);
    results
        .map(|(is_due, job)| match is_due? {
            false => Ok(None),
            true => {
                let cancelled = || Err(JobError::new(job, Cause::Cancelled));
                stored.next().unwrap_or_else(cancelled).map(Some)
            }
        })
        .collect()
}

/// Returns a job of a `move` folder if it is a finished one that was moved there from the primary, and is not opted out.
fn find_due(env: &Env<'_>, judge: &Judge, source: &Location, job: &JobId) -> Result<Option<Due>> {
    if source.has_deleted(job.task_id(), job.hash()) {
        return Ok(None);
    }
    let busy = |why: &'static str| JobError::new(job, Cause::Busy(why.into()));
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let there = env.view.in_primary(job.task_id(), job.hash());
    match there.tried(job, "look at", &at)? {
        // It is archived from there.
        InPrimary::Job => return Ok(None),
        InPrimary::Link | InPrimary::Purged => {}
        InPrimary::Nothing => {
            let root = source.root().tried(job, "open", source.path())?;
            // The folder is the directory of another workspace, and this may be its job.
            let recognised = recognise(root.fd()).tried(job, "look into", source.path())?;
            if recognised == Recognition::Workspace {
                return Ok(None);
            }
        }
    }
    let at = places::path(source, job);
    let Some(copy) = places::job(source, job).tried(job, "open", &at)? else {
        return Ok(None);
    };
    let markers = markers::read(&copy, job.name()).tried(job, "look into", &at)?;
    if markers.state() != State::Done {
        return Ok(None);
    }
    let out = judge.out.of(env.view, job, &copy);
    match state_dir::checked(primary, job, "find whether it is opted out, in", out)? {
        Eligibility::In => {}
        Eligibility::Out(_) => return Ok(None),
        Eligibility::Pending => return Err(busy("a run that names it is being written")),
        Eligibility::Unknown(file) => {
            return Err(JobError::new(job, Cause::Unsafe(unknown(&file))));
        }
    }
    if is_locked(&copy, job).tried(job, "look at the lock of", &at)? {
        return Err(busy(LOCKED));
    }
    // Through the symlink in the workspace, experimaestro may write the final status into the copy itself.
    match judge.settled(env, job, &copy, &at)? {
        Readiness::Ready { taken, size } => Ok(Some(Due {
            job: job.clone(),
            taken: Some(taken),
            size: Some(size),
        })),
        _ => Err(busy("it changed a moment ago")),
    }
}

/// Writes the manifest of a copy that another program made.
fn make_manifest(env: &Env<'_>, source: &Location, job: &JobId) -> Result<()> {
    match manifests::read(source, job) {
        Ok(None) => crash_recovery::add_manifest(env, source, job),
        // The copy to the `backup` folder reports a manifest that cannot be read.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Makes the backups of a moved job that a `backup` folder lacks; with `env.force`, also of one that is opted out, and those anew that
/// `verify` found damaged or missing. Returns the folders with the result of each.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
pub(in crate::archive) fn renew(
    env: &Env<'_>,
    judge: &Judge,
    job: &JobId,
) -> Result<Vec<(u8, Result<Stored>)>> {
    match env.force {
        true => renew_by_force(env, judge, job),
        false => Ok(make_missing(env, judge, job)),
    }
}

fn make_missing(env: &Env<'_>, judge: &Judge, job: &JobId) -> Vec<(u8, Result<Stored>)> {
    let mut made = Vec::new();
    for source in places::folders_of_mode(env.view, Mode::Move) {
        for folder in places::folders_of_mode(env.view, Mode::Backup) {
            let index = folder.index();
            // A folder that is away is reported by other means.
            let lacks = matches!(places::job(folder, job), Ok(None));
            if !lacks || judge.out.is_excluded_from(index, job) {
                continue;
            }
            let jobs = std::slice::from_ref(job);
            let stored = back_up(env, judge, (source, folder), jobs, &mut |_| {});
            let stored = stored.into_iter().filter_map(Result::transpose);
            made.extend(stored.map(|stored| (index, stored)));
        }
    }
    made
}

/// Recreates the copies of a moved job that `verify` found damaged or missing, or that a `backup` folder lacks.
///
/// The source copy must match its manifest.
fn renew_by_force(env: &Env<'_>, judge: &Judge, job: &JobId) -> Result<Vec<(u8, Result<Stored>)>> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let served = env.view.resolve(job.task_id(), job.hash());
    let Some(Served::Job { location, .. }) = served.tried(job, "look up", &at)? else {
        return Ok(Vec::new());
    };
    let Some(source) = env.view.location(location).filter(|_| location != PRIMARY) else {
        return Ok(Vec::new());
    };
    let mut renewed = Vec::new();
    for folder in places::archives(env.view) {
        let index = folder.index();
        let backup = folder.role() == Role::Folder(Mode::Backup);
        let wanted = index == location || (backup && !judge.out.is_excluded_from(index, job));
        if !wanted || !is_due(env, folder, job)? {
            continue;
        }
        let stored = match index == location {
            true => Err(JobError::new(job, Cause::Unsafe(unsafe_source(job)))),
            false => copy_again(env, source, folder, job),
        };
        renewed.push((index, stored));
    }
    Ok(renewed)
}

fn copy_again(env: &Env<'_>, source: &Location, folder: &Location, job: &JobId) -> Result<Stored> {
    if source.role() == Role::Folder(Mode::Move) {
        make_manifest(env, source, job)?;
    }
    let mut stored = store_from(env, source, folder, &[Due::from(job.clone())]);
    let cancelled = || Err(JobError::new(job, Cause::Cancelled));
    stored.pop().unwrap_or_else(cancelled)
}

fn unsafe_source(job: &JobId) -> String {
    format!(
        "its copy is damaged, and the workspace has no other: `xpmfs jobs recover {job}` brings the job back from another folder \
         that has it whole; then archive it again with --force"
    )
}

/// Returns the folders whose manifest of a job cannot be read, with the error of each. A damaged manifest is rewritten from the copy. One
/// that is missing is not an error: `verify` counts it.
#[must_use]
pub fn unreadable_manifests(env: &Env<'_>, job: &JobId) -> Vec<(u8, JobError)> {
    let mut unreadable = Vec::new();
    for folder in places::archives(env.view) {
        // A folder that is away is reported by other means.
        if folder.root().is_err() {
            continue;
        }
        if manifests::read(folder, job).is_err_and(|error| error.is_damage()) {
            crash_recovery::heal_or_warn(env, folder, job);
        }
        if let Err(error) = manifests::read(folder, job) {
            unreadable.push((folder.index(), manifests::unreadable(folder, job, error)));
        }
    }
    unreadable
}

/// Whether a folder's copy is recorded as damaged, or is missing.
fn is_due(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<bool> {
    let primary = env.view.primary();
    let damaged = state_dir::is_damaged(primary, folder, job);
    if state_dir::checked(primary, job, "look up", damaged)? {
        return Ok(true);
    }
    // A missing folder lacks the copy as well: the attempt to copy reports why that fails.
    let there = places::job(folder, job).ok().flatten();
    let finished = there.is_some_and(|copy| markers::is_done(&copy, job.name()).unwrap_or(true));
    let manifest = manifests::read(folder, job);
    Ok(!finished || manifest.is_err_and(|error| error.is_damage()))
}
