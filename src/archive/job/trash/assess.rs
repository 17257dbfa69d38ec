//! Decides whether a job may be deleted, and finds its copies.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use parking_lot::Mutex;
use rustix::fs::{Access, AtFlags, Statx};
use rustix::io::Errno;

use super::folder::why_away;
use crate::archive::env::{Env, Writing};
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::job::manifests;
use crate::archive::job::ready::{LOCKED, WRITTEN, is_locked, no_reply};
use crate::archive::job::release::{Processes, Reason, Refusal, in_use};
use crate::archive::job::usage::{self, DiskUsage};
use crate::archive::{archived_jobs, folder_alias, pins, places};
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::internal::JobDir;
use crate::view::{Location, PRIMARY};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{RELEASED, XPMFS};
use crate::workspace::markers;

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
    pub(super) primary: Option<FileId>,
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

/// How a process uses the primary's job, or a program waits for its recovery, if so.
pub(super) fn used(
    env: &Env<'_>,
    processes: &Mutex<Processes>,
    job: &JobId,
) -> Result<Option<Refusal>> {
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
pub(super) fn internal(env: &Env<'_>, job: &JobId) -> rustix::io::Result<Option<OwnedFd>> {
    env.view.internal_dir(&JobDir {
        task: Name::from(job.task_id()),
        hash: Name::from(job.hash()),
        nested: false,
    })
}

/// What a location has under a job's name.
pub(super) struct Found {
    path: PathBuf,
    pub(super) identity: FileId,
    stat: Statx,
    task: std::sync::Arc<OwnedFd>,
    pub(super) directory: Option<OwnedFd>,
}

pub(super) fn entry(location: &Location, job: &JobId) -> Result<Option<Found>> {
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

pub(super) fn refusal(reason: Reason, why: impl Into<String>) -> Refusal {
    Refusal {
        reason,
        why: why.into(),
    }
}

pub(super) fn refuse<T>(reason: Reason, why: String) -> std::result::Result<T, Refusal> {
    Err(refusal(reason, why))
}
