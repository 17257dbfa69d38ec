//! Keeps the results of comparisons in memory.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::record::Stamp;
use crate::sys::deadline::Asker;
use crate::sys::file_id::FileId;
use crate::workspace::jobs::JobId;

/// The maximum number of such questions that are late.
const LATE_MAX: usize = 4;

/// The maximum number of jobs whose results are in memory.
pub(super) const KNOWN_MAX: usize = 1 << 16;

/// The results of comparisons that are in memory.
#[derive(Debug)]
pub(in crate::view) struct Judgements {
    pub(super) known: Mutex<HashMap<JobId, Known>>,
    /// Whether any of them was ever a purged job. Each listing asks for its job, and most workspaces never have any.
    has_purges: AtomicBool,
    /// The jobs from which a file was removed through this mount, which is recorded; with their directories.
    pub(super) removals: Mutex<HashMap<JobId, FileId>>,
    pub(super) asker: Asker,
    pub(super) in_use: OnceLock<InUse>,
}

/// Returns whether a program writes to a job.
pub(super) struct InUse(pub(super) Box<dyn Fn(&JobId) -> bool + Send + Sync>);

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InUse")
    }
}

impl Default for Judgements {
    fn default() -> Judgements {
        Judgements {
            known: Mutex::default(),
            has_purges: AtomicBool::new(false),
            removals: Mutex::default(),
            asker: Asker::new(LATE_MAX),
            in_use: OnceLock::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) finding: PurgedFinding,
    /// The job's directory when it was compared.
    pub(super) top: Stamp,
    since: Instant,
    valid: Duration,
}

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PurgedFinding {
    /// No folder has a finished copy, or could be asked.
    NoCopy,
    /// The job differs from its copies.
    Different,
    /// The job has all files of its copy.
    Whole,
    /// The folder with this number serves the job.
    Purged(u8),
}

impl PurgedFinding {
    pub(super) fn folder(self) -> Option<u8> {
        match self {
            PurgedFinding::Purged(folder) => Some(folder),
            _ => None,
        }
    }
}

impl Known {
    /// Whether the result may still be used for a directory with this stamp.
    pub(super) fn is_valid(&self, top: Stamp, age_max: Duration) -> bool {
        let age = self.since.elapsed();
        match self.finding {
            // These are expensive for a job that is being written, whose directory changes all the time.
            PurgedFinding::NoCopy | PurgedFinding::Different => age < self.valid,
            PurgedFinding::Whole | PurgedFinding::Purged(_) => {
                age < self.valid.min(age_max) && self.top == top
            }
        }
    }
}

impl Judgements {
    pub(super) fn known(
        &self,
        job: &JobId,
        top: Stamp,
        age_max: Duration,
    ) -> Option<PurgedFinding> {
        let known = self.known.lock();
        let known = known.get(job)?;
        known.is_valid(top, age_max).then_some(known.finding)
    }

    /// Whether a job was ever found to be purged.
    pub(super) fn have_purges(&self) -> bool {
        self.has_purges.load(Ordering::Acquire)
    }

    /// The latest result about a job, however old.
    pub(super) fn latest(&self, job: &JobId) -> Option<Known> {
        self.known.lock().get(job).copied()
    }

    pub(super) fn is_in_use(&self, job: &JobId) -> bool {
        self.in_use.get().is_some_and(|InUse(in_use)| in_use(job))
    }

    pub(super) fn insert(&self, job: &JobId, top: Stamp, finding: PurgedFinding, valid: Duration) {
        if finding.folder().is_some() {
            self.has_purges.store(true, Ordering::Release);
        }
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| known.since.elapsed() < known.valid);
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let since = Instant::now();
        known.insert(
            job.clone(),
            Known {
                finding,
                top,
                since,
                valid,
            },
        );
    }

    pub(super) fn forget(&self, job: &JobId) {
        self.known.lock().remove(job);
        self.removals.lock().remove(job);
    }
}
