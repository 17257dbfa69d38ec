//! Recovers archived jobs that a program is about to change, and lets the requests wait.
//!
//! A request that changes a job which a folder serves ends before it has changed anything (`deferred::need_recovery`). Its
//! reply and the operation come here:
//!
//! 1. The requests for one job wait for one recovery. A few threads work on the queue of jobs, so that no thread of the
//!    loop waits, and other requests are not delayed.
//! 2. When a recovery ends, its requests are attempted again; when it fails, each gets the error of the disk.
//! 3. A signal for its caller ends the wait of a request (`interrupts`). The recovery itself goes on as long as another
//!    request waits for it, and for a moment longer: a program may try again after a signal that it handles.
//! 4. While a folder does not answer and a recovery makes no progress, its requests fail with `ETIMEDOUT`, as others do
//!    (`timeouts`).
//! 5. Jobs that programs only read are recovered as well, if the settings say so: in the background, by one thread of its
//!    own and of low priority. No request waits for that, requests that wait for other recoveries are not delayed, and two
//!    copies do not count on the same free space. The queue is bounded: a job that finds no place in it is queued when it
//!    is read again. A failed one is tried again after a while, and not at each read.
//! 6. A job counts as being written from the first request until a moment after the last attempt, so that no archiver
//!    moves it away in between.
//!
//! `queue`: the jobs and the requests that wait. The copying is [`Recover`], which `daemon::archiving` implements by `archive::manual`: a job
//! comes from the first folder that has an intact copy (`archive::job::recover`).

mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;

pub use self::queue::RunningRecovery;
use self::queue::{Recovery, RecoveryQueue, RecoveryWaiter};
use crate::mount::interrupts::Interrupts;
use crate::mount::threads;
use crate::sys::priority::lower_priority;
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// How many jobs are recovered at the same time.
const THREADS_MAX: usize = 4;

/// How many recoveries may be stuck in a system call, beside those that make progress: one hanging folder then does not
/// delay the recoveries from others. A folder that is known to hang is not used for further ones.
const STUCK_MAX: usize = 16;

/// How long a recovery goes on for which no request waits any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(1);

/// How often a recovery is checked for progress.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long requests wait for a recovery without progress while a folder does not answer.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// How long the end of a mount waits for the recoveries that it cancels.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Recovers jobs for a mount.
pub trait Recover: Send + Sync {
    /// Copies a job from a folder to the primary, unless it is there. Waits while another process does so. Makes the
    /// mount find the job in its new location ([`super::Handle::moved`]) before it returns.
    ///
    /// # Errors
    ///
    /// The error for the program that wants to change the job; nothing of the copy is left then. `EINTR` if the
    /// recovery was cancelled.
    fn recover(&self, job: &JobId, progress: &Progress) -> Result<(), Errno>;

    /// Whether a folder does not answer now.
    fn has_silent_folder(&self) -> bool;

    /// Whether jobs of a folder, by its number, are recovered when a program reads them.
    fn recovers_on_open(&self, folder: u8) -> bool;

    /// As [`Recover::recover`], for a job that programs only read.
    ///
    /// # Errors
    ///
    /// As [`Recover::recover`]; also `ENOSPC` if less would be free then than is to be kept free.
    fn recover_for_readers(&self, job: &JobId, progress: &Progress) -> Result<(), Errno>;

    /// Whether there is too little space for the rest of a copy that was begun by [`Recover::recover_for_readers`].
    fn lacks_space(&self, progress: &Progress) -> bool;
}

impl std::fmt::Debug for dyn Recover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recover")
    }
}

/// The recoveries of a mount.
#[derive(Default)]
pub(super) struct Recoveries {
    state: Mutex<RecoveryQueue>,
    /// A thread has ended.
    ended: Condvar,
    interrupts: Interrupts,
}

impl std::fmt::Debug for Recoveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recoveries")
    }
}

impl Recoveries {
    pub(super) fn new(interrupts: Interrupts) -> Recoveries {
        Recoveries {
            interrupts,
            ..Recoveries::default()
        }
    }

    /// Whether a job is being recovered for a request, or was recovered a moment ago: a request is about to change it.
    pub(super) fn holds(&self, job: &JobId) -> bool {
        self.state.lock().holds(job)
    }

    /// Returns the recoveries that are queued or running.
    pub(super) fn running(&self) -> Vec<RunningRecovery> {
        self.state.lock().running()
    }

