//! The queue of archived jobs that are recovered because programs read them, and when a failed one is tried again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::archive::retries::Retries;
use crate::workspace::jobs::JobId;

/// How many jobs may be queued.
const QUEUED_MAX: usize = 256;

/// How long a job is not tried again after its first failure, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The jobs that are recovered for readers.
#[derive(Debug)]
pub(super) struct ForReaders {
    pub(super) queue: VecDeque<JobId>,
    pub(super) has_thread: bool,
    retries: Retries,
}

impl Default for ForReaders {
    fn default() -> ForReaders {
        ForReaders {
            queue: VecDeque::new(),
            has_thread: false,
            retries: Retries::new(RETRY_AFTER, RETRY_AFTER_MAX),
        }
    }
}

impl ForReaders {
    /// Notes the end of a recovery.
    pub(super) fn ended(&mut self, job: &JobId, recovered: bool, now: Instant) {
        match recovered {
            true => self.retries.forget(job),
            false => self.retries.failed(job, now),
        }
    }

    /// Whether a job may be queued now.
    pub(super) fn accepts(&self, job: &JobId) -> bool {
        self.queue.len() < QUEUED_MAX && !self.retries.is_waiting(job, Instant::now())
    }
}
