//! Replies that come later: an operation may hand its reply to another thread and free its own.
//!
//! The loop that reads requests has a fixed number of threads, and a request that waits in a system call for a folder
//! occupies its thread. So only some of the loop's threads may process such requests (`threads`); the others
//! are passed, with their replies, to threads outside the loop. What waits for something other than a disk (a lock, a
//! free descriptor) has one thread for all of its requests (`threads::start`).
//!
//! A deferred operation may hold:
//!
//! - its reply, which is `Send`, and copies of the request's arguments;
//! - the mount and its tables, by `Arc`, and open files of the mount.
//!
//! It must not hold, while it waits:
//!
//! - a lock of a table: requests that the loop answers need it;
//! - anything that belongs to a thread: the umask and an assumed identity (`caller`), which are set for each attempt;
//! - the only reference to data that the kernel is to receive exactly once: a reply that is dropped fails with `EIO`.
//!
//! A request that may wait for a folder can be attempted several times at once (`timeouts`), and is answered once:
//!
//! 1. The attempt that claims the request first replies ([`Attempt`]).
//! 2. An attempt claims the request before it changes a file ([`commit`]). An attempt that lost the claim changes
//!    nothing on a disk, and undoes what it did in the tables ([`Reply::undo`]). What several attempts may do and none must undo, they do
//!    before: `jobs/`, tasks and directories of internal files are made, and an internal file is copied (`copy_up`).
//!
//! An operation that needs a job in the primary fails with [`need_recovery`] before it changes anything. [`Attempt::finish`]
//! is the one place that runs operations; there, such a request begins to wait for the recovery (`recovery`).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::workspace::jobs::JobId;

/// What the kernel receives for a request: a value or an error.
pub(super) trait Reply: Send + 'static {
    type Value;

    fn send(self, mount: &Mount, value: Self::Value);

    fn refuse(self, mount: &Mount, error: Errno);

    /// Undoes what an attempt did in the tables, since the kernel has received the reply of another one.
    fn undo(_mount: &Mount, _value: Self::Value) {}
}

impl Mount {
    /// Answers a request by `work`. If the request may wait for a folder, another thread may run `work`, and may
    /// attempt it again or give it up.
    pub(super) fn answer<R: Reply>(
        self: &Arc<Self>,
        may_wait: bool,
        reply: R,
        work: impl Fn(&Mount) -> Result<R::Value> + Send + Sync + 'static,
    ) {
        let attempt = Attempt::new(reply);
        if !may_wait {
            if let Some(needed) = attempt.finish(self, &work) {
                attempt.wait(self, &Arc::new(work), needed);
            }
            return;
        }
        let (mount, work) = (self.clone(), Arc::new(work));
        self.threads.run(move || attempt.run(&mount, &work));
    }

    /// Runs work on an open file that may wait for a folder, without delaying other requests. Such work has no deadline, as on the disk
    /// itself, and so it must not use all threads.
    pub(super) fn defer(
        self: &Arc<Self>,
        may_wait: bool,
        work: impl FnOnce(&Arc<Mount>) + Send + 'static,
    ) {
        if !may_wait {
            return work(self);
        }
        let mount = self.clone();
        self.threads.run_without_deadline(move || work(&mount));
    }
}

/// A request that no attempt has claimed.
const FREE: u32 = 0;

thread_local! {
    /// The claim of the attempt that this thread processes, if it is one of several.
    static CURRENT: RefCell<Option<(Arc<AtomicU32>, u32)>> = const { RefCell::new(None) };
    /// The recovery that the operation of this thread needs.
    static NEEDED: RefCell<Option<Needed>> = const { RefCell::new(None) };
}

/// A job that must be recovered before an operation, and the thread that waits for that.
#[derive(Debug)]
struct Needed {
    job: JobId,
    tid: u32,
}

/// The error of an operation that needs a recovery. No disk returns it, and the kernel never receives it.
const RECOVERY_NEEDED: Errno = Errno::RESTART;

/// Whether an operation ended with this error since it needs a job to be recovered.
pub(super) fn is_recovery_needed(error: Errno) -> bool {
    error == RECOVERY_NEEDED
}

/// How often a request may wait for recoveries: the job may be moved to a folder again before the next attempt.
const RECOVERIES_MAX: u32 = 5;

/// How often a request is attempted again that fails while the nodes of a recovered job change.
const STALE_MAX: u32 = 10;

/// Returns the error with which an operation ends that a job must be recovered for. The operation is attempted again after
/// that; it must not have changed anything.
pub(super) fn need_recovery(job: JobId, tid: u32) -> Errno {
    NEEDED.set(Some(Needed { job, tid }));
    RECOVERY_NEEDED
}

fn claim(claimed: &AtomicU32, by: u32) -> bool {
    match claimed.compare_exchange(FREE, by, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => true,
        Err(other) => other == by,
    }
}

/// Claims the request that this thread processes, before a file is changed for it.
///
/// # Errors
///
/// `ETIMEDOUT` if the request has been answered, or another attempt has claimed it.
pub(super) fn commit() -> Result<()> {
    CURRENT.with_borrow(|current| match current {
        Some((claimed, by)) if !claim(claimed, *by) => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    })
}

/// An attempt to answer a request.
#[derive(Debug)]
struct Attempt<R> {
    request: Arc<Request<R>>,
    claimed: Arc<AtomicU32>,
    number: u32,
}

#[derive(Debug)]
struct Request<R> {
    reply: Mutex<Option<R>>,
    attempts: AtomicU32,
    /// How often the request has waited for a recovery.
    recoveries: AtomicU32,
}

