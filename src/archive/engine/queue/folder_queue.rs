//! Keeps one folder's queue, and the state of the folder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Pace;
use super::job::DueJobs;
use crate::archive::engine::disks::{Done, StoreResult};
use crate::archive::error::Scope;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// The jobs that wait for a folder.
#[derive(Debug)]
pub(in crate::archive::engine) struct FolderQueue {
    /// The folder's number.
    pub(in crate::archive::engine) folder: u8,
    pub(in crate::archive::engine) waiting: DueJobs,
    /// The jobs that are being stored.
    pub(in crate::archive::engine) in_progress: Option<InProgress>,
    /// Set while the folder accepts no job.
    pub(in crate::archive::engine) hold: Option<Hold>,
    /// Whether the folder's directory is there.
    pub(in crate::archive::engine) there: bool,
    pub(in crate::archive::engine) counts: Counts,
}

/// Jobs that are being stored together.
#[derive(Debug)]
pub(in crate::archive::engine) struct InProgress {
    pub(in crate::archive::engine) jobs: Vec<Arc<JobId>>,
    pub(in crate::archive::engine) progress: Arc<Progress>,
    pub(in crate::archive::engine) since: Instant,
}

/// The refusal of a folder.
#[derive(Debug)]
pub(in crate::archive::engine) struct Hold {
    /// When the folder is tried again.
    pub(in crate::archive::engine) until: Instant,
    /// How often in a row it refused.
    pub(in crate::archive::engine) tries: u32,
    pub(in crate::archive::engine) why: String,
}

/// Counts of what was stored in a folder since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::archive::engine) struct Counts {
    pub(in crate::archive::engine) jobs: u64,
    pub(in crate::archive::engine) files: u64,
    pub(in crate::archive::engine) bytes: u64,
    /// Jobs of which the folder already had a copy.
    pub(in crate::archive::engine) already: u64,
}

impl Counts {
    pub(in crate::archive::engine) fn add(&mut self, done: Done) {
        match done {
            Done::Stored { files, bytes } => {
                self.jobs += 1;
                self.files += files;
                self.bytes += bytes;
            }
            Done::Already => self.already += 1,
            Done::Skipped => {}
        }
    }
}

impl FolderQueue {
    pub(in crate::archive::engine) fn new(folder: u8) -> FolderQueue {
        FolderQueue {
            folder,
            waiting: DueJobs::default(),
            in_progress: None,
            hold: None,
            there: true,
            counts: Counts::default(),
        }
    }

    /// Whether the folder can be sent jobs.
    pub(in crate::archive::engine) fn is_free(&self, now: Instant) -> bool {
        self.there && self.in_progress.is_none() && !self.is_held(now)
    }

    /// Whether the folder is not tried for now, since it refused.
    pub(in crate::archive::engine) fn is_held(&self, now: Instant) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.until > now)
    }

    /// Whether the folder refused the last attempt.
    pub(in crate::archive::engine) fn has_failed(&self) -> bool {
        self.hold.is_some()
    }

    /// Notes whether its directory is there; returns whether it has come back.
    pub(in crate::archive::engine) fn set_there(&mut self, there: bool) -> bool {
        let back = there && !self.there;
        self.there = there;
        if back {
            self.forgive();
        }
        back
    }

    /// Ends the wait after a refusal, so that the folder is tried at once.
    pub(in crate::archive::engine) fn forgive(&mut self) {
        self.hold = None;
    }

    /// Records the outcomes of the jobs that were sent to the folder.
    pub(in crate::archive::engine) fn record_results<'a>(
        &mut self,
        results: impl Iterator<Item = &'a StoreResult> + Clone,
        pace: &Pace,
        now: Instant,
    ) {
        self.in_progress = None;
        let before = self.hold.take();
        let mut stored = results.clone().flatten();
        let takes_others = stored.any(|done| matches!(done, Done::Stored { .. }));
        let is_of_folder = |scope: Scope| match scope {
            Scope::Folder => true,
            // A folder that has stored other jobs has too little space for this one alone.
            Scope::Space => !takes_others,
            _ => false,
        };
        for result in results {
            match result {
                Ok(done) => self.counts.add(*done),
                // A missing folder is tried as soon as it is back.
                Err(failure) if is_of_folder(failure.scope) && self.there => {
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
    pub(in crate::archive::engine) fn next(&self, tick: Duration, now: Instant) -> Option<Instant> {
        let due = self.waiting.first()?;
        if self.in_progress.is_some() {
            return None;
        }
        if !self.there {
            return Some(now + tick);
        }
        Some(self.hold.as_ref().map_or(due, |hold| hold.until.max(due)))
    }
}
