//! Judges the directory of a job in the primary: by the result in memory, by the record, or by a comparison with the job's copies.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use super::compare::{self, Compared, How};
use super::judgements::PurgedFinding;
use super::record::{self, PurgedRecord, PurgedVerdict, Stamp};
use super::removed::{self, Removed};
use crate::sys::at;
use crate::view::{Location, PRIMARY, Root, View};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::folder_name;
use crate::workspace::{job_locks, markers};

/// How long a result is used before the times of the job's directories are checked again.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long the result "no folder has the job" stays valid.
pub(super) const NO_COPY_VALID: Duration = Duration::from_secs(10);

/// How long the result "the job differs from its copies" stays valid: the files in which it differs are not purged in that time.
const DIFFERENT_VALID: Duration = Duration::from_secs(60);

/// How long the result "a program uses the job" stays valid: a plan holds the lock of a finished job for a moment.
const USED_VALID: Duration = Duration::from_secs(1);

/// How long a result is used that could not be recorded.
pub(super) const UNRECORDED_VALID: Duration = Duration::from_secs(2);

/// How long folders may take to reply whether they have a job.
pub(super) const COMPARISON_TIMEOUT: Duration = Duration::from_secs(2);

/// The directory of a job in the primary, which is a living job or what a purge has left of one.
pub(super) struct PrimaryJob<'a> {
    pub(super) job: &'a JobId,
    pub(super) root: &'a Root,
    pub(super) dir: OwnedFd,
    pub(super) stat: Statx,
}

impl View {
    /// How a job compares with its copies: a valid judgement, or a new one. `task` is the directory of the task in the primary, and `stat`
    /// are the attributes of the job's. A job that cannot be compared counts as one without copies.
    pub(super) fn finding(
        &self,
        job: &JobId,
        task: impl AsFd,
        stat: &Statx,
        age_max: Duration,
    ) -> PurgedFinding {
        let top = Stamp::of(stat);
        if let Some(finding) = self.judgements.valid(job, top, age_max) {
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
        let ours = PrimaryJob {
            job,
            root: &root,
            dir,
            stat: *stat,
        };
        if let Some(record) = &record
            && let Some(finding) = self.recorded(&ours, record)?
        {
            self.judgements.insert(job, top, finding, CHECK_INTERVAL);
            return Ok(finding);
        }
        let copies = copies.unwrap_or_else(|| self.ask_for_copies(job));
        let removed = removed::read(&root, job)?;
        let judged = self.compare_with(&ours, &copies, &removed)?;
        Ok(self.keep(&ours, top, &judged, began))
    }

    /// The recorded result, if it still holds.
    fn recorded(
        &self,
        ours: &PrimaryJob<'_>,
        record: &PurgedRecord,
    ) -> Result<Option<PurgedFinding>> {
        if !record.holds(&ours.dir, &ours.stat) {
            return Ok(None);
        }
        match &record.verdict {
            PurgedVerdict::Living => Ok(Some(PurgedFinding::Whole)),
            PurgedVerdict::Purged { folder } => {
                let mut folders = self.folders().iter();
                let folder = folders.find(|it| folder_name(it.path()) == *folder);
                let Some(folder) = folder.filter(|folder| folder.root().is_ok()) else {
                    return Ok(None);
                };
                let used = self.judgements.is_in_use(ours.job)
                    || job_locks::is_locked(&ours.dir, ours.job)?;
                Ok((!used).then_some(PurgedFinding::Purged(folder.index())))
            }
        }
    }

    /// Compares a job with its copies.
    pub(super) fn compare_with(
        &self,
        ours: &PrimaryJob<'_>,
        copies: &Copies,
        removed: &Removed,
    ) -> Result<Judged> {
        let job = ours.job;
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
        let markers = markers::read(&ours.dir, job.name());
        let markers = markers.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if markers.failed || self.judgements.is_in_use(job) || job_locks::is_locked(&ours.dir, job)?
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
            } = match compare::compare(&ours.dir, copy, job, removed) {
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
    pub(super) fn keep(
        &self,
        ours: &PrimaryJob<'_>,
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
                    folder: folder_name(folder.path()),
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
                && record::write(ours.root, ours.job, &record)
                    .inspect_err(|error| {
                        tracing::debug!("cannot record how {} compares: {error}", ours.job);
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
        self.judgements.insert(ours.job, top, finding, valid);
        finding
    }

    /// The finished copies of a job, from the folders that reply in time.
    pub(super) fn ask_for_copies(&self, job: &JobId) -> Copies {
        let (folders, wanted) = (self.folders().to_vec(), job.clone());
        let question = move || finished_copies(&folders, &wanted);
        let answer = self.judgements.asker.ask(COMPARISON_TIMEOUT, question);
        answer.unwrap_or_default()
    }
}

/// How a job compares with all of its copies, and on what that depends.
pub(super) struct Judged {
    pub(super) finding: PurgedFinding,
    /// Whether the result holds as long as the recorded times do.
    is_certain: bool,
    /// Whether a program runs the job, checks it, or writes to it, which may end in a moment.
    is_used: bool,
    seen: Vec<(PathBuf, Stamp)>,
    pub(super) removed: Option<PathBuf>,
}

/// The finished copies of a job.
#[derive(Default)]
pub(super) struct Copies {
    /// The number of each folder that has one, and the copy's directory.
    pub(super) found: Vec<(u8, OwnedFd)>,
    /// Whether every folder could be asked.
    pub(super) all_answered: bool,
}

pub(super) fn finished_copies(folders: &[Arc<Location>], job: &JobId) -> Copies {
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
