//! Retries the locks that requests wait for, in one thread, and answers the requests.
//!
//! A request for a lock is deferred (`deferred`): it holds its reply and the open file, and no thread of the loop. The
//! kernel cannot withdraw a request that the daemon has read, so the thread ends the wait when a signal is pending
//! for the caller.
//!
//! A protocol may check the file once it has the lock (`fstat`: is it still linked?), so a lock is granted to its
//! caller only when the kernel has dropped its cached state of the file.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::ReplyEmpty;
use parking_lot::{Condvar, Mutex};
use rustix::fs::FlockOperation;
use rustix::io::{Errno, Result};

use crate::mount::attributes::errno;
use crate::mount::tables::handles::{File, Handles};
use crate::mount::tables::invalidate::Invalidator;
use crate::mount::tables::lock_names::LockNames;
use crate::mount::tables::nodes::Nodes;
use crate::mount::threads;

/// The intervals between attempts at locks that requests wait for: at first, and when nothing has changed for a while.
/// They are retried at once when a lock is released through this mount.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Limit of callers that one poll checks for an interruption.
const INTERRUPTED_MAX: usize = 64;

/// The requests that wait for a lock, and the thread that retries them while there are any.
#[derive(Debug)]
pub(super) struct Waiter {
    handles: Arc<Handles>,
    fresh: Fresh,
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
    added: Vec<Waiting>,
    /// A lock has been released since the last poll.
    released: bool,
    running: bool,
}

/// A request for a lock.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) file: Arc<File>,
    pub(super) operation: FlockOperation,
    /// The thread that waits.
    pub(super) tid: u32,
    /// When the request is refused; `None` if it waits without limit.
    pub(super) refused: Option<Instant>,
    pub(super) reply: ReplyEmpty,
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
    ) -> Waiter {
        Waiter {
            handles,
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
    pub(super) fn wait(&self, waiting: Waiting) {
        let mut state = self.shared.state.lock();
        state.added.push(waiting);
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
                for waiting in state.added.drain(..) {
                    waiting.reply.error(errno(Errno::NOLCK));
                }
            }
        }
    }

    /// Makes the thread retry the waiting requests at once, since a lock has been released.
    pub(super) fn notify_released(&self) {
        let mut state = self.shared.state.lock();
        if state.running {
            state.released = true;
            self.shared.changed.notify_one();
        }
    }
}

fn try_until_none_waits(shared: &Shared, handles: &Handles, fresh: &Fresh) {
    let mut polled = Polled::default();
    let mut interval = POLL_MIN;
    let mut next = Instant::now() + interval;
    loop {
        let mut state = shared.state.lock();
        if polled.waiting.is_empty() && state.added.is_empty() {
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
            polled.waiting.extend(added);
            interval = POLL_MIN;
            next = next.min(Instant::now() + interval);
        }
        if released || Instant::now() >= next {
            polled.poll(handles, fresh);
            interval = match released {
                true => POLL_MIN,
                false => (interval * 2).min(POLL_MAX),
            };
            next = Instant::now() + interval;
        }
        next = polled.refused_first(next);
    }
}

#[derive(Debug, Default)]
struct Polled {
    waiting: Vec<Waiting>,
    /// The first caller that the next poll checks for an interruption.
    interrupted_from: usize,
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

impl Polled {
    /// Answers the requests that have got their locks or need not wait any longer. A file's lock is tried for one
    /// request: if that one must wait, later requests for the same or a stronger lock must wait, too.
    fn poll(&mut self, handles: &Handles, fresh: &Fresh) {
        let mut held = Held::default();
        let now = Instant::now();
        let count = self.waiting.len();
        let from = self.interrupted_from % count.max(1);
        self.interrupted_from = from + INTERRUPTED_MAX;
        for (at, waiting) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let (node, operation) = (waiting.file.node, waiting.operation);
            if !held.contains(node, operation) {
                if let FlockResult::Done(result) = attempt(handles, &waiting.file, operation) {
                    fresh.answer(&waiting.file, result, waiting.reply);
                    continue;
                }
                held.add(node, operation);
            }
            let looked_at = (at + count - from) % count < INTERRUPTED_MAX;
            match waiting.refused {
                Some(refused) if now >= refused => {
                    waiting.reply.error(errno(Errno::WOULDBLOCK));
                }
                None if looked_at && is_interrupted(waiting.tid) => {
                    waiting.reply.error(errno(Errno::INTR));
                }
                _ => self.waiting.push(waiting),
            }
        }
    }

    /// When the first request is refused, if that is before `next`.
    fn refused_first(&self, next: Instant) -> Instant {
        let refused = self.waiting.iter().filter_map(|waiting| waiting.refused);
        refused.fold(next, Instant::min)
    }
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

/// Whether a thread has a signal pending, or has ended. A thread of a foreign process namespace (0) is unknown to the
/// daemon.
fn is_interrupted(tid: u32) -> bool {
    if tid == 0 {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => has_pending_signal(&status),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn has_pending_signal(status: &str) -> bool {
    let mask = |field: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(0)
    };
    (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_signal_interrupts_unless_blocked() {
        let status = |pending, shared, blocked| {
            format!(
                "Name:\tx\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\n"
            )
        };
        assert!(!has_pending_signal(&status(0, 0, 0)));
        assert!(has_pending_signal(&status(0x100, 0, 0)));
        assert!(has_pending_signal(&status(0, 0x4000, 0)));
        assert!(!has_pending_signal(&status(0, 0x4000, 0x4000)));
        assert!(!has_pending_signal("nothing of the kind"));
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

    #[test]
    fn ended_thread_is_interrupted() {
        let gone = std::thread::spawn(rustix::thread::gettid).join().unwrap();
        let tid = gone.as_raw_nonzero().get().unsigned_abs();
        // The thread's entry in `/proc` disappears a moment after the join.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !is_interrupted(tid) {
            assert!(std::time::Instant::now() < deadline, "{tid} still there");
            std::thread::yield_now();
        }
    }
}
