//! Deletes one job: in the primary, and in each folder that can be used now.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Access, AtFlags, Statx};
use rustix::io::Errno;

use super::batch::Batch;
use super::decide;
use super::folder::{self, Completed, why_away};
use super::parts::Part;
use super::records::{self, RecordKind};
use crate::archive::env::{Env, Writing};
use crate::archive::error::{Cause, Context, JobError, Result, StagingContext};
use crate::archive::job::ready::{LOCKED, WRITTEN, hold_locks, is_locked, no_reply};
use crate::archive::job::recover::MadeTask;
use crate::archive::job::release::{Processes, Reason, Refusal, in_use};
use crate::archive::job::usage::{self, DiskUsage};
use crate::archive::job::{manifests, preconditions};
use crate::archive::{archived_jobs, folder_alias, pins, places};
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::transfer::staging::Staging;
use crate::view::internal::JobDir;
use crate::view::{Location, PRIMARY};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{RELEASED, XPMFS};
use crate::workspace::markers;

/// How long to wait for another process that moves, archives or recovers the job. The old directory of a moved job is kept for some seconds.
const BUSY_WAIT: Duration = Duration::from_secs(15);

/// How often such a job is looked at.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// A job that may be deleted.
#[derive(Debug)]
pub struct DeletionPlan {
    /// The job.
    pub job: JobId,
    /// What is deleted: the primary's copy first.
    pub copies: Vec<PlannedCopy>,
    /// The folders that cannot be used now, by their numbers, and why: a copy there is deleted when the folder is back.
    pub away: Vec<(u8, String)>,
    /// The `use` folders that have the job, so that it stays visible.
    pub stays: Vec<u8>,
    /// The primary's entry, if it has one.
    primary: Option<FileId>,
}

/// A copy that is deleted.
#[derive(Debug, Clone)]
pub struct PlannedCopy {
    /// The number of its location.
    pub location: u8,
    /// Its path.
    pub path: PathBuf,
    /// How it uses its disk: nothing, if it is a symlink or only a manifest.
    pub usage: DiskUsage,
    /// Where the symlink leads, if it is one.
    pub link: Option<OsString>,
}

/// A job that was deleted.
#[derive(Debug)]
pub struct Deleted {
    /// What became of each folder's copy, by the folder's number.
    pub folders: Vec<(u8, Result<Completed>)>,
}

/// What became of a job.
pub type DeletionOutcome = Result<std::result::Result<Deleted, Refusal>>;

