//! How a process has ended, and how to end alike.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use rustix::process::{self, Pid, Resource, Rlimit};
use signal_hook::low_level::emulate_default_handler;

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Status(u8),
    Signal(i32),
}

impl End {
    /// Ends this process in the same way, or returns the status that says so.
    pub(super) fn repeat(self) -> ExitCode {
        match self {
            End::Status(status) => ExitCode::from(status),
            End::Signal(signal) => {
                // The other process has dumped core, if one is wanted.
                let none = Rlimit {
                    current: Some(0),
                    maximum: Some(0),
                };
                let _ = process::setrlimit(Resource::Core, none);
                // The kernel does not end the first process of a container by a signal.
                if process::getpid() != Pid::INIT {
                    let _ = emulate_default_handler(signal);
                }
                ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
            }
        }
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(status), _) => End::Status(u8::try_from(status).unwrap_or(u8::MAX)),
            (None, signal) => End::Signal(signal.unwrap_or(libc::SIGKILL)),
        }
    }
}
