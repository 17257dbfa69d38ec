//! Recovers jobs: on request, for a program that is about to change them, or for one that reads them.

use std::fs::File;

use indicatif::HumanBytes;
use rustix::io::Errno;

use super::BUSY_JOB_POLL;
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::job::recover::Recovered;
use crate::archive::parallel::in_parallel;
use crate::archive::releases::space_by_rule;
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::unfinished;
use crate::archive::{job, places, state_dir, turn};
use crate::settings::{Mode, Release};
use crate::workspace::jobs::JobId;

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
    if let Some(space) = space_by_rule(env.view, rule).tried(job, "look at the space of", at)? {
        let needed = job::recover::space_needed(env, job, ALLOCATION_UNIT).unwrap_or(u64::MAX);
        if needed > space.usable() {
            let [needed, free, wanted] = [needed, space.free, space.wanted].map(HumanBytes);
            let why = format!(
                "{needed} are needed, and of the {free} that are free, {wanted} are to be kept free"
            );
            let path = at.to_owned();
            return Err(JobError::new(job, Cause::NoSpace { path, why }));
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
