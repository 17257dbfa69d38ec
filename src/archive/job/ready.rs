//! Whether a job is finished and settled, so that it may be archived.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::opt_out::{Eligibility, OptOut, OptOuts};
use super::select;
use super::transient::Transients;
use crate::archive::env::{Env, Writing};
use crate::archive::error::{Cause, Context, InPlace, JobError, Result};
use crate::archive::{places, state_dir};
use crate::sys::at;
use crate::transfer::{self, Candidate, Size, Time};
use crate::workspace::job_files::{JobState, JobStatus};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOB_STATE;
use crate::workspace::markers::{self, State};

/// How a job stands to being archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may be archived now.
    Ready {
        /// How many bytes its files take on their disk, without holes.
        taken: u64,
        /// How much there is to copy.
        size: Size,
    },
    /// It has changed a moment ago: to be looked at again after so long.
    Settling(Duration),
    /// Somebody is at it; says how that is seen.
    Busy(&'static str),
    /// It has no marker: it never ran, runs, or was cut short.
    Unfinished,
    /// It has failed.
    Failed,
    /// The primary has a symlink in its place: it has been moved.
    Elsewhere,
    /// The primary has a symlink in its place, and no folder has the job. Only who waits for an answer looks for that: a folder may hang.
    Lost,
    /// The primary does not have it.
    Absent,
    /// It is not to be archived.
    OptedOut(OptOut),
    /// Whether it is opted out is not known: this file, of a run that names it, cannot be read.
    Unknown(PathBuf),
}

/// Said of a job whose lock is held.
pub(in crate::archive) const LOCKED: &str =
    "its lock is held: it is being run, or looked at by a plan";
/// Said of a transient job of a plan that runs, or has just ended.
const TRANSIENT: &str = "it is transient: its plan may remove it when that ends";
/// Said of a job that is being written.
pub(in crate::archive) const WRITTEN: &str = "a file of it is open for writing";

/// For how long a job must have been left alone whose `status.json` does not say yet that it is done. experimaestro writes that after
/// the marker, and on a busy machine long after; if it was killed before, it never does.
const FINAL_STATUS_WAIT: Duration = Duration::from_secs(20);

/// When to look again at a job of a run that is being written.
const SUBMISSION_POLL: Duration = Duration::from_secs(1);

/// Tells how jobs stand, and remembers what it needs for that.
#[derive(Debug, Default)]
pub struct Judge {
    /// Which jobs are opted out.
    pub out: OptOuts,
    transients: Transients,
    /// Jobs whose last change is in the future, by the clock: what it was, and since when it has been that.
    ahead: Mutex<HashMap<JobId, (Time, Instant)>>,
}

impl Judge {
    /// With these opted out.
    #[must_use]
    pub fn new(out: OptOuts) -> Judge {
        Judge {
            out,
            transients: Transients::default(),
            ahead: Mutex::default(),
        }
    }

    /// How a job of the primary stands.
    ///
    /// # Errors
    ///
    /// What looking at it gave.
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
        // A mount that does not answer is no reason to wait here: a copy is compared with the job after it was made, and a job that is
        // written later is copied again, as one that another machine writes. A move gives the job up, and so it waits: see `expect_unwritten`.
        if env.hooks.writing(job) == Writing::Yes {
            return Ok(Readiness::Busy(WRITTEN));
        }
        if is_locked(&directory, job).tried(job, "look at the lock of", &path)? {
            return Ok(Readiness::Busy(LOCKED));
        }
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        let options = transfer::Options {
            select: Some(&select),
            threads: 1,
            ..transfer::Options::default()
        };
        let survey = match transfer::survey(&directory, &options) {
            Err(transfer::Error::Changed { .. }) => return Ok(Readiness::Settling(env.settle)),
            survey => survey.copying(job, &path)?,
        };
        // Of what has been left alone for that long, it does not matter what its status says.
        let long = env.settle.max(FINAL_STATUS_WAIT);
        let unsettled = self.unsettled(job, survey.newest, long).and_then(|rest| {
            match has_final_status(&directory, &path) {
                true => self.unsettled(job, survey.newest, env.settle),
                false => Some(rest),
            }
        });
        Ok(match unsettled {
            None => Readiness::Ready {
                taken: survey.taken,
                size: survey.size,
            },
            Some(rest) => Readiness::Settling(rest),
        })
    }

    /// For how long a job whose last change was at this time is still to be left alone; `None` if it has been, for long enough.
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
        // The clock has jumped back, or another machine's is ahead: what counts is for how long the job has
        // been seen like this.
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

/// Why it is not known whether a job is opted out, and what to do.
#[must_use]
pub fn unknown(file: &Path) -> String {
    format!(
        "a run that names it cannot be read, and may opt it out: {}; mend or remove that run, or decide with `xpmfs jobs opt-in` or \
         `opt-out`",
        file.display()
    )
}

/// Whether a finished job's `status.json` says that it is done, or there is none. One that cannot be read may be half written.
fn has_final_status(job: &OwnedFd, shown: &Path) -> bool {
    match JobStatus::read_at(job, Path::new("."), shown) {
        Ok(Some(status)) => matches!(status.state, None | Some(JobState::Done)),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Makes sure that no process has a file of the job open for writing, as is required before the job is moved.
pub(in crate::archive) fn expect_unwritten(env: &Env<'_>, job: &JobId) -> Result<()> {
    match env.hooks.writing(job) {
        Writing::No => Ok(()),
        Writing::Yes => Err(JobError::new(job, Cause::Busy(WRITTEN.into()))),
        Writing::Unknown(mount) => Err(JobError::new(job, Cause::Busy(no_reply(&mount).into()))),
    }
}

/// Why a job waits whose writers are unknown.
pub(in crate::archive) fn no_reply(mount: &Path) -> String {
    format!(
        "the mount at {} does not answer, so whether a process writes to the job through it is unknown: continue its daemon, or \
         unmount it",
        mount.display()
    )
}

/// Whether somebody holds a job's lock: `<name>.lock`, or `.experimaestro/<name>.lock` in older layouts.
pub(in crate::archive) fn is_locked(job: impl AsFd, id: &JobId) -> rustix::io::Result<bool> {
    Ok(hold_locks(job, id)?.is_none())
}

/// Takes a job's locks, shared with others that only look, for as long as the descriptors are kept; `None` if somebody
/// holds one. A lock that does not exist, or that we may not open, is not taken.
pub(in crate::archive) fn hold_locks(
    job: impl AsFd,
    id: &JobId,
) -> rustix::io::Result<Option<Vec<OwnedFd>>> {
    let mut name = id.name().to_owned();
    name.push(".lock");
    let mut held = Vec::new();
    let state = at::absent(at::open_dir(&job, OsStr::new(JOB_STATE)))?;
    let directories = [Some(job.as_fd()), state.as_ref().map(AsFd::as_fd)];
    for directory in directories.into_iter().flatten() {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = match rustix::fs::openat(directory, &name, flags, Mode::empty()) {
            Ok(lock) => lock,
            Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => continue,
            Err(error) => return Err(error),
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => held.push(lock),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // A file system without locks: nobody can hold one.
            Err(Errno::NOSYS | Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(held))
}
