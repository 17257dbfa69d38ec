//! Distinguishes what a purge has left of a job from a living job.
//!
//! A scratch disk is purged file by file, by age. What is left of an archived job in the primary, its directories and perhaps
//! some files, must not hide the whole copy in a folder. It is hard because of these points:
//!
//! 1. A living job is the primary's, also if it lacks files of its copy. So every file that is left must be in the copy with the
//!    same size and time, and the job must not be running or have failed ([`compare`]). Files that a plan or a monitor rewrites do
//!    not count.
//! 2. A file may be missing because a user has removed it through the mount. Such removals are recorded before they happen, and
//!    the job stays the primary's ([`removed`]).
//! 3. A comparison reads both directory trees. Its result is recorded with the times of all directories of the job ([`record`]):
//!    as long as they are unchanged, no file was added or removed, and the result is still valid. That costs one `statx` per
//!    directory, and nothing while the result is in memory.
//! 4. The purge may run at any time, on another machine. So results in memory are checked again after [`CHECK_INTERVAL`] at most,
//!    and before the job is changed.
//! 5. A folder may hang. Whether folders have a copy is asked with a deadline; a folder that does not reply, or is offline, counts
//!    as one without the job, as in all lookups.
//!
//! - this file: answers what other modules ask
//! - [`judge`]: finds how a job compares with its copies: by a judgement in memory, by the record, or by a comparison
//! - [`compare`]: compares a job with one copy, by names, sizes and times
//! - [`judgements`]: keeps in memory what was found
//! - [`record`]: keeps it on disk, with the times on which it depends
//! - [`removed`]: records which files were removed through a mount
//! - [`without_copy`]: finds the jobs of a listing that no folder has, with one question to each folder
//! - [`reports`]: receives what happens to jobs: archived, a file removed, gone
//!
//! What is found about a job has a type for each place: [`compare::Compared`] about one copy; [`judge::Judged`] about all;
//! [`PurgedFinding`] in memory, in a [`Judgement`](judgements::Judgement) with its age; [`PurgedVerdict`] in a record, with a name of the
//! folder that other nodes know; [`Standing`] for other modules.

mod compare;
mod judge;
pub(super) mod judgements;
mod record;
mod removed;
mod reports;
mod without_copy;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use self::judge::{CHECK_INTERVAL, COMPARISON_TIMEOUT, Copies, PrimaryJob, finished_copies};
use self::judgements::{InUse, PurgedFinding};
use self::record::{PurgedVerdict, Stamp};
use super::{Location, View};
use crate::sys::at;
use crate::workspace::job_locks;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::folder_name;

/// How old a judgement may be when the job is about to be changed.
const CHECK_INTERVAL_OF_CHANGE: Duration = Duration::from_secs(1);

/// Whether the directory of a job in the primary is a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is: the primary serves it.
    Living {
        /// A file that was removed from it through a mount, and that a folder's copy has.
        removed: Option<PathBuf>,
    },
    /// It is what a purge has left.
    Purged {
        /// The number of the folder that serves the job.
        folder: u8,
    },
}

impl View {
    /// The folder that serves a job in place of its directory in the primary, if that is what a purge has left. `dir` is the
    /// directory of the task in the primary, and `stat` are the attributes of the job's.
    pub(super) fn purged_to(
        &self,
        dir: impl AsFd,
        task: &OsStr,
        hash: &OsStr,
        stat: &Statx,
    ) -> Option<u8> {
        if self.folders().is_empty() {
            return None;
        }
        let job = JobId::new(task, hash).ok()?;
        self.finding(&job, dir, stat, CHECK_INTERVAL).folder()
    }

    /// Whether any job was found to be purged since the view was opened.
    pub fn has_purged_jobs(&self) -> bool {
        self.judgements.have_purges()
    }

    /// Whether a folder serves a job in place of its directory in the primary, by results in memory. Asks no file system.
    pub fn is_known_purged(&self, task: &OsStr, hash: &OsStr) -> bool {
        let Ok(job) = JobId::new(task, hash) else {
            return false;
        };
        let latest = self.judgements.latest(&job);
        latest.is_some_and(|it| it.finding.folder().is_some())
    }

    /// Whether a folder serves a job in place of its directory in the primary, whose attributes are `stat`. Called before the job is
    /// changed: a result in memory counts only if it is recent. A folder that does not reply in time is not waited for.
    pub fn is_purged_by_now(self: &Arc<View>, task: &OsStr, hash: &OsStr, stat: &Statx) -> bool {
        if self.folders().is_empty() {
            return false;
        }
        let Ok(job) = JobId::new(task, hash) else {
            return false;
        };
        let age_max = CHECK_INTERVAL_OF_CHANGE;
        match self.judgements.latest(&job) {
            Some(latest)
                if matches!(
                    latest.finding,
                    PurgedFinding::NoCopy | PurgedFinding::Different
                ) =>
            {
                return false;
            }
            Some(latest) if latest.is_valid(Stamp::of(stat), age_max) => {
                return latest.finding.folder().is_some();
            }
            _ => {}
        }
        let (view, stat) = (self.clone(), *stat);
        let question = move || {
            let task = view.primary().root()?.task(job.task_id())?;
            Ok::<_, Errno>(view.finding(&job, &*task, &stat, age_max))
        };
        let answer = self.judgements.asker.ask(COMPARISON_TIMEOUT, question);
        matches!(answer, Ok(Ok(PurgedFinding::Purged(_))))
    }

