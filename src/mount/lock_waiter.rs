//! Retries the locks that requests wait for, in one thread, and answers the requests.
//!
//! A request for a lock is deferred (`deferred`): it holds its reply and the open file, and no thread of the loop. The
//! kernel cannot withdraw a request that the daemon has read; `interrupts` ends the wait when a signal is pending for the
//! caller.
//!
//! A protocol may check the file once it has the lock (`fstat`: is it still linked?), so a lock is granted to its
//! caller only when the kernel has dropped its cached state of the file.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fuser::ReplyEmpty;
use parking_lot::{Condvar, Mutex};
use rustix::fs::FlockOperation;
use rustix::io::{Errno, Result};

use crate::mount::attributes::errno;
use crate::mount::interrupts::{self, Interrupts};
use crate::mount::tables::handles::{File, Handles};
use crate::mount::tables::invalidate::Invalidator;
use crate::mount::tables::lock_names::LockNames;
use crate::mount::tables::nodes::Nodes;
use crate::mount::threads;

/// The intervals between attempts at locks that requests wait for: at first, and when nothing has changed for a while.
/// They are retried at once when a lock is released through this mount.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// The requests that wait for a lock, and the thread that retries them while there are any.
#[derive(Debug)]
pub(super) struct Waiter {
    handles: Arc<Handles>,
    fresh: Fresh,
    interrupts: Interrupts,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Pending>,
    /// Wakes the thread.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// Requests that the thread has not seen yet.
    added: Vec<Polled>,
    /// A lock has been released, or a caller interrupted, since the last poll.
    released: bool,
    running: bool,
}

/// A request for a lock.
#[derive(Debug)]
pub(super) struct LockRequest {
    pub(super) file: Arc<File>,
    pub(super) operation: FlockOperation,
    /// The thread that waits.
    pub(super) tid: u32,
    /// When the request is refused; `None` if it waits without limit.
    pub(super) refused: Option<LockRefusal>,
    pub(super) reply: ReplyEmpty,
}

/// When a request is refused whose lock may just have been released.
///
/// The release may wait for a processor in another thread. So a few polls must have come too late, each of which has waited for a processor,
/// too: on a busy machine, they take longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockRefusal {
    at: Instant,
    /// How many polls must follow.
    polls: u32,
}

impl LockRefusal {
    const FIRST: Duration = Duration::from_millis(60);
    const POLLS: u32 = 4;
    const INTERVAL: Duration = Duration::from_millis(10);

    /// That of a request that is made now: in 0.1 s, if no thread waits for a processor.
    pub(super) fn soon() -> LockRefusal {
        LockRefusal {
            at: Instant::now() + LockRefusal::FIRST,
            polls: LockRefusal::POLLS,
        }
    }

    /// Whether the request must be refused, in a poll that has found the lock held.
    fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.at = now + LockRefusal::INTERVAL;
        match self.polls.checked_sub(1) {
            Some(polls) => self.polls = polls,
            None => return true,
        }
        false
    }
}

/// A request for a lock that the thread polls.
#[derive(Debug)]
struct Polled {
    request: LockRequest,
    interrupted: Arc<AtomicBool>,
    /// Sets `interrupted`.
    _signals: Option<interrupts::WaitingRequest>,
}

/// The result of an attempt to take or release a lock.
pub(super) enum FlockResult {
    Done(Result<()>),
    Held,
}

impl Waiter {
    pub(super) fn new(
        handles: Arc<Handles>,
        nodes: Arc<Nodes>,
        names: Arc<LockNames>,
        invalidate: Arc<Invalidator>,
        interrupts: Interrupts,
    ) -> Waiter {
        Waiter {
            handles,
            interrupts,
            fresh: Fresh {
                nodes,
                names,
                invalidate,
            },
            shared: Arc::default(),
        }
    }

