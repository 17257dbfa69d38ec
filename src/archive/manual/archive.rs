//! Archives jobs in each folder, folder after folder.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Instant;

use super::look::{Looked, look_at};
use super::{BUSY_JOB_POLL, BUSY_JOB_WAIT, Outcome};
use crate::archive::env::Env;
use crate::archive::error::Scope;
use crate::archive::job::ready::{Judge, Readiness};
use crate::archive::job::renew::renew;
use crate::archive::job::store::{Due, Stored};
use crate::archive::parallel::Aside;
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::{store_and_move, unfinished};
use crate::archive::{engine, places};
use crate::settings::Mode;
use crate::transfer::Size;
use crate::view::Location;
use crate::view::location::Role;
use crate::workspace::jobs::JobId;

/// How many jobs are looked at before the first of them is stored.
const FIRST_LOOKS: usize = 256;

/// How many jobs are looked at while earlier ones are stored.
const LOOKS: usize = 4096;

/// How often a job is moved at most if it is written to, and put back, each time.
const MOVES_MAX: usize = 3;

/// Archives jobs in each `backup` folder and then in the `move` folder, and reports each result.
///
/// Waits up to [`BUSY_JOB_WAIT`] for jobs that are settling or in use, and until the directories of moved jobs are removed. A job that is
/// put back is archived again. With `opted_out`, also archives jobs that are opted out. Jobs that fail are recorded for the next mount,
/// which shows and retries them.
pub fn archive(
    env: &Env<'_>,
    retired: &Retired,
    judge: &Judge,
    jobs: &[JobId],
    opted_out: bool,
    report: &mut dyn FnMut(&JobId, Outcome),
) {
    let env = &Env {
        out: Some(&judge.out),
        ..*env
    };
    unfinished::clear_of(env, retired, jobs);
    // They are archived with the others.
    retired.report_put_back(&mut |_| {});
    let mut failed = Vec::new();
    let report = &mut |job: &JobId, outcome: Outcome| {
        let has_failed = match &outcome {
            Outcome::Folder(_, Err(error)) | Outcome::Unknown(error) => !error.is_cancelled(),
            Outcome::PutBack { again } => !again,
            Outcome::Folder(_, Ok(_)) | Outcome::NotReady(_) => false,
        };
        if has_failed {
            failed.push(job.clone());
        }
        report(job, outcome);
    };
    let mut jobs = Cow::Borrowed(jobs);
    for tries in 1..=MOVES_MAX {
        archive_once(env, retired, judge, &jobs, opted_out, report);
        retired.clear(env, true);
        let mut back = Vec::new();
        retired.report_put_back(&mut |job| back.push(job));
        let again = tries < MOVES_MAX && !env.progress.is_cancelled();
        for job in &back {
            report(job, Outcome::PutBack { again });
        }
        if back.is_empty() || !again {
            break;
        }
        jobs = Cow::Owned(back);
    }
    if !failed.is_empty()
        && let Err(error) = engine::queue_for_next_start(env.view, failed)
    {
        tracing::debug!("cannot record for the next mount which jobs failed: {error}");
    }
}