    /// Whether the copy that serves a purged job has no such entry. A folder that does not reply in time is not waited for.
    pub fn copy_lacks(&self, job: &JobId, path: &Path) -> bool {
        let latest = self.judgements.latest(job);
        let folder = latest.and_then(|it| it.finding.folder());
        let mut folders = self.folders().iter();
        let serves = |it: &&Arc<Location>| Some(it.index()) == folder;
        let Some(folder) = folders.find(serves).cloned() else {
            return false;
        };
        let path = Path::new(job.hash()).join(path);
        let task = job.task_id().to_owned();
        let question = move || at::stat_below(&*folder.root()?.task(&task)?, &path);
        let answer = self.judgements.asker.ask(COMPARISON_TIMEOUT, question);
        matches!(answer, Ok(Err(Errno::NOENT)))
    }

    /// Sets what returns whether a program writes to a job through the mount: such a job is living. Only the first call counts.
    pub fn set_in_use(&self, in_use: impl Fn(&JobId) -> bool + Send + Sync + 'static) {
        // A view is mounted once.
        let _ = self.judgements.in_use.set(InUse(Box::new(in_use)));
    }

    /// The number of jobs that are known to be served by a folder because of a purge, for `status`.
    pub fn purged_count(&self) -> usize {
        let by_job = self.judgements.by_job.lock();
        let purged = by_job.values().filter(|it| it.finding.folder().is_some());
        purged.count()
    }

    /// Compares the directory of a job in the primary with its copies, whatever earlier comparisons found. `None` if the primary has no
    /// such directory.
    ///
    /// # Errors
    ///
    /// The job or a copy of it cannot be read.
    pub fn standing(&self, job: &JobId) -> Result<Option<Standing>> {
        let root = self.primary().root()?;
        let Some(task) = at::absent(root.task(job.task_id()))? else {
            return Ok(None);
        };
        let Some(dir) = at::absent(at::open_dir(&*task, job.hash()))? else {
            return Ok(None);
        };
        let ours = PrimaryJob {
            job,
            root: &root,
            stat: at::stat_fd(&dir)?,
            dir,
        };
        let copies = finished_copies(self.folders(), job);
        let removed = removed::read(&root, job)?;
        let judged = self.compare_with(&ours, &copies, &removed)?;
        let top = Stamp::of(&ours.stat);
        let finding = self.keep(&ours, top, &judged, SystemTime::now());
        Ok(Some(match finding {
            PurgedFinding::Purged(folder) => Standing::Purged { folder },
            _ => Standing::Living {
                removed: judged.removed,
            },
        }))
    }

    /// Whether `dir`, an open directory in the primary under any name, is the rest that a purge has left of a job: returns the folder that
    /// has the job. `None` if the directory is a job by itself. Asks only the folder with the number `folder`, if one is given. Neither
    /// uses nor keeps results of other comparisons.
    ///
    /// # Errors
    ///
    /// As [`View::standing`].
    pub fn purged_from(
        &self,
        job: &JobId,
        dir: &OwnedFd,
        folder: Option<u8>,
    ) -> Result<Option<u8>> {
        let folders = self.folders().iter();
        let asked = folders.filter(|it| folder.is_none_or(|folder| folder == it.index()));
        let copies = finished_copies(&asked.cloned().collect::<Vec<_>>(), job);
        self.compare_apart(job, dir, &copies)
    }

    /// As [`View::purged_from`]; folders that do not reply in time count as without the job.
    ///
    /// # Errors
    ///
    /// As [`View::standing`].
    pub fn purged_from_any(&self, job: &JobId, dir: &OwnedFd) -> Result<Option<u8>> {
        match self.folders().is_empty() {
            true => Ok(None),
            false => self.compare_apart(job, dir, &self.ask_for_copies(job)),
        }
    }

    fn compare_apart(&self, job: &JobId, dir: &OwnedFd, copies: &Copies) -> Result<Option<u8>> {
        let root = self.primary().root()?;
        let ours = PrimaryJob {
            job,
            root: &root,
            stat: at::stat_fd(dir)?,
            dir: rustix::io::fcntl_dupfd_cloexec(dir, 0)?,
        };
        let removed = removed::read(&root, job)?;
        let judged = self.compare_with(&ours, copies, &removed)?;
        Ok(judged.finding.folder())
    }

    /// Makes sure that a job's directory in the primary is not the rest that a purge has left. Goes by the record, since the folder that
    /// has the job is away. `dir` is the directory of the task in the primary, and `stat` are the attributes of the job's.
    ///
    /// # Errors
    ///
    /// `EIO` if it is.
    pub fn expect_no_purge(
        &self,
        dir: impl AsFd,
        task: &OsStr,
        hash: &OsStr,
        stat: &Statx,
    ) -> Result<()> {
        let mut away = self.folders().iter().filter(|it| it.is_away()).peekable();
        let (Some(_), Ok(job)) = (away.peek(), JobId::new(task, hash)) else {
            return Ok(());
        };
        let Some(record) = record::read(&*self.primary().root()?, &job) else {
            return Ok(());
        };
        let PurgedVerdict::Purged { folder } = &record.verdict else {
            return Ok(());
        };
        let Some(folder) = away.find(|it| folder_name(it.path()) == *folder) else {
            return Ok(());
        };
        let dir = at::open_dir(dir, hash)?;
        let used = self.judgements.is_in_use(&job) || job_locks::is_locked(&dir, &job)?;
        if used || !record.holds(&dir, stat) {
            return Ok(());
        }
        folder.report_missed(&std::path::Path::new(task).join(hash));
        Err(Errno::IO)
    }
}
