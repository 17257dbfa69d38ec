//! Looks at and archives jobs on the disks, with the other modules of `archive`.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::{Core, Done, Failure, Look, Outcome, Whom};
use crate::archive::ready::{Judge, unknown};
use crate::archive::store::{Due, store};
use crate::archive::{
    Env, Error, Hooks, Readiness, Retired, Scope, Stored, folder_leftovers, leftovers,
};
use crate::transfer::{Bandwidth, Progress};
use crate::view::View;
use crate::workspace::JobId;

/// The parts that looks and copies of jobs need.
pub(super) struct Disk {
    pub(super) view: Arc<View>,
    pub(super) hooks: Arc<dyn Hooks>,
    pub(super) judge: Arc<Judge>,
    pub(super) bandwidth: Bandwidth,
    pub(super) retired: Retired,
    pub(super) settle: Duration,
    pub(super) threads: usize,
}

impl Disk {
    fn env<'a>(&'a self, progress: &'a Progress) -> Env<'a> {
        Env {
            view: &self.view,
            hooks: &*self.hooks,
            progress,
            bandwidth: Some(&self.bandwidth),
            retired: &self.retired,
            out: Some(&self.judge.out),
            settle: self.settle,
            threads: self.threads,
            force: false,
        }
    }
}

impl Disk {
    /// Logs the outcomes of jobs in a folder.
    fn log(&self, folder: u8, jobs: &[Due], outcomes: &[Outcome]) {
        let location = self.view.location(folder);
        let folder = location.map_or_else(Default::default, |location| {
            location.path().display().to_string()
        });
        for (Due { job, .. }, outcome) in jobs.iter().zip(outcomes) {
            match outcome {
                Ok(Done::Stored { files, bytes }) => {
                    tracing::info!("archived {job} in {folder}: {files} files, {bytes} bytes");
                }
                Ok(Done::Already | Done::Left) => {}
                Err(failure) => tracing::debug!("{job} is not in {folder} yet: {}", failure.why),
            }
        }
    }
}

impl Core for Disk {
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
                let whom = Whom::Job;
                let why = unknown(&file);
                return Err(Failure { whom, why });
            }
            Readiness::Unfinished
            | Readiness::Failed
            | Readiness::Elsewhere
            | Readiness::Lost
            | Readiness::Absent
            | Readiness::OptedOut(_) => Look::Nothing,
        })
    }

    fn store(&self, folder: u8, jobs: &[Due], progress: &Progress) -> Vec<Outcome> {
        let stored = store(&self.env(progress), folder, jobs);
        let outcomes = stored.into_iter().map(|stored| {
            Ok(match stored? {
                Stored::Copied { files, bytes } | Stored::Replaced { files, bytes } => {
                    Done::Stored { files, bytes }
                }
                Stored::Already => Done::Already,
                Stored::Left(_) => Done::Left,
            })
        });
        let outcomes: Vec<Outcome> = outcomes.collect();
        self.log(folder, jobs, &outcomes);
        outcomes
    }

    fn clear(&self, task: &OsStr) {
        if let Err(error) = leftovers::clear(&self.env(&Progress::new()), task) {
            let cause = std::io::Error::from(error);
            tracing::warn!("cannot clear what was left of {}: {cause}", task.display());
        }
    }

    fn clear_folder(&self, folder: u8, progress: &Progress) -> Vec<JobId> {
        let location = self.view.location(folder);
        location.map_or_else(Vec::new, |location| {
            folder_leftovers::clear(&self.env(progress), location)
        })
    }

    fn tidy(&self, last: bool) -> Option<Instant> {
        self.retired.clear(&self.env(&Progress::new()), last);
        self.retired.due()
    }

    fn is_tidy(&self) -> bool {
        self.retired.is_empty()
    }

    fn tell_back(&self, tell: &mut dyn FnMut(JobId)) {
        self.retired.tell_back(tell);
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            whom: match error.scope() {
                Scope::Folder => Whom::Folder,
                Scope::Job => Whom::Job,
                Scope::Soon => Whom::Passing,
                Scope::Again => Whom::Again,
                Scope::Cancelled => Whom::Cancelled,
            },
            // The report names the job beside the reason.
            why: match error.advice_of_daemon() {
                Some(advice) => format!("{}: {advice}", error.cause),
                None => error.cause.to_string(),
            },
        }
    }
}
