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

mod compare;
pub(super) mod known;
pub(super) mod record;
mod removed;
mod reports;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use self::compare::{Compared, How};
use self::known::{InUse, PurgedFinding};
use self::record::{PurgedRecord, PurgedVerdict, Stamp};
use self::removed::Removed;
use super::{Location, PRIMARY, Root, View};
use crate::sys::at;
use crate::workspace::jobs::JobId;
use crate::workspace::{job_locks, markers};

/// How long a result is used before the times of the job's directories are checked again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How old a result may be when the job is about to be changed.
const CHECK_INTERVAL_OF_CHANGE: Duration = Duration::from_secs(1);

/// How long it is used that no folder has a job.
const NO_COPY_VALID: Duration = Duration::from_secs(10);

/// How long it is used that a job differs from its copies: the files in which it differs are not purged in that time.
const DIFFERENT_VALID: Duration = Duration::from_secs(60);

/// How long it is used that a program uses a job: a plan holds the lock of a finished job for a moment.
const USED_VALID: Duration = Duration::from_secs(1);

/// How long a result is used that could not be recorded.
const UNRECORDED_VALID: Duration = Duration::from_secs(2);

/// How long folders may take to reply whether they have a job.
const FOLDER_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

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

/// The directory of a job in the primary.
struct Skeleton<'a> {
    job: &'a JobId,
    root: &'a Root,
    dir: OwnedFd,
    stat: Statx,
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
        let known = self.judgements.known.lock();
        known
            .get(&job)
            .is_some_and(|known| known.finding.folder().is_some())
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
            Some(known)
                if matches!(
                    known.finding,
                    PurgedFinding::NoCopy | PurgedFinding::Different
                ) =>
            {
                return false;
            }
            Some(known) if known.is_valid(Stamp::of(stat), age_max) => {
                return known.finding.folder().is_some();
            }
            _ => {}
        }
        let (view, stat) = (self.clone(), *stat);
        let question = move || {
            let task = view.primary().root()?.task(job.task_id())?;
            Ok::<_, Errno>(view.finding(&job, &*task, &stat, age_max))
        };
        let answer = self.judgements.asker.ask(FOLDER_REPLY_TIMEOUT, question);
        matches!(answer, Ok(Ok(PurgedFinding::Purged(_))))
    }

    /// Whether the copy that serves a purged job has no such entry. A folder that does not reply in time is not waited for.
    pub fn copy_lacks(&self, job: &JobId, path: &Path) -> bool {
        let folder = self.judgements.latest(job);
        let folder = folder.and_then(|known| known.finding.folder());
        let mut folders = self.folders().iter();
        let serves = |it: &&Arc<Location>| Some(it.index()) == folder;
        let Some(folder) = folders.find(serves).cloned() else {
            return false;
        };
        let path = Path::new(job.hash()).join(path);
        let task = job.task_id().to_owned();
        let question = move || at::stat_below(&*folder.root()?.task(&task)?, &path);
        let answer = self.judgements.asker.ask(FOLDER_REPLY_TIMEOUT, question);
        matches!(answer, Ok(Err(Errno::NOENT)))
    }

    /// Sets what returns whether a program writes to a job through the mount: such a job is living. Only the first call counts.
    pub fn set_in_use(&self, in_use: impl Fn(&JobId) -> bool + Send + Sync + 'static) {
        // A view is mounted once.
        let _ = self.judgements.in_use.set(InUse(Box::new(in_use)));
    }

    /// The number of jobs that are known to be served by a folder because of a purge, for `status`.
    pub fn purged_count(&self) -> usize {
        let known = self.judgements.known.lock();
        let purged = known.values().filter(|it| it.finding.folder().is_some());
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
        let skeleton = Skeleton {
            job,
            root: &root,
            stat: at::stat_fd(&dir)?,
            dir,
        };
        let copies = finished_copies(self.folders(), job);
        let removed = removed::read(&root, job)?;
        let judged = self.compare_with(&skeleton, &copies, &removed)?;
        let top = Stamp::of(&skeleton.stat);
        let finding = self.keep(&skeleton, top, &judged, SystemTime::now());
        Ok(Some(match finding {
            PurgedFinding::Purged(folder) => Standing::Purged { folder },
            _ => Standing::Living {
                removed: judged.removed,
            },
        }))
    }

    /// The folder that has a job of which `dir`, an open directory in the primary under any name, is what a purge has left. `None` if the
    /// directory is a job. Asks only the folder with the number `folder`, if one is given. Neither uses nor keeps results of other
    /// comparisons.
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
        let root = self.primary().root()?;
        let skeleton = Skeleton {
            job,
            root: &root,
            stat: at::stat_fd(dir)?,
            dir: rustix::io::fcntl_dupfd_cloexec(dir, 0)?,
        };
        let folders = self.folders().iter();
        let asked = folders.filter(|it| folder.is_none_or(|folder| folder == it.index()));
        let copies = finished_copies(&asked.cloned().collect::<Vec<_>>(), job);
        let removed = removed::read(&root, job)?;
        let judged = self.compare_with(&skeleton, &copies, &removed)?;
        Ok(judged.finding.folder())
    }

    fn finding(
        &self,
        job: &JobId,
        task: impl AsFd,
        stat: &Statx,
        age_max: Duration,
    ) -> PurgedFinding {
        let top = Stamp::of(stat);
        if let Some(finding) = self.judgements.known(job, top, age_max) {
            return finding;
        }
        self.find(job, task, stat).unwrap_or_else(|error| {
            tracing::debug!("cannot compare {job} with its copies: {error}");
            let judgements = &self.judgements;
            judgements.insert(job, top, PurgedFinding::NoCopy, UNRECORDED_VALID);
            PurgedFinding::NoCopy
        })
    }

    fn find(&self, job: &JobId, task: impl AsFd, stat: &Statx) -> Result<PurgedFinding> {
        let began = SystemTime::now();
        let top = Stamp::of(stat);
        let root = self.primary().root()?;
        let record = record::read(&root, job);
        // Before the directory is opened: most jobs have neither a record nor a copy.
        let copies = match &record {
            Some(_) => None,
            None => Some(self.ask_for_copies(job)),
        };
        if copies
            .as_ref()
            .is_some_and(|copies| copies.found.is_empty())
        {
            self.judgements
                .insert(job, top, PurgedFinding::NoCopy, NO_COPY_VALID);
            return Ok(PurgedFinding::NoCopy);
        }
        let dir = at::open_dir(task, job.hash())?;
        let skeleton = Skeleton {
            job,
            root: &root,
            dir,
            stat: *stat,
        };
        if let Some(record) = &record
            && let Some(finding) = self.recorded(&skeleton, record)?
        {
            self.judgements.insert(job, top, finding, CHECK_INTERVAL);
            return Ok(finding);
        }
        let copies = copies.unwrap_or_else(|| self.ask_for_copies(job));
        let removed = removed::read(&root, job)?;
        let judged = self.compare_with(&skeleton, &copies, &removed)?;
        Ok(self.keep(&skeleton, top, &judged, began))
    }

    /// The recorded result, if it still holds.
    fn recorded(
        &self,
        skeleton: &Skeleton<'_>,
        record: &PurgedRecord,
    ) -> Result<Option<PurgedFinding>> {
        if !record.holds(&skeleton.dir, &skeleton.stat) {
            return Ok(None);
        }
        match &record.verdict {
            PurgedVerdict::Living => Ok(Some(PurgedFinding::Whole)),
            PurgedVerdict::Purged { folder } => {
                let mut folders = self.folders().iter();
                let folder = folders.find(|known| record::name_of(known) == *folder);
                let Some(folder) = folder.filter(|folder| folder.root().is_ok()) else {
                    return Ok(None);
                };
                let used = self.judgements.is_in_use(skeleton.job)
                    || job_locks::is_locked(&skeleton.dir, skeleton.job)?;
                Ok((!used).then_some(PurgedFinding::Purged(folder.index())))
            }
        }
    }

    /// Makes sure that a job's directory in the primary is not, by the record, what a purge has left of a job that a folder has which is
    /// away. `dir` is the directory of the task in the primary, and `stat` are the attributes of the job's.
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
        let Some(folder) = away.find(|it| record::name_of(it) == *folder) else {
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

    /// Compares a job with its copies.
    fn compare_with(
        &self,
        skeleton: &Skeleton<'_>,
        copies: &Copies,
        removed: &Removed,
    ) -> Result<Judged> {
        let job = skeleton.job;
        let mut judged = Judged {
            finding: match copies.found.is_empty() {
                true => PurgedFinding::NoCopy,
                false => PurgedFinding::Different,
            },
            is_certain: copies.all_answered,
            is_used: false,
            seen: Vec::new(),
            removed: None,
        };
        if copies.found.is_empty() {
            return Ok(judged);
        }
        let markers = markers::read(&skeleton.dir, job.name());
        let markers = markers.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if markers.failed
            || self.judgements.is_in_use(job)
            || job_locks::is_locked(&skeleton.dir, job)?
        {
            judged.is_certain = false;
            judged.is_used = !markers.failed;
            return Ok(judged);
        }
        for (folder, copy) in &copies.found {
            let Compared {
                how,
                seen,
                removed: on_purpose,
            } = match compare::compare(&skeleton.dir, copy, job, removed) {
                Ok(compared) => compared,
                Err(error) => {
                    tracing::debug!("cannot compare {job} with its copy {folder}: {error}");
                    judged.is_certain = false;
                    continue;
                }
            };
            match how {
                How::Whole => {
                    judged.finding = PurgedFinding::Whole;
                    judged.is_certain = true;
                    judged.seen = seen;
                    return Ok(judged);
                }
                How::Incomplete => {
                    judged.finding = PurgedFinding::Purged(*folder);
                    judged.is_certain = true;
                    judged.seen = seen;
                    return Ok(judged);
                }
                How::Removed => {
                    judged.removed = on_purpose;
                    judged.is_certain = false;
                    return Ok(judged);
                }
                How::Different => judged.seen.extend(seen),
            }
        }
        Ok(judged)
    }

    /// Keeps a result, and records it if it will hold as long as the recorded times do.
    fn keep(
        &self,
        skeleton: &Skeleton<'_>,
        top: Stamp,
        judged: &Judged,
        began: SystemTime,
    ) -> PurgedFinding {
        let finding = judged.finding;
        let verdict = match finding {
            PurgedFinding::NoCopy => None,
            PurgedFinding::Whole | PurgedFinding::Different => Some(PurgedVerdict::Living),
            PurgedFinding::Purged(folder) => {
                self.location(folder).map(|folder| PurgedVerdict::Purged {
                    folder: record::name_of(folder),
                })
            }
        };
        let record = verdict
            .filter(|_| judged.is_certain)
            .map(|verdict| PurgedRecord {
                verdict,
                seen: judged.seen.clone(),
            });
        let recorded = record.is_some_and(|record| {
            record.is_settled(began)
                && record::write(skeleton.root, skeleton.job, &record)
                    .inspect_err(|error| {
                        tracing::debug!("cannot record how {} compares: {error}", skeleton.job);
                    })
                    .is_ok()
        });
        let valid = match finding {
            PurgedFinding::NoCopy => NO_COPY_VALID,
            PurgedFinding::Different if judged.is_used => USED_VALID,
            PurgedFinding::Different => DIFFERENT_VALID,
            PurgedFinding::Whole | PurgedFinding::Purged(_) if recorded => CHECK_INTERVAL,
            PurgedFinding::Whole | PurgedFinding::Purged(_) => UNRECORDED_VALID,
        };
        self.judgements.insert(skeleton.job, top, finding, valid);
        finding
    }

    /// The finished copies of a job, from the folders that reply in time.
    fn ask_for_copies(&self, job: &JobId) -> Copies {
        let (folders, wanted) = (self.folders().to_vec(), job.clone());
        let question = move || finished_copies(&folders, &wanted);
        let answer = self.judgements.asker.ask(FOLDER_REPLY_TIMEOUT, question);
        answer.unwrap_or_default()
    }
}