    /// Attempts to take or release a lock at once.
    pub(super) fn attempt(&self, file: &File, operation: FlockOperation) -> FlockResult {
        attempt(&self.handles, file, operation)
    }

    /// Answers a request for a lock that could be tried.
    pub(super) fn answer(&self, file: &File, result: Result<()>, reply: ReplyEmpty) {
        self.fresh.answer(file, result, reply);
    }

    /// Answers a request once its lock is free, or when it need not wait any longer.
    pub(super) fn wait(&self, request: LockRequest) {
        let interrupted = Arc::<AtomicBool>::default();
        // A request that does not wait without limit ends soon by itself.
        let signals = match request.refused {
            Some(_) => None,
            None => self.interrupts.watch(request.tid, {
                let (shared, interrupted) = (self.shared.clone(), interrupted.clone());
                move || {
                    interrupted.store(true, Ordering::Release);
                    shared.poll_now();
                }
            }),
        };
        let mut state = self.shared.state.lock();
        state.added.push(Polled {
            request,
            interrupted,
            _signals: signals,
        });
        if state.running {
            self.shared.changed.notify_one();
            return;
        }
        let shared = self.shared.clone();
        let (handles, fresh) = (self.handles.clone(), self.fresh.clone());
        let started = threads::start("xpmfs-flock", move || {
            try_until_none_waits(&shared, &handles, &fresh);
        });
        match started {
            Ok(()) => state.running = true,
            Err(error) => {
                tracing::error!(%error, "cannot wait for a lock: starting a thread failed");
                let added = std::mem::take(&mut state.added);
                drop(state);
                for waiting in added {
                    waiting.request.reply.error(errno(Errno::NOLCK));
                }
            }
        }
    }

    /// Makes the thread retry the waiting requests at once, since a lock has been released.
    pub(super) fn notify_released(&self) {
        self.shared.poll_now();
    }
}

impl Shared {
    fn poll_now(&self) {
        let mut state = self.state.lock();
        if state.running {
            state.released = true;
            self.changed.notify_one();
        }
    }
}

fn try_until_none_waits(shared: &Shared, handles: &Handles, fresh: &Fresh) {
    let mut waiting: Vec<Polled> = Vec::new();
    let mut interval = POLL_MIN;
    let mut next = Instant::now() + interval;
    loop {
        let mut state = shared.state.lock();
        if waiting.is_empty() && state.added.is_empty() {
            state.running = false;
            return;
        }
        let released = std::mem::take(&mut state.released);
        let added = std::mem::take(&mut state.added);
        if !released && added.is_empty() && Instant::now() < next {
            shared.changed.wait_until(&mut state, next);
            continue;
        }
        drop(state);
        if !added.is_empty() {
            waiting.extend(added);
            interval = POLL_MIN;
            next = next.min(Instant::now() + interval);
        }
        if released || Instant::now() >= next {
            waiting = poll(waiting, handles, fresh);
            interval = match released {
                true => POLL_MIN,
                false => (interval * 2).min(POLL_MAX),
            };
            next = Instant::now() + interval;
        }
        next = refused_first(&waiting, next);
    }
}

/// The files whose locks were not free in a poll, by node.
#[derive(Debug, Default)]
struct Held {
    /// Files of which not even a shared lock was free.
    shared: HashSet<u64>,
    exclusive: HashSet<u64>,
}

impl Held {
    /// Whether a lock is known not to be free.
    fn contains(&self, node: u64, operation: FlockOperation) -> bool {
        self.shared.contains(&node)
            || (operation != FlockOperation::NonBlockingLockShared
                && self.exclusive.contains(&node))
    }

    fn add(&mut self, node: u64, operation: FlockOperation) {
        match operation {
            FlockOperation::NonBlockingLockShared => self.shared.insert(node),
            _ => self.exclusive.insert(node),
        };
    }
}

