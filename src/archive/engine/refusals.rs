//! Groups jobs that wait after a refusal by the reason.
//!
//! A reason often has the job's own path: reasons that differ in nothing else are one. Thousands of jobs may wait for one cause, and a report
//! must stay short and count them all.

use serde::{Deserialize, Serialize};

use crate::workspace::JobId;

/// The most reasons that a report lists.
const REASONS_MAX: usize = 10;

/// The text in a reason in place of the job, `task_id/hash`, if it is about several jobs.
const ANY_JOB: &str = "JOB";

/// The jobs that wait after a refusal, for each reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Refusals {
    /// The first reasons that were seen.
    pub reasons: Vec<RefusalReason>,
    /// How many jobs wait for other reasons.
    pub others: usize,
}

/// A reason, and how many jobs wait for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusalReason {
    /// How many jobs wait for it.
    pub jobs: usize,
    /// The reason; `JOB` stands for the job if reasons of several jobs differ in it.
    pub why: String,
    /// The reason with `JOB` in place of the job.
    #[serde(skip)]
    of_any_job: String,
}

impl Refusals {
    /// Adds a job that waits for this reason.
    pub(super) fn add(&mut self, job: &JobId, why: &str) {
        let of_any_job = why.replace(&job.to_string(), ANY_JOB);
        let mut reasons = self.reasons.iter_mut();
        if let Some(reason) = reasons.find(|reason| reason.of_any_job == of_any_job) {
            reason.jobs += 1;
            if reason.why != why {
                reason.why = of_any_job;
            }
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.push(RefusalReason {
                jobs: 1,
                why: why.to_owned(),
                of_any_job,
            });
        } else {
            self.others += 1;
        }
    }

    /// The most frequent reason first. Jobs are queued in no order, and a report that is updated must not change without a cause.
    pub(super) fn sort(&mut self) {
        self.reasons
            .sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.why.cmp(&b.why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(of: impl IntoIterator<Item = (&'static str, String)>) -> Refusals {
        let mut refusals = Refusals::default();
        for (hash, why) in of {
            refusals.add(&JobId::new("my.module.train", hash).unwrap(), &why);
        }
        refusals.sort();
        refusals
    }

    fn texts(refusals: &Refusals) -> Vec<(usize, &str)> {
        let reasons = refusals.reasons.iter();
        reasons.map(|it| (it.jobs, &*it.why)).collect()
    }

    #[test]
    fn reasons_that_differ_in_the_job_alone_are_one() {
        let gone = |hash: &'static str| (hash, format!("/b/jobs/my.module.train/{hash} is gone"));
        let locked = ("d", "its lock is held".to_owned());
        let refusals = refusals([locked.clone(), gone("a"), gone("b"), gone("c"), locked]);
        assert_eq!(
            texts(&refusals),
            [(3, "/b/jobs/JOB is gone"), (2, "its lock is held"),]
        );
        assert_eq!(refusals.others, 0);
    }

    #[test]
    fn the_reason_of_one_job_names_it() {
        let gone = ("a", "/b/jobs/my.module.train/a is gone".to_owned());
        assert_eq!(
            texts(&refusals([gone])),
            [(1, "/b/jobs/my.module.train/a is gone")]
        );
    }

    #[test]
    fn reasons_are_bounded_and_jobs_are_counted() {
        let all = refusals((0..1000).map(|number| ("a", format!("reason {number}"))));
        assert_eq!(all.reasons.len(), REASONS_MAX);
        assert_eq!(all.others, 1000 - REASONS_MAX);
    }
}
