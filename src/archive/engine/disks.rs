//! What the engine asks of the disks: an interface, so that tests can replace it, and its implementation by the rest of `archive`.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::release::{self, ReleaseState};
use crate::archive::env::{Env, Hooks};
use crate::archive::error::{Cause, JobError, Scope};
use crate::archive::experiments::pass::{self, FolderPasses};
use crate::archive::job;
use crate::archive::job::ready::{Judge, Readiness, unknown};
use crate::archive::job::renew;
use crate::archive::job::store::{Due, Stored};
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::{self, unfinished};
use crate::settings::Release;
use crate::transfer::{Bandwidth, Progress, Size};
use crate::view::View;
use crate::workspace::JobId;

/// The operations on jobs and folders. They wait for disks, unless noted otherwise.
pub(super) trait Disks: Send + Sync + 'static {
    /// Whether a folder's directory is there, by the cached state: this waits for no disk.
    fn is_there(&self, folder: u8) -> bool;
    /// Whether a job may be archived now.
    fn look(&self, job: &JobId, progress: &Progress) -> Result<Look, Failure>;
    /// Copies jobs to a folder; returns one outcome per job, in order.
    fn store(&self, folder: u8, jobs: &[Due], progress: &Progress) -> Vec<StoreResult>;
    /// Copies to the `backup` folder `folder` those of these jobs that it must get from the `move` folder `source`, since the primary does
    /// not have them. Calls `due` for each of them before any is copied; returns one outcome per job, in order.
    fn back_up_moved(
        &self,
        source: u8,
        folder: u8,
        jobs: &[JobId],
        progress: &Progress,
        due: &mut dyn FnMut(&JobId),
    ) -> Vec<StoreResult>;
    /// Archives in a folder the runs of experiments and partials that it lacks ([`FolderPasses::pass`]).
    fn experiments(
        &self,
        passes: &mut FolderPasses,
        progress: &Progress,
        report: &mut dyn pass::PassObserver,
    ) -> Result<(), Failure>;
    /// Removes from a task's directory in the primary the leftovers of processes that died.
    fn clear(&self, task: &OsStr);
    /// Cleans up the leftovers of dead processes in a folder; returns the jobs whose copies are damaged and must be
    /// replaced.
    fn clear_folder(&self, folder: u8, progress: &Progress) -> Vec<JobId>;
    /// Removes the old directories of moved jobs that are due, and returns when the next is due; with `last`, waits for
    /// all.
    fn tidy(&self, last: bool) -> Option<Instant>;
    /// Whether no such directory is left, and no job that was put back is still to be reported.
    fn is_tidy(&self) -> bool;
    /// Releases jobs by the rule of the settings, until `end` disconnects.
    fn release(&self, state: &ReleaseState, end: &Receiver<()>);
    /// Reports each job that was put back since the last call: the data that was written to its old directory is not
    /// archived yet.
    fn report_put_back(&self, report: &mut dyn FnMut(JobId));
}

/// The result of storing one job in one folder.
pub(super) type StoreResult = Result<Done, Failure>;

/// The result of a look at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It may be archived; the amount to copy.
    Ready(Size),
    /// It changed a moment ago: look again after this time.
    Settling(Duration),
    /// It is finished, but still in use; the text states how.
    Busy(String),
    /// Nothing to do until the job changes: it is unfinished, failed, missing, moved, or not to be archived.
    Nothing,
}

/// How a job was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It has been copied.
    Stored {
        /// The number of its files.
        files: u64,
        /// The bytes of these files.
        bytes: u64,
    },
    /// The folder already has the same copy.
    Already,
    /// It must not be archived now, after all.
    Skipped,
}

/// Why a job could not be looked at or archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Which jobs it affects.
    pub(super) scope: Scope,
    /// Why, for a person.
    pub(super) why: String,
}

/// The implementation on the disks, by the rest of `archive`.
pub(super) struct RealDisks {
    pub(super) view: Arc<View>,
    pub(super) hooks: Arc<dyn Hooks>,
    pub(super) judge: Arc<Judge>,
    pub(super) bandwidth: Bandwidth,
    pub(super) retired: Retired,
    pub(super) settle: Duration,
    pub(super) threads: usize,
    pub(super) release: Release,
    /// How many jobs were archived since the start.
    pub(super) archived: AtomicU64,
}

impl RealDisks {
    fn env<'a>(&'a self, progress: &'a Progress) -> Env<'a> {
        Env {
            view: &self.view,
            hooks: &*self.hooks,
            progress,
            bandwidth: Some(&self.bandwidth),
            out: Some(&self.judge.out),
            settle: self.settle,
            threads: self.threads,
            force: false,
        }
    }
}