/// Checks whether a job may be deleted. Changes nothing.
///
/// # Errors
///
/// Fails if the job or a copy of it cannot be looked at.
pub fn assess(
    env: &Env<'_>,
    processes: &Mutex<Processes>,
    job: &JobId,
) -> Result<std::result::Result<DeletionPlan, Refusal>> {
    let primary = env.view.primary();
    match pins::is_pinned(primary, job) {
        Ok(false) => {}
        Ok(true) => {
            let why = format!("it is pinned: `xpmfs jobs unpin {job}` removes the pin");
            return Ok(refuse(Reason::Pinned, why));
        }
        Err(error) => {
            let why = pins::explain(primary, job, error);
            return Err(JobError::new(job, Cause::Unsafe(why)));
        }
    }
    let mut copies = Vec::new();
    let at = places::path(primary, job);
    let there = entry(primary, job)?;
    if let Some(found) = &there {
        if let Some(refusal) = unsuitable(primary, job, found)? {
            return Ok(Err(refusal));
        }
        copies.push(copy(primary, job, found)?);
    }
    if let Some(refusal) = used(env, processes, job)? {
        return Ok(Err(refusal));
    }
    let released = [XPMFS, RELEASED]
        .iter()
        .collect::<PathBuf>()
        .join(job.path());
    let root = primary.root().tried(job, "open", &at)?;
    if at::stat_below(root.fd(), &released).is_ok() {
        let why = "a release of it is not finished, since its folder does not answer".to_owned();
        return Ok(refuse(Reason::Busy, why));
    }
    let mut away = Vec::new();
    for folder in places::archives(env.view) {
        if let Some(why) = why_away(env, folder) {
            away.push((folder.index(), why));
            continue;
        }
        if folder_alias::shared(env.view, folder).is_some() {
            continue;
        }
        let Some(found) = entry(folder, job)? else {
            let manifest = manifests::recorded(folder, job);
            let path = manifests::path(folder, job);
            if manifest.tried(job, "look at", &path)?.is_some() {
                copies.push(PlannedCopy {
                    location: folder.index(),
                    path,
                    usage: DiskUsage::default(),
                    link: None,
                });
            }
            continue;
        };
        if let Some(refusal) = unsuitable(folder, job, &found)? {
            return Ok(Err(refusal));
        }
        if let Some(directory) = &found.directory
            && is_locked(directory, job).tried(job, "look at the lock of", &found.path)?
        {
            let why = format!("{}: {LOCKED}", found.path.display());
            return Ok(refuse(Reason::Busy, why));
        }
        copies.push(copy(folder, job, &found)?);
    }
    let is_known =
        || places::archives(env.view).any(|it| archived_jobs::is_on_record(env, it, job));
    if copies.is_empty() && !is_known() {
        let why = match kept_by(env, job).as_slice() {
            [] => match recorded_use(env, job) {
                Some(folder) => format!(
                    "only the `use` folder {} has it, which cannot be used now, and nothing is deleted there",
                    folder.path().display()
                ),
                None => "no location has it".to_owned(),
            },
            [first, ..] => format!(
                "only the `use` folder {} has it, and nothing is deleted there",
                env.view
                    .location(*first)
                    .map_or_else(String::new, |it| it.path().display().to_string())
            ),
        };
        return Ok(refuse(Reason::Absent, why));
    }
    Ok(Ok(DeletionPlan {
        job: job.clone(),
        primary: there.map(|found| found.identity),
        copies,
        away,
        stays: kept_by(env, job),
    }))
}

/// Deletes a job that was assessed, if it is still as it was.
///
/// # Errors
///
/// Fails with the error of the primary's file system; the job is then at its place, or its deletion is finished by the next command.
pub fn delete(
    env: &Env<'_>,
    processes: &Mutex<Processes>,
    plan: &DeletionPlan,
    batch: &Batch,
) -> DeletionOutcome {
    let job = &plan.job;
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let _made = MadeTask::of(env, job);
    let task = preconditions::make_task(primary, job, primary)?;
    let Some(staging) = wait_for_staging(env, &task, job, &at)? else {
        let why = "another process archives, moves or recovers it".to_owned();
        return Ok(refuse(Reason::Busy, why));
    };
    let refusal = in_primary(env, processes, plan, batch)
        .map_err(|error| preconditions::name_own_obstacle(primary, error))?;
    if let Some(refusal) = refusal {
        staging.finish(None).beside(job, &at)?;
        return Ok(Err(refusal));
    }
    let mut folders = Vec::new();
    for folder in places::archives(env.view) {
        let known = plan.away.iter().find(|(away, _)| *away == folder.index());
        let completed = match known {
            Some((_, why)) => Ok(Completed::Away(why.clone())),
            None => complete(env, folder, job),
        };
        folders.push((folder.index(), completed));
    }
    staging.finish(None).beside(job, &at)?;
    Ok(Ok(Deleted { folders }))
}

