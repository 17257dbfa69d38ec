//! Gives the staged copy of a recovered job the job's name in the primary, with all internal files of the job.
//!
//! While it does so, no process of any node can create an internal file of any job: this must take a moment only, also for a job of many
//! files.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use super::internal_files;
use super::skeleton::Skeleton;
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result, StagingContext};
use crate::archive::places;
use crate::transfer::staging::Staging;
use crate::view::internal_gate::InternalGate;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::STAGING_PREFIX;

/// Publishes a job that the primary does not have.
pub(super) fn new(env: &Env<'_>, job: &JobId, task: &OwnedFd, staging: &mut Staging) -> Result<()> {
    let at = places::path(env.view.primary(), job);
    let (_gate, _) = prepare(env, job, task)?;
    staging.publish().beside(job, &at)
}

/// Publishes a job in the place of the symlink to a folder.
pub(super) fn over_link(
    env: &Env<'_>,
    job: &JobId,
    link: &OwnedFd,
    task: &OwnedFd,
    staging: &mut Staging,
) -> Result<()> {
    let at = places::path(env.view.primary(), job);
    let (_gate, _) = prepare(env, job, task)?;
    staging.exchange(link).map(drop).beside(job, &at)
}

/// Publishes a job in the place of what a purge has left of it.
pub(super) fn over_skeleton(
    env: &Env<'_>,
    job: &JobId,
    skeleton: &Skeleton,
    task: &OwnedFd,
    staging: &mut Staging,
) -> Result<()> {
    let at = places::path(env.view.primary(), job);
    let (gate, staged) = prepare(env, job, task)?;
    skeleton.keep_bookkeeping(job, &staged)?;
    staging.exchange(skeleton.directory()).beside(job, &at)?;
    // What follows looks at each file of the job.
    drop(gate);
    let unused = skeleton.expect_unused(env, job);
    if unused.is_err() {
        staging.undo().beside(job, &at)?;
        env.hooks.moved(job);
        staging.sync().beside(job, &at)?;
    }
    unused
}

/// Gives the staged job, which is returned open, the internal files that were created since it was copied. No more are created until the
/// returned gate is dropped: the job must have its name before.
fn prepare(env: &Env<'_>, job: &JobId, task: &OwnedFd) -> Result<(InternalGate, OwnedFd)> {
    let at = places::path(env.view.primary(), job);
    let mut name = OsString::from(STAGING_PREFIX);
    name.push(job.hash());
    let staged = places::open_exactly(task, &name).tried(job, "open", &at)?;
    let gate = close_gate(env, job)?;
    let linked = internal_files::link_into(env.view, job, &staged);
    linked.tried(job, "link internal files into", &at)?;
    Ok((gate, staged))
}

fn close_gate(env: &Env<'_>, job: &JobId) -> Result<InternalGate> {
    let is_cancelled = || env.progress.is_cancelled();
    let held = || {
        format!(
            "another process holds the lock {}: if a process of xpmfs is stopped on any node, continue or end it",
            env.view.gate_path().display()
        )
    };
    env.view.close_gate(&is_cancelled).ok_or_else(|| {
        let cause = match is_cancelled() {
            true => Cause::Cancelled,
            false => Cause::Busy(held().into()),
        };
        JobError::new(job, cause)
    })
}
