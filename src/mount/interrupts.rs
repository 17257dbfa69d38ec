//! Ends the waiting of deferred requests whose callers have a signal pending.
//!
//! The kernel cannot withdraw a request that the daemon has read, and fuser does not report that a caller is interrupted.
//! So one thread reads `/proc/TID/status` of the callers of all waiting requests: those that wait for locks
//! (`lock_waiter`) and those that wait for recoveries (`recovery`). A caller in a foreign process namespace has no number
//! here (0), and is not interrupted.
//!
//! 1. A signal for the whole process is pending for every thread until one takes it. It counts when two polls in a row find
//!    it: only then does it wait for this thread.
//! 2. A signal that the process ignores does not count, nor does one that is ignored by default: `SIGCHLD`, `SIGCONT`,
//!    `SIGURG`, `SIGWINCH`. Shells handle the end of a child, and do not expect that a call on a file fails for it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::mount::threads;

/// The interval between polls.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Limit of callers that one poll checks.
const CHECKED_MAX: usize = 64;

type Interrupted = Box<dyn FnOnce() + Send>;

/// The callers of waiting requests.
#[derive(Debug, Default, Clone)]
pub(super) struct Interrupts {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, Caller>,
    /// The last request that was checked.
    last: u64,
    running: bool,
}

struct Caller {
    tid: u32,
    /// The signals that the previous poll found pending.
    pending: u64,
    interrupted: Interrupted,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// A waiting request; its caller is not checked any more once this is dropped.
#[derive(Debug)]
pub(super) struct WaitingRequest {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        let ended = self.state.lock().waiting.remove(&self.number);
        drop(ended);
    }
}

impl Interrupts {
    /// Calls `interrupted` once if a signal becomes pending for the thread `tid`, or it ends.
    pub(super) fn watch(
        &self,
        tid: u32,
        interrupted: impl FnOnce() + Send + 'static,
    ) -> Option<WaitingRequest> {
        if tid == 0 {
            return None;
        }
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        let caller = Caller {
            tid,
            pending: 0,
            interrupted: Box::new(interrupted),
        };
        state.waiting.insert(number, caller);
        if !state.running {
            let shared = self.state.clone();
            match threads::start("xpmfs-signals", move || poll_until_none_waits(&shared)) {
                Ok(()) => state.running = true,
                Err(error) => {
                    tracing::error!(%error, "signals do not end the wait of a request: starting a thread failed");
                }
            }
        }
        drop(state);
        let state = self.state.clone();
        Some(WaitingRequest { state, number })
    }
}

fn poll_until_none_waits(shared: &Mutex<State>) {
    loop {
        std::thread::sleep(POLL_INTERVAL);
        let checked = {
            let mut state = shared.lock();
            if state.waiting.is_empty() {
                state.running = false;
                return;
            }
            state.next_checked()
        };
        for (number, tid) in checked {
            let pending = pending_of(tid);
            let mut state = shared.lock();
            let Some(caller) = state.waiting.get_mut(&number) else {
                continue;
            };
            if std::mem::replace(&mut caller.pending, pending) & pending == 0 {
                continue;
            }
            let ended = state.waiting.remove(&number);
            drop(state);
            if let Some(caller) = ended {
                (caller.interrupted)();
            }
        }
    }
}

impl State {
    /// Returns the requests that the next poll checks: those after the last one that was checked, in a circle.
    fn next_checked(&mut self) -> Vec<(u64, u32)> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let up_to = (Bound::Unbounded, Bound::Included(self.last));
        let circle = self
            .waiting
            .range(after)
            .chain(self.waiting.range(up_to))
            .map(|(number, caller)| (*number, caller.tid));
        let checked: Vec<_> = circle.take(CHECKED_MAX).collect();
        self.last = checked.last().map_or(0, |(number, _)| *number);
        checked
    }
}

/// `SIGCHLD`, `SIGCONT`, `SIGURG` and `SIGWINCH`, as in the masks of `/proc/TID/status`.
const IGNORED_BY_DEFAULT: u64 = 1 << (libc::SIGCHLD - 1)
    | 1 << (libc::SIGCONT - 1)
    | 1 << (libc::SIGURG - 1)
    | 1 << (libc::SIGWINCH - 1);

/// Returns the signals that are pending for a thread, and would interrupt it; all if the thread has ended.
fn pending_of(tid: u32) -> u64 {
    match std::fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => pending(&status),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => u64::MAX,
        Err(_) => 0,
    }
}

fn pending(status: &str) -> u64 {
    let mask = |field: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(0)
    };
    let ignored = mask("SigBlk") | mask("SigIgn") | IGNORED_BY_DEFAULT;
    (mask("SigPnd") | mask("ShdPnd")) & !ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_signals_count_unless_blocked_or_ignored() {
        let status = |own, shared, blocked, ignored| {
            format!(
                "Name:\tx\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
            )
        };
        assert_eq!(pending(&status(0, 0, 0, 0)), 0);
        assert_eq!(pending(&status(0x100, 0, 0, 0)), 0x100);
        assert_eq!(pending(&status(0, 0x4000, 0, 0)), 0x4000);
        assert_eq!(pending(&status(0, 0x4000, 0x4000, 0)), 0);
        assert_eq!(pending(&status(0, 0x4000, 0, 0x4000)), 0);
        let child = 1 << (libc::SIGCHLD - 1);
        assert_eq!(pending(&status(0, child, 0, 0)), 0, "the end of a child");
        assert_eq!(pending("nothing of the kind"), 0);
    }

    #[test]
    fn end_of_a_thread_ends_its_waiting() {
        let gone = std::thread::spawn(rustix::thread::gettid).join().unwrap();
        let gone = gone.as_raw_nonzero().get().unsigned_abs();
        let own = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let interrupts = Interrupts::default();
        let (sender, ended) = crossbeam_channel::unbounded();
        let report = |tid: u32| {
            let sender = sender.clone();
            move || sender.send(tid).unwrap()
        };
        // More than one poll checks.
        let others: Vec<_> = (0..CHECKED_MAX * 2)
            .map(|_| interrupts.watch(own, report(own)))
            .collect();
        let waiting = interrupts.watch(gone, report(gone));
        assert!(interrupts.watch(0, report(0)).is_none());
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(gone));
        drop((others, waiting));
        assert!(interrupts.state.lock().waiting.is_empty());
        assert!(ended.try_recv().is_err());
    }
}
