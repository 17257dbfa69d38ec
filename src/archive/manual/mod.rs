//! Archives and recovers the jobs that a caller names, and waits for the result.
//!
//! - [`archive()`]: stores jobs in each folder; `look`: which of them are ready
//! - `recover`: [`recover_all`] brings jobs back for a command; [`recover_for_change`], [`recover_for_readers`]: for programs that use a mount

mod archive;
mod look;
mod recover;

use std::time::Duration;

pub use self::archive::archive;
pub use self::recover::{recover_all, recover_for_change, recover_for_readers};
use crate::archive::env::Env;
use crate::archive::error::{JobError, Result};
use crate::archive::job;
use crate::archive::job::ready::Readiness;
pub use crate::archive::job::renew::unreadable_manifests;
use crate::archive::job::store::Stored;
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::unfinished;
use crate::view::Unlisted;
use crate::workspace::jobs::JobId;

/// How long to wait for a job that another process uses, or that changes.
const BUSY_JOB_WAIT: Duration = Duration::from_secs(30);

/// How often such a job is looked at.
const BUSY_JOB_POLL: Duration = Duration::from_millis(100);

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
