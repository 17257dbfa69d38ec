//! The queue of archived jobs that are recovered because programs read them, and when a failed one is tried again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::archive::retries::Retries;
use crate::workspace::jobs::JobId;

/// How many jobs may be queued.
const QUEUED_MAX: usize = 256;

/// How long a job is not tried again after its first failure or for want of space, and at most.
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
    pub(super) fn ended(&mut self, job: &JobId, recovered: Result<(), Errno>, now: Instant) {
        match recovered {
            Ok(()) => self.retries.forget(job),
            // Little work is wasted, and other jobs may be released at any time.
            Err(Errno::NOSPC) => self.retries.skip(job, now),
            Err(_) => self.retries.failed(job, now),
        }
    }

    /// Whether a job may be queued now.
    pub(super) fn accepts(&self, job: &JobId) -> bool {
        self.queue.len() < QUEUED_MAX && !self.retries.is_waiting(job, Instant::now())
    }
}