impl RealDisks {
    /// Logs and counts the outcomes of jobs in a folder.
    fn log<'a>(&self, folder: u8, jobs: impl Iterator<Item = &'a JobId>, outcomes: &[StoreResult]) {
        let location = self.view.location(folder);
        let folder = location.map_or_else(Default::default, |location| {
            location.path().display().to_string()
        });
        for (job, outcome) in jobs.zip(outcomes) {
            match outcome {
                Ok(Done::Stored { files, bytes }) => {
                    self.archived.fetch_add(1, Ordering::Relaxed);
                    tracing::info!("archived {job} in {folder}: {files} files, {bytes} bytes");
                }
                Ok(Done::Already | Done::Skipped) => {}
                Err(failure) => tracing::debug!("{job} is not in {folder} yet: {}", failure.why),
            }
        }
    }
}

impl Disks for RealDisks {
    fn is_there(&self, folder: u8) -> bool {
        let location = self.view.location(folder);
        location.is_some_and(|location| location.root().is_ok())
    }

    fn look(&self, job: &JobId, progress: &Progress) -> Result<Look, Failure> {
        let readiness = self.judge.readiness(&self.env(progress), job)?;
        Ok(match readiness {
            Readiness::Ready { size, .. } => Look::Ready(size),
            Readiness::Settling(wait) => Look::Settling(wait),
            Readiness::Busy(why) => Look::Busy(why.to_owned()),
            Readiness::Unknown(file) => {
                let scope = Scope::Job;
                let why = unknown(&file);
                return Err(Failure { scope, why });
            }
            Readiness::Unfinished
            | Readiness::Purged
            | Readiness::Failed
            | Readiness::Elsewhere
            | Readiness::Lost
            | Readiness::Absent
            | Readiness::OptedOut(_) => Look::Nothing,
        })
    }

    fn store(&self, folder: u8, jobs: &[Due], progress: &Progress) -> Vec<StoreResult> {
        let stored = relocate::store_and_move(&self.env(progress), &self.retired, folder, jobs);
        let outcomes = stored.into_iter().map(|stored| Ok(Done::from(stored?)));
        let outcomes: Vec<StoreResult> = outcomes.collect();
        self.log(folder, jobs.iter().map(|due| &due.job), &outcomes);
        outcomes
    }

    fn back_up_moved(
        &self,
        source: u8,
        folder: u8,
        jobs: &[JobId],
        progress: &Progress,
        due: &mut dyn FnMut(&JobId),
    ) -> Vec<StoreResult> {
        let locations = (self.view.location(source), self.view.location(folder));
        let (Some(source), Some(to)) = locations else {
            return jobs.iter().map(|_| Ok(Done::Skipped)).collect();
        };
        let stored = renew::back_up(&self.env(progress), &self.judge, (source, to), jobs, due);
        let outcomes = stored.into_iter().map(|stored| match stored? {
            Some(stored) => Ok(Done::from(stored)),
            None => Ok(Done::Skipped),
        });
        let outcomes: Vec<StoreResult> = outcomes.collect();
        self.log(folder, jobs.iter(), &outcomes);
        outcomes
    }

    fn experiments(
        &self,
        passes: &mut FolderPasses,
        progress: &Progress,
        report: &mut dyn pass::PassObserver,
    ) -> Result<(), Failure> {
        Ok(passes.pass(&self.env(progress), report)?)
    }

    fn clear(&self, task: &OsStr) {
        if let Err(error) = unfinished::clear(&self.env(&Progress::new()), &self.retired, task) {
            let cause = std::io::Error::from(error);
            tracing::warn!("cannot clean up {}: {cause}", task.display());
        }
    }

    fn clear_folder(&self, folder: u8, progress: &Progress) -> Vec<JobId> {
        job::release::clear(&self.env(progress));
        let location = self.view.location(folder);
        location.map_or_else(Vec::new, |location| {
            job::crash_recovery::clear(&self.env(progress), location)
        })
    }

    fn tidy(&self, last: bool) -> Option<Instant> {
        self.retired.clear(&self.env(&Progress::new()), last);
        self.retired.due()
    }

    fn is_tidy(&self) -> bool {
        self.retired.is_empty()
    }

    fn release(&self, state: &ReleaseState, end: &Receiver<()>) {
        let env = Env {
            threads: 1,
            ..self.env(&state.progress)
        };
        release::run(&env, self.release, &self.archived, state, end);
    }

    fn report_put_back(&self, report: &mut dyn FnMut(JobId)) {
        self.retired.report_put_back(report);
    }
}

impl From<Stored> for Done {
    fn from(stored: Stored) -> Done {
        match stored {
            Stored::Copied { files, bytes } | Stored::Replaced { files, bytes } => {
                Done::Stored { files, bytes }
            }
            Stored::Already => Done::Already,
            Stored::Skipped(_) => Done::Skipped,
        }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Failure {
        Failure {
            scope: cause.scope(),
            why: match cause.advice() {
                Some(advice) => format!("{cause}: {advice}"),
                None => cause.to_string(),
            },
        }
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Failure {
        Failure {
            scope: error.scope(),
            // The report names the job beside the reason.
            why: match error.advice_of_daemon() {
                Some(advice) => format!("{}: {advice}", error.cause),
                None => error.cause.to_string(),
            },
        }
    }
}