/// The result of a comparison, and what it depends on.
struct Judged {
    finding: PurgedFinding,
    /// Whether the result holds as long as the recorded times do.
    is_certain: bool,
    /// Whether a program runs the job, checks it, or writes to it, which may end in a moment.
    is_used: bool,
    seen: Vec<(PathBuf, Stamp)>,
    removed: Option<PathBuf>,
}

/// The finished copies of a job.
#[derive(Default)]
struct Copies {
    /// The number of each folder that has one, and the copy's directory.
    found: Vec<(u8, OwnedFd)>,
    /// Whether every folder could be asked.
    all_answered: bool,
}

fn finished_copies(folders: &[Arc<Location>], job: &JobId) -> Copies {
    let mut copies = Copies {
        found: Vec::new(),
        all_answered: true,
    };
    for folder in folders {
        match finished_copy(folder, job) {
            Ok(Some(copy)) => copies.found.push((folder.index(), copy)),
            Ok(None) => {}
            Err(_) => copies.all_answered = false,
        }
    }
    copies
}

/// The directory of a job in a folder, if the job is finished there.
fn finished_copy(folder: &Location, job: &JobId) -> Result<Option<OwnedFd>> {
    debug_assert_ne!(folder.index(), PRIMARY);
    let root = folder.root()?;
    if folder.has_deleted(job.task_id(), job.hash()) {
        return Ok(None);
    }
    let Some(task) = at::absent(root.task(job.task_id()))? else {
        return Ok(None);
    };
    // A symlink is not followed: the folder that it leads to is asked as well.
    let Some(copy) = at::absent(at::open_dir(&*task, job.hash()))? else {
        return Ok(None);
    };
    let done = markers::is_done(&copy, job.name());
    let done = done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(done.then_some(copy))
}
