//! Keeps the results of comparisons in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// With how many results those that are not valid any more are dropped for the first time.
const SWEEP_FIRST: usize = 1 << 10;

/// The results of comparisons that are in memory.
#[derive(Debug)]
pub(in crate::view) struct Judgements {
    pub(super) known: Mutex<HashMap<JobId, Known>>,
    /// With how many results those that are not valid any more are dropped: jobs come and go, and few are asked for at a time.
    sweep_at: AtomicUsize,
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
            sweep_at: AtomicUsize::new(SWEEP_FIRST),
            has_purges: AtomicBool::new(false),
            removals: Mutex::default(),
            asker: Asker::with_cached_threads(LATE_MAX),
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
    fn is_young(&self) -> bool {
        self.since.elapsed() < self.valid
    }

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

    /// Whether there is a result about a job that may still be used, for a directory that has not changed.
    pub(super) fn is_known(&self, job: &JobId) -> bool {
        let known = self.known.lock();
        known.get(job).is_some_and(Known::is_young)
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
        let since = Instant::now();
        let result = Known {
            finding,
            top,
            since,
            valid,
        };
        let mut known = self.known.lock();
        self.sweep(&mut known);
        known.insert(job.clone(), result);
    }

    /// Notes that no folder has these jobs, unless another result has come meanwhile.
    pub(super) fn insert_without_copy<'a>(
        &self,
        jobs: impl Iterator<Item = &'a JobId>,
        valid: Duration,
    ) {
        let result = Known {
            finding: PurgedFinding::NoCopy,
            top: Stamp::default(),
            since: Instant::now(),
            valid,
        };
        let mut known = self.known.lock();
        for job in jobs {
            self.sweep(&mut known);
            match known.entry(job.clone()) {
                Entry::Occupied(other) if other.get().is_young() => {}
                other => drop(other.insert_entry(result)),
            }
        }
    }

    /// Drops results that are not valid any more if there are many.
    fn sweep(&self, known: &mut HashMap<JobId, Known>) {
        if known.len() >= self.sweep_at.load(Ordering::Relaxed) {
            // That a folder serves a job is shown until the job is compared again.
            known.retain(|_, known| known.finding.folder().is_some() || known.is_young());
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            let next = (known.len() * 2).clamp(SWEEP_FIRST, KNOWN_MAX);
            known.shrink_to(next);
            self.sweep_at.store(next, Ordering::Relaxed);
        }
    }

    pub(super) fn forget(&self, job: &JobId) {
        self.known.lock().remove(job);
        self.removals.lock().remove(job);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn results_of_jobs_that_come_and_go_are_dropped() {
        let judgements = Judgements::default();
        let stat = crate::sys::at::stat_path(std::path::Path::new("/")).unwrap();
        let insert = |hash: &str, finding, valid| {
            let job = JobId::new(OsStr::new("a.task"), OsStr::new(hash)).unwrap();
            judgements.insert(&job, Stamp::of(&stat), finding, valid);
        };
        insert("purged", PurgedFinding::Purged(1), Duration::ZERO);
        for number in 0..10 * SWEEP_FIRST {
            insert(&number.to_string(), PurgedFinding::Whole, Duration::ZERO);
        }
        let known = judgements.known.lock();
        assert!(known.len() <= SWEEP_FIRST && known.capacity() <= 4 * SWEEP_FIRST);
        assert!(known.values().any(|known| known.finding.folder().is_some()));
        drop(known);
        let hour = Duration::from_secs(3600);
        for number in 0..4 * SWEEP_FIRST {
            insert(&number.to_string(), PurgedFinding::Whole, hour);
        }
        assert!(judgements.known.lock().len() > 4 * SWEEP_FIRST);
    }
}
