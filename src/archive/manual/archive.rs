//! Archives and recovers the jobs that a command names, and waits for the result.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{engine, job, places, state_dir, turn};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result, Scope};
use crate::archive::job::ready::{Judge, Readiness};
use crate::archive::job::recover::Recovered;
use crate::archive::job::renew::renew;
use crate::archive::job::store::{Due, Stored};
use crate::archive::parallel::{Aside, in_parallel};
use crate::archive::release_rules::space;
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::{store_and_move, unfinished};
use crate::settings::{Mode, Release};
use crate::transfer::Size;
use crate::view::location::Role;
use crate::view::{InPrimary, Location, Unlisted};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How many jobs are looked at before the first of them is stored.
const FIRST_LOOKS: usize = 256;

/// How many jobs are looked at while earlier ones are stored.
const LOOKS: usize = 4096;

/// How many jobs are looked at at the same time: a look mostly waits for the disk.
const LOOK_THREADS: usize = 8;

/// How long to wait for a job that another process uses, or that changes.
const BUSY_JOB_WAIT: Duration = Duration::from_secs(30);

/// How often such a job is looked at.
const BUSY_JOB_POLL: Duration = Duration::from_millis(100);

/// Waits of at most this length are not reported.
const SILENT_WAIT: Duration = Duration::from_secs(4);

/// How often a job is moved at most if it is written to, and put back, each time.
const MOVES_MAX: usize = 3;

/// The number of jobs that a command works on at the same time: more than processors, since each job waits for the disk.
#[must_use]
pub fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (2 * processors).clamp(4, 16)
}

/// Lists the jobs of the primary, and the tasks whose jobs cannot be listed.
///
/// First cleans up after crashed processes, in the primary and in the folders: the directory of an interrupted move may be the only copy of a job.
///
/// # Errors
///
/// Fails if the tasks cannot be listed.
pub fn all_jobs(
    env: &Env<'_>,
    retired: &Retired,
) -> rustix::io::Result<(Vec<JobId>, Vec<Unlisted>)> {
    unfinished::clear_all(env, retired)?;
    job::crash_recovery::clear_all(env);
    env.view.primary().jobs()
}

/// Recovers jobs, several at a time, and reports each when it is done; see [`recover`].
pub fn recover_all(
    env: &Env<'_>,
    jobs: &[JobId],
    from: Option<u8>,
    report: &(dyn Fn(&JobId, &Result<Recovered>) + Sync),
) -> Vec<Result<Recovered>> {
    unfinished::clear_of(env, &Retired::default(), jobs);
    let at_once = env.threads.min(jobs.len()).max(1);
    let threads = (env.threads / at_once).max(1);
    let env = Env { threads, ..*env };
    in_parallel(at_once, jobs, |job| {
        let recovered = recover(&env, job, from);
        report(job, &recovered);
        recovered
    })
}

/// Recovers a job that a program is about to change: unlike one that is recovered on request, it is archived again as soon
/// as it is finished and settled. Cleans up first what a crash has left beside the job.
///
/// # Errors
///
/// See [`job::recover::recover`].
pub fn recover_for_change(env: &Env<'_>, job: &JobId) -> Result<Recovered> {
    unfinished::clear_of(env, &Retired::default(), std::slice::from_ref(job));
    if let Some(size) = job::recover::size(env, job) {
        env.progress.expect(size);
    }
    job::recover::recover(env, job, None)
}

