//! The state of copying moved jobs to one `backup` folder.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::archive::engine::disks::Failure;
use crate::archive::error::Scope;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// A pass that takes longer than this without copying is no longer waited for: a disk hangs.
const PASS_MAX: Duration = Duration::from_secs(60);

/// Moved jobs that one `backup` folder lacks.
#[derive(Debug)]
pub(in crate::archive::engine) struct FolderMoved {
    pub(in crate::archive::engine) folder: u8,
    pub(in crate::archive::engine) progress: Progress,
    pub(in crate::archive::engine) state: Mutex<MovedState>,
}

/// What the passes over the moved jobs have found.
#[derive(Debug, Default)]
pub(in crate::archive::engine) struct MovedState {
    /// The number of the last requested survey that has ended.
    pub(in crate::archive::engine) answered: u64,
    /// When the pass in progress began.
    pub(in crate::archive::engine) since: Option<Instant>,
    pub(in crate::archive::engine) is_copying: bool,
    /// The jobs that must be copied.
    pub(in crate::archive::engine) lacking: BTreeMap<JobId, LackingJob>,
    /// What could not be read.
    pub(in crate::archive::engine) trouble: Option<String>,
}

/// A moved job that the folder lacks.
#[derive(Debug)]
pub(in crate::archive::engine) struct LackingJob {
    /// Why the last attempt failed, if there was one.
    pub(super) failure: Option<Failure>,
    /// How many attempts in a row failed.
    pub(super) tries: u32,
    /// When it is tried next.
    pub(in crate::archive::engine) next: Instant,
}

impl LackingJob {
    /// Whether it could not be copied, for a reason of its own that does not end by itself.
    pub(in crate::archive::engine) fn has_failed(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| failure.scope == Scope::Job)
    }
}

impl FolderMoved {
    /// The state of a folder before the first pass.
    pub(super) fn new(folder: u8) -> FolderMoved {
        FolderMoved {
            folder,
            progress: Progress::new(),
            state: Mutex::default(),
        }
    }
}

impl MovedState {
    /// Notes that a job is copied.
    pub(super) fn begin(&mut self, job: &JobId) {
        self.lacking
            .entry(job.clone())
            .or_insert_with(|| LackingJob {
                failure: None,
                tries: 0,
                next: Instant::now(),
            });
    }

    /// Notes that a job could not be copied; returns whether that was the first attempt.
    pub(super) fn fail(&mut self, job: &JobId, failure: &Failure) -> bool {
        self.begin(job);
        let Some(lacking) = self.lacking.get_mut(job) else {
            return false;
        };
        lacking.failure = Some(failure.clone());
        lacking.tries = lacking.tries.saturating_add(1);
        lacking.tries == 1
    }

    /// Whether a disk does not reply.
    pub(in crate::archive::engine) fn hangs(&self, now: Instant) -> bool {
        let long = |since| now.saturating_duration_since(since) > PASS_MAX;
        !self.is_copying && self.since.is_some_and(long)
    }
}