/// Deletes a job in the primary, and marks it as deleted in each folder. The caller has the lock of the job's staging in the primary.
fn in_primary(
    env: &Env<'_>,
    processes: &Mutex<Processes>,
    plan: &DeletionPlan,
    batch: &Batch,
) -> Result<Option<Refusal>> {
    let job = &plan.job;
    let primary = env.view.primary();
    let at = places::path(primary, job);
    for kind in [RecordKind::Intents, RecordKind::Undeletions] {
        let left = records::read(primary, kind, job);
        if left
            .tried(job, "look for an interrupted deletion of", &at)?
            .is_some()
        {
            let why = "an earlier deletion of it is not finished";
            return Ok(Some(refusal(Reason::Busy, why)));
        }
    }
    let there = entry(primary, job)?;
    if there.as_ref().map(|found| found.identity) != plan.primary {
        let why = format!("{} has changed its place meanwhile", at.display());
        return Ok(Some(refusal(Reason::Changed, why)));
    }
    // No process may begin to run the job now.
    let mut held = Vec::new();
    let directory = there.as_ref().and_then(|found| found.directory.as_ref());
    let internal = internal(env, job).tried(job, "open the internal files of", &at)?;
    for locked in directory.into_iter().chain(internal.as_ref()) {
        match hold_locks(locked, job).tried(job, "lock", &at)? {
            Some(locks) => held.extend(locks),
            None => return Ok(Some(refusal(Reason::Busy, LOCKED))),
        }
    }
    if let Some(refusal) = used(env, processes, job)? {
        return Ok(Some(refusal));
    }
    let intent = decide::intent(env, batch, there.is_some());
    let written = records::write(primary, RecordKind::Intents, job, &intent);
    written.tried(job, "record the intent to delete", &at)?;
    if there.is_some() {
        let moved = Part::Job.discard(primary, batch, job);
        let taken = Part::Job.in_trash(primary, batch, job);
        let is_ours = matches!(&taken, Ok(Some(stat)) if Some(FileId::of(stat)) == plan.primary);
        if !is_ours {
            // Nothing was renamed, or an entry that took the place a moment ago: it is renamed back.
            let back = Part::Job.restore(primary, batch, job, primary);
            back.tried(job, "put back", &at)?;
            let removed = records::remove(primary, RecordKind::Intents, job);
            removed.tried(job, "remove the intent to delete", &at)?;
            return match moved {
                Err(Errno::XDEV) => Ok(Some(refusal(
                    Reason::Unsafe,
                    "its directory and `.xpmfs` of the workspace are on different file systems",
                ))),
                Err(error) => Err(error).tried(job, "move to the trash", &at),
                Ok(_) => Ok(Some(refusal(
                    Reason::Changed,
                    "another directory is in its place",
                ))),
            };
        }
        // It is in the trash, and perhaps not durably: whether an error says so or not.
        moved.tried(job, "make durable in the trash", &at)?;
    }
    decide::decided(env, job, &intent)?;
    Ok(None)
}

/// Completes the deletion in a folder; waits for a while for a process that works on the copy.
fn complete(env: &Env<'_>, folder: &Location, job: &JobId) -> Result<Completed> {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        match folder::complete(env, folder, job)? {
            Completed::Busy if Instant::now() < deadline && !env.progress.is_cancelled() => {
                std::thread::sleep(BUSY_POLL);
            }
            completed => return Ok(completed),
        }
    }
}

fn wait_for_staging(
    env: &Env<'_>,
    task: &OwnedFd,
    job: &JobId,
    at: &std::path::Path,
) -> Result<Option<Staging>> {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        if env.progress.is_cancelled() {
            return Err(JobError::new(job, Cause::Cancelled));
        }
        let staging = Staging::take(task, job.hash()).beside(job, at)?;
        if staging.is_some() || Instant::now() >= deadline {
            return Ok(staging);
        }
        std::thread::sleep(BUSY_POLL);
    }
}

/// How a process uses the primary's job, or a program waits for its recovery, if so.
fn used(env: &Env<'_>, processes: &Mutex<Processes>, job: &JobId) -> Result<Option<Refusal>> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let directory = places::job(primary, job).tried(job, "open", &at)?;
    let why = match &directory {
        Some(directory) => match in_use(env, job, directory, false)? {
            Some(why) => Some(why),
            None => processes.lock().user_lately(env, job),
        },
        None => match env.hooks.writing(job) {
            Writing::No => None,
            Writing::Yes => Some(WRITTEN.to_owned()),
            Writing::Unknown(mount) => Some(no_reply(&mount)),
        },
    };
    if let Some(why) = why {
        return Ok(Some(refusal(Reason::Busy, why)));
    }
    let internal = internal(env, job).tried(job, "open the internal files of", &at)?;
    if let Some(internal) = internal
        && is_locked(internal, job).tried(job, "look at the lock of", &at)?
    {
        return Ok(Some(refusal(Reason::Busy, LOCKED)));
    }
    Ok(None)
}

