//! The processes that a supervisor starts: how they are started, looked at and waited for.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::sys::calls::fork;
use crate::sys::deadline::wait_until;

/// How a worker has ended.
pub(super) enum Death {
    /// With an exit status: the mount has ended.
    Ended(i32),
    /// By a signal.
    Killed(i32),
}

/// Looks at the state of a worker.
pub(super) struct Look {
    worker: Pid,
    /// `/proc/PID/stat`, opened when the worker was started: later, this process may have too many descriptors.
    stat: Option<File>,
}

impl Look {
    pub(super) fn new(worker: Pid) -> Look {
        Look {
            stat: File::open(format!("/proc/{}/stat", worker.as_raw_pid())).ok(),
            worker,
        }
    }

    /// Whether the worker was killed and a thread of it remains, in a call of the kernel that cannot be interrupted. Such a thread may
    /// wait for what only the next worker can answer, and keeps the socket open.
    pub(super) fn is_dying(&mut self) -> bool {
        if self.stat.is_none() {
            *self = Look::new(self.worker);
        }
        let mut bytes = [0; 512];
        // Without `/proc`, it must count as alive: two workers on one connection would both change files.
        let count = match self.stat.as_ref().map(|stat| stat.read_at(&mut bytes, 0)) {
            Some(Ok(count)) => count,
            _ => return false,
        };
        let stat = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
        // The state follows the name, which is in parentheses.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.trim_start().starts_with(['Z', 'X'])
    }
}

/// Waits for earlier workers whose last thread has ended by now.
pub(super) fn reap() {
    while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
}

/// How long a thread of this process may take to end before the first fork.
const THREADS_TIMEOUT: Duration = Duration::from_secs(5);

/// Forks, once a thread that has asked a file system something has ended.
pub(super) fn fork_alone() -> io::Result<Option<Pid>> {
    let mut forked = Err(rustix::io::Errno::BUSY);
    wait_until(THREADS_TIMEOUT, || {
        forked = fork();
        forked != Err(rustix::io::Errno::BUSY)
    });
    Ok(forked?)
}

/// How a worker has ended, if it has.
pub(super) fn ended(worker: Pid, options: WaitOptions) -> io::Result<Option<Death>> {
    match waitpid(Some(worker), options) {
        Err(rustix::io::Errno::INTR) | Ok(None) => Ok(None),
        Ok(Some((_, status))) => Ok(Some(match status.terminating_signal() {
            Some(signal) => Death::Killed(signal),
            None => Death::Ended(status.exit_status().unwrap_or(1)),
        })),
        Err(error) => Err(error.into()),
    }
}

/// A connection between a supervisor and a worker.
pub(super) fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_seen_to_be_dead_is_dying() {
        assert!(!Look::new(rustix::process::getpid()).is_dying());
        // No process has this number: its state cannot be read.
        assert!(!Look::new(Pid::from_raw(i32::MAX).unwrap()).is_dying());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let mut look = Look::new(pid);
        assert!(wait_until(Duration::from_secs(60), || look.is_dying()));
        child.wait().unwrap();
    }
}
