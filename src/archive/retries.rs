//! Which jobs are skipped for a while because something failed for them: longer each time, and for a bounded number of jobs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::workspace::JobId;

/// The most jobs that are remembered: of more, the job that is retried soonest is forgotten.
const JOBS_MAX: usize = 4096;

/// Jobs that are skipped for a while.
#[derive(Debug, Clone)]
pub struct Retries {
    jobs: HashMap<JobId, Waiting>,
    first: Duration,
    longest: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    until: Instant,
    wait: Duration,
}

impl Retries {
    /// No jobs. A job will be skipped for the time `first` after its first failure, and for twice as long after each further
    /// one, but at most for the time `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Retries {
        Retries {
            jobs: HashMap::new(),
            first,
            longest,
        }
    }

    /// Notes that something failed for a job.
    pub fn failed(&mut self, job: &JobId, now: Instant) {
        let before = self.jobs.get(job).map(|waiting| waiting.wait);
        let wait = before.map_or(self.first, |wait| (wait * 2).min(self.longest));
        self.wait(job, now, wait);
    }

    /// Skips a job for the time after a first failure, however often that is repeated.
    pub fn skip(&mut self, job: &JobId, now: Instant) {
        self.wait(job, now, self.first);
    }

    fn wait(&mut self, job: &JobId, now: Instant, wait: Duration) {
        let until = now + wait;
        self.jobs.insert(job.clone(), Waiting { until, wait });
        if self.jobs.len() > JOBS_MAX {
            let soonest = self.jobs.iter().min_by_key(|(_, waiting)| waiting.until);
            if let Some(soonest) = soonest.map(|(job, _)| job.clone()) {
                self.jobs.remove(&soonest);
            }
        }
    }

    /// Notes that nothing failed for a job.
    pub fn forget(&mut self, job: &JobId) {
        self.jobs.remove(job);
    }

    /// Whether a job is skipped now.
    #[must_use]
    pub fn is_waiting(&self, job: &JobId, now: Instant) -> bool {
        let waiting = self.jobs.get(job);
        waiting.is_some_and(|waiting| now < waiting.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: usize) -> JobId {
        JobId::new("my.train", number.to_string()).unwrap()
    }

    #[test]
    fn a_failed_job_waits_longer_each_time_up_to_a_day() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let (mut retries, mut now) = (Retries::new(hours(2), hours(24)), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert!(!retries.is_waiting(&job(1), now));
            retries.failed(&job(1), now);
            let begun = now;
            while retries.is_waiting(&job(1), now) {
                now += hours(1);
            }
            waits.push((now - begun).as_secs() / 3600);
        }
        assert_eq!(waits, [2, 4, 8, 16, 24, 24]);
        retries.skip(&job(1), now);
        assert!(retries.is_waiting(&job(1), now));
        assert!(!retries.is_waiting(&job(1), now + hours(2)));
        retries.forget(&job(1));
        assert!(!retries.is_waiting(&job(1), now));
    }

    #[test]
    fn memory_is_bounded() {
        let minute = Duration::from_secs(60);
        let (mut retries, now) = (Retries::new(minute, minute), Instant::now());
        for number in 0..JOBS_MAX + 10 {
            retries.failed(&job(number), now + Duration::from_secs(number as u64));
        }
        assert_eq!(retries.jobs.len(), JOBS_MAX);
        assert!(!retries.is_waiting(&job(0), now));
        assert!(retries.is_waiting(&job(JOBS_MAX + 9), now));
    }
}
