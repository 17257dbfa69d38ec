//! Whether a job is finished and settled, so that it may be archived.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::opt_out::{Eligibility, OptOut, OptOuts};
use super::select;
use super::transient::Transients;
use crate::archive::env::{Env, Writing};
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result};
use crate::archive::{places, state_dir};
use crate::sys::at;
use crate::transfer::{self, Candidate, Size, Time};
use crate::workspace::job_files::{JobState, JobStatus};
pub(in crate::archive) use crate::workspace::job_locks::{hold_locks, is_locked};
use crate::workspace::jobs::JobId;
use crate::workspace::markers::{self, State};

/// Whether a job may be archived now, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may be archived now.
    Ready {
        /// How many bytes its files take on their disk, without holes.
        taken: u64,
        /// The amount to copy.
        size: Size,
    },
    /// It changed a moment ago: look again after this time.
    Settling(Duration),
    /// A process uses it; the text says how that shows.
    Busy(&'static str),
    /// It has no marker: it never ran, is running, or was interrupted.
    Unfinished,
    /// The primary has only what a purge has left of it, and a folder has all of it. [`Judge::readiness`] returns [`Readiness::Unfinished`]
    /// for it, since a folder may hang.
    Purged,
    /// It has failed.
    Failed,
    /// The primary has a symlink in its place: it was moved. A command that waits also returns it for a job that the primary does not have,
    /// and a folder has.
    Elsewhere,
    /// The primary has a symlink in its place, and no folder has the job. [`Judge::readiness`] does not return this, since a folder may
    /// hang: only a command that waits checks it.
    Lost,
    /// The primary does not have the job.
    Absent,
    /// It is excluded from archiving.
    OptedOut(OptOut),
    /// Whether it is opted out is unknown: this file of a run that names it cannot be read.
    Unknown(PathBuf),
}

/// The reason for a job whose lock is held.
pub(in crate::archive) const LOCKED: &str = "its lock is held: it is running, or a plan checks it";
/// The reason for a transient job of a plan that is running, or has just ended.
const TRANSIENT: &str = "it is transient: its plan may remove it when that ends";
/// The reason for a job that is being written.
pub(in crate::archive) const WRITTEN: &str = "a file of it is open for writing";

/// How long a job must be unchanged if its `status.json` does not say `done` yet. experimaestro writes that after the marker, on a busy
/// machine long after, and never if it was killed in between.
const FINAL_STATUS_WAIT: Duration = Duration::from_secs(20);

/// How soon to look again at a job of a run whose job list is being written.
const SUBMISSION_POLL: Duration = Duration::from_secs(1);

/// Decides whether jobs may be archived, and caches what that takes.
#[derive(Debug, Default)]
pub struct Judge {
    /// Which jobs are opted out.
    pub out: OptOuts,
    transients: Transients,
    /// Jobs whose last change is in the future by the clock: the time of the change, and when it was first seen.
    ahead: Mutex<HashMap<JobId, (Time, Instant)>>,
}

impl Judge {
    /// A judge that excludes these jobs.
    #[must_use]
    pub fn new(out: OptOuts) -> Judge {
        Judge {
            out,
            transients: Transients::default(),
            ahead: Mutex::default(),
        }
    }

    /// Returns whether a job of the primary may be archived.
    ///
    /// # Errors
    ///
    /// Fails if the job cannot be read.
    pub fn readiness(&self, env: &Env<'_>, job: &JobId) -> Result<Readiness> {
        let primary = env.view.primary();
        let path = primary.path().join("jobs").join(job.path());
        let Some(task) = places::task(primary, job).tried(job, "open", &path)? else {
            return Ok(Readiness::Absent);
        };
        let stat = at::absent(at::stat(&*task, job.hash()));
        match stat.tried(job, "look at", &path)? {
            None => return Ok(Readiness::Absent),
            Some(stat) if at::is_symlink(&stat) => return Ok(Readiness::Elsewhere),
            Some(stat) if !at::is_dir(&stat) => return Ok(Readiness::Absent),
            Some(_) => {}
        }
        let opened = places::open(&*task, job.hash());
        let Some(directory) = opened.tried(job, "open", &path)? else {
            return Ok(Readiness::Absent);
        };
        match markers::read(&directory, job.name())
            .tried(job, "look into", &path)?
            .state()
        {
            State::Done => {}
            State::Failed => return Ok(Readiness::Failed),
            State::Unfinished => return Ok(Readiness::Unfinished),
        }
        let out = self.out.of(env.view, job, &directory);
        match state_dir::checked(primary, job, "find whether it is opted out, in", out)? {
            Eligibility::In => {}
            Eligibility::Out(out) => return Ok(Readiness::OptedOut(out)),
            Eligibility::Pending => return Ok(Readiness::Settling(SUBMISSION_POLL)),
            Eligibility::Unknown(file) => return Ok(Readiness::Unknown(file)),
        }
        if self.transients.may_be_removed(env.view, job) {
            return Ok(Readiness::Busy(TRANSIENT));
        }
        // A mount that does not reply does not delay a copy: the copy is compared with the job afterwards, and a job that is written later
        // is copied again, like a job that another machine writes. A move removes the original, so it waits: see `expect_unwritten`.
        if env.hooks.writing(job) == Writing::Yes {
            return Ok(Readiness::Busy(WRITTEN));
        }
        if is_locked(&directory, job).tried(job, "look at the lock of", &path)? {
            return Ok(Readiness::Busy(LOCKED));
        }
        self.settled(env, job, &directory, &path)
    }