fn archive_once(
    env: &Env<'_>,
    retired: &Retired,
    judge: &Judge,
    jobs: &[JobId],
    opted_out: bool,
    report: &mut dyn FnMut(&JobId, Outcome),
) {
    let (first, others) = jobs.split_at(jobs.len().min(FIRST_LOOKS));
    let mut batches = std::iter::once(first).chain(others.chunks(LOOKS));
    std::thread::scope(|scope| {
        let mut looked = batches
            .next()
            .map(|batch| look_at(env, judge, batch, opted_out));
        while let Some(Looked { ready, others }) = looked {
            let meanwhile = batches.next().map(|batch| {
                let look = move || look_at(env, judge, batch, opted_out);
                Aside::start(scope, "xpmfs-looks", look)
            });
            for (job, outcome) in others {
                let renewed = match outcome {
                    Outcome::NotReady(Readiness::Elsewhere | Readiness::Purged) => {
                        renew(env, judge, &job)
                    }
                    _ => Ok(Vec::new()),
                };
                match renewed {
                    Ok(renewed) if renewed.is_empty() => report(&job, outcome),
                    Ok(renewed) => {
                        for (folder, stored) in renewed {
                            report(&job, Outcome::Folder(folder, stored));
                        }
                    }
                    Err(error) => report(&job, Outcome::Unknown(error)),
                }
            }
            let deadline = Instant::now() + BUSY_JOB_WAIT;
            let folders: Vec<&Location> = places::archives(env.view).collect();
            for _ in &folders {
                env.progress.expect_more(total(&ready));
            }
            let mut left = ready;
            while !left.is_empty() {
                let mut again = Vec::new();
                let mut failed = HashSet::new();
                for (done, folder) in folders.iter().enumerate() {
                    if folder.role() == Role::Folder(Mode::Move) {
                        let (goes_on, ends): (Vec<Due>, Vec<Due>) =
                            left.into_iter().partition(|due| !failed.contains(&due.job));
                        forgo(env, &ends, folders.len() - done);
                        left = goes_on;
                    }
                    let before = total(&left);
                    let behind = (Instant::now() < deadline).then_some(&mut again);
                    let (folder, jobs) = (folder.index(), left);
                    let report = &mut |job: &JobId, outcome| {
                        if let Outcome::Folder(_, Err(_)) = &outcome {
                            failed.insert(job.clone());
                        }
                        report(job, outcome);
                    };
                    left = store_in(env, retired, judge, folder, jobs, behind, report);
                    let after = total(&left);
                    let ended = Size {
                        files: before.files.saturating_sub(after.files),
                        bytes: before.bytes.saturating_sub(after.bytes),
                    };
                    for _ in done + 1..folders.len() {
                        env.progress.forgo(ended);
                    }
                }
                if !again.is_empty() {
                    std::thread::sleep(BUSY_JOB_POLL);
                }
                left = again;
            }
            if env.progress.is_cancelled() {
                return;
            }
            looked = meanwhile.map(Aside::wait);
        }
    });
}

/// The size of jobs, as far as it is known.
fn total(jobs: &[Due]) -> Size {
    jobs.iter().filter_map(|due| due.size).sum()
}

/// Subtracts jobs that some folders will not get from the progress's total.
fn forgo(env: &Env<'_>, jobs: &[Due], folders: usize) {
    for _ in 0..folders {
        env.progress.forgo(total(jobs));
    }
}

/// Archives jobs in one folder. Returns the jobs that are archived in the next folder as well, including those that this folder refused.
///
/// Jobs that an earlier folder must get first are added to `behind`, if that is `Some`.
fn store_in(
    env: &Env<'_>,
    retired: &Retired,
    judge: &Judge,
    folder: u8,
    jobs: Vec<Due>,
    mut behind: Option<&mut Vec<Due>>,
    report: &mut dyn FnMut(&JobId, Outcome),
) -> Vec<Due> {
    let deadline = Instant::now() + BUSY_JOB_WAIT;
    let (excluded, mut waiting): (Vec<Due>, Vec<Due>) = jobs
        .into_iter()
        .partition(|due| judge.out.is_excluded_from(folder, &due.job));
    forgo(env, &excluded, 1);
    let mut next = excluded;
    let mut reported = false;
    while !waiting.is_empty() {
        let stored = store_and_move(env, retired, folder, &waiting);
        let mut again = Vec::new();
        for (due, stored) in waiting.into_iter().zip(stored) {
            match stored {
                Err(error) if error.scope() == Scope::Soon && Instant::now() < deadline => {
                    if !std::mem::replace(&mut reported, true) {
                        let most = BUSY_JOB_WAIT.as_secs();
                        tracing::warn!("waiting, for {most} s at most: {error}");
                    }
                    // Its size was subtracted when it was refused.
                    env.progress.expect_more(due.size.unwrap_or_default());
                    again.push(due);
                }
                Err(error) => match &mut behind {
                    Some(behind) if error.scope() == Scope::Again => {
                        behind.push(Due::from(due.job));
                    }
                    _ => {
                        let scope = error.scope();
                        report(&due.job, Outcome::Folder(folder, Err(error)));
                        // A temporary reason, such as a lock, applies to each folder.
                        if matches!(scope, Scope::Folder | Scope::Space | Scope::Job) {
                            next.push(due);
                        }
                    }
                },
                Ok(stored) => {
                    report(&due.job, Outcome::Folder(folder, Ok(stored)));
                    // A job that is incomplete, or older than its copy, is not copied to another folder either.
                    if !matches!(stored, Stored::Skipped(_)) {
                        next.push(due);
                    }
                }
            }
        }
        if !again.is_empty() {
            std::thread::sleep(BUSY_JOB_POLL);
        }
        waiting = again;
    }
    next
}