    /// Lets a request of the thread `tid` wait until `recover` has recovered a job; calls `again` or `refuse` then.
    pub(super) fn wait(
        self: &Arc<Self>,
        recover: &Arc<dyn Recover>,
        job: JobId,
        tid: u32,
        again: impl FnOnce() + Send + 'static,
        refuse: impl FnOnce(Errno) + Send + 'static,
    ) {
        let mut state = self.state.lock();
        let number = match state.next_number() {
            Ok(number) => number,
            Err(error) => {
                drop(state);
                return refuse(error);
            }
        };
        let signals = self.interrupts.watch(tid, {
            let (this, job) = (self.clone(), job.clone());
            move || this.interrupted(&job, number)
        });
        let waiter = RecoveryWaiter {
            number,
            again: Box::new(again),
            refuse: Box::new(refuse),
            _signals: signals,
        };
        state.add(job, waiter);
        self.start_thread(state, recover);
    }

    /// Starts a thread for the queued jobs, unless enough are running.
    fn start_thread(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, RecoveryQueue>,
        recover: &Arc<dyn Recover>,
    ) {
        if state.queue.is_empty() || state.threads >= THREADS_MAX {
            return;
        }
        let (this, recover) = (self.clone(), recover.clone());
        match threads::start("xpmfs-recover", move || this.work(&recover)) {
            Ok(()) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                tracing::error!(%error, "cannot recover a job: starting a thread failed");
                let waiters = state.take_all();
                drop(state);
                waiters
                    .into_iter()
                    .for_each(|one| (one.refuse)(Errno::AGAIN));
            }
            Err(_) => {}
        }
    }

    /// Ends the wait of a request whose caller has a signal pending.
    fn interrupted(self: &Arc<Self>, job: &JobId, number: u64) {
        let mut state = self.state.lock();
        let Some((waiter, abandoned)) = state.remove_waiter(job, number) else {
            return;
        };
        drop(state);
        (waiter.refuse)(Errno::INTR);
        if let Some(progress) = abandoned {
            let (this, job) = (self.clone(), job.clone());
            let started = threads::start("xpmfs-abandoned", move || {
                std::thread::sleep(ABANDONED_AFTER);
                this.cancel_if_abandoned(&job, &progress);
            });
            if let Err(error) = started {
                tracing::debug!(%error, "a recovery goes on without a request: starting a thread failed");
            }
        }
    }

    fn cancel_if_abandoned(&self, job: &JobId, progress: &Arc<Progress>) {
        let state = self.state.lock();
        if let Some(recovery) = state.jobs.get(job)
            && recovery.waiters.is_empty()
            && Arc::ptr_eq(&recovery.progress, progress)
        {
            progress.cancel();
        }
    }

    /// Recovers the queued jobs, until none is left.
    fn work(self: &Arc<Self>, recover: &Arc<dyn Recover>) {
        let mut state = self.state.lock();
        // There are more threads for a moment when one that was stuck goes on.
        while state.threads <= THREADS_MAX
            && let Some(job) = state.queue.pop_front()
        {
            self.recover(recover, job, state);
            state = self.state.lock();
        }
        state.threads -= 1;
        self.ended.notify_all();
    }

    /// Recovers a job that was taken out of a queue in this state, and lets its requests go on.
    fn recover(
        self: &Arc<Self>,
        recover: &Arc<dyn Recover>,
        job: JobId,
        mut state: MutexGuard<'_, RecoveryQueue>,
    ) {
        let Some(recovery) = state.jobs.get_mut(&job) else {
            return;
        };
        recovery.begun = Some(Instant::now());
        let (progress, for_readers) = (recovery.progress.clone(), recovery.for_readers);
        drop(state);
        self.watch(recover, &job, &progress);
        let recovered = match for_readers {
            true => recover.recover_for_readers(&job, &progress),
            false => recover.recover(&job, &progress),
        };
        let mut state = self.state.lock();
        let stopped = state.stopped;
        let Some(recovery) = state.jobs.get_mut(&job) else {
            return;
        };
        if std::mem::take(&mut recovery.stuck) {
            state.stuck -= 1;
            state.threads += 1;
        }
        let Some(recovery) = state.jobs.get_mut(&job) else {
            return;
        };
        let is_wanted = !recovery.waiters.is_empty();
        // A request came after the recovery had been cancelled, or there is no space for a job that is only read.
        let again = recovered == Err(Errno::INTR) || (for_readers && recovered.is_err());
        if again && is_wanted && !stopped {
            (recovery.progress, recovery.begun) = (Arc::default(), None);
            recovery.for_readers = false;
            state.queue.push_back(job);
            return self.start_thread(state, recover);
        }
        let waiters = std::mem::take(&mut recovery.waiters);
        state.waiting -= waiters.len();
        state.jobs.remove(&job);
        if for_readers {
            state.for_readers.ended(&job, recovered, Instant::now());
        }
        if is_wanted || !for_readers {
            state.hold(job);
        }
        drop(state);
        for waiter in waiters {
            match recovered {
                Ok(()) => (waiter.again)(),
                Err(error) => (waiter.refuse)(error),
            }
        }
    }

    /// Checks a recovery until it ends, in another thread.
    fn watch(self: &Arc<Self>, recover: &Arc<dyn Recover>, job: &JobId, progress: &Arc<Progress>) {
        let (this, recover) = (self.clone(), recover.clone());
        let (job, progress) = (job.clone(), progress.clone());
        let started = threads::start("xpmfs-recovering", move || {
            let mut done = (0, 0);
            let mut since = Instant::now();
            while this.is_running(&job, &progress) {
                std::thread::sleep(CHECK_INTERVAL);
                if this.is_for_readers_only(&job) && recover.lacks_space(&progress) {
                    progress.cancel();
                }
                let now = (progress.files(), progress.bytes());
                if now != done || !recover.has_silent_folder() {
                    (done, since) = (now, Instant::now());
                } else if since.elapsed() >= SILENT_MAX {
                    this.give_up(&recover, &job, &progress);
                }
            }
        });
        if let Err(error) = started {
            tracing::debug!(%error, "a recovery is not checked for progress: starting a thread failed");
        }
    }

    fn is_running(&self, job: &JobId, progress: &Arc<Progress>) -> bool {
        let state = self.state.lock();
        let recovery = state.jobs.get(job);
        recovery.is_some_and(|recovery| Arc::ptr_eq(&recovery.progress, progress))
    }

    /// Cancels a recovery that waits for a folder, and answers its requests. Another thread continues with the queue.
    fn give_up(
        self: &Arc<Self>,
        recover: &Arc<dyn Recover>,
        job: &JobId,
        progress: &Arc<Progress>,
    ) {
        let mut state = self.state.lock();
        let Some(recovery) = state.jobs.get_mut(job) else {
            return;
        };
        if !Arc::ptr_eq(&recovery.progress, progress) {
            return;
        }
        progress.cancel();
        let waiters = std::mem::take(&mut recovery.waiters);
        let is_counted = !recovery.stuck && !recovery.for_readers;
        let is_stuck = is_counted && state.stuck < STUCK_MAX;
        if let Some(recovery) = state.jobs.get_mut(job).filter(|_| is_stuck) {
            recovery.stuck = true;
        }
        state.waiting -= waiters.len();
        if is_stuck {
            state.threads -= 1;
            state.stuck += 1;
            self.start_thread(state, recover);
        } else {
            drop(state);
        }
        for waiter in waiters {
            (waiter.refuse)(Errno::TIMEDOUT);
        }
    }

    /// Cancels all recoveries at the end of the mount, and waits until what they have copied is removed.
    pub(super) fn stop(&self) {
        let waiters = self.state.lock().stop();
        waiters.into_iter().for_each(|one| (one.refuse)(Errno::IO));
        let until = Instant::now() + STOP_TIMEOUT;
        let mut state = self.state.lock();
        while state.threads + state.stuck > 0 || state.for_readers.has_thread {
            if self.ended.wait_until(&mut state, until).timed_out() {
                tracing::warn!("a recovery is not waited for: a disk does not answer");
                return;
            }
        }
    }
}

