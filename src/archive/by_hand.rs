//! Jobs are archived because somebody says so, and waits for it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::error::{Cause, Error, Result, Scope};
use super::groups::{Aside, in_parallel};
use super::ready::Judge;
use super::renew::renew;
use super::store::{Due, store};
use super::{
    Env, Readiness, Recovered, Stored, engine, folder_leftovers, leftovers, places, state_dir,
};
use crate::settings::Mode;
use crate::view::Unlisted;
use crate::view::location::Role;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How many jobs are looked at before the first of them is stored.
const FIRST: usize = 256;

/// How many are looked at together while others are stored.
const BATCH: usize = 4096;

/// How many jobs somebody who waits has worked on at the same time: more than there are processors, since each waits for the disk.
#[must_use]
pub fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (2 * processors).clamp(4, 16)
}

/// How many are looked at at the same time: that is waiting for the disk, most of it.
const LOOKS: usize = 8;

/// How long a job that somebody else is at, or that changes, is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is waited for no longer than this is not worth a word.
const UNTOLD: Duration = Duration::from_secs(4);

/// How often a job is moved at most, that is written to each time just then.
const TRIES: usize = 3;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Every job of the primary, after what a crash has left there and in the folders was put in order: it may have kept one from its name. And the tasks
/// whose jobs cannot be listed.
///
/// # Errors
///
/// What listing the tasks gave.
pub fn all_jobs(env: &Env<'_>) -> rustix::io::Result<(Vec<JobId>, Vec<Unlisted>)> {
    leftovers::clear_all(env)?;
    folder_leftovers::clear_all(env);
    env.view.primary().jobs()
}

/// Recovers jobs on somebody's word, several at a time, and tells of each when it is done; see [`recover`].
pub fn recover_all(
    env: &Env<'_>,
    jobs: &[JobId],
    from: Option<u8>,
    tell: &(dyn Fn(&JobId, &Result<Recovered>) + Sync),
) -> Vec<Result<Recovered>> {
    leftovers::clear_of(env, jobs);
    let at_once = env.threads.min(jobs.len()).max(1);
    let threads = (env.threads / at_once).max(1);
    let env = Env { threads, ..*env };
    in_parallel(at_once, jobs, |job| {
        let recovered = recover(&env, job, from);
        tell(job, &recovered);
        recovered
    })
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// In one folder, by its number.
    Folder(u8, Result<Stored>),
    /// It was not ready.
    NotReady(Readiness),
    /// It could not be looked at.
    Unknown(Error),
    /// It had been moved, and was put back, since somebody wrote to it meanwhile.
    PutBack {
        /// Whether it is moved again now.
        again: bool,
    },
}

/// Archives jobs in every `backup` folder of the workspace and then in its `move` folder, and tells of each. Waits a moment for
/// jobs that are settling, or that others are at, and until the directories of those that were moved are removed; one that comes back
/// is archived again. `opted_out`: also those that are opted out. Those that fail are left to the next mount, which shows them and tries
/// again.
pub fn archive(
    env: &Env<'_>,
    judge: &Judge,
    jobs: &[JobId],
    opted_out: bool,
    tell: &mut dyn FnMut(&JobId, Outcome),
) {
    let env = &Env {
        out: Some(&judge.out),
        ..*env
    };
    leftovers::clear_of(env, jobs);
    let mut failed = Vec::new();
    let tell = &mut |job: &JobId, outcome: Outcome| {
        let has_failed = match &outcome {
            Outcome::Folder(_, Err(error)) | Outcome::Unknown(error) => !error.is_cancelled(),
            Outcome::PutBack { again } => !again,
            Outcome::Folder(_, Ok(_)) | Outcome::NotReady(_) => false,
        };
        if has_failed {
            failed.push(job.clone());
        }
        tell(job, outcome);
    };
    let mut jobs = Cow::Borrowed(jobs);
    for tries in 1..=TRIES {
        archive_once(env, judge, &jobs, opted_out, tell);
        env.retired.clear(env, true);
        let mut back = Vec::new();
        env.retired.tell_back(&mut |job| back.push(job));
        let again = tries < TRIES && !env.progress.is_cancelled();
        for job in &back {
            tell(job, Outcome::PutBack { again });
        }
        if back.is_empty() || !again {
            break;
        }
        jobs = Cow::Owned(back);
    }
    if !failed.is_empty()
        && let Err(error) = engine::leave(env.view, failed)
    {
        tracing::debug!("the next mount is not told of what was not archived: {error}");
    }
}

