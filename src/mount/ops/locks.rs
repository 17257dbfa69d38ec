//! Implements `flock` on the file beneath.
//!
//! Locks taken through the mount and beside it therefore exclude each other.
//!
//! A blocking request must neither delay the loop that serves other requests nor outlive its caller: the kernel cannot
//! withdraw a request that the daemon has read. A thread retries the locks that requests wait for, and gives up when a
//! signal is pending for the caller.
//!
//! A protocol may check the file once it has the lock (`fstat`: is it still linked?), so a lock is granted to its
//! caller only when the kernel has dropped its cached state of the file.
//!
//! On a disk, a lock is free as soon as the `close` that releases it has returned, or its process has ended. The kernel
//! reports that only afterwards (`FUSE_RELEASE` is not waited for), so the next request for the lock may be processed
//! before the report. But the kernel reports each `close` before it returns (`FUSE_FLUSH`): if the holder has closed
//! the file, a request that does not wait is refused only after a while, in which `FUSE_RELEASE` arrives if this was
//! the last descriptor of the file.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::ReplyEmpty;
use parking_lot::{Condvar, Mutex};
use rustix::fs::FlockOperation;
use rustix::io::{Errno, Result};

use crate::mount::deferred::Deferred;
use crate::mount::tables::handles::{File, Handles};
use crate::mount::tables::invalidate::Invalidator;
use crate::mount::tables::lock_names::LockNames;
use crate::mount::tables::nodes::Nodes;
use crate::mount::{Mount, replies};

/// The intervals between attempts at locks that requests wait for: at first, and when nothing has changed for a while.
/// They are retried at once when a lock is released through this mount.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Limit of callers that one poll checks for an interruption.
const INTERRUPTED_MAX: usize = 64;

/// How long the report of a lock that was released by closing may take. A request for the lock of a process that has
/// closed another descriptor of the file must wait for as long; a process that takes the lock and then starts another
/// does that.
const RELEASE_REPORT_TIMEOUT: Duration = Duration::from_millis(100);

/// The requests that wait for a lock, and the thread that retries them while there are any.
#[derive(Debug, Default)]
pub(in crate::mount) struct Waiter {
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

#[derive(Debug)]
struct Waiting {
    file: Arc<File>,
    operation: FlockOperation,
    /// The thread that waits.
    tid: u32,
    /// When the request is refused; `None` if it waits without limit.
    refused: Option<Instant>,
    reply: ReplyEmpty,
}

/// The result of an attempt.
enum FlockResult {
    Done(Result<()>),
    Held,
}

impl Mount {
    /// Takes or releases a lock. If another process holds it and `wait` is set, the request waits on behalf of thread
    /// `tid`.
    pub(in crate::mount) fn flock(
        &self,
        handle: u64,
        kind: i32,
        wait: bool,
        tid: u32,
        reply: ReplyEmpty,
    ) {
        let (file, operation) = match self.handles.file(handle).and_then(|file| {
            let operation = non_blocking(kind)?;
            Ok((file, operation))
        }) {
            Ok(found) => found,
            Err(error) => return reply.error(replies::errno(error)),
        };
        let mut tried = attempt(&self.handles, &file, operation);
        let may_be_released = self.handles.lock_may_be_released(file.node);
        if !wait && !may_be_released && matches!(tried, FlockResult::Held) {
            // The lock may just have been released.
            tried = attempt(&self.handles, &file, operation);
        }
        match tried {
            FlockResult::Done(result) if operation == FlockOperation::NonBlockingUnlock => {
                self.locks.notify_released();
                self.may_be_settled(file.node);
                replies::empty(result, reply);
            }
            FlockResult::Done(result) => self.fresh().answer(&file, result, reply),
            FlockResult::Held if !wait && !may_be_released => {
                reply.error(replies::errno(Errno::WOULDBLOCK));
            }
            FlockResult::Held => self.wait(Waiting {
                file,
                operation,
                tid,
                refused: (!wait).then(|| Instant::now() + RELEASE_REPORT_TIMEOUT),
                reply,
            }),
        }
    }

    fn wait(&self, waiting: Waiting) {
        let mut state = self.locks.shared.state.lock();
        state.added.push(waiting);
        if state.running {
            self.locks.shared.changed.notify_one();
            return;
        }
        let shared = self.locks.shared.clone();
        let (handles, fresh) = (self.handles.clone(), self.fresh());
        let started = Deferred::start("xpmfs-flock", move || {
            try_until_none_waits(&shared, &handles, &fresh);
        });
        match started {
            Ok(()) => state.running = true,
            Err(error) => {
                tracing::error!(%error, "cannot wait for a lock: starting a thread failed");
                for waiting in state.added.drain(..) {
                    waiting.reply.error(replies::errno(Errno::NOLCK));
                }
            }
        }
    }

    fn fresh(&self) -> Fresh {
        Fresh {
            nodes: self.nodes.clone(),
            names: self.lock_names.clone(),
            invalidate: self.invalidate.clone(),
        }
    }

    /// Releases the lock of a file that no process has open any more. The lock disappears no later than the file
    /// ([`crate::mount::tables::handles::Handles::lock_may_be_released`]). Returns whether there was one.
    pub(in crate::mount) fn release_lock(&self, handle: u64) -> bool {
        match self.handles.file(handle) {
            Ok(file) if file.lock.is_held() => {
                let _ = attempt(&self.handles, &file, FlockOperation::NonBlockingUnlock);
                self.locks.notify_released();
                true
            }
            _ => false,
        }
    }
}

impl Waiter {
    /// Makes the thread retry the waiting requests at once, since a lock has been released.
    fn notify_released(&self) {
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
                    waiting.reply.error(replies::errno(Errno::WOULDBLOCK));
                }
                None if looked_at && is_interrupted(waiting.tid) => {
                    waiting.reply.error(replies::errno(Errno::INTR));
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
struct Fresh {
    nodes: Arc<Nodes>,
    names: Arc<LockNames>,
    invalidate: Arc<Invalidator>,
}

impl Fresh {
    fn answer(&self, file: &File, result: Result<()>, reply: ReplyEmpty) {
        if let Err(error) = result {
            return reply.error(replies::errno(error));
        }
        let name = self.nodes.get(file.node).and_then(|node| {
            let added = self.names.add(node.parent, &node.name);
            added.then_some((node.parent, node.name))
        });
        self.invalidate
            .before_reply(file.node, name, move || reply.ok());
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

fn non_blocking(kind: i32) -> Result<FlockOperation> {
    match kind {
        libc::F_RDLCK => Ok(FlockOperation::NonBlockingLockShared),
        libc::F_WRLCK => Ok(FlockOperation::NonBlockingLockExclusive),
        libc::F_UNLCK => Ok(FlockOperation::NonBlockingUnlock),
        _ => Err(Errno::INVAL),
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
    fn a_signal_counts_unless_it_is_blocked() {
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
    fn a_lock_that_is_held_is_tried_once_in_a_poll() {
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
    fn a_thread_that_is_gone_waits_no_longer() {
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