impl Recoveries {
    /// Queues a job that a program reads. Never waits.
    pub(super) fn read(self: &Arc<Self>, recover: &Arc<dyn Recover>, job: JobId) {
        let mut state = self.state.lock();
        if state.stopped || state.jobs.contains_key(&job) || !state.for_readers.accepts(&job) {
            return;
        }
        let for_readers = Recovery {
            for_readers: true,
            ..Recovery::default()
        };
        if !state.for_readers.has_thread {
            let (this, recover) = (self.clone(), recover.clone());
            let started =
                threads::start("xpmfs-readers", move || this.recover_for_readers(&recover));
            if let Err(error) = started {
                tracing::debug!(%error, "a job that is read is not recovered: starting a thread failed");
                return;
            }
            state.for_readers.has_thread = true;
        }
        state.for_readers.queue.push_back(job.clone());
        state.jobs.insert(job, for_readers);
    }

    /// Recovers the jobs that are queued for readers, until none is left.
    fn recover_for_readers(self: &Arc<Self>, recover: &Arc<dyn Recover>) {
        lower_priority();
        let mut state = self.state.lock();
        while let Some(job) = state.for_readers.queue.pop_front() {
            self.recover(recover, job, state);
            state = self.state.lock();
        }
        state.for_readers.has_thread = false;
        self.ended.notify_all();
    }

    /// Whether no request waits for a recovery that is made for readers.
    pub(super) fn is_for_readers_only(&self, job: &JobId) -> bool {
        let state = self.state.lock();
        let recovery = state.jobs.get(job);
        recovery.is_some_and(|one| one.for_readers && one.waiters.is_empty())
    }
}
