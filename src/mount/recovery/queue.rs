//! The archived jobs that are queued for recovery, for programs that change or read them, and the requests that wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::archive::retries::Retries;
use crate::mount::interrupts;
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// How many requests may wait. Requests beyond them fail with `EBUSY`.
const WAITING_MAX: usize = 4096;

/// How long a recovered job counts as being written.
const HELD_FOR: Duration = Duration::from_secs(2);

/// How many jobs may be queued for readers.
const FOR_READERS_MAX: usize = 256;

/// How long a job is not tried again for readers after its first failure or for want of space, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A recovery that is queued or running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningRecovery {
    /// The job, as `task_id/hash`.
    pub job: String,
    /// How many requests wait for it.
    pub waiting: usize,
    /// Finished files.
    pub files: u64,
    /// Finished bytes.
    pub bytes: u64,
    /// The bytes of the whole job, once they are known.
    pub total_bytes: Option<u64>,
    /// How long it has been running; `None` while it is queued.
    pub seconds: Option<f64>,
    /// Whether it is made in the background, since programs read the job.
    #[serde(default)]
    pub for_readers: bool,
}

/// A request that waits for a recovery.
pub(super) struct RecoveryWaiter {
    pub(super) number: u64,
    /// Attempts the request again, in another thread.
    pub(super) again: Box<dyn FnOnce() + Send>,
    /// Answers the request with an error.
    pub(super) refuse: Box<dyn FnOnce(Errno) + Send>,
    /// Watches the caller for signals until this is dropped.
    pub(super) _signals: Option<interrupts::WaitingRequest>,
}

/// The recovery of one job.
#[derive(Default)]
pub(super) struct Recovery {
    pub(super) waiters: Vec<RecoveryWaiter>,
    pub(super) progress: Arc<Progress>,
    /// `None` while it is queued.
    pub(super) begun: Option<Instant>,
    /// Whether its thread is stuck, and counts as such.
    pub(super) stuck: bool,
    /// Whether it is made by the thread for readers; requests may wait for it all the same.
    pub(super) for_readers: bool,
}

/// The jobs that are queued or being recovered.
#[derive(Default)]
pub(super) struct RecoveryQueue {
    pub(super) jobs: HashMap<JobId, Recovery>,
    pub(super) queue: VecDeque<JobId>,
    /// The number of all waiting requests.
    pub(super) waiting: usize,
    next: u64,
    /// Threads that recover jobs for waiting requests, but for those that are stuck.
    pub(super) threads: usize,
    /// Threads that wait for a folder which does not answer.
    pub(super) stuck: usize,
    /// Jobs that were recovered a moment ago.
    held: HashMap<JobId, Instant>,
    pub(super) for_readers: ForReaders,
    pub(super) stopped: bool,
}

impl RecoveryQueue {
    /// Whether a job is being recovered for a request, or was recovered a moment ago: a request is about to change it.
    pub(super) fn holds(&self, job: &JobId) -> bool {
        let held = self.held.get(job);
        let is_wanted = |one: &Recovery| !one.for_readers || !one.waiters.is_empty();
        self.jobs.get(job).is_some_and(is_wanted)
            || held.is_some_and(|since| since.elapsed() < HELD_FOR)
    }

    /// Returns the recoveries that are queued or running.
    pub(super) fn running(&self) -> Vec<RunningRecovery> {
        let jobs = self.jobs.iter();
        let mut running: Vec<_> = jobs
            .map(|(job, recovery)| RunningRecovery {
                job: job.to_string(),
                waiting: recovery.waiters.len(),
                files: recovery.progress.files(),
                bytes: recovery.progress.bytes(),
                total_bytes: recovery.progress.expected().map(|size| size.bytes),
                seconds: recovery.begun.map(|begun| begun.elapsed().as_secs_f64()),
                for_readers: recovery.for_readers,
            })
            .collect();
        running.sort_by(|one, other| one.job.cmp(&other.job));
        running
    }

    /// The number of the next request that waits.
    ///
    /// # Errors
    ///
    /// The error of a request that may not wait.
    pub(super) fn next_number(&mut self) -> Result<u64, Errno> {
        if self.stopped {
            return Err(Errno::IO);
        }
        if self.waiting >= WAITING_MAX {
            return Err(Errno::BUSY);
        }
        self.next += 1;
        Ok(self.next)
    }

    /// Adds a request that waits for a job, which is queued unless it is already.
    pub(super) fn add(&mut self, job: JobId, waiter: RecoveryWaiter) {
        self.waiting += 1;
        match self.jobs.get_mut(&job) {
            None => self.queue.push_back(job.clone()),
            // A request waits from now on for a job that is only queued for readers.
            Some(queued) if queued.for_readers && queued.begun.is_none() => {
                queued.for_readers = false;
                self.for_readers.queue.retain(|queued| *queued != job);
                self.queue.push_front(job.clone());
            }
            Some(_) => {}
        }
        self.jobs.entry(job).or_default().waiters.push(waiter);
    }

    /// Removes a request. Also returns the progress of its recovery, if that is running and no other request waits for it.
    pub(super) fn remove_waiter(
        &mut self,
        job: &JobId,
        number: u64,
    ) -> Option<(RecoveryWaiter, Option<Arc<Progress>>)> {
        let recovery = self.jobs.get_mut(job)?;
        let position = recovery
            .waiters
            .iter()
            .position(|one| one.number == number)?;
        let waiter = recovery.waiters.swap_remove(position);
        self.waiting -= 1;
        if !recovery.waiters.is_empty() || recovery.for_readers {
            return Some((waiter, None));
        }
        if recovery.begun.is_some() {
            return Some((waiter, Some(recovery.progress.clone())));
        }
        self.jobs.remove(job);
        self.queue.retain(|queued| queued != job);
        Some((waiter, None))
    }

    /// Lets a job count as being written for a moment.
    pub(super) fn hold(&mut self, job: JobId) {
        self.held.retain(|_, since| since.elapsed() < HELD_FOR);
        self.held.insert(job, Instant::now());
    }

    /// Cancels all recoveries and accepts no further ones. Returns the waiting requests.
    pub(super) fn stop(&mut self) -> Vec<RecoveryWaiter> {
        self.stopped = true;
        self.jobs.values().for_each(|one| one.progress.cancel());
        let jobs = self.jobs.values_mut();
        let waiters = jobs.flat_map(|one| std::mem::take(&mut one.waiters));
        let waiters = waiters.collect();
        self.waiting = 0;
        self.queue.clear();
        self.for_readers.queue.clear();
        waiters
    }

    /// Removes all waiting requests, and the jobs that no thread recovers.
    pub(super) fn take_all(&mut self) -> Vec<RecoveryWaiter> {
        self.waiting = 0;
        self.queue.clear();
        let jobs = self.jobs.values_mut();
        let waiters = jobs.flat_map(|one| std::mem::take(&mut one.waiters));
        let waiters = waiters.collect();
        self.jobs
            .retain(|_, one| one.begun.is_some() || one.for_readers);
        waiters
    }
}

/// The jobs that are recovered because programs read them, and when a failed one is tried again.
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
        self.queue.len() < FOR_READERS_MAX && !self.retries.is_waiting(job, Instant::now())
    }
}
