//! Keeps one folder's queue, and the state of the folder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Pace;
use super::core::{Done, Outcome, Whom};
use super::queue::Waiting;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// The jobs that wait for a folder.
#[derive(Debug)]
pub(super) struct Lane {
    /// The folder's number.
    pub(super) folder: u8,
    pub(super) waiting: Waiting,
    /// The jobs that are being stored.
    pub(super) flight: Option<Flight>,
    /// Set while the folder accepts no job.
    pub(super) hold: Option<Hold>,
    /// Whether the folder's directory is there.
    pub(super) there: bool,
    pub(super) counts: Counts,
}

/// Jobs that are being stored together.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) jobs: Vec<Arc<JobId>>,
    pub(super) progress: Arc<Progress>,
    pub(super) since: Instant,
}

/// The refusal of a folder.
#[derive(Debug)]
pub(super) struct Hold {
    /// When the folder is tried again.
    pub(super) until: Instant,
    /// How often in a row it refused.
    pub(super) tries: u32,
    pub(super) why: String,
}

/// Counts of what was stored in a folder since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) jobs: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Jobs of which the folder already had a copy.
    pub(super) already: u64,
}

impl Lane {
    pub(super) fn new(folder: u8) -> Lane {
        Lane {
            folder,
            waiting: Waiting::default(),
            flight: None,
            hold: None,
            there: true,
            counts: Counts::default(),
        }
    }

    /// Whether the folder can be sent jobs.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.there && self.flight.is_none() && !self.is_held(now)
    }

    /// Whether the folder is not tried for now, since it refused.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.until > now)
    }

    /// Whether the folder refused the last attempt.
    pub(super) fn has_failed(&self) -> bool {
        self.hold.is_some()
    }

    /// Notes whether its directory is there; returns whether it has come back.
    pub(super) fn is_there(&mut self, there: bool) -> bool {
        let back = there && !self.there;
        self.there = there;
        if back {
            self.forgive();
        }
        back
    }

    /// Ends the wait after a refusal, so that the folder is tried at once.
    pub(super) fn forgive(&mut self) {
        self.hold = None;
    }

    /// Records the outcomes of the jobs that were sent to the folder.
    pub(super) fn landed<'a>(
        &mut self,
        results: impl Iterator<Item = &'a Outcome>,
        pace: &Pace,
        now: Instant,
    ) {
        self.flight = None;
        let before = self.hold.take();
        for result in results {
            match result {
                Ok(Done::Stored { files, bytes }) => {
                    self.counts.jobs += 1;
                    self.counts.files += files;
                    self.counts.bytes += bytes;
                }
                Ok(Done::Already) => self.counts.already += 1,
                Ok(Done::Left) => {}
                // A missing folder is tried as soon as it is back.
                Err(failure) if failure.whom == Whom::Folder && self.there => {
                    let tries = before.as_ref().map_or(0, |hold| hold.tries);
                    let tries = tries.saturating_add(1);
                    self.hold.get_or_insert_with(|| {
                        if tries == 1 {
                            tracing::warn!("archiving waits: {}", failure.why);
                        }
                        Hold {
                            until: now + pace.folder.after(tries),
                            tries,
                            why: failure.why.clone(),
                        }
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// When the folder can next be sent jobs, or checked for its return.
    pub(super) fn next(&self, tick: Duration, now: Instant) -> Option<Instant> {
        let due = self.waiting.first()?;
        if self.flight.is_some() {
            return None;
        }
        if !self.there {
            return Some(now + tick);
        }
        Some(self.hold.as_ref().map_or(due, |hold| hold.until.max(due)))
    }
}
