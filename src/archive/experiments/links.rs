//! Makes the symlinks to the jobs of a run, `jobs/<task_id>/<hash>`, in a copy of the run.
//!
//! They are not part of the copied tree: their targets are different in each location.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::{Errno, Result};

use crate::sys::{at, shared_dir};
use crate::transfer::durable::sync_directory;
use crate::view::jobs::names;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;

/// Where the symlinks of a copied run lead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// To the jobs of the location that the run lies in.
    StagingContext,
    /// To the jobs of the workspace at this path.
    Workspace(&'a Path),
}

impl Target<'_> {
    /// The target in the copy of a symlink to a job. A symlink that names another path than a job's is kept as it is.
    fn of(self, old: OsString, task: &OsStr, hash: &OsStr) -> PathBuf {
        let job = Path::new(JOBS).join(task).join(hash);
        let old = PathBuf::from(old);
        if !old.ends_with(&job) {
            return old;
        }
        match self {
            // From `experiments/<id>/<run>/jobs/<task_id>`.
            Target::StagingContext => Path::new("../../../../..").join(job),
            Target::Workspace(top) => top.join(job),
        }
    }
}

/// Makes the symlinks of the run in `from` in its copy, `to`, which has none yet, and makes them durable.
///
/// # Errors
///
/// Fails with the error of one of the two file systems.
pub(super) fn copy(from: impl AsFd, to: impl AsFd, target: Target<'_>) -> Result<()> {
    let Some(jobs) = at::absent(at::open_dir(&from, OsStr::new(JOBS)))? else {
        return Ok(());
    };
    let made = make(&to, OsStr::new(JOBS), &jobs)?;
    for task in names(&jobs)? {
        let Some(links) = at::absent(at::open_dir(&jobs, &task))? else {
            continue;
        };
        let copies = make(&made, &task, &links)?;
        for hash in names(&links)? {
            match at::read_link(&links, &hash) {
                Ok(old) => {
                    let new = target.of(old, &task, &hash);
                    rustix::fs::symlinkat(&new, &copies, &hash)?;
                }
                // experimaestro makes only symlinks there, and removes some when a plan ends.
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        sync(&copies)?;
    }
    sync(&made)
}

/// Makes these symlinks in a copy of a run, `to`, which has none yet, and makes them durable.
///
/// # Errors
///
/// Fails with the error of the file system.
pub(super) fn make_listed(
    listed: &[(JobId, PathBuf)],
    to: impl AsFd,
    target: Target<'_>,
) -> Result<()> {
    if listed.is_empty() {
        return Ok(());
    }
    let rights = Mode::from_raw_mode(0o777);
    let made = shared_dir::make_dir(&to, OsStr::new(JOBS), rights)?;
    for (job, old) in listed {
        let links = shared_dir::make_dir(&made, job.task_id(), rights)?;
        let new = target.of(old.as_os_str().to_owned(), job.task_id(), job.hash());
        rustix::fs::symlinkat(&new, &links, job.hash())?;
    }
    let tasks: BTreeSet<&OsStr> = listed.iter().map(|(job, _)| job.task_id()).collect();
    for task in tasks {
        sync(&at::open_dir(&made, task)?)?;
    }
    sync(&made)
}

/// Makes a directory with the mode of the one that it is a copy of.
fn make(dir: impl AsFd, name: &OsStr, like: &OwnedFd) -> Result<OwnedFd> {
    let mode = Mode::from_raw_mode(u32::from(at::stat_fd(like)?.stx_mode) & 0o777);
    shared_dir::make_dir(dir, name, mode | Mode::RWXU)
}

fn sync(dir: &OwnedFd) -> Result<()> {
    sync_directory(at::open_to_list(dir, OsStr::new("."))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_lead_to_the_jobs_of_the_new_place() {
        let of = |target: Target<'_>, old: &str| {
            let target = target.of(old.into(), OsStr::new("t"), OsStr::new("1f"));
            target.to_str().unwrap().to_owned()
        };
        let new = Target::Workspace(Path::new("/new"));
        for old in ["/old/ws/jobs/t/1f", "../../../../../jobs/t/1f"] {
            assert_eq!(of(Target::StagingContext, old), "../../../../../jobs/t/1f");
            assert_eq!(of(new, old), "/new/jobs/t/1f");
        }
        assert_eq!(of(new, "/data/1f"), "/data/1f");
    }
}
