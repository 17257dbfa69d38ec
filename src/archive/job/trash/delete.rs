//! Deletes one job that was assessed: in the primary, and in each folder that can be used now.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::assess::{DeletionPlan, entry, internal, refusal, refuse, used};
use super::batch::Batch;
use super::folder::{self, Completed};
use super::parts::{self, Part};
use super::records::{self, Record, RecordKind};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result, StagingContext};
use crate::archive::job::preconditions;
use crate::archive::job::ready::{LOCKED, hold_locks};
use crate::archive::job::recover::MadeTask;
use crate::archive::job::release::{Processes, Reason, Refusal};
use crate::archive::places;
use crate::sys::file_id::FileId;
use crate::transfer::staging::Staging;
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::folder_name;

/// How long to wait for another process that moves, archives or recovers the job. The old directory of a moved job is kept for some seconds.
const BUSY_WAIT: Duration = Duration::from_secs(15);

/// How often such a job is looked at.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// A job that was deleted.
#[derive(Debug)]
pub struct Deleted {
    /// What became of each folder's copy, by the folder's number.
    pub folders: Vec<(u8, Result<Completed>)>,
}

/// What became of a job.
pub type DeletionOutcome = Result<std::result::Result<Deleted, Refusal>>;

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
    let intent = intent(env, batch, there.is_some());
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
    complete_decided(env, job, &intent)?;
    Ok(None)
}

/// The intent to delete a job now.
fn intent(env: &Env<'_>, batch: &Batch, primary: bool) -> Record {
    let folders = places::archives(env.view).map(|folder| folder_name(folder.path()));
    Record {
        batch: batch.clone(),
        primary,
        folders: folders.collect(),
    }
}

/// Makes a deletion complete in the primary that is decided: moves the rest of the job to the primary's trash, and writes a mark for every folder. The caller has the lock of the job's staging in the
/// primary.
pub(super) fn complete_decided(env: &Env<'_>, job: &JobId, intent: &Record) -> Result<()> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    for part in parts::OF_PRIMARY {
        let moved = part.discard(primary, &intent.batch, job);
        moved.tried(job, "move to the trash what is recorded of", &at)?;
    }
    env.view.forget_standing(job);
    let mark = Record {
        primary: false,
        folders: Vec::new(),
        ..intent.clone()
    };
    let own = places::archives(env.view).map(|folder| folder_name(folder.path()));
    let mut folders: Vec<String> = own.chain(intent.folders.iter().cloned()).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let written = records::write(primary, RecordKind::MarksOf(&folder), job, &mark);
        written.tried(job, "write the mark of", &at)?;
    }
    let removed = records::remove(primary, RecordKind::Intents, job);
    removed.tried(job, "remove the intent to delete", &at)?;
    env.view.look_for_deleted();
    env.hooks.moved(job);
    Ok(())
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
    at: &Path,
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