/// Recovers a job that programs read, if that leaves `rule.keep_free` free. It stays in the primary until it is released, or changes.
/// With that rule, one process of the workspace recovers one such job at a time, so that two do not count on the same free space.
/// Cleans up first what a crash has left beside the job.
///
/// # Errors
///
/// [`Cause::NoSpace`] if there is too little space; else see [`job::recover::recover`].
pub fn recover_for_readers(env: &Env<'_>, job: &JobId, rule: Release) -> Result<Recovered> {
    let primary = env.view.primary();
    let at = primary.path();
    let _turn = match rule.keep_free {
        Some(_) => Some(recovery_turn(env, job)?),
        None => None,
    };
    unfinished::clear_of(env, &Retired::default(), std::slice::from_ref(job));
    if let Some(size) = job::recover::size(env, job) {
        env.progress.expect(size);
    }
    if let Some(space) = space(env.view, rule).tried(job, "look at the space of", at)? {
        let needed = job::recover::space(env, job, ALLOCATION_UNIT).unwrap_or(u64::MAX);
        if needed > space.usable() {
            let (free, wanted) = (space.free, space.wanted);
            let why = format!(
                "{needed} bytes are needed, and of {free} free ones {wanted} are to be kept free"
            );
            let place = at.to_owned();
            return Err(JobError::new(job, Cause::NoSpace { place, why }));
        }
    }
    recover(env, job, None)
}

/// The unit in which disks are assumed to allocate space.
const ALLOCATION_UNIT: u64 = 4096;

/// Waits until no other process of the workspace recovers a job for readers.
fn recovery_turn(env: &Env<'_>, job: &JobId) -> Result<File> {
    let at = env.view.primary().path();
    let file = turn::file(env.view, "read-through");
    let file = file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let file = file.tried(job, "make the lock of recoveries in", at)?;
    while !turn::lock(&file) {
        if env.progress.is_cancelled() {
            return Err(JobError::new(job, Cause::Cancelled));
        }
        std::thread::sleep(BUSY_JOB_POLL);
    }
    Ok(file)
}

/// The result of archiving a job.
#[derive(Debug)]
pub enum Outcome {
    /// The result in one folder, by its number.
    Folder(u8, Result<Stored>),
    /// The job was not ready.
    NotReady(Readiness),
    /// The job could not be looked at.
    Unknown(JobError),
    /// The job was moved, and put back since a process wrote to it meanwhile.
    PutBack {
        /// Whether it is moved again now.
        again: bool,
    },
}

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
                    Outcome::NotReady(Readiness::Elsewhere) if env.force => renew(env, judge, &job),
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

/// Jobs that were looked at.
#[derive(Default)]
struct Looked {
    ready: Vec<Due>,
    /// The other jobs, and why they are not ready.
    others: Vec<(JobId, Outcome)>,
}

/// Looks at jobs, again and again while any is settling.
fn look_at(env: &Env<'_>, judge: &Judge, jobs: &[JobId], opted_out: bool) -> Looked {
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

/// Whether a folder has a finished copy of a job, or cannot be read.
fn is_archived(env: &Env<'_>, job: &JobId) -> bool {
    places::archives(env.view).any(|folder| match places::job(folder, job) {
        Ok(Some(copy)) => markers::is_done(&copy, job.name()).unwrap_or(true),
        Ok(None) => false,
        Err(_) => true,
    })
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
                        if matches!(scope, Scope::Folder | Scope::Job) {
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

/// Recovers a job on request: it stays in the primary until it changes, also in a workspace with a `move` folder.
///
/// The caller cleans up first what a crash has left beside the job ([`unfinished`]).
///
/// # Errors
///
/// See [`job::recover::recover`].
fn recover(env: &Env<'_>, job: &JobId, from: Option<u8>) -> Result<Recovered> {
    let primary = env.view.primary();
    if places::folders_of_mode(env.view, Mode::Move)
        .next()
        .is_none()
    {
        return job::recover::recover(env, job, from);
    }
    // Before the recovery: otherwise an archiver could move the job away again before the record is there, or this process could end.
    let kept = state_dir::checked(primary, job, "look up", state_dir::is_kept(primary, job))?;
    let set = state_dir::set_kept(primary, job, true);
    state_dir::checked(primary, job, "record that the job stays, in", set)?;
    let recovered = job::recover::recover(env, job, from);
    if recovered.is_err() && !kept {
        let _ = state_dir::set_kept(primary, job, false);
    }
    recovered
}
