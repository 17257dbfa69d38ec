//! `flock`, on the file beneath, so that locks taken through the mount and beside it exclude each
//! other.
//!
//! A blocking request must neither hold up the loop that serves the others nor outlive its caller:
//! the kernel cannot take a request back that we have read. A thread tries the locks that are
//! waited for, and gives up when a signal is pending for the one who waits.
//!
//! On a disk, a lock has gone when the `close` has returned that gives it up, or the process has
//! ended that held it. The kernel tells us of that afterwards (`FUSE_RELEASE` is not waited for), so
//! that whoever asks next may be served before. But of each `close` it tells us before it returns
//! (`FUSE_FLUSH`): a request that does not wait, for a lock whose holder has closed the file, is
//! refused only after a while, in which it is told that this was the last descriptor of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::ReplyEmpty;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use rustix::io::{Errno, Result};

use super::handles::File;
use super::{Mount, adaptor};

/// How often locks that are waited for are tried.
const INTERVAL: Duration = Duration::from_millis(5);

/// How long it may take until we are told that a lock has been given up by closing. So long must
/// wait who asks for the lock of a process that has closed another descriptor of the file, as one
/// does that starts another with the lock taken.
const RELEASE: Duration = Duration::from_millis(100);

/// The requests that wait for a lock, and the thread that tries for them while there are any.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    running: bool,
}

#[derive(Debug)]
struct Waiting {
    file: Arc<File>,
    operation: FlockOperation,
    /// The thread that waits.
    tid: u32,
    /// When it is refused; never, if it is to be waited for.
    refused: Option<Instant>,
    reply: ReplyEmpty,
}

/// What became of an attempt.
enum Attempt {
    Done(Result<()>),
    Held,
}

impl Mount {
    /// Takes or gives back a lock. One that somebody else has is waited for if `wait`, by thread
    /// `tid`.
    pub(super) fn flock(&self, handle: u64, kind: i32, wait: bool, tid: u32, reply: ReplyEmpty) {
        let (file, operation) = match self.handles.file(handle).and_then(|file| {
            let operation = non_blocking(kind)?;
            Ok((file, operation))
        }) {
            Ok(found) => found,
            Err(error) => return reply.error(adaptor::errno(error)),
        };
        if let Attempt::Done(result) = attempt(&file, operation) {
            if operation == FlockOperation::NonBlockingUnlock {
                self.at_rest(file.node);
            }
            return adaptor::empty(result, reply);
        }
        let patience = match self.handles.lock_may_go(file.node) {
            true => RELEASE,
            // It is tried once more: perhaps it has just been given up.
            false => Duration::ZERO,
        };
        self.locks.wait(Waiting {
            file,
            operation,
            tid,
            refused: (!wait).then(|| Instant::now() + patience),
            reply,
        });
    }

    /// Gives the lock of a file up that nobody has open any more. It is seen to be gone no later than
    /// the file ([`super::handles::Handles::lock_may_go`]).
    /// Returns whether there was one.
    pub(super) fn give_lock_up(&self, handle: u64) -> bool {
        match self.handles.file(handle) {
            Ok(file) if file.lock.is_held() => {
                let _ = attempt(&file, FlockOperation::NonBlockingUnlock);
                true
            }
            _ => false,
        }
    }
}

impl Waiter {
    fn wait(&self, waiting: Waiting) {
        let mut state = self.state.lock();
        state.waiting.push(waiting);
        if state.running {
            return;
        }
        let shared = self.state.clone();
        let spawned = std::thread::Builder::new()
            .name("xpmfs-flock".to_owned())
            .spawn(move || try_until_none_waits(&shared));
        match spawned {
            Ok(_) => state.running = true,
            Err(error) => {
                tracing::error!(%error, "cannot wait for a lock: starting a thread failed");
                for waiting in state.waiting.drain(..) {
                    waiting.reply.error(adaptor::errno(Errno::NOLCK));
                }
            }
        }
    }
}

fn try_until_none_waits(state: &Mutex<State>) {
    loop {
        std::thread::sleep(INTERVAL);
        let waiting = std::mem::take(&mut state.lock().waiting);
        let still: Vec<Waiting> = waiting.into_iter().filter_map(try_once).collect();
        let mut state = state.lock();
        state.waiting.extend(still);
        if state.waiting.is_empty() {
            state.running = false;
            return;
        }
    }
}

/// Answers a request that has got its lock or need not wait any longer; gives back one that must.
fn try_once(waiting: Waiting) -> Option<Waiting> {
    match attempt(&waiting.file, waiting.operation) {
        Attempt::Done(result) => adaptor::empty(result, waiting.reply),
        Attempt::Held => match waiting.refused {
            Some(at) if Instant::now() >= at => {
                waiting.reply.error(adaptor::errno(Errno::WOULDBLOCK));
            }
            None if is_interrupted(waiting.tid) => {
                waiting.reply.error(adaptor::errno(Errno::INTR));
            }
            _ => return Some(waiting),
        },
    }
    None
}

fn attempt(file: &File, operation: FlockOperation) -> Attempt {
    match rustix::fs::flock(&file.fd, operation) {
        Err(Errno::WOULDBLOCK) => Attempt::Held,
        Ok(()) => {
            file.lock
                .set_held(operation != FlockOperation::NonBlockingUnlock);
            Attempt::Done(Ok(()))
        }
        Err(error) => Attempt::Done(Err(error)),
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

/// Whether a thread has a signal to take, or has gone. One of a foreign process namespace (0) is
/// not known to us.
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
    fn a_thread_that_is_gone_waits_no_longer() {
        let gone = std::thread::spawn(rustix::thread::gettid).join().unwrap();
        let tid = gone.as_raw_nonzero().get().unsigned_abs();
        // The thread's entry goes a moment after it is joined.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !is_interrupted(tid) {
            assert!(std::time::Instant::now() < deadline, "{tid} still there");
            std::thread::yield_now();
        }
    }
}
