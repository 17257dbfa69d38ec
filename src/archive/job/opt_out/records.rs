//! Remembers on the primary's disk which jobs were opted out by their tag, for when the runs that say so are gone.
//!
//! A record is `.xpmfs/archive/opt-outs/<task_id>/<hash>`: a line of `out` or `in`, and when the job was submitted with
//! that tag. It is renamed into place, and not made durable: what a power cut leaves of it counts as `out`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::run_tags::Decision;
use crate::archive::places;
use crate::archive::state_dir::{self, OPT_OUTS};
use crate::sys::at;
use crate::view::Location;
use crate::view::jobs::names;
use crate::workspace::jobs::JobId;

/// More bytes than a record has.
const RECORD_BYTES_MAX: u64 = 200;

/// The record of a job, if there is one.
///
/// # Errors
///
/// What looking for it gave, but for its absence.
pub(in crate::archive) fn read(primary: &Location, job: &JobId) -> Result<Option<Decision>> {
    let Some(dir) = state_dir::open(primary, &task(job))? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut text = String::new();
    match rustix::fs::openat(&dir, job.hash(), flags, Mode::empty()) {
        Ok(file) => {
            // What cannot be read of it is taken for `out`.
            let _ = File::from(file)
                .take(RECORD_BYTES_MAX)
                .read_to_string(&mut text);
        }
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ACCESS | Errno::LOOP | Errno::NXIO) => {}
        Err(error) => return Err(error),
    }
    let (what, submitted) = text.trim_end().split_once(' ').unwrap_or_default();
    Ok(Some(Decision {
        submitted: submitted.parse().ok(),
        out: what != "in",
    }))
}

/// Writes the record of a job, over the one that it has.
///
/// # Errors
///
/// What the primary's file system gave.
pub(in crate::archive) fn write(
    primary: &Location,
    job: &JobId,
    decision: Decision,
) -> std::io::Result<()> {
    let names = [OsStr::new(state_dir::ARCHIVE)]
        .into_iter()
        .chain(task(job));
    let dir = places::make_own(primary, names)?;
    let what = if decision.out { "out" } else { "in" };
    let submitted = decision.submitted;
    let submitted = submitted.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let text = format!("{what} {submitted}\n");
    Ok(state_dir::replace(
        primary,
        &dir,
        job.hash(),
        text.as_bytes(),
    )?)
}

/// Removes the record of a job, if there is one.
///
/// # Errors
///
/// What the primary's file system gave.
pub(in crate::archive) fn remove(primary: &Location, job: &JobId) -> Result<()> {
    match state_dir::open(primary, &task(job))? {
        Some(dir) => {
            let removed = rustix::fs::unlinkat(&dir, job.hash(), AtFlags::empty());
            at::absent(removed).map(|_| ())
        }
        None => Ok(()),
    }
}

/// The jobs that have a record. What cannot be listed is found when the job itself is looked at.
pub(in crate::archive) fn list(primary: &Location) -> Vec<JobId> {
    let mut jobs = Vec::new();
    let tasks = state_dir::open(primary, &[OsStr::new(OPT_OUTS)]);
    let tasks = tasks.ok().flatten();
    let tasks: Option<(OwnedFd, Vec<OsString>)> = tasks.and_then(|dir| {
        let listed = names(&dir).ok()?;
        Some((dir, listed))
    });
    for (dir, task) in tasks.iter().flat_map(|(dir, tasks)| {
        let dir = dir.as_fd();
        tasks.iter().map(move |task| (dir, task))
    }) {
        let Ok(records) = at::open_dir(dir, task).and_then(names) else {
            continue;
        };
        let records = records
            .iter()
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."));
        jobs.extend(records.filter_map(|hash| JobId::new(task, hash).ok()));
    }
    jobs
}

/// Removes the record of a job that no run names any more, if its task is there and the job is not.
pub(in crate::archive) fn remove_if_gone(primary: &Location, job: &JobId) {
    if let Ok(Some(task)) = places::task(primary, job)
        && let Ok(None) = at::absent(at::stat(&*task, job.hash()))
    {
        let _ = remove(primary, job);
    }
}

fn task(job: &JobId) -> [&OsStr; 2] {
    [OsStr::new(OPT_OUTS), job.task_id()]
}