fn archive_once(
    env: &Env<'_>,
    judge: &Judge,
    jobs: &[JobId],
    opted_out: bool,
    tell: &mut dyn FnMut(&JobId, Outcome),
) {
    let (first, others) = jobs.split_at(jobs.len().min(FIRST));
    let mut batches = std::iter::once(first).chain(others.chunks(BATCH));
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
                    Ok(renewed) if renewed.is_empty() => tell(&job, outcome),
                    Ok(renewed) => {
                        for (folder, stored) in renewed {
                            tell(&job, Outcome::Folder(folder, stored));
                        }
                    }
                    Err(error) => tell(&job, Outcome::Unknown(error)),
                }
            }
            let deadline = Instant::now() + PATIENCE;
            let mut left = ready;
            while !left.is_empty() {
                let mut again = Vec::new();
                let mut failed = HashSet::new();
                for folder in folders(env) {
                    if is_move(env, folder) {
                        left.retain(|due| !failed.contains(&due.job));
                    }
                    let behind = (Instant::now() < deadline).then_some(&mut again);
                    left = to_folder(env, judge, folder, left, behind, &mut |job, outcome| {
                        if let Outcome::Folder(_, Err(_)) = &outcome {
                            failed.insert(job.clone());
                        }
                        tell(job, outcome);
                    });
                }
                if !again.is_empty() {
                    std::thread::sleep(LOOK);
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

/// The folders that are archived to, by their numbers: `backup` before `move`.
#[must_use]
pub fn folders(env: &Env<'_>) -> Vec<u8> {
    let of = |mode| {
        let folders = env.view.folders().iter();
        folders
            .filter(move |folder| folder.role() == Role::Folder(mode))
            .map(|folder| folder.index())
    };
    of(Mode::Backup).chain(of(Mode::Move)).collect()
}

fn is_move(env: &Env<'_>, folder: u8) -> bool {
    let location = env.view.location(folder);
    location.is_some_and(|location| location.role() == Role::Folder(Mode::Move))
}

/// How jobs stand.
#[derive(Default)]
struct Looked {
    ready: Vec<Due>,
    /// Those that are not, and why.
    others: Vec<(JobId, Outcome)>,
}

/// Looks at jobs, for as long as any is settling.
fn look_at(env: &Env<'_>, judge: &Judge, jobs: &[JobId], opted_out: bool) -> Looked {
    let deadline = Instant::now() + PATIENCE.max(env.settle * 2);
    let Looked {
        mut ready,
        mut others,
    } = Looked::default();
    let mut waiting: Vec<JobId> = jobs.to_vec();
    let mut told = false;
    loop {
        let mut again = Vec::new();
        let (mut pause, mut longest) = (LOOK, Duration::ZERO);
        let looked = in_parallel(LOOKS.min(waiting.len()), &waiting, |job| {
            match env.progress.is_cancelled() {
                true => Err(Error::new(job, Cause::Cancelled)),
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
        if longest > UNTOLD && !std::mem::replace(&mut told, true) {
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

/// Whether a folder has a finished copy of a job, or may have, not being there.
fn is_archived(env: &Env<'_>, job: &JobId) -> bool {
    let folders = env.view.folders().iter();
    let mut archives = folders.filter(|folder| folder.role() != Role::Folder(Mode::Use));
    archives.any(|folder| match places::job(folder, job) {
        Ok(Some(copy)) => markers::is_done(&copy, job.name()).unwrap_or(true),
        Ok(None) => false,
        Err(_) => true,
    })
}

/// Archives jobs in one folder; gives those that other folders are to have as well: also those that this one could not be given. Those
/// that other folders have to be given first are put to `behind`, if that is given.
fn to_folder(
    env: &Env<'_>,
    judge: &Judge,
    folder: u8,
    jobs: Vec<Due>,
    mut behind: Option<&mut Vec<Due>>,
    tell: &mut dyn FnMut(&JobId, Outcome),
) -> Vec<Due> {
    let deadline = Instant::now() + PATIENCE;
    let (excluded, mut waiting): (Vec<Due>, Vec<Due>) = jobs
        .into_iter()
        .partition(|due| judge.out.is_excluded_from(folder, &due.job));
    let mut there = excluded;
    let mut told = false;
    while !waiting.is_empty() {
        let stored = store(env, folder, &waiting);
        let mut again = Vec::new();
        for (due, stored) in waiting.into_iter().zip(stored) {
            match stored {
                Err(error) if error.scope() == Scope::Soon && Instant::now() < deadline => {
                    if !std::mem::replace(&mut told, true) {
                        let most = PATIENCE.as_secs();
                        tracing::warn!("waiting, for {most} s at most: {error}");
                    }
                    again.push(due);
                }
                Err(error) => match &mut behind {
                    Some(behind) if error.scope() == Scope::Again => {
                        behind.push(Due::from(due.job));
                    }
                    _ => {
                        let scope = error.scope();
                        tell(&due.job, Outcome::Folder(folder, Err(error)));
                        // What keeps a job from one folder for a moment, as a lock, keeps it from each.
                        if matches!(scope, Scope::Folder | Scope::Job) {
                            there.push(due);
                        }
                    }
                },
                Ok(stored) => {
                    tell(&due.job, Outcome::Folder(folder, Ok(stored)));
                    // What is left of a job, or an older state of it, goes to no other folder either.
                    if !matches!(stored, Stored::Left(_)) {
                        there.push(due);
                    }
                }
            }
        }
        if !again.is_empty() {
            std::thread::sleep(LOOK);
        }
        waiting = again;
    }
    there
}

/// Recovers a job on somebody's word: it stays in the primary until it changes, also where there is a `move` folder.
/// What a crash has left beside it is for [`leftovers`] to clear.
///
/// # Errors
///
/// See [`super::recover::recover`].
pub fn recover(env: &Env<'_>, job: &JobId, from: Option<u8>) -> Result<Recovered> {
    let primary = env.view.primary();
    let moves =
        |folder: &std::sync::Arc<crate::view::Location>| folder.role() == Role::Folder(Mode::Move);
    if !env.view.folders().iter().any(moves) {
        return super::recover::recover(env, job, from);
    }
    // First, lest somebody who archives move it away again before it is known, or this end here.
    let kept = state_dir::checked(primary, job, "look up", state_dir::is_kept(primary, job))?;
    let set = state_dir::set_kept(primary, job, true);
    state_dir::checked(primary, job, "record that the job stays, in", set)?;
    let recovered = super::recover::recover(env, job, from);
    if recovered.is_err() && !kept {
        let _ = state_dir::set_kept(primary, job, false);
    }
    recovered
}