/// Answers the requests that have got their locks or need not wait any longer, and returns the others. A file's lock is
/// tried for one request: if that one must wait, later requests for the same or a stronger lock must wait, too.
fn poll(waiting: Vec<Polled>, handles: &Handles, fresh: &Fresh) -> Vec<Polled> {
    let mut held = Held::default();
    let mut left = Vec::with_capacity(waiting.len());
    let now = Instant::now();
    for mut polled in waiting {
        let request = &mut polled.request;
        let (node, operation) = (request.file.node, request.operation);
        if !held.contains(node, operation) {
            if let FlockResult::Done(result) = attempt(handles, &request.file, operation) {
                let request = polled.request;
                fresh.answer(&request.file, result, request.reply);
                continue;
            }
            held.add(node, operation);
        }
        let refused = request.refused.as_mut();
        match refused.map(|refused| refused.is_due(now)) {
            Some(true) => polled.request.reply.error(errno(Errno::WOULDBLOCK)),
            None if polled.interrupted.load(Ordering::Acquire) => {
                polled.request.reply.error(errno(Errno::INTR));
            }
            _ => left.push(polled),
        }
    }
    left
}

/// When the first request is refused, if that is before `next`.
fn refused_first(waiting: &[Polled], next: Instant) -> Instant {
    let refused = waiting.iter().filter_map(|polled| polled.request.refused);
    refused.map(|refused| refused.at).fold(next, Instant::min)
}

/// Answers requests for locks that could be tried. A caller that has got the lock may now check the file, and must not
/// see the state that the kernel cached while another process had the lock: the file may have been removed or replaced
/// since, through another mount or beneath.
#[derive(Debug, Clone)]
struct Fresh {
    nodes: Arc<Nodes>,
    names: Arc<LockNames>,
    invalidate: Arc<Invalidator>,
}

impl Fresh {
    fn answer(&self, file: &File, result: Result<()>, reply: ReplyEmpty) {
        if let Err(error) = result {
            return reply.error(errno(error));
        }
        let mut names = self.nodes.names(file.node);
        names.retain(|(parent, name)| self.names.add(*parent, name));
        let (known, to_drop) = (self.names.clone(), names.clone());
        self.invalidate
            .before_reply(file.node, to_drop, move |dropped| {
                if dropped {
                    for (parent, name) in names {
                        known.set_dropped(parent, &name, true);
                    }
                }
                reply.ok();
            });
    }
}

fn attempt(handles: &Handles, file: &File, operation: FlockOperation) -> FlockResult {
    match rustix::fs::flock(&file.fd, operation) {
        Err(Errno::WOULDBLOCK) => FlockResult::Held,
        Ok(()) => {
            handles.set_locked(file, operation != FlockOperation::NonBlockingUnlock);
            FlockResult::Done(Ok(()))
        }
        Err(error) => FlockResult::Done(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_refused_after_several_late_polls() {
        let mut refusal = LockRefusal::soon();
        let start = refusal.at;
        assert!(!refusal.is_due(start.checked_sub(LockRefusal::INTERVAL).unwrap()));
        let mut now = start;
        for _ in 0..LockRefusal::POLLS {
            assert!(!refusal.is_due(now));
            assert!(!refusal.is_due(now), "too soon after the last poll");
            // As on a busy machine.
            now += LockRefusal::INTERVAL * 20;
        }
        assert!(refusal.is_due(now));
    }

    #[test]
    fn held_lock_is_tried_once_per_poll() {
        let (shared, exclusive) = (
            FlockOperation::NonBlockingLockShared,
            FlockOperation::NonBlockingLockExclusive,
        );
        let mut held = Held::default();
        assert!(!held.contains(1, exclusive));
        held.add(1, exclusive);
        assert!(held.contains(1, exclusive));
        assert!(!held.contains(1, shared), "others may hold it shared");
        held.add(1, shared);
        assert!(held.contains(1, shared));
        held.add(2, shared);
        assert!(held.contains(2, exclusive));
        assert!(!held.contains(3, shared));
    }
}