    /// Whether a finished job, in an open directory of any location, has not changed for the settle time: returns [`Readiness::Ready`] or
    /// [`Readiness::Settling`]. `path` is for messages.
    ///
    /// # Errors
    ///
    /// Fails if the job cannot be read.
    pub(super) fn settled(
        &self,
        env: &Env<'_>,
        job: &JobId,
        directory: &OwnedFd,
        path: &Path,
    ) -> Result<Readiness> {
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        let options = transfer::Options {
            select: Some(&select),
            threads: 1,
            ..transfer::Options::default()
        };
        let measured = match transfer::measure(directory, &options) {
            Err(transfer::Error::Changed { .. }) => return Ok(Readiness::Settling(env.settle)),
            measured => measured.copying(job, path)?,
        };
        // After this time without a change, the status does not matter.
        let long = env.settle.max(FINAL_STATUS_WAIT);
        let unsettled = self.unsettled(job, measured.newest, long).and_then(|rest| {
            match has_final_status(directory, path) {
                true => self.unsettled(job, measured.newest, env.settle),
                false => Some(rest),
            }
        });
        Ok(match unsettled {
            None => Readiness::Ready {
                taken: measured.taken,
                size: measured.size,
            },
            Some(rest) => Readiness::Settling(rest),
        })
    }

    /// How long a job with this last change must still be unchanged; `None` if it has settled.
    fn unsettled(&self, job: &JobId, newest: Time, settle: Duration) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let newest_at = u64::try_from(newest.seconds).map_or(Duration::ZERO, |seconds| {
            Duration::new(seconds, newest.nanoseconds)
        });
        if let Some(age) = now.checked_sub(newest_at) {
            self.ahead.lock().remove(job);
            return settle.checked_sub(age).filter(|rest| !rest.is_zero());
        }
        // The clock jumped back, or another machine's is ahead: count the time since the change was first seen.
        let mut ahead = self.ahead.lock();
        let (seen, since) = ahead.entry(job.clone()).or_insert((newest, Instant::now()));
        if *seen != newest {
            (*seen, *since) = (newest, Instant::now());
        }
        settle
            .checked_sub(since.elapsed())
            .filter(|rest| !rest.is_zero())
    }
}

/// Explains [`Readiness::Unknown`], with the remedy.
#[must_use]
pub fn unknown(file: &Path) -> String {
    format!(
        "a run that names it cannot be read, and may opt it out: {}; mend or remove that run, or decide with `xpmfs jobs opt-in` or \
         `opt-out`",
        file.display()
    )
}

/// Whether a finished job's `status.json` says `done`, or is missing. A file that cannot be read may be half written.
fn has_final_status(job: &OwnedFd, shown: &Path) -> bool {
    match JobStatus::read_at(job, Path::new("."), shown) {
        Ok(Some(status)) => matches!(status.state, None | Some(JobState::Done)),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Checks that no process has a file of the job open for writing, as a move requires.
pub(in crate::archive) fn expect_unwritten(env: &Env<'_>, job: &JobId) -> Result<()> {
    match env.hooks.writing(job) {
        Writing::No => Ok(()),
        Writing::Yes => Err(JobError::new(job, Cause::Busy(WRITTEN.into()))),
        Writing::Unknown(mount) => Err(JobError::new(job, Cause::Busy(no_reply(&mount).into()))),
    }
}

/// The reason for a job whose writers are unknown, since this mount does not reply.
pub(in crate::archive) fn no_reply(mount: &Path) -> String {
    format!(
        "the mount at {} does not answer, so whether a process writes to the job through it is unknown: continue its daemon, or \
         unmount it",
        mount.display()
    )
}
