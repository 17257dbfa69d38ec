//! Records on the primary's disk which jobs were opted out by their tag, in case the runs with the tags are removed.
//!
//! A record is `.xpmfs/archive/opt-outs/<task_id>/<hash>`: one line with `out` or `in`, and the time when the job was submitted with
//! that tag. It is renamed into place but not synced: a record that a power cut has emptied counts as `out`.

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

/// No record is longer.
const RECORD_BYTES_MAX: u64 = 200;

/// Reads the record of a job, if it has one.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
pub(in crate::archive) fn read(primary: &Location, job: &JobId) -> Result<Option<Decision>> {
    let Some(dir) = state_dir::open(primary, &task(job))? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut text = String::new();
    match rustix::fs::openat(&dir, job.hash(), flags, Mode::empty()) {
        Ok(file) => {
            // A record that cannot be read counts as `out`.
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

/// Writes the record of a job, and replaces an earlier one.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
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

/// Removes the record of a job, if it has one.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
pub(in crate::archive) fn remove(primary: &Location, job: &JobId) -> Result<()> {
    match state_dir::open(primary, &task(job))? {
        Some(dir) => {
            let removed = rustix::fs::unlinkat(&dir, job.hash(), AtFlags::empty());
            at::absent(removed).map(|_| ())
        }
        None => Ok(()),
    }
}

/// The jobs that have a record. Skips directories that cannot be listed: [`read`] fails for their jobs.
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

/// Removes the record of a job that is named by no run any more and is gone from its task's directory.
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
