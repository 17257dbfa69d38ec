//! Keeps an internal file of a job from being created while the job is published in the primary, by any process of any node.
//!
//! The published job gets the internal files that exist. One that is created after the last look at them, by a process that has not seen
//! the job in the primary, would not be the job's: a program could lock it while another one locks the file of that name in the job.
//!
//! Creators share the lock of a file in the primary's `.xpmfs`, and a publisher has it alone. Each holds it for a moment only, unless it
//! is stopped in this moment, or its disk does not answer:
//!
//! 1. A creator then goes on without the lock. A plan opens a lock in each of its jobs, and all plans of all nodes would fail; the lock
//!    gets two holders only if the stopped process publishes the same job.
//! 2. A publisher then fails. It has changed nothing, and can try again; and it cannot know which job the stopped process creates a file
//!    for, after it has looked whether the job is in the primary.
//! 3. On a disk that cannot lock files both go on: programs cannot lock the files of its jobs either.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, Result};

use super::View;
use crate::sys::{at, shared_dir};
use crate::workspace::layout;

/// The name of the file.
const GATE: &str = "internal.lock";

/// How long a creator waits: less than its request may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a publisher waits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to try meanwhile.
const POLL: Duration = Duration::from_millis(2);

/// The right to create internal files, or to publish a job.
#[derive(Debug)]
pub struct InternalGate {
    /// Holds the lock, if it could be taken.
    _file: Option<OwnedFd>,
}

impl View {
    /// Waits until no process publishes a job, and lets none do so while the gate is held: to look whether the primary has a job, and to
    /// create an internal file of it if not.
    #[must_use]
    pub fn open_gate(&self) -> InternalGate {
        let locked = self.lock_gate(FlockOperation::NonBlockingLockShared, OPEN_TIMEOUT, &|| {
            false
        });
        locked.unwrap_or_else(|error| self.without_gate(error))
    }

    /// Waits until no process creates an internal file, and lets none do so while the gate is held: to give a job all of them, and to
    /// publish it. `None` if other processes hold the gate for too long, or `is_cancelled` returns true.
    pub fn close_gate(&self, is_cancelled: &dyn Fn() -> bool) -> Option<InternalGate> {
        let locked = self.lock_gate(
            FlockOperation::NonBlockingLockExclusive,
            CLOSE_TIMEOUT,
            is_cancelled,
        );
        match locked {
            Err(Errno::WOULDBLOCK) => None,
            locked => Some(locked.unwrap_or_else(|error| self.without_gate(error))),
        }
    }

    /// The file whose lock is the gate.
    #[must_use]
    pub fn gate_path(&self) -> PathBuf {
        self.primary_path().join(layout::XPMFS).join(GATE)
    }

    /// Takes the lock. Fails with `EAGAIN` if other processes hold it for too long.
    fn lock_gate(
        &self,
        operation: FlockOperation,
        timeout: Duration,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<InternalGate> {
        let file = self.gate_file()?;
        lock_until(Instant::now() + timeout, is_cancelled, || {
            flock(&file, operation)
        })?;
        self.warned_of_gate.store(false, Ordering::Relaxed);
        Ok(InternalGate { _file: Some(file) })
    }

    fn without_gate(&self, error: Errno) -> InternalGate {
        if !self.warned_of_gate.swap(true, Ordering::Relaxed) {
            let path = self.gate_path();
            let path = path.display();
            match error {
                Errno::WOULDBLOCK => tracing::warn!(
                    "another process holds the lock {path}, and has for {} s: creating internal files without it. If a process of \
                     xpmfs is stopped on any node, continue or end it",
                    OPEN_TIMEOUT.as_secs()
                ),
                error => tracing::warn!(
                    "cannot lock {path}: {error}. Two programs may get the same lock of a job that is being recovered"
                ),
            }
        }
        InternalGate { _file: None }
    }

    fn gate_file(&self) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let path = Path::new(layout::XPMFS).join(GATE);
        let open = |flags: OFlags| at::open_below(root.fd(), &path, flags);
        match open(OFlags::RDWR) {
            Err(Errno::NOENT) => {}
            // An exclusive lock on NFS is not possible with this descriptor.
            Err(Errno::ACCESS) => return open(OFlags::RDONLY),
            opened => return opened,
        }
        let own = rustix::fs::fstat(root.fd())?;
        let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
        let name = OsStr::new(layout::XPMFS);
        let dir = shared_dir::make_shared(root.fd(), name, own.st_gid, rights)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, GATE, flags, Mode::RUSR | Mode::WUSR) {
            Ok(made) => {
                let rights = Mode::from_raw_mode(own.st_mode & 0o666) | Mode::RUSR | Mode::WUSR;
                shared_dir::share(&made, own.st_gid, rights)?;
                Ok(made)
            }
            Err(Errno::EXIST) => open(OFlags::RDWR),
            Err(error) => Err(error),
        }
    }
}

/// Tries to lock until that succeeds, fails, or has taken too long; then it fails with `EAGAIN`.
fn lock_until(
    deadline: Instant,
    is_cancelled: &dyn Fn() -> bool,
    attempt: impl Fn() -> Result<()>,
) -> Result<()> {
    loop {
        match attempt() {
            // NFS asks the server, and a signal may end that.
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            done => return done,
        }
        if Instant::now() >= deadline || is_cancelled() {
            return Err(Errno::WOULDBLOCK);
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_locking_ends_in_time() {
        let locked = lock_until(Instant::now() + POLL, &|| false, || Err(Errno::INTR));
        assert_eq!(locked, Err(Errno::WOULDBLOCK));
    }

    #[test]
    fn waiting_ends_when_it_is_cancelled() {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let locked = lock_until(deadline, &|| true, || Err(Errno::WOULDBLOCK));
        assert_eq!(locked, Err(Errno::WOULDBLOCK));
    }

    #[test]
    fn disk_without_locks_is_not_tried_again() {
        let deadline = Instant::now() + Duration::from_secs(3600);
        for error in [Errno::OPNOTSUPP, Errno::NOLCK] {
            assert_eq!(lock_until(deadline, &|| false, || Err(error)), Err(error));
        }
    }
}
