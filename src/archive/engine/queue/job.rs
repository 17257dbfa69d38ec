//! The state of one queued job, and when its next step is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::archive::engine::disks::Failure;
use crate::archive::engine::route::Destination;
use crate::archive::error::Scope;
use crate::transfer::Size;
use crate::workspace::JobId;

/// Jobs in the order in which they are due.
#[derive(Debug, Default)]
pub(in crate::archive::engine) struct DueJobs(BTreeSet<(Instant, Arc<JobId>)>);

impl DueJobs {
    /// When the first is due.
    pub(in crate::archive::engine) fn first(&self) -> Option<Instant> {
        self.0.first().map(|(due, _)| *due)
    }

    pub(in crate::archive::engine) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, due: Instant, job: &Arc<JobId>) {
        self.0.insert((due, job.clone()));
    }

    pub(super) fn remove(&mut self, due: Instant, job: &Arc<JobId>) {
        self.0.remove(&(due, job.clone()));
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<JobId>> {
        if self.first()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, job)| job)
    }
}

/// A queued job.
#[derive(Debug)]
pub(in crate::archive::engine) struct QueuedJob {
    /// It is queued only for the periodic recheck of all jobs; no change of it was seen.
    pub(in crate::archive::engine) routine: bool,
    /// The next step when no thread works on the job any more.
    pub(super) then: Then,
    /// The amount to copy, as of the last look at the job.
    pub(in crate::archive::engine) size: Option<Size>,
    pub(in crate::archive::engine) step: Step,
    /// Which folders refused it, and until when; applied when the job is queued for that folder again.
    pub(super) refused: BTreeMap<u8, (FailedAttempts, Instant)>,
}

/// The next step when no thread works on a job any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    LookAgain,
    Skip,
}

/// What a job waits for.
#[derive(Debug)]
pub(in crate::archive::engine) enum Step {
    /// To be looked at.
    Look(Turn),
    /// To be stored in these folders.
    Store(Vec<Want>),
}

/// A folder that a job waits for.
#[derive(Debug)]
pub(in crate::archive::engine) struct Want {
    pub(in crate::archive::engine) destination: Destination,
    pub(in crate::archive::engine) turn: Turn,
}

/// When a step of a job is due.
#[derive(Debug)]
pub(in crate::archive::engine) struct Turn {
    pub(in crate::archive::engine) at: At,
    /// The refusal of the last attempt, if any.
    pub(in crate::archive::engine) refusal: Option<FailedAttempts>,
}

/// When a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) enum At {
    /// From this moment on.
    Due(Instant),
    /// It is being done.
    Now,
    /// After another step.
    Later,
}

/// The refusal of a job.
#[derive(Debug, Clone)]
pub(in crate::archive::engine) struct FailedAttempts {
    pub(in crate::archive::engine) failure: Failure,
    /// How often in a row.
    pub(in crate::archive::engine) tries: u32,
}

impl Turn {
    pub(super) fn due(at: Instant) -> Turn {
        Turn {
            at: At::Due(at),
            refusal: None,
        }
    }

    /// Whether it failed, and is not due yet.
    pub(in crate::archive::engine) fn has_failed(&self, now: Instant) -> bool {
        let failed = self.refusal.as_ref();
        failed.is_some_and(|it| matches!(it.failure.scope, Scope::Job | Scope::Space))
            && matches!(self.at, At::Due(due) if due > now)
    }

    /// Counts a refusal; returns how long to wait, and how many refusals there were in a row.
    pub(super) fn refuse(&mut self, failure: Failure, backoff: Backoff) -> (Duration, u32) {
        let before = self.refusal.as_ref();
        let same = before.filter(|before| before.failure.scope == failure.scope);
        let tries = same.map_or(1, |before| before.tries.saturating_add(1));
        self.refusal = Some(FailedAttempts { failure, tries });
        (backoff.after(tries), tries)
    }
}

/// A change of the queue that the journal keeps beyond the life of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive::engine) enum QueueChange {
    /// A job is queued.
    Queued(Arc<JobId>),
    /// The job is no longer queued.
    Done(Arc<JobId>),
    /// A folder has refused the job this many times in a row, and is not tried before this moment.
    Refused(Arc<JobId>, u8, u32, Instant, String),
}

impl Turn {
    /// Ends the wait after a refusal.
    pub(super) fn end_wait(&mut self, id: &Arc<JobId>, waiting: &mut DueJobs, now: Instant) {
        if let At::Due(due) = self.at
            && self.refusal.take().is_some()
            && due > now
        {
            waiting.remove(due, id);
            waiting.insert(now, id);
            self.at = At::Due(now);
        }
    }
}

impl QueuedJob {
    pub(super) fn want(&mut self, folder: u8) -> Option<&mut Want> {
        match &mut self.step {
            Step::Store(wants) => wants
                .iter_mut()
                .find(|want| want.destination.folder == folder),
            Step::Look(_) => None,
        }
    }

    /// Whether a thread looks at it or stores it now.
    pub(in crate::archive::engine) fn is_worked_on(&self) -> bool {
        match &self.step {
            Step::Look(turn) => turn.at == At::Now,
            Step::Store(wants) => wants.iter().any(|want| want.turn.at == At::Now),
        }
    }
}