/// The directory of the internal files that the primary keeps for a job, if it exists.
fn internal(env: &Env<'_>, job: &JobId) -> rustix::io::Result<Option<OwnedFd>> {
    env.view.internal_dir(&JobDir {
        task: Name::from(job.task_id()),
        hash: Name::from(job.hash()),
        nested: false,
    })
}

/// What a location has under a job's name.
struct Found {
    path: PathBuf,
    identity: FileId,
    stat: Statx,
    task: std::sync::Arc<OwnedFd>,
    directory: Option<OwnedFd>,
}

fn entry(location: &Location, job: &JobId) -> Result<Option<Found>> {
    let path = places::path(location, job);
    let Some(task) = places::task(location, job).tried(job, "open", &path)? else {
        return Ok(None);
    };
    let stat = at::absent(at::stat(&*task, job.hash())).tried(job, "look at", &path)?;
    let Some(stat) = stat else {
        return Ok(None);
    };
    Ok(Some(Found {
        directory: places::open(&*task, job.hash()).tried(job, "open", &path)?,
        identity: FileId::of(&stat),
        stat,
        task,
        path,
    }))
}

/// Why an entry cannot be deleted, if so.
fn unsuitable(location: &Location, job: &JobId, found: &Found) -> Result<Option<Refusal>> {
    if found.directory.is_none() && !at::is_symlink(&found.stat) {
        let why = format!("{} is not a job's directory", found.path.display());
        return Ok(Some(refusal(Reason::Unsafe, why)));
    }
    // Also the directory itself: its entry `..` changes.
    let task = rustix::fs::accessat(
        &*found.task,
        ".",
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    );
    let own = match &found.directory {
        Some(directory) => rustix::fs::accessat(directory, ".", Access::WRITE_OK, AtFlags::EACCESS),
        None => Ok(()),
    };
    match task.and(own) {
        Ok(()) => Ok(None),
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            let why = format!(
                "this user may not move {} to the trash: {} can, with write permission for it and for the directory that it is in",
                found.path.display(),
                match location.index() {
                    PRIMARY => "its owner",
                    _ => "the owner of the copy",
                }
            );
            Ok(Some(refusal(Reason::Unsafe, why)))
        }
        Err(error) => Err(error).tried(job, "look at", &found.path),
    }
}

fn copy(location: &Location, job: &JobId, found: &Found) -> Result<PlannedCopy> {
    let usage = match &found.directory {
        Some(directory) => usage::of(job, directory).tried(job, "look at", &found.path)?,
        None => DiskUsage::default(),
    };
    let link = match &found.directory {
        Some(_) => None,
        None => at::read_link(&*found.task, job.hash()).ok(),
    };
    Ok(PlannedCopy {
        location: location.index(),
        path: found.path.clone(),
        usage,
        link,
    })
}

/// The `use` folders that have a job, finished.
fn kept_by(env: &Env<'_>, job: &JobId) -> Vec<u8> {
    let uses = places::folders_of_mode(env.view, Mode::Use);
    let having = uses.filter(|folder| {
        let copy = places::job(folder, job).ok().flatten();
        copy.is_some_and(|copy| markers::is_done(copy, job.name()).unwrap_or(false))
    });
    having.map(Location::index).collect()
}

/// A `use` folder that cannot be used now and has a job on record.
fn recorded_use<'a>(env: &Env<'a>, job: &JobId) -> Option<&'a Location> {
    let mut uses = places::folders_of_mode(env.view, Mode::Use);
    uses.find(|it| it.is_away() && env.view.has_on_record(it, job.task_id(), job.hash()))
}

fn refusal(reason: Reason, why: impl Into<String>) -> Refusal {
    Refusal {
        reason,
        why: why.into(),
    }
}

fn refuse<T>(reason: Reason, why: String) -> std::result::Result<T, Refusal> {
    Err(refusal(reason, why))
}
