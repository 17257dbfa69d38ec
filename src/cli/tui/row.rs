//! A job in the memory of the dashboard.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use crate::archive::job_list::{JobLocation, ListedJob};
use crate::view::inventory::LocationSet;
use crate::workspace::filter::tag_text;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// A job.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: JobId,
    pub(super) state: JobState,
    pub(super) reason: Option<Box<str>>,
    pub(super) location: JobLocation,
    pub(super) copies: LocationSet,
    /// Those of these copies that are of an earlier run.
    pub(super) outdated: LocationSet,
    /// When it ended or changed, in seconds since 1970.
    pub(super) changed: Option<i64>,
    /// `name=value`, one a line.
    pub(super) tags: Box<str>,
    /// The experiment that submitted it.
    pub(super) experiment: Option<Arc<OsString>>,
    /// Its size, once it is measured.
    pub(super) bytes: Option<u64>,
}

impl Row {
    pub(super) fn of(job: ListedJob, experiments: &mut HashMap<OsString, Arc<OsString>>) -> Row {
        let tags = job.tags.iter();
        let tags = tags.map(|(name, value)| format!("{name}={}", tag_text(value)));
        let tags: Vec<String> = tags.collect();
        let experiment = job.run.map(|(experiment, _)| {
            let known = experiments.entry(experiment.clone());
            known.or_insert_with(|| Arc::new(experiment)).clone()
        });
        Row {
            id: job.id,
            state: job.state,
            reason: job.failure_reason.map(String::into_boxed_str),
            location: job.location,
            copies: job.copies,
            outdated: job.outdated,
            changed: job.changed.map(|time| time.as_second()),
            tags: tags.join("\n").into_boxed_str(),
            experiment,
            bytes: job.usage.map(|usage| usage.size.bytes),
        }
    }

    /// The locations whose copies are of the last run.
    pub(super) fn current(&self) -> LocationSet {
        let mut current = self.copies;
        self.outdated.iter().for_each(|it| current.remove(it));
        current
    }

    /// What is done first with a job in this state: those in progress come first, then those that failed.
    pub(super) fn rank(&self) -> u8 {
        match self.state {
            JobState::Running => 0,
            JobState::Scheduled => 1,
            JobState::Ready => 2,
            JobState::Waiting => 3,
            JobState::Error => 4,
            JobState::Other(_) => 5,
            JobState::Done => 6,
            JobState::Transient => 7,
            JobState::Unscheduled => 8,
        }
    }
}
