//! Deletes the jobs that a command names, and brings deleted ones back.

use parking_lot::Mutex;

use super::env::Env;
use super::error::{JobError, Result};
use super::job::release::{Processes, Refusal};
use super::job::trash::assess::{DeletionPlan, assess};
use super::job::trash::batch::Batch;
use super::job::trash::delete::{self, Deleted};
use super::job::trash::undelete::{self, UndeletionOutcome};
use super::parallel::in_parallel;
use crate::workspace::jobs::JobId;

/// What happened to one job.
#[derive(Debug)]
pub enum DeletionEvent {
    /// It would be deleted.
    Would(DeletionPlan),
    /// It was deleted.
    Deleted(DeletionPlan, Deleted),
    /// It is not deleted.
    Refused(Refusal),
    /// It could not be looked at, or an error prevented its deletion.
    Failed(JobError),
}

/// Deletes these jobs, several at a time, with the date `batch`; without one, only reports what would be deleted. Ends early if the work is
/// cancelled.
pub fn delete_jobs(
    env: &Env<'_>,
    jobs: &[JobId],
    batch: Option<&Batch>,
    report: &(dyn Fn(&JobId, DeletionEvent) + Sync),
) {
    let processes = Mutex::new(Processes::default());
    let threads = env.threads.min(jobs.len()).max(1);
    in_parallel(threads, jobs, |job| {
        if !env.progress.is_cancelled() {
            let event = delete_job(env, &processes, job, batch);
            report(job, event.unwrap_or_else(DeletionEvent::Failed));
        }
    });
}

fn delete_job(
    env: &Env<'_>,
    processes: &Mutex<Processes>,
    job: &JobId,
    batch: Option<&Batch>,
) -> Result<DeletionEvent> {
    let plan = match assess(env, processes, job)? {
        Ok(plan) => plan,
        Err(refusal) => return Ok(DeletionEvent::Refused(refusal)),
    };
    let Some(batch) = batch else {
        return Ok(DeletionEvent::Would(plan));
    };
    Ok(match delete::delete(env, processes, &plan, batch)? {
        Ok(deleted) => DeletionEvent::Deleted(plan, deleted),
        Err(refusal) => DeletionEvent::Refused(refusal),
    })
}

/// Brings jobs back, several at a time, each from its deletion.
pub fn undelete_jobs(
    env: &Env<'_>,
    jobs: &[(JobId, Batch)],
    report: &(dyn Fn(&JobId, UndeletionOutcome) + Sync),
) {
    let threads = env.threads.min(jobs.len()).max(1);
    in_parallel(threads, jobs, |(job, batch)| {
        if !env.progress.is_cancelled() {
            report(job, undelete::undelete(env, job, batch));
        }
    });
}
