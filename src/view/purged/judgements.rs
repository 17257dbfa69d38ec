//! Keeps in memory what earlier comparisons found.

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

/// The maximum number of questions to folders that are late.
const LATE_MAX: usize = 4;

/// The maximum number of jobs in each of the two maps.
pub(super) const JOBS_MAX: usize = 1 << 16;

/// With how many judgements those that are not valid any more are dropped for the first time.
const SWEEP_FIRST: usize = 1 << 10;

/// What a view keeps in memory about jobs that may be purged, and how it asks folders about them.
#[derive(Debug)]
pub(in crate::view) struct Judgements {
    /// The latest judgement of each job.
    pub(super) by_job: Mutex<HashMap<JobId, Judgement>>,
    /// With how many judgements those that are not valid any more are dropped: jobs come and go, and few are asked for at a time.
    sweep_at: AtomicUsize,
    /// Whether any job was ever found to be purged. Each listing asks for its jobs, and most workspaces never have any.
    has_purges: AtomicBool,
    /// The jobs from which a file was removed through this mount, which is recorded; with their directories.
    pub(super) removals: Mutex<HashMap<JobId, FileId>>,
    /// Asks folders, with a deadline.
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
            by_job: Mutex::default(),
            sweep_at: AtomicUsize::new(SWEEP_FIRST),
            has_purges: AtomicBool::new(false),
            removals: Mutex::default(),
            asker: Asker::with_cached_threads(LATE_MAX),
            in_use: OnceLock::new(),
        }
    }
}

/// What a comparison found about a job, and how long that is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement {
    pub(super) finding: PurgedFinding,
    /// The job's directory when it was compared.
    pub(super) top: Stamp,
    since: Instant,
    valid: Duration,
}

/// How a job compares with all of its copies.
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
    /// The folder that serves the job, if it is purged.
    pub(super) fn folder(self) -> Option<u8> {
        match self {
            PurgedFinding::Purged(folder) => Some(folder),
            _ => None,
        }
    }
}

impl Judgement {
    fn is_young(&self) -> bool {
        self.since.elapsed() < self.valid
    }

    /// Whether the judgement may still be used for a directory with this stamp.
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
    /// What is known about a job whose directory has this stamp, if that is valid and no older than `age_max`.
    pub(super) fn valid(
        &self,
        job: &JobId,
        top: Stamp,
        age_max: Duration,
    ) -> Option<PurgedFinding> {
        let by_job = self.by_job.lock();
        let judgement = by_job.get(job)?;
        judgement
            .is_valid(top, age_max)
            .then_some(judgement.finding)
    }

    /// Whether a judgement of a job may still be used, for a directory that has not changed.
    pub(super) fn has_young(&self, job: &JobId) -> bool {
        let by_job = self.by_job.lock();
        by_job.get(job).is_some_and(Judgement::is_young)
    }

    /// Whether a job was ever found to be purged.
    pub(super) fn have_purges(&self) -> bool {
        self.has_purges.load(Ordering::Acquire)
    }

    /// The latest judgement of a job, however old.
    pub(super) fn latest(&self, job: &JobId) -> Option<Judgement> {
        self.by_job.lock().get(job).copied()
    }

    /// Whether a program writes to a job through the mount.
    pub(super) fn is_in_use(&self, job: &JobId) -> bool {
        self.in_use.get().is_some_and(|InUse(in_use)| in_use(job))
    }

    /// Notes what was found about a job whose directory has the stamp `top`. It is valid for the time `valid`.
    pub(super) fn insert(&self, job: &JobId, top: Stamp, finding: PurgedFinding, valid: Duration) {
        if finding.folder().is_some() {
            self.has_purges.store(true, Ordering::Release);
        }
        let since = Instant::now();
        let judgement = Judgement {
            finding,
            top,
            since,
            valid,
        };
        let mut by_job = self.by_job.lock();
        self.sweep(&mut by_job);
        by_job.insert(job.clone(), judgement);
    }

    /// Notes that no folder has these jobs, unless another judgement has come meanwhile.
    pub(super) fn insert_without_copy<'a>(
        &self,
        jobs: impl Iterator<Item = &'a JobId>,
        valid: Duration,
    ) {
        let judgement = Judgement {
            finding: PurgedFinding::NoCopy,
            top: Stamp::default(),
            since: Instant::now(),
            valid,
        };
        let mut by_job = self.by_job.lock();
        for job in jobs {
            self.sweep(&mut by_job);
            match by_job.entry(job.clone()) {
                Entry::Occupied(other) if other.get().is_young() => {}
                other => drop(other.insert_entry(judgement)),
            }
        }
    }

    /// Drops judgements that are not valid any more if there are many.
    fn sweep(&self, by_job: &mut HashMap<JobId, Judgement>) {
        if by_job.len() >= self.sweep_at.load(Ordering::Relaxed) {
            // That a folder serves a job is shown until the job is compared again.
            by_job.retain(|_, it| it.finding.folder().is_some() || it.is_young());
            if by_job.len() >= JOBS_MAX {
                by_job.clear();
            }
            let next = (by_job.len() * 2).clamp(SWEEP_FIRST, JOBS_MAX);
            by_job.shrink_to(next);
            self.sweep_at.store(next, Ordering::Relaxed);
        }
    }

    /// Forgets all about a job.
    pub(super) fn forget(&self, job: &JobId) {
        self.by_job.lock().remove(job);
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
        let by_job = judgements.by_job.lock();
        assert!(by_job.len() <= SWEEP_FIRST && by_job.capacity() <= 4 * SWEEP_FIRST);
        assert!(by_job.values().any(|it| it.finding.folder().is_some()));
        drop(by_job);
        let hour = Duration::from_secs(3600);
        for number in 0..4 * SWEEP_FIRST {
            insert(&number.to_string(), PurgedFinding::Whole, hour);
        }
        assert!(judgements.by_job.lock().len() > 4 * SWEEP_FIRST);
    }
}