/// Ends the attempt of this thread when it is dropped.
struct AttemptGuard;

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        let ended = CURRENT.take();
        drop(ended);
    }
}

impl<R> Attempt<R> {
    fn new(reply: R) -> Attempt<R> {
        let request = Request {
            reply: Mutex::new(Some(reply)),
            attempts: AtomicU32::new(FREE + 1),
            recoveries: AtomicU32::new(0),
        };
        Attempt {
            request: Arc::new(request),
            claimed: Arc::new(AtomicU32::new(FREE)),
            number: FREE + 1,
        }
    }

    /// Returns another attempt at the same request.
    fn next(&self) -> Attempt<R> {
        Attempt {
            request: self.request.clone(),
            claimed: self.claimed.clone(),
            number: self.request.attempts.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Makes [`commit`] in this thread claim this attempt.
    fn begin(&self) -> AttemptGuard {
        CURRENT.set(Some((self.claimed.clone(), self.number)));
        AttemptGuard
    }

    /// Whether another attempt has claimed the request.
    fn is_lost(&self) -> bool {
        ![FREE, self.number].contains(&self.claimed.load(Ordering::Acquire))
    }

    /// Returns the reply, unless another attempt has claimed the request.
    fn take(&self) -> Option<R> {
        match claim(&self.claimed, self.number) {
            true => self.request.reply.lock().take(),
            false => None,
        }
    }
}

impl<R: Reply> Attempt<R> {
    /// Attempts to answer the request; the request is attempted again, or given up, if that takes too long.
    fn run<W>(&self, mount: &Arc<Mount>, work: &Arc<W>)
    where
        W: Fn(&Mount) -> Result<R::Value> + Send + Sync + 'static,
    {
        if self.is_lost() {
            return;
        }
        let again = {
            let (next, mount, work) = (Arc::new(self.next()), mount.clone(), work.clone());
            move || {
                let (next, this, work) = (next.clone(), mount.clone(), work.clone());
                mount.threads.run_outside(move || next.run(&this, &work));
            }
        };
        let give_up = {
            let (last, mount) = (self.next(), mount.clone());
            move || {
                if let Some(reply) = last.take() {
                    reply.refuse(&mount, Errno::TIMEDOUT);
                }
            }
        };
        let needed = {
            let _watched = mount.timeouts.watch(again, give_up);
            let _current = self.begin();
            self.finish(mount, &**work)
        };
        if let Some(needed) = needed {
            self.wait(mount, work, needed);
        }
    }

    /// Runs an operation and answers the request, unless the operation needs a recovery.
    fn finish(&self, mount: &Mount, work: &impl Fn(&Mount) -> Result<R::Value>) -> Option<Needed> {
        let result = attempt_again_if_stale(mount, work);
        if let Err(RECOVERY_NEEDED) = result
            && let Some(needed) = NEEDED.take()
        {
            return Some(needed);
        }
        match (result, self.take()) {
            (Ok(value), Some(reply)) => {
                reply.send(mount, value);
                mount.recorder.answered();
            }
            (Err(error), Some(reply)) => {
                reply.refuse(mount, error);
                mount.recorder.answered();
            }
            (Ok(value), None) => R::undo(mount, value),
            (Err(_), None) => {}
        }
        None
    }

    /// Attempts to answer the request again once a job has been recovered.
    fn wait<W>(&self, mount: &Arc<Mount>, work: &Arc<W>, needed: Needed)
    where
        W: Fn(&Mount) -> Result<R::Value> + Send + Sync + 'static,
    {
        if self.is_lost() {
            return;
        }
        let refuse = {
            let (last, mount) = (self.next(), mount.clone());
            move |error| {
                if let Some(reply) = last.take() {
                    reply.refuse(&mount, error);
                }
            }
        };
        let Some(recover) = &mount.recover else {
            return refuse(Errno::ROFS);
        };
        if self.request.recoveries.fetch_add(1, Ordering::Relaxed) >= RECOVERIES_MAX {
            return refuse(Errno::BUSY);
        }
        let again = {
            let (next, mount, work) = (self.next(), mount.clone(), work.clone());
            move || {
                let this = mount.clone();
                this.threads.run_outside(move || next.run(&mount, &work));
            }
        };
        let Needed { job, tid } = needed;
        mount.recoveries.wait(recover, job, tid, again, refuse);
    }
}

/// Runs an operation. While the nodes of a recovered job change, one may lead to its old location and its parent to the new
/// one, and the operation fails with `ESTALE`.
fn attempt_again_if_stale<T>(mount: &Mount, work: &impl Fn(&Mount) -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        NEEDED.set(None);
        let epoch = mount.node_changes.epoch();
        let result = work(mount);
        let changing = epoch % 2 == 1;
        if !matches!(result, Err(Errno::STALE))
            || tries >= STALE_MAX
            || !(changing || mount.node_changes.epoch() != epoch)
        {
            return result;
        }
        tries += 1;
        if changing {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_attempt_commits_and_replies() {
        let first = Attempt::new("reply");
        let second = first.next();
        {
            let _current = second.begin();
            assert_eq!(commit(), Ok(()));
            assert_eq!(
                commit(),
                Ok(()),
                "the attempt has claimed the request already"
            );
        }
        let _current = first.begin();
        assert_eq!(commit(), Err(Errno::TIMEDOUT));
        assert!(first.is_lost() && !second.is_lost());
        assert_eq!((first.take(), second.take()), (None, Some("reply")));
        assert_eq!(second.take(), None);
    }
}
