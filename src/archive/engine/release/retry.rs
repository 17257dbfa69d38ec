//! Which jobs are skipped for a while because their release failed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::workspace::JobId;

/// How long a job is skipped after its first failure; doubled by each further one.
const FIRST_WAIT: Duration = Duration::from_secs(2 * 3600);

/// The longest time for which a job is skipped.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most jobs that are remembered: of more, those that are retried soonest are forgotten.
const JOBS_MAX: usize = 4096;

/// Jobs whose release failed.
#[derive(Debug, Default, Clone)]
pub(super) struct Retries {
    jobs: HashMap<JobId, Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    until: Instant,
    wait: Duration,
}

impl Retries {
    /// Notes that the release of a job failed.
    pub(super) fn failed(&mut self, job: &JobId, now: Instant) {
        let before = self.jobs.get(job).map(|waiting| waiting.wait);
        let wait = before.map_or(FIRST_WAIT, |wait| (wait * 2).min(WAIT_MAX));
        let until = now + wait;
        self.jobs.insert(job.clone(), Waiting { until, wait });
        if self.jobs.len() > JOBS_MAX {
            let soonest = self.jobs.iter().min_by_key(|(_, waiting)| waiting.until);
            if let Some(soonest) = soonest.map(|(job, _)| job.clone()) {
                self.jobs.remove(&soonest);
            }
        }
    }

    /// Notes that a job was released.
    pub(super) fn forget(&mut self, job: &JobId) {
        self.jobs.remove(job);
    }

    /// Whether a job is skipped now.
    pub(super) fn is_waiting(&self, job: &JobId, now: Instant) -> bool {
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
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert!(!retries.is_waiting(&job(1), now));
            retries.failed(&job(1), now);
            let begun = now;
            while retries.is_waiting(&job(1), now) {
                now += Duration::from_secs(3600);
            }
            waits.push((now - begun).as_secs() / 3600);
        }
        assert_eq!(waits, [2, 4, 8, 16, 24, 24]);
        retries.failed(&job(1), now);
        retries.forget(&job(1));
        assert!(!retries.is_waiting(&job(1), now));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for number in 0..JOBS_MAX + 10 {
            retries.failed(&job(number), now + Duration::from_secs(number as u64));
        }
        assert_eq!(retries.jobs.len(), JOBS_MAX);
        assert!(!retries.is_waiting(&job(0), now));
        assert!(retries.is_waiting(&job(JOBS_MAX + 9), now));
    }
}
