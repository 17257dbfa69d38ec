//! Finds out which of the named jobs are ready to be archived, and waits for those that are settling.

use std::time::{Duration, Instant};

use super::{BUSY_JOB_POLL, BUSY_JOB_WAIT, Outcome};
use crate::archive::env::Env;
use crate::archive::error::{Cause, JobError};
use crate::archive::job::ready::{Judge, Readiness};
use crate::archive::job::store::Due;
use crate::archive::parallel::in_parallel;
use crate::archive::places;
use crate::view::InPrimary;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How many jobs are looked at at the same time: a look mostly waits for the disk.
const LOOK_THREADS: usize = 8;

/// Waits of at most this length are not reported.
const SILENT_WAIT: Duration = Duration::from_secs(4);

/// Jobs that were looked at.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) ready: Vec<Due>,
    /// The other jobs, and why they are not ready.
    pub(super) others: Vec<(JobId, Outcome)>,
}

/// Looks at jobs, again and again while any is settling.
pub(super) fn look_at(env: &Env<'_>, judge: &Judge, jobs: &[JobId], opted_out: bool) -> Looked {
    let deadline = Instant::now() + BUSY_JOB_WAIT.max(env.settle * 2);
    let Looked {
        mut ready,
        mut others,
    } = Looked::default();
    let mut waiting: Vec<JobId> = jobs.to_vec();
    let mut reported = false;
    loop {
        let mut again = Vec::new();
        let (mut pause, mut longest) = (BUSY_JOB_POLL, Duration::ZERO);
        let looked = in_parallel(LOOK_THREADS.min(waiting.len()), &waiting, |job| {
            match env.progress.is_cancelled() {
                true => Err(JobError::new(job, Cause::Cancelled)),
                false => judge.readiness(env, job),
            }
        });
        for (job, readiness) in waiting.into_iter().zip(looked) {
            match readiness {
                Ok(Readiness::Ready { taken, size }) => ready.push(Due {
                    job,
                    taken: Some(taken),
                    size: Some(size),
                }),
                Ok(Readiness::OptedOut(_)) if opted_out => ready.push(Due::from(job)),
                Ok(Readiness::Settling(rest)) if Instant::now() < deadline => {
                    pause = pause.max(rest.min(Duration::from_secs(1)));
                    longest = longest.max(rest);
                    again.push(job);
                }
                Ok(Readiness::Unfinished) if is_purged(env, &job) => {
                    others.push((job, Outcome::NotReady(Readiness::Purged)));
                }
                Ok(Readiness::Absent) if has_copy(env, &job) => {
                    others.push((job, Outcome::NotReady(Readiness::Elsewhere)));
                }
                Ok(Readiness::Elsewhere) if !is_archived(env, &job) => {
                    others.push((job, Outcome::NotReady(Readiness::Lost)));
                }
                Ok(other) => others.push((job, Outcome::NotReady(other))),
                Err(error) => others.push((job, Outcome::Unknown(error))),
            }
        }
        if again.is_empty() || env.progress.is_cancelled() {
            return Looked { ready, others };
        }
        if longest > SILENT_WAIT && !std::mem::replace(&mut reported, true) {
            let most = deadline.saturating_duration_since(Instant::now());
            tracing::warn!(
                "waiting, for {} s at most: {} changed less than `xpmfs.settle` ago",
                most.as_secs(),
                match again.as_slice() {
                    [job] => job.to_string(),
                    jobs => format!("{} jobs", jobs.len()),
                },
            );
        }
        std::thread::sleep(pause);
        waiting = again;
    }
}

/// Whether the primary has only what a purge has left of a job.
fn is_purged(env: &Env<'_>, job: &JobId) -> bool {
    let there = env.view.in_primary(job.task_id(), job.hash());
    matches!(there, Ok(InPrimary::Purged))
}

/// Whether a folder has a finished copy of a job: the primary's was released, or purged.
fn has_copy(env: &Env<'_>, job: &JobId) -> bool {
    places::archives(env.view).any(|folder| match places::job(folder, job) {
        Ok(Some(copy)) => markers::is_done(&copy, job.name()).unwrap_or(false),
        _ => false,
    })
}

/// Whether a folder has a finished copy of a job, or cannot be read.
fn is_archived(env: &Env<'_>, job: &JobId) -> bool {
    places::archives(env.view).any(|folder| match places::job(folder, job) {
        Ok(Some(copy)) => markers::is_done(&copy, job.name()).unwrap_or(true),
        Ok(None) => false,
        Err(_) => true,
    })
}
