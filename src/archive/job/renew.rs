//! Recreates damaged or missing backups of a moved job from the folder that the job was moved to.

use super::manifests;
use super::ready::Judge;
use super::store::{Stored, store_from};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::{places, state_dir};
use crate::settings::Mode;
use crate::view::location::Role;
use crate::view::{Location, PRIMARY, Served};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// Recreates the copies of a moved job that `verify` found damaged or missing, or that a `backup` folder lacks.
///
/// Returns the folders with the result of each. The source copy must match its manifest.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
pub(in crate::archive) fn renew(
    env: &Env<'_>,
    judge: &Judge,
    job: &JobId,
) -> Result<Vec<(u8, Result<Stored>)>> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let served = env.view.resolve(job.task_id(), job.hash());
    let Some(Served::Job { location, .. }) = served.tried(job, "look up", &at)? else {
        return Ok(Vec::new());
    };
    let Some(source) = env.view.location(location).filter(|_| location != PRIMARY) else {
        return Ok(Vec::new());
    };
    let env = Env {
        force: true,
        ..*env
    };
    let mut renewed = Vec::new();
    for folder in places::archives(env.view) {
        let index = folder.index();
        let backup = folder.role() == Role::Folder(Mode::Backup);
        let wanted = index == location || (backup && !judge.out.is_excluded_from(index, job));
        if !wanted || !is_due(&env, folder, job)? {
            continue;
        }
        let stored = match index == location {
            true => Err(JobError::new(job, Cause::Unsafe(unsafe_source(job)))),
            false => store_from(&env, source, index, job),
        };
        renewed.push((index, stored));
    }
    Ok(renewed)
}

fn unsafe_source(job: &JobId) -> String {
    format!(
        "its copy is damaged, and the workspace has no other: `xpmfs jobs recover {job}` brings the job back from another folder \
         that has it whole; then archive it again with --force"
    )
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
